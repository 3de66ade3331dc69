from __future__ import annotations

import pytest
from denoised.daemon.core import dispatch
from denoised.daemon.core.job import FINAL, TRANSITIONS, Entry, Job, default_seed, digest


def entry(name, priority=4, at=0.0, state="accepted", **more):
    e = Entry(Job(id=name, kind="k", params={}, seed=0, items=1, received_at=at, priority=priority, **more))
    e.state = state
    return e


def test_higher_priority_first_then_first_come():
    waiting = [entry("late", at=2), entry("early", at=1), entry("urgent", priority=7, at=3)]
    chosen = []
    while (first := dispatch.choose(waiting, [], 9.0)) is not None:
        chosen.append(first.job.id)
        waiting.remove(first)
    assert chosen == ["urgent", "early", "late"]


def test_a_job_that_waits_for_its_frame_does_not_hold_up_the_next():
    first, second = entry("a", at=1), entry("b", at=2)
    first.waits_for_frame = True
    assert dispatch.choose([first, second], [], 0.0) is second


@pytest.mark.parametrize(("priority", "chosen"), [(3, False), (4, False), (5, True)])
def test_only_a_higher_priority_preempts_the_running_job(priority, chosen):
    running = entry("r", state="running")
    assert (dispatch.choose([running, entry("n", priority)], [running], 0.0) is not None) is chosen


def test_a_job_that_an_operator_paused_or_that_is_tried_again_later_does_not_start():
    waiting = [entry("held", at=1), entry("later", at=2), entry("other", at=3)]
    waiting[0].held, waiting[1].not_before = True, 5.0
    assert dispatch.choose(waiting, [], 4.0) is waiting[2]
    assert dispatch.choose(waiting, [], 5.0) is waiting[1]
    assert dispatch.next_due(waiting, 4.0) == 5.0


def test_a_fault_that_may_pass_is_met_with_longer_and_longer_waits_and_then_given_up():
    unlucky = entry("u")
    tries = [(unlucky.try_again(100.0), unlucky.not_before - 100.0) for _ in range(5)]
    assert tries == [(True, 0.5), (True, 1.0), (True, 2.0), (True, 4.0), (False, 8.0)]


def test_deadline_and_expiry_end_a_job_that_waits():
    late, expired, fine = entry("d", deadline_at=5.0), entry("e", start_by=5.0), entry("f", deadline_at=9.0)
    assert [e.job.id for e, _ in dispatch.overdue([late, expired, fine], 5.0)] == ["d", "e"]
    assert dispatch.next_due([late, fine], 0.0) == 5.0
    assert dispatch.next_due([entry("x")], 0.0) is None


def test_message_expiry_bounds_the_wait_and_not_the_run():
    started = entry("s", start_by=5.0)
    started.move("running")
    assert dispatch.overdue([started], 6.0) == []


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
