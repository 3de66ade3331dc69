"""How fast the work may go: which operating point, clock cap and pace each waiting demand gets, so that the board stays below
its limits, deadlines hold and the rest is spent best. Pure: readings and `now` come in, decisions go out.

Once a second and at every job boundary: `observe` what the board says and what ran since, then `decide`. Heat that the board
can still store is spent first, then the limit is held: the thermal model says which constant power brings the die to the
target in a few seconds. That budget buys the fastest mix on the concave hull of rate over power (choice.py), so that a better
operating point comes before a pause and a lower clock before a duty cycle. Under the objective `energy` the mix is the most
frugal one that still ends in time. Real-time demands are never paced: they take the cheapest option that leaves a good part
of the time to their deadline unused, at the price that heat and time have for the bulk just then; heat for those that come
regularly is kept back.

The target lies below the limit by what the model does not know. Where the sensor tells little (a coarse step, a fault) the
margin grows by itself: the die drifts down until the next reading tells something, and a blind board is run more carefully
the longer it is blind.

What runs is told in calibrated watts at full clock (`busy_w`: share of time x option's watts); the clock's part is known here.
A demand with `samples` 0 is a real-time kind whose next job may come before the next decision. A running job whose operating
point is fixed is a demand with that one option. `choices` alternate between neighbours on the hull from call to call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .arrivals import Arrivals
from .choice import IDLE, Mix, Option, Pair, hull, pairs, reach, spend
from .power import Power
from .reading import Reading, Traits
from .sensor import Sensor
from .thermal import BOUND, R1, Constants, Thermal

__all__ = ["Decision", "Demand", "Governor", "Limits", "Option", "Promise"]

_LOOK_S = 3.0
"""A budget is the constant power that reaches the target in this time."""
_RAMP_S = 4.0
"""From idle to full power, under `Limits.ramp`."""
_KEEP = 0.65
"""Share of the time to its deadline that a real-time job may plan to use: the first one after idle finds a slow clock."""
_RESERVE_S = 15.0
"""Heat of regular real-time work is kept back when it comes within this time."""
_PEAK_K = 0.2
"""What a real-time job may heat the die above the target, for a moment."""
_BLIND_K_PER_S, _BLIND_K = 0.006, 4.0
"""A blind board is run this much cooler for each second, up to that: the room may change while nobody sees it."""
_CLEAR = 0.95
"""Share of the power at which a board's over-current protection acts that may be used."""
_GAP_S = 600.0
"""The longest time between two readings that the model fills."""
_LATE = 0.85
"""Under the objective `energy`, work begins when its most frugal pace needs this share of the time that is left."""
_DOUBT = 1.05
"""A promise is later than the prediction by this."""
_STEADY_S = 300.0
"""Steps of a prediction beyond this only count what can be held for good."""
_FAR_S = 30 * 86400.0
"""What ends later than this never ends."""
_UNSEEN_C = 40.0
"""Where a board is taken to be that has never told its temperature."""


@dataclass(frozen=True)
class Demand:
    """Work that waits or runs, most urgent first."""

    options: tuple[Option, ...]
    samples: float
    """Still to do; inf: always plenty."""
    due_in: float | None = None
    """Seconds to its deadline; None: bulk without one."""
    floor: float = 0.0
    """The least quality that is acceptable."""
    realtime: bool = False
    """Never paced, runs before bulk."""


@dataclass(frozen=True)
class Limits:
    """objective: `throughput` or `energy`. The energy left may be spent by bulk over the seconds left (a day's budget)."""

    temp_c: float
    power_w: float | None = None
    """Of the whole board."""
    objective: str = "throughput"
    energy_j_left: float | None = None
    energy_s_left: float = 86400.0
    ramp: bool = True
    """Load grows softly, for supplies that give way under a sudden one; elsewhere that would only make short jobs late."""


@dataclass(frozen=True)
class Decision:
    """choices: per demand, an index into its options. duty: share of the time left by real-time work in which bulk may run.
    clock: the cap, one of the governor's `clocks`."""

    choices: tuple[int, ...]
    duty: float
    clock: float
    reason: str


@dataclass(frozen=True)
class Promise:
    """What can be said of a demand now. kept: its deadline can be met; else `finish_in` is the earliest end there is."""

    option: int
    finish_in: float
    joules: float
    kept: bool


