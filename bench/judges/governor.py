"""The daemon's policy behind the interface of an outside judge; nothing is decided here.

python ../shared/tools/governor_eval.py --policy bench/judges/governor.py:DenoisedPolicy
"""

from __future__ import annotations

import math
from typing import Any

from denoised.daemon.core.governor import Demand, Governor, Limits, Option
from denoised.daemon.core.reading import Reading, Traits


class DenoisedPolicy:
    """One run of the judge: its observations become readings, its queue becomes demands."""

    label = "denoised"

    def reset(self, info: Any) -> None:
        self._info = info
        traits = Traits(
            kind="jetson" if "orin" in info.board else "raspberry-pi" if "rpi" in info.board else "generic",
            name=info.board,
            throttle_c=info.first_trip_c,
            critical_c=info.first_trip_c + 15,
            has_power=info.has_power,
            clocks=tuple(sorted(info.clocks)),
            idle_w=info.p_idle_w,
            full_w=info.p_idle_w + info.p_dyn_w,
            die_k_per_w=7 / info.p_dyn_w,
            die_s=6.0,
            sink_k_per_w=35 / info.p_dyn_w,
            sink_s=400.0,
        )
        self.governor = Governor(traits, Limits(temp_c=info.t_limit_c, objective=info.objective))
        self._bulk = tuple(Option(o.seconds, o.watts, o.quality) for o in info.bulk)
        self._rt = tuple(Option(o.seconds, o.watts, o.quality) for o in info.rt)
        self._last: tuple[Any, int, float, int, float] | None = None

    def decide(self, obs: Any) -> tuple[int, float, int, float]:
        info = self._info
        problems = {} if obs.temp_error is None else {"temp_c": obs.temp_error}
        reading = Reading(obs.t, obs.temp_c, power_w=obs.power_w, throttled=obs.throttled, speed=None, problems=problems)
        self.governor.observe(reading, self._busy(obs))
        waiting = sum(n for _, n in obs.rt_waiting)
        due = min((s for s, _ in obs.rt_waiting), default=None)
        rt = Demand(self._rt, waiting, due, info.q_rt, realtime=True)
        due_in = None if not math.isfinite(info.bulk_total) else info.bulk_deadline_s - obs.t
        bulk = Demand(self._bulk, obs.bulk_waiting, due_in, info.q_bulk)
        d = self.governor.decide(obs.t, (rt, bulk))
        self._last = (obs, d.choices[1], d.duty, d.choices[0], d.clock)
        return d.choices[1], d.duty, d.choices[0], d.clock

    def _busy(self, obs: Any) -> float | None:
        """Mean watts above idle, at full clock, since the last decision."""
        if self._last is None:
            return 0.0
        before, b, duty, r, clock = self._last
        dt = max(1e-9, obs.t - before.t)
        ran = (obs.bulk_done - before.bulk_done) * self._bulk[b].seconds / clock
        served = (
            max(0.0, sum(n for _, n in before.rt_waiting) - sum(n for _, n in obs.rt_waiting)) * self._rt[r].seconds / clock
        )
        if duty > 0.05 and ran > 0 and obs.bulk_waiting > 0:
            served = max(served, dt - ran / duty)
        served = max(0.0, min(served, dt - ran))
        return (ran * self._bulk[b].watts + served * self._rt[r].watts) / dt
