"""An engine whose answer is known: the exact denoiser of independent Gaussian data, in numpy.

For data x0 ~ N(mean, std^2) per element the best v-prediction is linear in x, so samplers, loop, checkpoints and the
worker can be proved against a closed form, on machines where no network runs. Ships with the product, obeys the same
suite as every engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .engine import TensorSpec, check_feeds
from .host import CallableBound, over_run


class StandInEngine:
    """v-prediction of N(mean, std^2) for `x` (batch, *shape) in the variance-preserving scale at angle time `t` (batch,)."""

    provider = "numpy"

    def __init__(self, shape: tuple[int, ...], mean: float = 0.0, std: float = 1.0):
        self.inputs = {
            "x": TensorSpec("x", "float32", ("batch", *shape)),
            "t": TensorSpec("t", "float32", ("batch",)),
        }
        self.outputs = {"out": TensorSpec("out", "float32", ("batch", *shape))}
        self._mean, self._var = np.float32(mean), np.float32(std * std)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """v = alpha * E[eps|x] - sigma * E[x0|x], both from the joint Gaussian of x0 and x = alpha x0 + sigma eps."""
        check_feeds(self.inputs, feeds)
        x, t = feeds["x"], feeds["t"]
        phi = (t * np.float32(np.pi / 2)).reshape(-1, *([1] * (x.ndim - 1)))
        alpha, sigma = np.cos(phi), np.sin(phi)
        surprise = (x - alpha * self._mean) / (alpha * alpha * self._var + sigma * sigma)
        x0, eps = self._mean + alpha * self._var * surprise, sigma * surprise
        return {"out": alpha * eps - sigma * x0}

    def bind(self, x: np.ndarray, conditions: Sequence[Mapping[str, np.ndarray]]) -> CallableBound:
        """See `Engine.bind`."""
        return over_run(self, x, conditions)

    def close(self) -> None:
        """Nothing to give back."""
