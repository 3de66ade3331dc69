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
    bulk = [[w.samples, w] for w in works if w.every_s is None]
    streams = [[w.every_s, w] for w in works if w.every_s is not None]
    queue: list[tuple[float, float, float]] = []  # (deadline, samples left, floor)
    out, real_w, busy_w, energy = Outcome(), board.preset.full_w - board.preset.idle_w, 0.0, board.energy_j
    changes = sorted([(at, 0, kind) for at, kind in faults] + [(at, 1, factor) for at, factor in sinks], key=lambda c: c[0])
    for second in range(round(seconds)):
        if ambient is not None:
            board.ambient_c = ambient(second)
        while changes and changes[0][0] <= second:
            _, what, value = changes.pop(0)
            if what:
                board.sink_factor = float(value or 1.0)  # type: ignore[arg-type]
            else:
                board.fault(value)  # type: ignore[arg-type]
        for stream in streams:
            while stream[0] <= second:
                queue.append((stream[0] + (stream[1].due_s or math.inf), stream[1].samples, stream[1].floor))
                stream[0] += stream[1].every_s
                out.urgent += 1
        queue.sort()
        reading = board.read(float(second))
        demands = [Demand(told, n, due - second, floor, realtime=True) for due, n, floor in queue]
        demands += [Demand(told, 0.0, None, s[1].floor, realtime=True) for s in streams[: 1 if not queue else 0]]
        demands += [Demand(told, n, None if w.due_s is None else w.due_s - second, w.floor) for n, w in bulk if n > 0]
        if governed:
            governor.observe(reading, busy_w)
            decision = governor.decide(float(second), demands)
        else:
            decision = _headlong(demands)
        board.cap_clock(decision.clock)
        urgent_option = decision.choices[0] if demands and demands[0].realtime else 0
        first = next((i for i, d in enumerate(demands) if not d.realtime), None)
        option = options[decision.choices[first]] if first is not None else None
        heat = before = 0.0
        for tick in range(_TICKS):
            before = _TICK_S
            heat = 0.0
            while queue and before > 1e-9 and board.speed > 0:
                due, n, floor = queue[0]
                o = options[urgent_option]
                use = min(before, n * o.seconds / board.speed)
                n -= use * board.speed / o.seconds
                before -= use
                heat += use * o.watts
                queue[0] = (due, n, floor)
                if n <= 1e-9:
                    queue.pop(0)
                    out.missed += second + (tick + 1) * _TICK_S - before > due + 1e-9
            if option is not None and board.speed > 0:
                left = next(b for b in bulk if b[0] > 0)
                use = min(before * decision.duty, left[0] * option.seconds / board.speed)
                made = use * board.speed / option.seconds
                left[0] -= made
                out.samples += made
                heat += use * option.watts
                if left[0] <= 1e-9:
                    left[0], option = 0.0, None
            busy_w = (0.0 if tick == 0 else busy_w) + heat / _TICK_S * calibration / _TICKS
            board.step(_TICK_S, heat / _TICK_S / real_w)
            over = board.temp_c - limits.temp_c
            out.over_k = max(out.over_k, over)
            out.excess_k += max(0.0, over) / (_TICKS * round(seconds))
        ran = -1 if first is None or decision.duty == 0 else decision.choices[first]
        out.rows.append(Row(second, board.temp_c, governor.temp_c, board.ambient_c, board.power_w, board.speed, decision.duty,
                            ran, bool(heat and queue), board.throttled, decision.reason))  # fmt: skip
    out.missed += sum(due <= seconds for due, _, _ in queue)
    out.unfinished = sum(n for n, w in bulk if w.due_s is not None and w.due_s <= seconds)
    out.joules = board.energy_j - energy - board.preset.idle_w * round(seconds)
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
