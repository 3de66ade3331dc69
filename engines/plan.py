"""A sampler's whole trajectory, worked out before the first network call.

Every sampler here is linear: a new x is a weighted sum of x, the network's answers, what was remembered and noise, with
weights that the noise levels alone decide. So its formulas are run once, on symbols (`Sum`), and what remains of a step is
calls of the network and small tables of weights (`Mix`) between them, which any engine can carry out where its arrays are:
numpy in a few passes without a new array, a GPU in one fused kernel. See `engine.Bound` for that side.

x stands in the scale that the network is fed, variance-preserving: x / sqrt(1 + sigma^2) of the samplers' own scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

from .denoiser import PREDICTIONS, Denoiser, Guidance, guided
from .samplers import Sampler

X, OUT, NOISE, FIRST_FREE = 0, 1, 2, 3
"""Slots: what the network is fed, what it answered, the step's noise; arrays for what is remembered follow."""
_NOW, _NOISE, _NEXT = -1, -2, -3
"""Keys of sums: x at a step's start, its noise, what X shall hold next. Counted up from 0: what is remembered, answers."""


class Sum:
    """A weighted sum of arrays that are not there yet: key -> weight. Enough arithmetic for a sampler's formulas."""

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[int, float]):
        self.terms = terms

    def __add__(self, other: Sum) -> Sum:
        keys = dict.fromkeys((*self.terms, *other.terms))
        return Sum({key: self.terms.get(key, 0.0) + other.terms.get(key, 0.0) for key in keys})

    def __mul__(self, factor: float) -> Sum:
        return Sum({key: weight * factor for key, weight in self.terms.items()})

    __rmul__ = __mul__

    def __sub__(self, other: Sum) -> Sum:
        return self + other * -1.0

    def __truediv__(self, divisor: float) -> Sum:
        return Sum({key: weight / divisor for key, weight in self.terms.items()})

    def __neg__(self) -> Sum:
        return self * -1.0


@dataclass(frozen=True)
class Mix:
    """Slots in `outs` become weighted sums: row j of `weights` is over the slots `ins`, then over outs 0 ... j - 1.

    Only the last of `outs` may be among `ins`.
    """

    outs: tuple[int, ...]
    weights: tuple[tuple[float, ...], ...]
    ins: tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One call of the network: slot X in, slot OUT out, with the constant inputs number `condition`, told of `sigma`."""

    condition: int
    sigma: float


@dataclass(frozen=True)
class Step:
    """What happens from one border to the next. `memory`: the slots of what the sampler remembers at the step's end."""

    actions: tuple[Mix | Call, ...]
    memory: tuple[int, ...]
    noisy: bool


@dataclass(frozen=True, eq=False)
class Plan:
    """A trajectory over `sigmas`; compared by identity, as the same one is handed out again for the same question."""

    sigmas: tuple[float, ...]
    steps: tuple[Step, ...]
    slots: int
    """Highest slot in use, plus one."""


def preserving(sigma: float) -> float:
    """What takes x from the samplers' scale to the network's."""
    return 1 / math.sqrt(1 + sigma * sigma)


@lru_cache(maxsize=64)
def plan(sampler: Sampler, prediction: str, sigmas: tuple[float, ...], guidance: Guidance | None = None) -> Plan:
    """Runs `sampler` on symbols over all of `sigmas` (descending, last 0)."""
    steps: list[Step] = []
    memory: tuple[int, ...] = ()
    for i in range(len(sigmas) - 1):
        steps.append(_Trace(memory).step(sampler, prediction, sigmas, i, guidance))
        memory = steps[-1].memory
    mixes = [action for step in steps for action in step.actions if isinstance(action, Mix)]
    return Plan(sigmas, tuple(steps), max(slot for mix in mixes for slot in (*mix.outs, *mix.ins, FIRST_FREE - 1)) + 1)


