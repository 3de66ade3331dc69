"""The governor in the daemon: reads the board once a second and at every job boundary, asks the policy, hands on what it says.

The policy (`core/governor.py`) is pure; here it gets its time, its readings and its memory. What it decides is the operating
point of each job that starts, the pace of the one that runs, a cap on the clocks, and whether bulk work may start at all.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config.tree import Config
from ..engines.bundle import Bundle
from .board import witness
from .board.board import Board
from .board.energy import Integral
from .boardwatch import BoardWatch
from .core import bulk, costs
from .core.bulk import Wait
from .core.governor import Decision, Demand, Governor, Limits
from .core.job import Entry, Job, Promise, folder_name
from .core.reading import Reading
from .desk import Desk
from .durable import read_json, write_json
from .ledger import Ledger, energy_of
from .link import Link
from .planner import Plan, Planner
from .points import BoardPoint, Offers, pinned
from .promises import Promises
from .supply import Supply

log = logging.getLogger(__name__)

_PERIOD = 1.0
_SILENT_PERIODS = 3
"""A board that says nothing for longer does not answer."""
_STORE_S = 3600.0
"""Between two writes of what was learnt: flash wears out, and the board does not change in an hour."""
_HOLD_AFTER_S = 5.0
"""A pace of nothing for so long is a pause, and told as one."""
_WARM_S = 15.0
"""Before work that is known to come the worker is made ready."""
_BELOW_THROTTLE_C, _LEAST_BELOW_C = 2.0, 1.0
_NO_SENSOR_C = 1000.0
"""The limit on a board that has no thermal sensor at all: nothing can be held."""
_SHARE_K = 3.0
"""Headroom below which the gateway leaves the shared pool to others, and twice that to come back."""


class GovernorLoop:
    """Used by one thread. `now` is gateway time, `tick` monotonic seconds, `wall` seconds since 1970."""

    def __init__(
        self,
        config: Config,
        desk: Desk,
        worker: Link,
        board: Board,
        bundle_of: Callable[[Job], Bundle | None],
        note: Callable[[dict[str, Any]], None],
        wall: float,
        tick: float,
    ):
        self._config, self._desk, self._worker, self._note = config, desk, worker, note
        self._scale = config.board.speedup
        state = Path(config.state_dir)
        self._memory = state / "governor.json"
        known = read_json(self._memory)
        self._watch = BoardWatch(board, _PERIOD / self._scale)
        self._supply = Supply(state, wall, tick)
        self.ledger = Ledger(state / "energy.json", _PERIOD / self._scale, tick)
        self._reading: Reading | None = None
        self._known: Reading | None = None
        """The last one, with what it did not answer as it was before."""
        self._heard_at = tick
        self._traits = board.traits
        self._limits, learnt = Limits(_NO_SENSOR_C), known.get("board")
        self._policy = Governor(self._traits, self._limits, learnt if isinstance(learnt, Mapping) else None)
        offers = Offers(config, self._traits.name, None)
        self._planner = Planner(offers, costs.from_plain(known.get("costs")), bundle_of, self._scale)
        self._decision = Decision((), 1.0, 1.0, "idle")
        self._told_duty = 1.0
        self._zero_since: float | None = None
        self._wait: Wait | None = None
        self._signal: float | None = None
        self._live: Plan | None = None
        self._has_sensor = self._bulk = self._work = False
        self._limit_c = self._traits.throttle_c - _BELOW_THROTTLE_C
        self._share = True
        self.promises = Promises(self._planner, desk)
        self._due = self._stored_at = tick
        self._top: Entry | None = None
        self._top_rested_s, self._top_since, self._busy_j, self._busy_since = 0.0, tick, 0.0, tick
        self._worked = False

    @property
    def watch(self) -> BoardWatch:
        """For the selector."""
        return self._watch

    @property
    def board(self) -> str:
        """Its name."""
        return self._traits.name

    def configure(self, config: Config) -> None:
        """The config was read again: calibrations are, too."""
        if _source(config) != _source(self._config):
            self._signal = None
        self._config = config
        self._planner.offers = Offers(config, self._traits.name, self._planner.offers.mode)

    def worker_came_up(self) -> None:
        """A new worker knows no pace."""
        self._told_duty = 1.0

    def hear_signal(self, value: float | None) -> None:
        """The plant's signal has another value; None: what it sent is no number."""
        if value is not None:
            self._signal = value

    # ---- the loop ---------------------------------------------------------------------------------------------------

    def turn(self, now: float, tick: float, wall: float) -> None:
        """Once in each turn of the supervisor's loop; cheap where nothing is to do."""
        readings = self._watch.take()
        if readings:
            self._heard_at = readings[-1].at
        elif tick >= self._due and tick - self._heard_at > _SILENT_PERIODS * _PERIOD / self._scale:
            readings = [Reading(tick, None, problems={"board": "no answer"})]
        self._observe(readings, tick, wall)
        if readings or tick >= self._due:
            self._due = tick + _PERIOD / self._scale
            self._refresh(wall)
            self._apply(self._decide(now), now, tick)
            self._look_ahead(now)
            self._supply.look(self._top is not None, tick)
            self._store(tick)

    @property
    def due(self) -> float:
        """When `turn` has to be called again, in ticks."""
        return self._due

    def _observe(self, readings: Sequence[Reading], tick: float, wall: float) -> None:
        if not readings:
            return
        self._accrue(tick)
        busy_w = self._busy_j / max(1e-6, tick - self._busy_since)
        self._busy_j, self._busy_since = 0.0, tick
        for reading in readings:
            self._see(reading, busy_w, wall)

    def _see(self, reading: Reading, busy_w: float, wall: float) -> None:
        before, self._reading = self._known, reading
        self._known = witness.known(before, reading)
        if self._watch.traits != self._traits or reading.mode != self._planner.offers.mode:
            self._board_changed(reading)
        self._has_sensor = self._has_sensor or reading.temp_c is not None or bool(reading.zones_c)
        self._policy.clocks = (1.0,) if self._watch.cap_refused else self._traits.clocks
        scaled = reading if self._scale == 1 else _at(reading, reading.at * self._scale)
        self._policy.observe(scaled, busy_w)
        for line in witness.news(before, self._known):
            log.warning("%s", line)
        if reading.power_w is not None:
            power_w, method = reading.power_w, "rail"
        else:
            power_w = self._traits.idle_w + self._policy.watts(busy_w, self._clock)
            method = "model" if self._top and self._top.point and self._top.point.busy_w is not None else "estimate"
        self.ledger.add(reading.at, power_w, method, wall)  # type: ignore[arg-type]
        for entry in self._desk.stack:
            if entry.meter is not None:
                if entry is self._desk.stack[-1]:
                    entry.meter.add(reading.at, reading.power_w)
                else:
                    entry.meter.pause()

    def _board_changed(self, reading: Reading) -> None:
        """Another power mode: other clocks and watts, and another calibration."""
        if self._watch.traits != self._traits:
            learnt = self._policy.learnt()
            self._traits = self._watch.traits
            self._policy = Governor(self._traits, self._policy.limits, learnt)
        if reading.mode != self._planner.offers.mode and reading.mode is not None:
            log.info("power mode: %s", reading.mode)
            self._planner.offers = Offers(self._config, self._traits.name, reading.mode)

    def _refresh(self, wall: float) -> None:
        """Limits, and whether bulk work waits."""
        policy, traits = self._config.policy, self._traits
        highest = traits.throttle_c - _LEAST_BELOW_C
        temp_c = min(policy.temperature_limit_c or traits.throttle_c - _BELOW_THROTTLE_C, highest)
        caps = [policy.power_limit_w] if policy.power_limit_w is not None else []
        if self._supply.faults:
            caps.append(traits.idle_w + self._supply.share * (traits.full_w - traits.idle_w))
        local = time.localtime(wall)
        minute = local.tm_hour * 60 + local.tm_min + local.tm_sec / 60
        left_j, left_s = None, (bulk.DAY_MIN - minute) * 60
        if policy.energy_budget_j_per_day is not None:
            left_j = policy.energy_budget_j_per_day - self.ledger.today_j(wall) - traits.idle_w * left_s
        self._limit_c = temp_c
        self._limits = Limits(
            temp_c if self._has_sensor else _NO_SENSOR_C,
            min(caps, default=None),
            policy.objective,
            None if left_j is None else max(0.0, left_j),
            left_s * self._scale,
            ramp=bool(self._supply.faults or self._weak_supply),
        )
        self._wait = bulk.waits(policy, minute, self._signal, left_j, traits.idle_w)

    # ---- deciding -----------------------------------------------------------------------------------------------------

    def _decide(self, now: float, starting: Entry | None = None) -> tuple[Decision, int | None]:
        """What the policy says, and the index among its choices of what starts."""
        desk, demands, mine = self._desk, list[Demand](), None
        live = [plan for entry in desk.live() if entry is not starting and (plan := self._plan(entry, now))]
        for plan in live:
            self._live = plan
            demands.append(plan.demand)
        if self._config.sensors and self._live and not live and (starting is None or starting.job.durable):
            standing = self._live.demand
            demands.append(Demand(standing.options, 0.0, standing.due_in, standing.floor, realtime=True))
        rows = [starting] if starting else []
        rows += [entry for entry in reversed(desk.stack) if entry.job.durable]
        if starting is None and (best := desk.first_waiting(now)) is not None and best not in rows:
            rows.append(best)
        for entry in rows:
            if (plan := self._plan(entry, now)) is not None:
                mine = len(demands) if entry is starting else mine
                demands.append(plan.demand)
        self._bulk = any(not d.realtime and d.samples > 0 for d in demands)
        self._work = any(d.samples > 0 for d in demands)
        self._budget_for(rows[0].job if rows else None)
        return self._policy.decide(now * self._scale, demands), mine

    def _budget_for(self, job: Job | None) -> None:
        """The day's energy holds back bulk work alone."""
        free = job is None or bulk.is_bulk(job)
        self._policy.limits = self._limits if free else replace(self._limits, energy_j_left=None)

    def _plan(self, entry: Entry, now: float) -> Plan | None:
        return self._planner.plan(entry.job, now, self._traits, entry)

    def _apply(self, decided: tuple[Decision, int | None], now: float, tick: float) -> None:
        decision, was = decided[0], self._decision
        self._decision = decision
        if self._config.policy.governor == "off":
            self._pace(1.0)
            self._watch.cap(1.0)
            self._desk.hold(self._wait.why if self._wait else None, False, now)
            return
        duty = decision.duty if self._bulk else 1.0
        self._pace(duty)
        if self._watch.cap_refused is None:  # else the same is tried again
            self._watch.cap(decision.clock if self._work else 1.0)  # at rest the clocks are nobody's to hold
        hot = duty <= 0 and not decision.reason.startswith("energy")
        self._zero_since = (self._zero_since if self._zero_since is not None else tick) if hot else None
        held = self._zero_since is not None and tick - self._zero_since >= _HOLD_AFTER_S / self._scale
        why = self._wait.why if self._wait else decision.reason if held else None
        self._desk.hold(why, held and self._wait is None, now)
        room = self._policy.headroom_k if self._has_sensor else _SHARE_K * 2
        self._share = room >= (_SHARE_K if self._share else 2 * _SHARE_K) and self._wait is None
        if _kind(decision.reason) != _kind(was.reason):
            self._note({"governor": self.told()})

    @property
    def _weak_supply(self) -> bool:
        known = self._known
        return known is not None and bool(known.under_voltage or known.under_voltage_events)

    @property
    def _clock(self) -> float:
        """The cap that is held: the decision's, unless the board refuses or nothing is to do."""
        return 1.0 if self._watch.cap_refused or not self._work else self._decision.clock

    def _pace(self, duty: float) -> None:
        """Tells the worker where it matters: steps of a few hundredths are noise."""
        edge = duty in (0.0, 1.0) and duty != self._told_duty
        if self._worker.ready and (edge or abs(duty - self._told_duty) >= 0.02):
            self._told_duty = duty
            self._worker.send({"type": "pace", "duty": duty})

    def _look_ahead(self, now: float) -> None:
        """Opens what a job will run that is known to come soon: the first call after a rest is slow."""
        if not self._worker.ready or self._desk.stack:
            return
        for entry in self._desk.coming(now, _WARM_S, self._soon()):
            if not entry.warmed and (plan := self._plan(entry, now)) is not None:
                entry.warmed, model = True, entry.job.params.get("model")
                point = plan.points[0]
                self._worker.send({"type": "warm", "kind": entry.job.kind, "model": model, "point": vars(point)})
            return

    def _soon(self) -> bool:
        return self._wait is not None and self._wait.ends_in is not None and self._wait.ends_in <= _WARM_S

    def wants_worker(self, now: float) -> bool:
        """Whether work is about to come, so that a worker that is not there should be started."""
        return bool(self._desk.coming(now, _WARM_S, self._soon()))

    # ---- what the desk asks -------------------------------------------------------------------------------------------

    def choose(self, entry: Entry, now: float) -> BoardPoint | None:
        """The operating point for a job that starts now; the one that it has, where it has begun."""
        self._accrue(time.monotonic())
        self._watch.look()
        entry.meter = entry.meter or Integral(_PERIOD / self._scale)
        entry.meter.pause()
        bundle = self._planner.bundle_of(entry.job)
        if bundle is None:
            return None
        if entry.point is not None and entry.point.model_sha256 == bundle.sha256:
            return entry.point
        folder = Path(self._config.state_dir) / "work" / folder_name(entry.job.id)
        if entry.job.durable and (kept := pinned(folder, bundle)) is not None:
            return kept
        entry.point = None
        points = self._planner.offers.of(bundle).acceptable(entry.job.quality)
        decision, mine = self._decide(now, entry)
        if mine is None:
            return points[0]
        point = points[min(decision.choices[mine], len(points) - 1)]
        self._apply((decision, mine), now, time.monotonic())
        return point

    def ended(self, entry: Entry, state: str, facts: Mapping[str, Any], now: float) -> dict[str, Any]:
        """What the result of a job says of its energy; whether its promise was kept, and what it took, are remembered."""
        self._accrue(time.monotonic())
        self._watch.look()
        self._worked = self._worked or "run_ms" in facts
        if state == "done":
            self._planner.learn(entry, facts, self._clock)
        elif state == "expired":
            self._planner.too_short(entry, facts, self._clock)
        self.promises.ended(entry, state, now)
        if "run_ms" in facts:
            self.ledger.worked()
        return energy_of(entry, facts, self._traits)

    def promise(self, job: Job, now: float, wall: float) -> Promise | None:
        """What can be said of a job that comes in now; refused as `deadline` where it cannot be met even by itself."""
        self._budget_for(job)
        cold_s = 0.0 if self._worker.ready else self._planner.open_s
        return self.promises.make(job, now, wall, self._policy, self._traits, self._wait, cold_s)

    def _accrue(self, tick: float) -> None:
        """Adds up the calibrated watts of what has run since the last time."""
        top, was = self._desk.stack[-1] if self._desk.stack else None, self._top
        if was is not None:
            rested = max(0.0, was.rested_s - self._top_rested_s)
            self._busy_j += self._watts(was) * max(0.0, tick - self._top_since - rested)
        self._top, self._top_since = top, tick
        self._top_rested_s = top.rested_s if top else 0.0

    def _watts(self, entry: Entry) -> float:
        plan = self._planner.plan(entry.job, entry.job.received_at, self._traits, entry)
        return plan.demand.options[0].watts if plan else 0.0

    # ---- words --------------------------------------------------------------------------------------------------------

    def told(self) -> dict[str, Any]:
        """The `governor` of the telemetry."""
        reading, policy = self._reading, self._policy
        off = self._config.policy.governor == "off"
        return {
            "temp_c": _rounded(reading.temp_c if reading else None),
            "limit_c": _rounded(self._limit_c) if self._has_sensor else None,
            "throttle_c": _rounded(self._traits.throttle_c),
            "headroom_k": _rounded(policy.headroom_k) if self._has_sensor else None,
            "power_w": _rounded(reading.power_w if reading else None),
            "clock": self._clock,
            "duty": round(self._told_duty, 3),
            "reason": "off" if off else self._wait.why if self._wait else self._decision.reason,
            "trust": policy.distrust if self._has_sensor else "this board shows no temperature",
            "throttle_events": reading.throttle_events if reading else None,
            "under_voltage": reading.under_voltage if reading else None,
            "over_current_events": reading.over_current_events if reading else None,
            "promises": dict(self.promises.counts),
            "share": self._share,
            "board": {"kind": self._traits.kind, "name": self._traits.name},
        }

    def operating_point(self) -> dict[str, Any] | None:
        """Of the job that runs."""
        top = self._desk.stack[-1] if self._desk.stack else None
        bundle = self._planner.bundle_of(top.job) if top and top.point else None
        return top.point.told(bundle) if top and bundle else None

    def zones_c(self) -> dict[str, float | None]:
        """Every thermal zone by name; None where it does not answer."""
        return {name: _rounded(t) for name, t in self._reading.zones_c.items()} if self._reading else {}

    def problems(self) -> list[dict[str, str]]:
        """What a person should look at."""
        found = []
        if why := self._supply.problem():
            found.append({"code": "board", "about": "board", "message": why})
        for why in witness.problems(self._known, self._traits) if self._known else ():
            found.append({"code": "board", "about": "board", "message": why})
        if why := self._watch.cap_refused:
            found.append({"code": "board", "about": "board", "message": f"the clocks cannot be capped: {why}"})
        if self._has_sensor and self._policy.distrust and self._policy.blind_s > 30 * self._scale:
            why = self._policy.distrust.partition(" at ")[0]  # with its figure it would be another problem each second
            found.append({"code": "board", "about": "board", "message": f"the temperature sensor is not believed: {why}"})
        if below := bulk.below_rest(self._config.policy, self._traits.idle_w):
            found.append({"code": "board", "about": "policy", "message": f"{below}: bulk work never runs"})
        return found

    # ---- memory -------------------------------------------------------------------------------------------------------

    def _store(self, tick: float) -> None:
        self.ledger.store(tick)
        if self._worked and tick - self._stored_at >= _STORE_S:
            self._remember(tick)

    def _remember(self, tick: float) -> None:
        self._stored_at, self._worked = tick, False
        try:
            write_json(self._memory, {"board": self._policy.learnt(), "costs": costs.as_plain(self._planner.costs)})
        except OSError as e:
            log.warning("%s: what was learnt of the board is not stored: %s", self._memory, e.strerror)

    def close(self, tick: float) -> None:
        """The daemon stops: clocks are given back, what was learnt and counted is kept."""
        self._watch.close()
        if self._worked:
            self._remember(tick)
        self.ledger.store(tick, now=True)
        self._supply.clear()


def _source(config: Config) -> tuple[str, str | None] | None:
    """Where the plant's signal comes from."""
    wanted = config.policy.signal
    return (wanted.topic, wanted.field) if wanted else None


def _at(reading: Reading, at: float) -> Reading:
    return replace(reading, at=at)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _kind(reason: str) -> str:
    """The reason without its figures: a change of those is no other decision."""
    return reason.split(":")[0]