class Governor:
    """`limits` and `clocks` may be exchanged at any time."""

    def __init__(self, traits: Traits, limits: Limits, learnt: Mapping[str, Any] | None = None):
        self.traits, self.limits = traits, limits
        self.clocks = traits.clocks
        """The caps to choose from; (1.0,) while the board refuses to be capped."""
        r1, r2 = traits.die_k_per_w, traits.sink_k_per_w
        self._start = Constants(r1, traits.die_s / r1, r2, traits.sink_s / r2)
        self._sensor = Sensor()
        self._power = Power(traits.idle_w, traits.full_w)
        self._thermal = Thermal(self._start, _UNSEEN_C, unseen=True)
        self._began = False
        self._arrivals = Arrivals()
        self._at: float | None = None
        self._blind_since: float | None = None
        self._clock = self.clocks[-1]
        self._spent_w = self._planned_w = self._planned_busy_w = 0.0
        self._carry = 0.0
        self._decided: float | None = None
        self._late: float | None = None
        self._supply_w = math.inf
        self._supply_events: list[int | None] = [None, None]
        if learnt:
            self._recall(learnt)

    # What it believes

    @property
    def temp_c(self) -> float:
        """The die's temperature as the model has it."""
        return self._thermal.die_c

    @property
    def rest_c(self) -> float:
        """Where the board would come to rest idle."""
        return self._thermal.rest_c

    @property
    def headroom_k(self) -> float:
        """From there to the limit."""
        return self.limits.temp_c - self._thermal.die_c

    @property
    def distrust(self) -> str | None:
        """Why the temperature sensor is not believed; None: it is."""
        return self._sensor.why

    @property
    def blind_s(self) -> float:
        """For how long the model has been alone."""
        return 0.0 if self._blind_since is None or self._at is None else self._at - self._blind_since

    def watts(self, busy_w: float, clock: float) -> float:
        """Real watts above idle of what is calibrated as `busy_w` at full clock, by all that the rail has shown."""
        return self._power.watts(busy_w, clock)

    # What it is told

    def observe(self, reading: Reading, busy_w: float | None) -> None:
        """busy_w: calibrated watts above idle, at full clock, of what ran since the last reading; None: not known."""
        dt = 0.0 if self._at is None else min(_GAP_S, max(0.0, reading.at - self._at))
        self._at = reading.at if self._at is None else max(self._at, reading.at)  # one that comes late takes no time back
        clock = max(self._clock, self.clocks[0])
        clock = clock if reading.speed is None else min(clock, max(0.05, reading.speed))
        rail = reading.power_w if reading.power_w is not None and 0 < reading.power_w < 4 * self.traits.full_w else None
        if busy_w is None:
            watts = self._planned_w if rail is None else max(0.0, rail - self._power.idle_w)
        else:
            watts = self._power.watts(busy_w, clock)
            if (
                rail is not None and dt and abs(busy_w - self._planned_busy_w) < 0.05 * self.traits.full_w
            ):  # steady: a rail shows moments
                self._power.observe(dt, rail, busy_w, clock)
        self._spent_w = watts
        self._supply(reading, dt, watts)
        if not self._began and reading.temp_c is not None and Sensor.possible(reading.temp_c):
            self._thermal, self._began = self._thermal.begun(reading.temp_c), True
        self._thermal.predict(dt, watts, seen=self._sensor.why is None)
        self._sensor.predict(dt, watts)
        self._thermal = self._sensor.judge(reading.temp_c, _problem(reading), self._thermal)
        if self._sensor.why is None:
            self._blind_since = None
        else:
            self._blind_since = reading.at if self._blind_since is None else self._blind_since
            if reading.throttled and not reading.under_voltage and self._thermal.die_c < self.traits.throttle_c:
                self._thermal.correct(self.traits.throttle_c, 0.0, 0.5)  # the board itself has told how hot it is

    def _supply(self, reading: Reading, dt: float, watts: float) -> None:
        """A supply that gave way is asked for a tenth less, and for a little more again as time passes. A counter that does not
        answer stands where it stood."""
        before, now = self._supply_events, [reading.under_voltage_events, reading.over_current_events]
        if any(b is not None and n is not None and n > b for b, n in zip(before, now)):
            self._supply_w = 0.9 * min(self._supply_w, max(watts, 0.2 * (self.traits.full_w - self.traits.idle_w)))
        self._supply_events = [b if n is None else n for b, n in zip(before, now)]
        self._supply_w *= 1 + dt / 36000

    # What it decides

    def decide(self, now: float, demands: Sequence[Demand]) -> Decision:
        """`demands` most urgent first; the first bulk demand that has something to do gets the budget."""
        dt = 1.0 if self._decided is None else min(5.0, max(0.0, now - self._decided))
        self._decided = now
        urgent = [d for d in demands if d.realtime]
        first = next((d for d in demands if not d.realtime and d.samples > 0), None)
        self._arrivals.see(now, urgent)
        best = self._hull(first)
        budget, why = self._budget(now, dt)
        mix, why = self._aim(now, best, budget, first, why)
        pair, duty = self._turn(mix)
        options, clock = self._urgent(urgent, pair, mix, first is not None)
        mine = iter(options)
        choices = tuple(next(mine) if d.realtime else max(0, pair.option) if d is first else self._lean(d) for d in demands)
        self._clock, self._planned_w = clock, pair.watts * duty
        self._planned_busy_w = first.options[pair.option].watts * duty if first and pair is not IDLE else 0.0
        return Decision(choices, duty, clock, why)

    def _hull(self, demand: Demand | None) -> list[Pair]:
        if demand is None:
            return [IDLE]
        return hull(pairs(demand.options, demand.floor, self.clocks, self._power.watts))

    def _lean(self, demand: Demand) -> int:
        """For bulk whose turn has not come: what it would run as within the power that can be held."""
        return max(0, spend(self._hull(demand), max(0.0, self._sustained())).high.option)

    def _margin(self) -> float:
        """K below the limit: what is not known of the die now, and the more of it the longer the board is blind."""
        return 0.05 + self._thermal.die_sd + min(_BLIND_K, _BLIND_K_PER_S * self.blind_s)

    @property
    def _most_w(self) -> float:
        """Of the whole board: what the configuration allows, and what stays clear of the board's over-current protection."""
        own = math.inf if self.traits.limit_w is None else _CLEAR * self.traits.limit_w
        return own if self.limits.power_w is None else min(own, self.limits.power_w)

    def _sustained(self) -> float:
        """Watts above idle that can be held for good."""
        k = self._thermal.constants
        return (self.limits.temp_c - self._margin() - self._thermal.rest_c) / (k.r1 + k.r2)

    def _budget(self, now: float, dt: float) -> tuple[float, str]:
        """Watts above idle for bulk until the next decision, and what sets them."""
        target = self.limits.temp_c - self._margin()
        watts, why = self._thermal.holds(target, _LOOK_S), f"heat: holds {target:.1f} C"
        kept = self._kept_back(now, target)
        if kept < watts:
            watts, why = kept, f"heat: kept back for real-time work, {target:.1f} C"
        if self._sensor.why is not None:
            why = f"blind: sensor {self._sensor.why}, for {self.blind_s:.0f} s; holds {target:.1f} C"
        most_w = self._most_w
        if most_w - self._power.idle_w < watts:
            watts, why = most_w - self._power.idle_w, f"power: holds {most_w:g} W"
        if self._supply_w < watts:
            watts, why = self._supply_w, f"supply: gave way, holds {self._supply_w + self._power.idle_w:.1f} W"
        if self.limits.energy_j_left is not None:
            even = self.limits.energy_j_left / max(1.0, self.limits.energy_s_left)
            if even < watts:
                watts, why = even, f"energy: {max(0.0, self.limits.energy_j_left):.0f} J left"
        busy_s, busy_j = self._arrivals.waiting_s, self._arrivals.waiting_j
        watts = (watts * _LOOK_S - min(busy_j, watts * _LOOK_S)) / max(0.1, _LOOK_S - min(busy_s, 0.9 * _LOOK_S))
        ramp = max(self._spent_w, self._planned_w) + (self.traits.full_w - self.traits.idle_w) * dt / _RAMP_S
        if self.limits.ramp and ramp < watts:
            watts, why = ramp, "ramp: load grows softly"
        return max(0.0, watts), why

    def _kept_back(self, now: float, target: float) -> float:
        """The watts until the next regular real-time arrival that leave room for its heat."""
        coming = self._arrivals.next(now)
        if coming is None or self._arrivals.waiting_s > 0 or not 0.5 < coming[0] < _RESERVE_S:
            return math.inf
        wait, watts, lasts = coming
        idle, warm = (
            self._thermal.advance(self._thermal.advance(self._thermal.state, wait, p), lasts, watts)[0] for p in (0.0, 1.0)
        )
        return max(0.0, (target + _PEAK_K - idle) / max(1e-6, warm - idle))

    def _aim(self, now: float, best: Sequence[Pair], budget: float, first: Demand | None, why: str) -> tuple[Mix, str]:
        mix = spend(best, budget)
        if first is None:
            return mix, "idle"
        if self.limits.objective == "energy":
            lean, words = self._frugal(now, best, first)
            if lean.watts < mix.watts:
                return lean, words
        return (mix, "plenty") if mix.low is mix.high else (mix, why)

    def _frugal(self, now: float, best: Sequence[Pair], first: Demand) -> tuple[Mix, str]:
        """The fewest joules: the most frugal pair, and late. Heat of today leaks until the end, so what can wait waits until
        it needs most of the time that is left."""
        if first.due_in is None:
            return reach(best, best[1].rate), "energy: most frugal"
        time = max(1.0, 0.99 * first.due_in - 2.0) * (1 - self._arrivals.share)
        lean = reach(best, first.samples / time)
        if lean.low is not IDLE:
            return lean, "energy: as little as the deadline allows"
        due_at = now + first.due_in
        begun = self._late is not None and abs(self._late - due_at) < 5.0
        if not begun and lean.share < _LATE:
            if self._sensor.why is None and self._sustained() > lean.high.watts:
                return Mix(IDLE, lean.high, 0.0), f"energy: waits, {first.due_in:.0f} s are plenty"
            return lean, "energy: most frugal, in time"
        self._late = due_at
        return lean, "energy: most frugal, in time"

    def _turn(self, mix: Mix) -> tuple[Pair, float]:
        """Whose turn it is: over some calls each of the two gets its share of them."""
        if mix.low is IDLE:
            self._carry = 0.0
            return (IDLE, 0.0) if mix.high is IDLE else (mix.high, mix.share)
        self._carry += mix.share
        if self._carry >= 1 - 1e-9:
            self._carry -= 1
            return mix.high, 1.0
        return mix.low, 1.0

    def _urgent(self, urgent: Sequence[Demand], pair: Pair, mix: Mix, bulk: bool) -> tuple[list[int], float]:
        """An option for each real-time demand, and the clock for all."""
        clocks = [c for c in self.clocks if c >= pair.clock - 1e-9] if bulk and pair is not IDLE else list(self.clocks)
        clock, out, used, joules = clocks[0], [], 0.0, 0.0
        rent, price = mix.rate - mix.price * mix.watts, mix.price
        if not bulk:
            rent, price = 0.0, 1.0
        for d in urgent:
            samples, due = (d.samples, d.due_in) if d.samples > 0 else self._arrivals.expected
            good = pairs(d.options, d.floor, [c for c in clocks if c >= clock - 1e-9], self._power.watts)
            left = math.inf if due is None else due
            fit = [p for p in good if used + samples / p.rate <= _KEEP * left]
            if not fit or (d.samples <= 0 and due is None):
                chosen = max(good, key=lambda p: (p.rate, -p.watts))
            else:
                chosen = min(fit, key=lambda p: (rent + price * p.watts) / p.rate)
            if d.samples > 0:
                clock = chosen.clock
                used += samples / chosen.rate
                joules += samples * chosen.joules
            out.append(chosen.option)
        self._arrivals.take(used, joules)
        return out, clock

    # What it promises

    def promise(self, now: float, demands: Sequence[Demand], mine: int) -> Promise:
        """How `demands[mine]` will fare behind those before it, as far as is known now; a new demand is asked about before it
        is accepted."""
        if demands[mine].realtime:
            return self._promise_urgent([d for d in demands[: mine + 1] if d.realtime])
        urgent = [d for d in demands if d.realtime and d.samples > 0]
        before = [d for d in demands[:mine] if not d.realtime and d.samples > 0]
        at = sum(d.samples * min(o.seconds for o in d.options) for d in urgent)
        share, state = self._arrivals.share, self._thermal.state
        for d in before:
            at, state, _, _ = self._play(d, at, state, share)
        end, _, joules, option = self._play(demands[mine], at, state, share)
        due = demands[mine].due_in
        finish_in = _DOUBT * end
        return Promise(option, finish_in, joules, due is None or finish_in <= due)

    def _promise_urgent(self, urgent: Sequence[Demand]) -> Promise:
        """Earliest deadline as they are listed, at the fastest option under the full clock; nothing paces them."""
        used, clock = 0.0, self.clocks[-1]
        for d in urgent:
            best = max(pairs(d.options, d.floor, (clock,), self._power.watts), key=lambda p: p.rate)
            took = max(d.samples, 1e-9) / best.rate
            used += took
        due = urgent[-1].due_in
        return Promise(best.option, used / _KEEP, took * best.watts, due is None or used / _KEEP <= due)

    def _play(
        self, demand: Demand, at: float, state: tuple[float, float], share: float
    ) -> tuple[float, tuple[float, float], float, int]:
        """One bulk demand from `at` to its end: (end, state then, joules, the option that makes most of it).

        Steps grow with the time that has passed: what is far is known less anyway. Where no watt is to be had, now or for good,
        it never ends.
        """
        best, target = self._hull(demand), self.limits.temp_c - self._margin()
        left, joules, made = demand.samples, 0.0, dict[int, float]()
        if not math.isfinite(left):
            return math.inf, state, math.inf, best[-1].option
        began, power_w = at, self._most_w - self._power.idle_w
        most_w = min(self._sustained(), power_w)
        while left > 1e-9 and at < _FAR_S:
            h = max(1.0, 0.05 * (at - began))
            steady = h > _STEADY_S
            budget = most_w if steady else min(self._thermal.holds(target, max(h, _LOOK_S), state), power_w)
            if max(budget, most_w) <= 0:
                break
            mix = spend(best, min(budget, self._supply_w))
            if self.limits.objective == "energy":
                time = math.inf if demand.due_in is None else max(1.0, demand.due_in / (1.02 * _DOUBT) - at)
                lean = reach(best, best[1].rate if demand.due_in is None else left / time / (1 - share))
                mix = lean if lean.watts < mix.watts else mix
            rate = mix.rate * (1 - share)
            if rate * h >= left:
                h = left / rate
            for pair, part in ((mix.low, 1 - mix.share), (mix.high, mix.share)):
                made[pair.option] = made.get(pair.option, 0.0) + part * pair.rate * h
            joules += mix.watts * (1 - share) * h
            state = self._thermal.steady(mix.watts) if steady else self._thermal.advance(state, h, mix.watts)
            left, at = left - rate * h, at + h
        end = at if left <= 1e-9 else math.inf
        return end, state, joules, max((o for o in made if o >= 0), key=lambda o: made[o], default=max(0, best[-1].option))

    # What it remembers

    def learnt(self) -> dict[str, Any]:
        """For the next start: JSON-able."""
        return {
            "board": self.traits.name,
            "thermal": list(self._thermal.x[R1:]) if self._began else list(self._thermal.start),
            "power": list(self._power.x),
            "sensor": [self._sensor.step, self._sensor.noise],
        }

    def _recall(self, learnt: Mapping[str, Any]) -> None:
        """Takes what fits this board and is within bounds; the rest starts anew."""
        if learnt.get("board") != self.traits.name:
            return
        guess = self._thermal.start
        known = _numbers(learnt.get("thermal"), [(g - BOUND, g + BOUND) for g in guess])
        if known:
            self._thermal = Thermal(Constants(*(math.exp(v) for v in known)), _UNSEEN_C, unseen=True, known=True)
        power = _numbers(learnt.get("power"), [(0.1 * self.traits.idle_w, 5 * self.traits.idle_w + 5), (0.5, 2.0), (0.3, 1.0)])
        if power:
            self._power.x = power
        sensor = _numbers(learnt.get("sensor"), [(1e-4, 2.0), (0.03, 0.6)])
        if sensor:
            self._sensor.step, self._sensor.noise = sensor


def _numbers(found: Any, bounds: Sequence[tuple[float, float]]) -> list[float] | None:
    """As many finite numbers within their bounds, or None."""
    if not isinstance(found, (list, tuple)) or len(found) != len(bounds):
        return None
    if not all(isinstance(v, (int, float)) and low <= v <= high for v, (low, high) in zip(found, bounds)):
        return None
    return [float(v) for v in found]


def _problem(reading: Reading) -> str | None:
    return reading.problems.get("temp_c") or next(iter(reading.problems.values()), None)
