from __future__ import annotations

import time

import pytest
from denoised.daemon.clock import Clock, Mark, synchronised


def test_without_a_past_it_begins_at_the_wall_clock():
    assert abs(Clock().now() - time.time()) < 5


def test_a_wall_clock_that_is_set_does_not_move_it(monkeypatch):
    clock = Clock()
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert before <= clock.now() < before + 60
    assert clock.wall() == 4e9


def test_a_restart_in_the_same_boot_goes_on_by_the_boot_clock_whatever_the_wall_says(monkeypatch):
    mark = Clock().mark()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert mark.now <= Clock(mark).now() < mark.now + 60


@pytest.mark.parametrize(("off", "gone"), [(3600.0, 3600.0), (0.0, 0.0), (-86400.0, 0.0)])
def test_over_a_reboot_it_goes_on_by_the_wall_clock_and_never_back(off, gone):
    mark = Mark(now=1000.0, wall=time.time() - off, boottime=5.0, boot_id="the boot before")
    assert 1000.0 + gone <= Clock(mark).now() < 1000.0 + gone + 60


def test_the_kernel_says_whether_the_clock_is_disciplined_or_that_it_does_not_say():
    assert synchronised() in (True, False, None)
