from __future__ import annotations

import pytest
from denoised.daemon.core.health import Worker, hangs, too_big


@pytest.mark.parametrize(
    ("state", "silent_s", "longest_step_s", "verdict"),
    [
        ("busy", 29.0, 0.1, False),
        ("busy", 31.0, 0.1, True),
        ("busy", 31.0, 2.0, False),
        ("busy", 61.0, 2.0, True),
        ("idle", 31.0, 0.1, True),
        ("loading", 60.0, 0.1, False),
        ("loading", 121.0, 0.1, True),
        ("none", 1e6, 0.1, False),
    ],
)
def test_silent_for_longer_than_its_time_is_a_hang(state, silent_s, longest_step_s, verdict):
    assert hangs(Worker(state, silent_s), 30.0, longest_step_s) is verdict


@pytest.mark.parametrize(
    ("state", "rss_mb", "verdict"),
    [
        ("idle", None, None),
        ("idle", 99.0, None),
        ("idle", 101.0, "renew"),
        ("busy", 101.0, None),
        ("busy", 149.0, None),
        ("busy", 151.0, "kill"),
        ("loading", 151.0, "kill"),
    ],
)
def test_a_worker_that_grew_is_renewed_when_idle_and_ended_when_it_is_half_as_big_again(state, rss_mb, verdict):
    assert too_big(Worker(state, 0.0, rss_mb), 100.0) == verdict