class _Trace:
    """One step on symbols: first the sampler runs and its calls are noted, then the notes become actions on slots."""

    def __init__(self, memory: tuple[int, ...]):
        self._remembered = range(len(memory))
        self._slot = {_NOW: X, _NOISE: NOISE, **dict(zip(self._remembered, memory))}
        """Key -> where its array is at the moment."""
        self._denoised: dict[int, Sum] = {}
        """Keys of sums that a sampler may remember: what each is made of."""
        self._calls: list[tuple[Call, Sum, int]] = []
        """Each call, what the network is fed, and the key of its answer."""
        self._keys = count(len(memory))

    def step(self, sampler: Sampler, prediction: str, sigmas: tuple[float, ...], i: int, guidance: Guidance | None) -> Step:
        def denoiser(condition: int) -> Denoiser:
            def network(x: Sum, sigma: float) -> Sum:
                self._calls.append((Call(condition, sigma), x, self._new_key()))
                return Sum({self._calls[-1][2]: 1.0})

            return PREDICTIONS[prediction](network)

        denoise = denoiser(0) if guidance is None else guided(denoiser(0), denoiser(1), guidance)

        def denoised(x: Sum, sigma: float) -> Sum:
            answer, key = denoise(x, sigma), self._new_key()
            self._denoised[key] = answer
            return Sum({key: 1.0})

        memory = tuple(Sum({key: 1.0}) for key in self._remembered) or None
        x, kept = sampler(denoised, Sum({_NOW: 1 / preserving(sigmas[i])}), sigmas, i, memory, Sum({_NOISE: 1.0}))
        return self._actions(x * preserving(sigmas[i + 1]), kept or ())

    def _new_key(self) -> int:
        return next(self._keys)

    def _spelled_out(self, total: Sum, made: Mapping[int, int]) -> dict[int, float]:
        """The weights of `total` over arrays; a denoised x that is not one itself (in `made`) by what it is made of."""
        while absent := [key for key in total.terms if key in self._denoised and key not in made]:
            for key in absent:
                rest = Sum({k: weight for k, weight in total.terms.items() if k != key})
                total = rest + self._denoised[key] * total.terms[key]
        return {key: weight for key, weight in total.terms.items() if weight != 0}

    def _actions(self, x: Sum, kept: tuple[Sum, ...]) -> Step:
        """Every call with a mix before it where X must change or something must be saved from being overwritten."""
        ends = [self._spelled_out(total, {}) for total in (x, *kept)]
        fed = [self._spelled_out(total, {}) for _, total, _ in self._calls]
        noisy = any(_NOISE in total for total in (*ends, *fed))
        actions: list[Mix | Call] = []
        for n, (call, _, answer) in enumerate(self._calls):
            needed = {key for total in (*ends, *fed[n + 1 :]) for key in total}
            stays = [self._slot.get(key) for key in fed[n]] == [X] and all(abs(w - 1) < 1e-15 for w in fed[n].values())
            lost = {OUT} if stays else {OUT, X}
            outs = [(key, {key: 1.0}) for key, slot in self._slot.items() if key in needed and slot in lost]
            if not stays:
                outs.append((_NEXT, fed[n]))
            if outs:
                actions.append(self._mix(outs, needed))
            actions.append(call)
            self._slot = {key: slot for key, slot in self._slot.items() if slot not in lost} | {answer: OUT}
        keys = tuple(self._named(total) for total in kept)
        actions.append(self._last_mix(x, keys))
        return Step(tuple(actions), tuple(self._slot[key] for key in keys), noisy)

    def _named(self, total: Sum) -> int:
        """The key of what is remembered: an array that is there already, or one to be made."""
        (key, weight), *rest = total.terms.items()
        if not rest and weight == 1 and (key in self._denoised or self._slot[key] >= FIRST_FREE):
            return key
        key = self._new_key()
        self._denoised[key] = total
        return key

    def _last_mix(self, x: Sum, kept: tuple[int, ...]) -> Mix:
        """What is remembered goes where nothing is in use, the next x in place of this one."""
        made, outs = dict(self._slot), []
        for key in sorted(kept):  # what was denoised before what is made of it
            if key not in made:
                outs.append((key, self._spelled_out(self._denoised[key], made)))
                made[key] = X
        outs.append((_NEXT, _shortest(self._spelled_out(x, made), outs)))
        return self._mix(outs, {*kept, *(key for _, total in outs for key in total)})

    def _mix(self, outs: list[tuple[int, dict[int, float]]], needed: set[int]) -> Mix:
        """Sums under their keys, each in a slot that holds nothing needed; the sum `_NEXT` goes to X."""
        ins = [key for key in dict.fromkeys(key for _, total in outs for key in total) if key in self._slot]
        read = tuple(self._slot[key] for key in ins)
        busy = {*read, *(self._slot[key] for key in needed if key in self._slot)}
        rows, slots = [], []
        for j, (key, total) in enumerate(outs):
            earlier = (0.0 if before in ins else total.get(before, 0.0) for before, _ in outs[:j])
            rows.append((*(total.get(before, 0.0) for before in ins), *earlier))
            slots.append(X if key == _NEXT else next(slot for slot in count(FIRST_FREE) if slot not in busy))
            busy.add(slots[-1])
        self._slot |= {key: slot for (key, _), slot in zip(outs, slots) if key != _NEXT}
        return Mix(tuple(slots), tuple(rows), read)


def _shortest(total: dict[int, float], made: list[tuple[int, dict[int, float]]]) -> dict[int, float]:
    """The same sum with fewer terms where part of it is a sum that is made anyway (UniPC's corrected x)."""
    for key, part in made:
        for shared in sorted(part.keys() & total.keys()):
            share = total[shared] / part[shared]
            rest = {k: total.get(k, 0.0) - share * part.get(k, 0.0) for k in dict.fromkeys((*total, *part)) if k != shared}
            rest = {k: weight for k, weight in rest.items() if abs(weight) > 1e-13 * abs(share * part.get(k, 0.0))}
            if len(rest) + 1 < len(total):
                return {**rest, key: share}
    return total
