from __future__ import annotations

import pytest
from denoised.daemon.core.dispatch import Waiting
from denoised.daemon.core.job import FINAL, TRANSITIONS, Entry, Job, default_seed, digest
from hypothesis import given
from hypothesis import strategies as st


def entry(name, priority=4, at=0.0, state="accepted", **more):
    e = Entry(Job(id=name, kind="k", params={}, seed=0, items=1, received_at=at, priority=priority, **more))
    e.state = state
    return e


def waiting_of(*entries):
    """The heaps over these, all entered; each test may change them afterwards, as the daemon does."""
    known = {e.job.id: e for e in entries}
    waiting = Waiting(known)
    for e in entries:
        waiting.enter(e)
    return waiting, known


def test_higher_priority_first_then_first_come():
    waiting, known = waiting_of(entry("late", at=2), entry("early", at=1), entry("urgent", priority=7, at=3))
    chosen = []
    while (best := waiting.choose([], 9.0)) is not None:
        chosen.append(best.job.id)
        del known[best.job.id]
    assert chosen == ["urgent", "early", "late"]


def test_a_job_that_waits_for_its_frame_does_not_hold_up_the_next():
    first, second = entry("a", at=1), entry("b", at=2)
    first.waits_for_frame = True
    waiting, _ = waiting_of(first, second)
    assert waiting.choose([], 0.0) is second
    first.waits_for_frame = False
    waiting.wait(first)
    assert waiting.choose([], 0.0) is first


@pytest.mark.parametrize(("priority", "chosen"), [(3, False), (4, False), (5, True)])
def test_only_a_higher_priority_preempts_the_running_job(priority, chosen):
    running = entry("r", state="running")
    waiting, _ = waiting_of(running, entry("n", priority))
    assert (waiting.choose([running], 0.0) is not None) is chosen


def test_a_preempted_job_is_not_started_twice():
    low, high = entry("low", 1, state="paused"), entry("high", 9, state="running")
    waiting, _ = waiting_of(low, high)
    assert waiting.choose([low, high], 0.0) is None


def test_a_job_that_an_operator_paused_or_that_is_tried_again_later_does_not_start():
    held, later, other = entry("held", at=1), entry("later", at=2), entry("other", at=3)
    held.held, later.not_before = True, 5.0
    waiting, _ = waiting_of(held, later, other)
    assert waiting.choose([], 4.0) is other
    assert waiting.due(4.0) == 5.0
    assert waiting.due(5.0) is None, "it is asked for already; a worker that loads must not make the loop spin"
    assert waiting.choose([], 5.0) is later
    held.held = False
    waiting.wait(held)
    assert waiting.choose([], 5.0) is held


def test_jobs_that_are_over_do_not_pile_up():
    waiting, known = waiting_of(entry("first", priority=9))
    for n in range(5000):
        known[f"{n}"] = entry(f"{n}")
        waiting.enter(known[f"{n}"])
        del known[f"{n}"]
    assert len(waiting._best) < 100


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans(), st.sampled_from([0.0, 2.0])), max_size=12))
def test_it_chooses_as_a_look_at_every_job_would(drawn):
    entries = [entry(str(n), priority, float(at)) for n, (priority, at, _, _) in enumerate(drawn)]
    for e, (_, _, held, not_before) in zip(entries, drawn):
        e.held, e.not_before = held, not_before
    waiting, known = waiting_of(*entries)
    for now in (1.0, 3.0):
        free = [e for e in known.values() if not e.held and e.not_before <= now]
        best = min(free, key=lambda e: (-e.job.priority, e.job.received_at), default=None)
        chosen = waiting.choose([], now)
        assert (chosen is None) == (best is None)
        if chosen and best:
            assert (chosen.job.priority, chosen.job.received_at) == (best.job.priority, best.job.received_at)


def test_a_fault_that_may_pass_is_met_with_longer_and_longer_waits_and_then_given_up():
    unlucky = entry("u")
    tries = [(unlucky.try_again(100.0), unlucky.not_before - 100.0) for _ in range(5)]
    assert tries == [(True, 0.5), (True, 1.0), (True, 2.0), (True, 4.0), (False, 8.0)]


def test_deadline_and_expiry_end_a_job_that_waits_and_are_told_once():
    waiting, _ = waiting_of(entry("d", deadline_at=5.0), entry("e", start_by=5.0), entry("f", deadline_at=9.0))
    assert waiting.due(0.0) == 5.0
    assert [e.job.id for e, _ in waiting.overdue(5.0)] == ["d", "e"]
    assert waiting.overdue(5.0) == []
    assert waiting.due(5.0) == 9.0


def test_a_job_that_is_over_is_not_overdue():
    waiting, known = waiting_of(entry("d", deadline_at=5.0))
    known.clear()
    assert waiting.due(0.0) is None
    assert waiting.overdue(6.0) == []


def test_message_expiry_bounds_the_wait_and_not_the_run():
    started = entry("s", start_by=5.0)
    started.move("running")
    waiting, _ = waiting_of(started)
    assert waiting.overdue(6.0) == []


def test_a_final_state_is_never_left():
    for state in FINAL:
        assert TRANSITIONS[state] == ()
        with pytest.raises(ValueError, match="not in the table"):
            entry("x", state=state).move("running")


def test_every_state_of_the_table_is_known():
    assert {s for after in TRANSITIONS.values() for s in after} <= TRANSITIONS.keys()


def test_the_digest_does_not_depend_on_spelling_and_the_seed_is_a_function_of_the_id():
    assert digest("k", {"a": 1, "b": [1, 2]}) == digest("k", {"b": [1, 2], "a": 1})
    assert digest("k", {"a": 1}) != digest("k", {"a": 2})
    assert digest("k", {"a": 1}) != digest("j", {"a": 1})
    assert default_seed("part-1") == default_seed("part-1") != default_seed("part-2")


def test_a_job_is_given_up_where_workers_die_twice_at_one_place_or_five_times_in_all():
    stuck, unlucky = entry("stuck"), entry("unlucky")
    assert [stuck.worker_died(), stuck.worker_died()] == [False, True]
    given_up = []
    for n in range(5):
        unlucky.item = n
        given_up.append(unlucky.worker_died())
    assert given_up == [False, False, False, False, True]
