"""A board that answers late, not at all or with a bug: the supervisor's thread never waits for it."""

from __future__ import annotations

import os
import select
import threading
import time

import pytest
from denoised.daemon import boardwatch
from denoised.daemon.boardwatch import BoardWatch, process_load
from denoised.daemon.core.reading import Reading, Traits


class SlowBoard:
    """A `Board` whose sensors answer when `free` is set."""

    def __init__(self):
        self.traits = Traits("generic", "slow", 85.0, 100.0, has_power=False)
        self.free, self.caps, self.closed, self.broken = threading.Event(), [], False, False
        self.refuses: str | None = None

    def read(self, now):
        self.free.wait(30)
        if self.broken:
            raise RuntimeError("a bug")
        return Reading(now, 40.0)

    def cap_clock(self, share):
        self.caps.append(share)
        return self.refuses if share < 1 else None

    def close(self):
        self.closed = True


@pytest.fixture
def board():
    return SlowBoard()


@pytest.fixture
def watch(board):
    watching = BoardWatch(board, 0.01)
    yield watching
    board.free.set()
    watching.close()
    assert board.closed


def arrives(watch):
    assert select.select([watch.watched()[0]], [], [], 30)[0]
    return watch.take()


def test_nobody_waits_for_a_board_that_does_not_answer(board, watch):
    began = time.monotonic()
    assert watch.take() == []
    watch.look()
    watch.cap(0.5)
    assert time.monotonic() - began < 5.0
    board.free.set()
    assert arrives(watch)[0].temp_c == 40.0


def test_a_cap_is_set_by_the_boards_own_thread(board, watch):
    board.free.set()
    watch.cap(0.5)
    while not board.caps:
        arrives(watch)
    watch.cap(0.5)
    arrives(watch)
    assert board.caps == [0.5]


def test_a_refused_cap_is_told_once_and_tried_again_by_itself(board, watch, monkeypatch, caplog):
    monkeypatch.setattr(boardwatch, "_AGAIN_S", 0.05)
    board.refuses = "no right to write scaling_max_freq"
    board.free.set()
    watch.cap(0.5)
    while len(board.caps) < 3:
        arrives(watch)
    assert set(board.caps) == {0.5}
    assert watch.cap_refused == "no right to write scaling_max_freq"
    assert [r.getMessage() for r in caplog.records] == ["the clocks stay free: no right to write scaling_max_freq"]
    board.refuses = None
    tried = len(board.caps)
    while watch.cap_refused:
        arrives(watch)
    assert len(board.caps) > tried


def test_a_refused_cap_is_not_tried_again_at_each_reading(board, watch):
    board.refuses = "busy"
    board.free.set()
    watch.cap(0.5)
    while not board.caps:
        arrives(watch)
    for _ in range(5):
        arrives(watch)
    assert board.caps == [0.5]


def test_a_board_with_a_bug_is_one_that_does_not_answer(board, watch):
    board.broken = True
    board.free.set()
    (reading, *_) = arrives(watch)
    assert (reading.temp_c, reading.problems) == (None, {"board": "RuntimeError: a bug"})


def test_the_load_of_a_process_is_its_share_of_the_cores():
    load = process_load(os.getpid, 1)
    assert load() == 0.0
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    assert 0.0 < load() <= 1.0
    assert process_load(lambda: None, 1)() == 0.0
