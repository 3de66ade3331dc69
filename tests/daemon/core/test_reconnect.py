from __future__ import annotations

from denoised.daemon.core.reconnect import LONGEST, Backoff


def test_the_wait_doubles_up_to_a_minute_while_there_is_no_broker():
    backoff = Backoff()
    assert [backoff.failed() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_connection_that_lived_long_makes_the_next_wait_short_again():
    backoff = Backoff()
    for _ in range(5):
        backoff.failed()
    backoff.connected(100.0)
    assert backoff.lost(200.0).longest == 1.0


def test_a_connection_that_died_young_does_not():
    backoff = Backoff()
    for _ in range(5):
        backoff.failed()
    backoff.connected(100.0)
    assert backoff.lost(101.0).longest == 32.0


def test_a_takeover_that_the_broker_names_is_not_fought():
    backoff = Backoff()
    backoff.connected(0.0)
    loss = backoff.lost(25.0, taken_over=True)
    assert loss.taken_over
    assert loss.longest == LONGEST


def test_connections_taken_away_again_and_again_look_like_a_takeover():
    backoff, seen = Backoff(), []
    for n in range(5):
        backoff.connected(n * 100.0)
        seen.append(backoff.lost(n * 100.0 + 2).taken_over)
    assert seen == [False, False, False, True, True]


def test_a_broker_that_goes_away_in_between_is_no_takeover():
    backoff = Backoff()
    for n in range(9):
        backoff.connected(n * 100.0)
        assert not backoff.lost(n * 100.0 + 2).taken_over
        backoff.failed()


def test_a_broker_that_refuses_us_is_no_takeover():
    backoff = Backoff()
    assert not any(backoff.lost(float(n)).taken_over for n in range(9))


def test_who_knows_of_a_namesake_does_not_fight_for_the_connection():
    backoff = Backoff()
    backoff.connected(0.0)
    backoff.calm()
    assert backoff.lost(3.0).longest == LONGEST
