"""The governor in random worlds of our own, beside a board left to itself and a policy that knows the board exactly; with
`--judge`, beside the baselines of an outside program.

    python bench/governor.py [--worlds 200] [--first 0] [--show]
    python bench/governor.py --judge ../shared/tools/governor_eval.py [--seeds 20]

A world is a board with its own resistances, capacities, leakage, voltage, fan, sensor and calibration error, a weather,
real-time and bulk work, the right to cap clocks or not, a rail or not, dust, and a temperature sensor that may break.
`knows all` is told the true temperatures and constants and brings the die to the limit in each second; it is no bound by
proof, but what there is to be had without looking ahead.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import math
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from denoised.daemon.board.simulated import PRESETS, Fault, Preset, SimulatedBoard
from denoised.daemon.core.choice import hull, pairs, spend
from denoised.daemon.core.governor import Decision, Demand, Limits, Option
from denoised.daemon.core.power import clock_power
from denoised.daemon.core.reading import Reading
from denoised.daemon.rehearsal import Headlong, Outcome, Policy, Work, rehearse

FAULTS: tuple[Fault, ...] = ("missing", "stuck", "zero", "garbage", "spike", "kelvin", "millidegrees")
FLOOR = 0.94


@dataclass(frozen=True)
class World:
    """All that is chosen by chance."""

    name: str
    preset: Preset
    options: tuple[Option, ...]
    works: tuple[Work, ...]
    limit_c: float
    seconds: float
    ambient: Callable[[float], float]
    capped: bool
    calibration: float
    faults: tuple[tuple[float, Fault | None], ...]
    sinks: tuple[tuple[float, float], ...]

    def play(self, policy: Callable[[SimulatedBoard], Policy] | None = None) -> Outcome:
        """By the governor unless a policy is given."""
        board = SimulatedBoard(preset=self.preset, ambient_c=self.ambient(0.0), capped=self.capped, seed=7)
        # What the governor starts from is a guess about the kind of board, never this one.
        usual = replace(board.traits, die_k_per_w=7 / self._dynamic, die_s=6.0, sink_k_per_w=35 / self._dynamic, sink_s=400.0)
        board.traits = usual
        return rehearse(board, self.options, self.works, Limits(self.limit_c), self.seconds, ambient=self.ambient,
                        faults=self.faults, sinks=self.sinks, calibration=self.calibration,
                        policy=policy(board) if policy else None)  # fmt: skip

    @property
    def _dynamic(self) -> float:
        return self.preset.full_w - self.preset.idle_w


def world(seed: int, seconds: float = 1800.0, faulty: bool | None = None) -> World:
    """The same for the same seed. faulty: whether the sensor breaks; None: by chance."""
    r = random.Random(seed)
    preset = _board(r)
    full_w = preset.full_w - preset.idle_w
    kinds, threads = (1.0, 1.0, 0.0), ((1.0, 1.0), (0.82, 0.77), (0.6, 0.53), (0.32, 0.28))
    options = tuple(
        Option(4.0 * steps / 20 / faster / speed, share * draw * full_w, quality - worse)
        for faster, draw, worse in (kinds, (1.8, 0.92, 0.01))
        for steps, quality in ((20, 1.0), (10, 0.98), (5, 0.95))
        for speed, share in threads[: r.choice((1, 2, 4))]
    )
    works = [Work(math.inf, floor=FLOOR)]
    if r.random() < 0.5:
        works.append(Work(r.choice((0.2, 0.5, 1.0)), r.uniform(5.0, 30.0), r.uniform(3.0, 6.0), FLOOR))
    # A weather in which 15 to 110 % of the full power can be held for good at its hottest.
    limit = preset.throttle_c - 2.0
    worse = r.uniform(1.1, 1.5) if r.random() < 0.2 else 1.0
    resistance = preset.die_k_per_w + preset.sink_k_per_w[-1] * worse + preset.case_k_per_w
    hottest = limit - (preset.idle_w + 1.3 * preset.leak_w + r.uniform(0.15, 1.1) * full_w) * resistance
    faults: tuple[tuple[float, Fault | None], ...] = ()
    if faulty or (faulty is None and r.random() < 0.3):
        at = r.uniform(60.0, 0.7 * seconds)
        faults = ((at, r.choice(FAULTS)), (at + r.uniform(10.0, 0.3 * seconds), None))
    sinks = ((r.uniform(300.0, 0.8 * seconds), worse),) if worse > 1 else ()
    return World(f"{seed} {preset.words}", preset, options, tuple(works), limit, seconds, _weather(r, hottest, seconds),
                 r.random() < 0.6, r.uniform(0.9, 1.1), faults, sinks)  # fmt: skip


def _board(r: random.Random) -> Preset:
    def by(factor: float) -> float:
        return math.exp(r.uniform(-math.log(factor), math.log(factor)))

    p, sink = PRESETS[r.choice(list(PRESETS))], by(1.5)
    return replace(
        p, die_k_per_w=p.die_k_per_w * by(1.5), die_s=p.die_s * by(1.6), sink_k_per_w=tuple(k * sink for k in p.sink_k_per_w),
        sink_s=p.sink_s * by(2.0), case_k_per_w=p.case_k_per_w * by(1.4), leak_w=p.leak_w * by(1.6),
        v_floor=r.uniform(0.5, 0.8), throttle_c=p.throttle_c + r.choice((-10.0, -5.0, 0.0)),
        sensor_step_k=r.choice((0.03125, 0.0625, 0.5, 0.55, 1.0)),
        sensor_noise_k=r.choice((0.0, 0.05, 0.1, 0.2)), has_power=r.random() < 0.5, limit_w=None,
    )  # fmt: skip


def _weather(r: random.Random, hottest: float, seconds: float) -> Callable[[float], float]:
    kind, by, at = r.choice(("still", "step", "ramp", "wave")), r.uniform(2.0, 15.0), r.uniform(0.2, 0.7) * seconds
    up = r.random() < 0.6
    if kind == "step":
        return lambda t: hottest - (by if (t < at) == up else 0.0)
    if kind == "ramp":
        return lambda t: hottest - by * (1 - t / seconds if up else t / seconds)
    if kind == "wave":
        return lambda t: hottest - by / 2 + by / 2 * math.sin(2 * math.pi * t / 1500)
    return lambda t: hottest


class KnowsAll:
    """Sees the true board: its state, its voltage, the air, the calibration's error."""

    def __init__(self, board: SimulatedBoard, calibration: float, limit_c: float):
        self._board, self._scale, self._limit = board, 1 / calibration, limit_c
        self._carry = 0.0

    @property
    def temp_c(self) -> float:
        return self._board.temp_c

    def observe(self, reading: Reading, busy_w: float | None) -> None:
        """It knows."""

    def decide(self, now: float, demands: Sequence[Demand]) -> Decision:
        board, p = self._board, self._board.preset
        cold, warm = (self._after(load) for load in (0.0, 0.2))
        full_w = p.full_w - p.idle_w
        budget = max(0.0, 0.2 * full_w * (self._limit - cold) / (warm - cold))
        first = next((d for d in demands if not d.realtime), None)
        choices, duty, clock, slope = [0] * len(demands), 1.0, 1.0, math.inf
        if first is not None:
            watts = lambda w, c: w * self._scale * clock_power(c, p.v_floor)  # noqa: E731
            mix = spend(hull(pairs(first.options, first.floor, board.traits.clocks, watts)), budget)
            self._carry += mix.share
            pair = mix.high if self._carry >= 1 else mix.low
            self._carry -= self._carry >= 1
            if mix.low.option < 0:
                pair, duty, self._carry = mix.high, mix.share, 0.0
            choices[demands.index(first)], clock = pair.option, pair.clock
        for i, d in enumerate(demands):
            if d.realtime:
                good = [k for k, o in enumerate(d.options) if o.quality >= d.floor]
                fit = [k for k in good if d.due_in is None or d.samples * d.options[k].seconds / clock <= 0.6 * d.due_in]
                slope = min(d.options[k].seconds for k in good)
                choices[i] = min(fit, key=lambda k: d.options[k].watts * d.options[k].seconds) if fit and slope else min(
                    good, key=lambda k: d.options[k].seconds)  # fmt: skip
                clock = clock if fit else 1.0
        return Decision(tuple(choices), duty, clock, "knows all")

    def _after(self, load: float) -> float:
        board = copy.copy(self._board)
        board.cap = 1.0
        board.step(1.0, load)
        return board.temp_c


