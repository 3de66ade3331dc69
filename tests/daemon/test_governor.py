"""The governor's loop between a board that a test plays and a desk without a bus."""

from __future__ import annotations

import time
from typing import Any

import pytest
from denoised.config import typed
from denoised.config.tree import Config
from denoised.daemon.core.governor import Demand, Option
from denoised.daemon.core.job import Entry, Job
from denoised.daemon.core.reading import Reading, Traits
from denoised.daemon.desk import Desk
from denoised.daemon.disk import Disk
from denoised.daemon.governor import GovernorLoop
from denoised.daemon.outbox import Outbox
from denoised.daemon.spool import Spool

WALL = 1.8e9


class Board:
    """A `Board` whose own thread says nothing; `say` puts readings where the loop takes them."""

    def __init__(self):
        self.traits = Traits("generic", "played", 85.0, 100.0, has_power=False, clocks=(0.5, 1.0))
        self.refuses: str | None = None

    def read(self, now):
        return Reading(now, 50.0)

    def cap_clock(self, share):
        return self.refuses if share < 1 else None

    def close(self):
        pass


class Child:
    """The part of `Link` that is used."""

    ready = True

    def __init__(self):
        self.sent = []

    def send(self, message):
        self.sent.append(message)


class Line:
    """A bus without a broker."""

    connected, max_packet, receive_maximum = False, None, None


class Played:
    """The loop, its worker, and what its policy was told."""

    def __init__(self, folder, board, policy):
        config = typed.read({"state_dir": str(folder), "gateway": {"id": "g"}, "policy": policy}, Config)
        self.spool, self.worker, self.board, self.tick = Spool(folder / "spool.db"), Child(), board, time.monotonic()
        line: Any = Line()
        worker: Any = self.worker
        self.desk = Desk(config, self.spool, Outbox(self.spool, line), worker, worker, Disk([folder], 0))
        self.loop = GovernorLoop(config, self.desk, worker, board, lambda job: None, lambda told: None, WALL, self.tick)
        self.loop.watch.close()  # from now on only the test says what the board does
        self.loop.watch.take()
        self.told: list[tuple[Reading, float | None]] = []
        observe = self.loop._policy.observe

        def told(reading, busy_w):
            self.told.append((reading, busy_w))
            observe(reading, busy_w)

        self.loop._policy.observe = told  # type: ignore[method-assign]

    def turn(self, seconds, *readings):
        """So many seconds later, with what the board has said meanwhile (at its second, its words)."""
        self.tick += seconds
        watch = self.loop.watch
        for reading in readings:
            watch._readings.append(reading)
            watch._wake_out.send(b"r")
        self.loop.turn(self.tick, self.tick, WALL)

    def says(self, **words):
        self.turn(1.0, Reading(self.tick + 1.0, 50.0, **words))


@pytest.fixture
def play(tmp_path):
    made = []

    def start(**policy):
        made.append(Played(tmp_path, Board(), policy))
        return made[-1]

    yield start
    for played in made:
        played.spool.close()


def run(played):
    """A job runs that was measured at 4 W."""
    played.desk.stack.append(Entry(Job("j", "k", {}, 0, 1, 1.0, digest="j")))
    played.loop._watts = lambda entry: 4.0


def test_several_readings_in_one_turn_tell_of_the_same_work(play):
    played = play()
    played.says()
    run(played)
    played.says()
    played.told.clear()
    t = played.tick
    played.turn(2.0, Reading(t + 0.5, 50.0), Reading(t + 1.0, 50.0), Reading(t + 2.0, 50.0))
    assert [w for _, w in played.told] == [pytest.approx(4.0, rel=0.01)] * 3


def test_a_silent_board_is_blind_for_as_long_as_it_is_silent_and_counted_by_the_model(play):
    played = play()
    for _ in range(3):
        played.says()
    before = played.loop.ledger.today_j(WALL)
    for _ in range(60):
        played.turn(1.0)
    assert played.loop._policy.blind_s == pytest.approx(57, abs=3)
    assert played.loop._policy.distrust == "no answer"
    assert played.loop.ledger.today_j(WALL) - before == pytest.approx(60 * played.board.traits.idle_w, rel=0.05)
    late = played.tick - 30
    played.turn(0.2, Reading(late, 50.0))
    played.turn(1.0)
    assert played.loop._policy._at == pytest.approx(played.tick, abs=2)


def test_a_counter_that_does_not_answer_once_takes_no_problem_away_and_logs_nothing(play, caplog):
    played = play()
    played.says(under_voltage=False, under_voltage_events=1)
    said = played.loop.problems()
    assert [p["message"].partition(":")[0] for p in said] == ["under-voltage once since boot"]
    caplog.clear()
    for _ in range(20):
        played.says()
        assert played.loop.problems() == said
        played.says(under_voltage=False, under_voltage_events=1)
    assert not [r for r in caplog.records if "under-voltage" in r.getMessage()]


@pytest.mark.parametrize(("words", "ramp"), [({}, False), ({"under_voltage_events": 1}, True), ({"under_voltage": True}, True)])
def test_load_grows_softly_where_the_supply_has_given_way_and_nowhere_else(play, words, ramp):
    played = play()
    played.says(**words)
    played.says()
    assert played.loop._policy.limits.ramp is ramp


def test_a_power_limit_holds_from_the_first_second_of_the_load(play):
    played = play(power_limit_w=3.5)
    for _ in range(5):
        played.says()
    played.loop._bulk = True
    decided = played.loop._policy.decide(played.tick, [Demand((Option(1.0, 4.0, 1.0),), 100.0)])
    played.loop._apply((decided, None), played.tick, played.tick)
    (pace,) = [m for m in played.worker.sent if m["type"] == "pace"]
    watts = played.loop._policy.watts(4.0, decided.clock)
    assert pace["duty"] * watts <= 0.5 + 1e-6


def test_a_refused_cap_is_known_to_the_policy_the_telemetry_and_the_status(play):
    played = play()
    played.says()
    played.loop.watch.cap_refused = "scaling_max_freq: Permission denied"
    played.says()
    assert played.loop._policy.clocks == (1.0,)
    assert played.loop.told()["clock"] == 1.0
    assert [p["message"] for p in played.loop.problems()] == [
        "the clocks cannot be capped: scaling_max_freq: Permission denied"
    ]
    played.loop.watch.cap_refused = None
    played.says()
    assert played.loop._policy.clocks == (0.5, 1.0)
    assert played.loop.problems() == []
