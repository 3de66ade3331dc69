"""Each way in which a temperature sensor breaks is found, and a healthy one is left in peace."""

from __future__ import annotations

import math

import pytest
from denoised.daemon.board.simulated import PRESETS, SimulatedBoard
from denoised.daemon.core.governor import Governor, Limits, Option
from denoised.daemon.rehearsal import Work, rehearse

PI = PRESETS["pi5"]
FULL_W = PI.full_w - PI.idle_w
OPTIONS = tuple(Option(4.0 / s, FULL_W * w, 1.0) for s, w in ((1.0, 1.0), (0.82, 0.77), (0.6, 0.53), (0.32, 0.28)))
PLENTY = (Work(math.inf),)


class Watched(Governor):
    """Keeps what it believed, second by second."""

    def decide(self, now, demands):
        decision = super().decide(now, demands)
        self.seen = [*getattr(self, "seen", []), (self.distrust, decision)]
        return decision


def watched(faults, seconds=900, preset="pi5", works=PLENTY, **more):
    board = SimulatedBoard(preset=preset, ambient_c=25.0, seed=3)
    governor = Watched(board.traits, Limits(board.traits.throttle_c - 2))
    outcome = rehearse(board, OPTIONS, works, governor.limits, seconds, faults=faults, policy=governor, **more)
    return governor, outcome


@pytest.mark.parametrize("kind", ["missing", "zero", "garbage", "spike", "kelvin", "millidegrees"])
def test_a_broken_sensor_is_distrusted_at_once_and_trusted_again_when_it_is_mended(kind):
    governor, outcome = watched([(400.0, kind), (600.0, None)])
    assert not any(why for why, _ in governor.seen[5:399])
    blind = [why is not None for why, _ in governor.seen[402:599]]
    assert sum(blind) > 0.9 * len(blind)
    assert "blind" in governor.seen[550][1].reason
    assert not any(why for why, _ in governor.seen[640:])
    assert outcome.throttle_events == 0
    assert outcome.over_k < 0.5


def test_a_sensor_that_stands_still_while_the_load_moves_is_stuck():
    governor, outcome = watched([(60.0, "stuck"), (300.0, None)])
    found = next(t for t, (why, _) in enumerate(governor.seen) if why and why.startswith("stuck"))
    assert 60 < found < 100
    assert not any(why for why, _ in governor.seen[340:])
    assert outcome.throttle_events == 0


@pytest.mark.parametrize("preset", ["pi5", "orin-nano-box", "orin-nx-box", "generic"])
def test_a_healthy_sensor_is_not_distrusted_at_the_limit(preset):
    p = PRESETS[preset]
    options = tuple(Option(o.seconds, o.watts / FULL_W * (p.full_w - p.idle_w), 1.0) for o in OPTIONS)
    board = SimulatedBoard(preset=preset, ambient_c=45.0, seed=4)
    governor = Watched(board.traits, Limits(board.traits.throttle_c - 12))
    rehearse(board, options, [Work(math.inf)], governor.limits, 1800, policy=governor)
    assert sum(why is not None for why, _ in governor.seen) < 5


def test_the_longer_it_is_blind_the_more_carefully_the_board_is_run():
    governor, outcome = watched([(500.0, "missing")], seconds=1400)
    temps = [row.temp_c for row in outcome.rows]
    assert temps[499] > temps[800] + 0.5 > temps[1390] + 0.6
    assert all(d.duty > 0 for _, d in governor.seen[500:])


def test_a_sensor_that_was_never_there_stops_no_work():
    governor, outcome = watched([(0.0, "missing")], seconds=600)
    assert governor.distrust == "no such device"
    assert outcome.samples > 20
    assert outcome.throttle_events == 0
