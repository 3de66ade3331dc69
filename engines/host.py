"""The loop's arrays and arithmetic in numpy: what an engine that computes on the CPU has in common with the others.

No array of x's size is made in a step: every pass writes where something lies already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .engine import Engine, check_bind

_Pass = tuple[Callable[..., object], tuple[Any, ...]]
"""One pass over the arrays: a ufunc and what it is called with."""


class HostBound:
    """The part of `engine.Bound` that is arithmetic; `call` and `close` are the engine's own."""

    def __init__(self, shape: tuple[int, ...], dtype: Any):
        # Made here and C-contiguous, whatever the layout of what is stored in them: a network reads them by address.
        self.slots: list[np.ndarray] = [np.zeros(shape, dtype), np.zeros(shape, dtype)]
        self.programs: dict[Any, Any] = {}
        self._spare: np.ndarray | None = None

    def array(self) -> np.ndarray:
        """See `engine.Bound.array`."""
        return np.zeros_like(self.slots[0])

    def store(self, array: np.ndarray, host: np.ndarray) -> None:
        """See `engine.Bound.store`."""
        np.copyto(array, host)

    def prepare(
        self, outs: Sequence[np.ndarray], weights: Sequence[Sequence[float]], ins: Sequence[np.ndarray], where: Any = None
    ) -> Callable[[], None]:
        """See `engine.Bound.prepare`."""
        passes: list[_Pass] = []
        for j, (out, row) in enumerate(zip(outs, weights)):
            terms = [(weight, array) for weight, array in zip(row, (*ins, *outs[:j])) if weight != 0]
            used_up = all(later[k] == 0 for later in weights[j + 1 :] for k, array in enumerate(ins) if array is self.slots[1])
            if where is None:
                passes += self._sum(out, terms, used_up)
            else:
                whole, chosen = self.array(), np.empty(where.shape, bool)
                passes += self._sum(whole, terms, used_up)
                passes += [(np.not_equal, (where, 0, chosen)), (_put, (out, whole, chosen))]

        def run() -> None:
            for function, args in passes:
                function(*args)

        return run

    def _sum(self, out: np.ndarray, terms: list[tuple[float, np.ndarray]], used_up: bool) -> list[_Pass]:
        """The passes that leave the weighted sum of `terms` in `out`, which may be one of them.

        The network's answer, once it is used up, holds the products of the other terms: it is in the cache already.
        """
        if not terms:
            return [(out.fill, (0,))]
        answer = self.slots[1]
        # First what is overwritten, then the answer.
        (weight, array), *others = sorted(terms, key=lambda term: (term[1] is not out, term[1] is not answer))
        passes: list[_Pass] = []
        if array is not out or weight != 1:
            passes.append((np.multiply, (array, np.array(weight, out.dtype), out)))
        for weight, array in others:
            if weight in (1, -1):
                passes.append((np.add if weight == 1 else np.subtract, (out, array, out)))
            else:
                product = answer if used_up else self._scratch()
                passes.append((np.multiply, (array, np.array(weight, out.dtype), product)))
                passes.append((np.add, (out, product, out)))
        return passes

    def _scratch(self) -> np.ndarray:
        if self._spare is None:
            self._spare = self.array()
        return self._spare


def _put(out: np.ndarray, values: np.ndarray, where: np.ndarray) -> None:
    np.copyto(out, values, where=where)


class CallableBound(HostBound):
    """A network that is a Python function (x, t) -> prediction."""

    def __init__(self, networks: Sequence[Callable[[np.ndarray, float], np.ndarray]], x: np.ndarray):
        super().__init__(x.shape, x.dtype)
        self._networks = networks

    def call(self, condition: int, t: float) -> None:
        """See `engine.Bound.call`."""
        np.copyto(self.slots[1], self._networks[condition](self.slots[0], t))

    def close(self) -> None:
        """Nothing to give back."""


def over_run(engine: Engine, x: np.ndarray, conditions: Sequence[Mapping[str, np.ndarray]]) -> CallableBound:
    """`Engine.bind` for an engine that has nothing better than `run`, which checks the inputs at every call."""
    check_bind(engine.inputs, x, conditions)
    output = next(iter(engine.outputs))

    def network(condition: Mapping[str, np.ndarray]) -> Callable[[np.ndarray, float], np.ndarray]:
        kept = {name: array.copy() for name, array in condition.items()}
        return lambda x, t: engine.run({"x": x, "t": np.full(len(x), t, np.float32), **kept})[output]

    return CallableBound([network(condition) for condition in conditions], x)