def ours(first: int, worlds: int, show: bool) -> None:
    """Our own worlds, as one table."""
    rows = []
    for seed in range(first, first + worlds):
        w = world(seed)
        knowing = w.play(lambda board, w=w: KnowsAll(board, w.calibration, w.limit_c))  # type: ignore[misc]
        rows.append((w, w.play(), w.play(lambda _: Headlong()), knowing))
        if show:
            _, governed, _, best = rows[-1]
            print(f"{w.name:55s} {'clock' if w.capped else '     '} {'rail' if w.preset.has_power else '    '} "
                  f"{w.faults[0][1] if w.faults else '':13s} share {governed.samples / max(1e-9, best.samples):.3f} "
                  f"over {governed.over_k:+.2f} excess {governed.excess_k:.3f} throttled {governed.throttle_events} "
                  f"missed {governed.missed}/{governed.urgent}")  # fmt: skip
    for words, which in (("sensor works", False), ("sensor breaks", True)):
        part = [row for row in rows if bool(row[0].faults) == which]
        if not part:
            continue
        head = f"{'share':>6} {'worst':>6} {'throttled':>10} {'missed':>12} {'over, K':>8} {'worst':>6}  > 0.3 K  > 0.5 K"
        print(f"\n{words}: {len(part)} worlds of half an hour\n{'':20} {head}")
        ideal = [row[3] for row in part]
        print(_row("governor", [governed for _, governed, _, _ in part], ideal))
        print(_row("left to itself", [alone for _, _, alone, _ in part], ideal))
        print(_row("knows all", ideal, ideal))


