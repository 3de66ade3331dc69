"""Gaussian noise as a function of (seed, item, step) alone, so that batch neighbours, restarts and order do not matter.

Counter-based generator Philox (Salmon et al. 2011): the seed is its key, item and step are words of its counter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def gaussian(seed: int, item: int, step: int, shape: tuple[int, ...]) -> np.ndarray:
    """Unit noise of `shape`, float32. seed, item and step: 0 <= n < 2**63. Step 0 is the start of a trajectory."""
    return generator(seed, item, step).standard_normal(shape, dtype=np.float32)


def batch(seed: int, items: Sequence[int], step: int, shape: tuple[int, ...], out: np.ndarray | None = None) -> np.ndarray:
    """(len(items), *shape): each item's own noise, stacked; in `out` where that is given."""
    out = np.empty((len(items), *shape), np.float32) if out is None else out
    for row, item in zip(out, items):
        generator(seed, item, step).standard_normal(dtype=np.float32, out=row)
    return out


def generator(seed: int, item: int, stream: int) -> np.random.Generator:
    """A generator of its own for anything else that an item draws (places, sizes); give it a stream no step uses."""
    return np.random.Generator(np.random.Philox(key=[seed, 0], counter=[0, 0, item, stream]))
