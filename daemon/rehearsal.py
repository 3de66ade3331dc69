"""The real policy over a simulated board, in a fraction of the time: what a board in its enclosure will do with its work.

Nothing of the daemon runs. Jobs are streams of samples; each second the governor is asked, and each quarter of a second the
work it allows heats the board: real-time jobs first, bulk in its share of the rest. Without the governor the fastest operating
point that is good enough runs without a pause, and the board looks after itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .board.simulated import Fault, SimulatedBoard
from .core.governor import Decision, Demand, Governor, Limits, Option

_TICK_S = 0.25
_TICKS = 4
"""Between two decisions."""


@dataclass(frozen=True)
class Work:
    """A stream of jobs. every_s None: one bulk job of `samples` (inf: always plenty) at the start, to be done after `due_s`
    seconds; else a real-time job of `samples` every so often, each due `due_s` after it came."""

    samples: float
    every_s: float | None = None
    due_s: float | None = None
    floor: float = 0.0


@dataclass(frozen=True)
class Row:
    """One second. believed_c: as the model has it. choice: the bulk option that ran, -1 none."""

    at: float
    temp_c: float
    believed_c: float
    ambient_c: float
    power_w: float
    clock: float
    duty: float
    choice: int
    realtime: bool
    throttled: bool
    reason: str


@dataclass
class Outcome:
    """What came of it. joules: above idle. over_k: how far the die went above the limit."""

    samples: float = 0.0
    unfinished: float = 0.0
    urgent: int = 0
    missed: int = 0
    joules: float = 0.0
    throttle_events: int = 0
    throttled_s: float = 0.0
    hottest_c: float = -math.inf
    over_k: float = -math.inf
    excess_k: float = 0.0
    """Above the limit, averaged over the run."""
    off: bool = False
    rows: list[Row] = field(default_factory=list)


@dataclass
class _Job:
    """Work in hand. due: second of its deadline."""

    left: float
    due: float
    floor: float


class _Line:
    """The jobs of all works, as they come and are done."""

    def __init__(self, works: Sequence[Work]):
        self._streams = [w for w in works if w.every_s is not None]
        self._next = [float(w.every_s or 0.0) for w in self._streams]
        self.bulk = [_Job(w.samples, w.due_s or math.inf, w.floor) for w in works if w.every_s is None]
        self.urgent: list[_Job] = []
        self.came = self.missed = 0
        self.samples = 0.0

    def turn(self, now: float, told: tuple[Option, ...]) -> list[Demand]:
        """Takes what has come; the demands, real-time work first. Where nothing of it waits, it is announced."""
        for i, work in enumerate(self._streams):
            while self._next[i] <= now:
                self.urgent.append(_Job(work.samples, self._next[i] + (work.due_s or math.inf), work.floor))
                self._next[i] += work.every_s or math.inf
                self.came += 1
        self.urgent.sort(key=lambda job: job.due)
        demands = [Demand(told, job.left, job.due - now, job.floor, realtime=True) for job in self.urgent]
        if self._streams and not self.urgent:
            demands.append(Demand(told, 0.0, None, self._streams[0].floor, realtime=True))
        waiting = (job for job in self.bulk if job.left > 0)
        return demands + [Demand(told, job.left, None if job.due == math.inf else job.due - now, job.floor) for job in waiting]

    def chosen(self, decision: Decision, demands: Sequence[Demand]) -> tuple[int, int]:
        """The options for real-time work and for bulk; -1: no bulk waits."""
        first = next((i for i, d in enumerate(demands) if not d.realtime), None)
        realtime = decision.choices[0] if demands and demands[0].realtime else 0
        return realtime, decision.choices[first] if first is not None else -1

    def run(self, now: float, dt: float, urgent: Option, bulk: Option | None, duty: float, speed: float) -> float:
        """Works for `dt`; joules at the top clock."""
        left = dt
        joules = 0.0
        while self.urgent and left > 1e-9 and speed > 0:
            job = self.urgent[0]
            use = min(left, job.left * urgent.seconds / speed)
            job.left -= use * speed / urgent.seconds
            left -= use
            joules += use * urgent.watts
            if job.left <= 1e-9:
                self.urgent.pop(0)
                self.missed += now + dt - left > job.due + 1e-9
        waiting = self.waiting
        if bulk is not None and waiting is not None and speed > 0:
            use = min(left * duty, waiting.left * bulk.seconds / speed)
            made = use * speed / bulk.seconds
            waiting.left = max(0.0, waiting.left - made) if waiting.left - made > 1e-9 else 0.0
            self.samples += made
            joules += use * bulk.watts
        return joules

    @property
    def waiting(self) -> _Job | None:
        """The bulk job whose turn it is."""
        return next((job for job in self.bulk if job.left > 0), None)


def rehearse(
    board: SimulatedBoard,
    options: Sequence[Option],
    works: Sequence[Work],
    limits: Limits,
    seconds: float,
    *,
    ambient: Callable[[float], float] | None = None,
    governed: bool = True,
    faults: Sequence[tuple[float, Fault | None]] = (),
    sinks: Sequence[tuple[float, float]] = (),
    calibration: float = 1.0,
    governor: Governor | None = None,
) -> Outcome:
    """options: with the watts that they really draw; the governor is told `calibration` times as many. faults: when the
    temperature sensor breaks, and how (None: mends). sinks: when the way to the air becomes so many times worse."""
    told = tuple(Option(o.seconds, o.watts * calibration, o.quality) for o in options)
    governor = governor or Governor(board.traits, limits)
    line, out, full_w = _Line(works), Outcome(), board.preset.full_w - board.preset.idle_w
    breaks, blocks = sorted(faults, key=lambda f: f[0]), sorted(sinks)
    began_j, busy_w = board.energy_j, 0.0
    for second in range(round(seconds)):
        if ambient is not None:
            board.ambient_c = ambient(second)
        while breaks and breaks[0][0] <= second:
            board.fault(breaks.pop(0)[1])
        while blocks and blocks[0][0] <= second:
            board.sink_factor = blocks.pop(0)[1]
        demands = line.turn(second, told)
        if governed:
            governor.observe(board.read(float(second)), busy_w)
            decision = governor.decide(float(second), demands)
        else:
            decision = _headlong(demands)
        board.cap_clock(decision.clock)
        realtime, bulk = line.chosen(decision, demands)
        urgent, joules = bool(line.urgent), 0.0
        for tick in range(_TICKS):
            took = line.run(second + tick * _TICK_S, _TICK_S, options[realtime], options[bulk] if bulk >= 0 else None,
                            decision.duty, board.speed)  # fmt: skip
            board.step(_TICK_S, took / _TICK_S / full_w)
            joules += took
            out.over_k = max(out.over_k, board.temp_c - limits.temp_c)
            out.excess_k += max(0.0, board.temp_c - limits.temp_c) / (_TICKS * round(seconds))
        busy_w = joules * calibration / (_TICKS * _TICK_S)
        out.rows.append(Row(second, board.temp_c, governor.temp_c, board.ambient_c, board.power_w, board.speed, decision.duty,
                            bulk if decision.duty > 0 else -1, urgent, board.throttled, decision.reason))  # fmt: skip
    out.samples, out.urgent = line.samples, line.came
    out.missed = line.missed + sum(job.due <= seconds for job in line.urgent)
    out.unfinished = sum(job.left for job in line.bulk if job.due <= seconds)
    out.joules = board.energy_j - began_j - board.preset.idle_w * round(seconds)
    out.throttle_events, out.throttled_s, out.off = board.throttle_events, board.throttled_s, board.off
    out.hottest_c = board.hottest_c
    return out


def _headlong(demands: Sequence[Demand]) -> Decision:
    """No governor: the fastest point that is good enough, without a pause."""
    choices = []
    for d in demands:
        good = [i for i, o in enumerate(d.options) if o.quality >= d.floor - 1e-9] or list(range(len(d.options)))
        choices.append(min(good, key=lambda i: d.options[i].seconds))
    return Decision(tuple(choices), 1.0, 1.0, "no governor")