def _row(name: str, outcomes: Sequence[Outcome], best: Sequence[Outcome]) -> str:
    shares = [o.samples / b.samples for o, b in zip(outcomes, best) if b.samples > 1]
    over = [max(0.0, o.over_k) for o in outcomes]
    throttled = sum(o.throttle_events > 0 for o in outcomes)
    missed = f"{sum(o.missed for o in outcomes)}/{sum(o.urgent for o in outcomes)}"
    hot = f"{mean(over):8.2f} {max(over):6.2f} {sum(v > 0.3 for v in over):8d} {sum(v > 0.5 for v in over):8d}"
    return f"{name:20} {mean(shares):6.3f} {min(shares):6.3f} {throttled:10d} {missed:>12} {hot}"


def judged(judge: Path, seeds: int) -> None:
    """The scenarios of the outside program, its baselines beside us, means over seeds 1 to `seeds`."""
    program, adapter = _load("judge", judge), _load("adapter", Path(__file__).parent / "judges" / "governor.py")
    print(f"{'':36} {'mean':>6} {'worst':>6} {'gates':>8} {'over, K':>8}  per scenario: mean score, worst overshoot in K")
    for policy in (*program.BASELINES, adapter.DenoisedPolicy):
        results = [[program.simulate(s, policy(), seed=seed) for seed in range(1, seeds + 1)] for s in program.SCENARIOS]
        every = [r for of_one in results for r in of_one]
        each = ((mean(r["score"] for r in of_one), max(r["over"] for r in of_one)) for of_one in results)
        single = "  ".join(f"{score:.3f} {over:+.2f}" for score, over in each)
        gated, gates = [r["score"] * r["gates"] for r in every], sum(r["gates"] for r in every)
        total = f"{mean(gated):6.3f} {min(gated):6.3f} {gates:4d}/{len(every):<3d} {max(r['over'] for r in every):8.2f}"
        print(f"{policy.label:36} {total}  {single}", flush=True)


def _load(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="a line for each world")
    parser.add_argument("--judge", type=Path, metavar="FILE.py")
    parser.add_argument("--seeds", type=int, default=20)
    args = parser.parse_args()
    if args.judge:
        judged(args.judge, args.seeds)
    else:
        ours(args.first, args.worlds, args.show)


if __name__ == "__main__":
    main()
