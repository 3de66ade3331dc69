"""The clock cap: the user's own limit, never more, and given back whatever happens."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys

import pytest
from denoised.daemon.board import clocks, sysfs
from denoised.daemon.board.clocks import Cap, cpu_clocks, gpu_clock

needs_a_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may write every file")


def policy(root, number=0, top=2000000, lowest=400000, limit=None):
    folder = root / f"devices/system/cpu/cpufreq/policy{number}"
    folder.mkdir(parents=True)
    values = {"cpuinfo_min_freq": lowest, "cpuinfo_max_freq": top, "scaling_max_freq": limit or top, "scaling_cur_freq": lowest}
    for name, value in values.items():
        (folder / name).write_text(f"{value}\n")
    return folder / "scaling_max_freq"


def test_each_cluster_is_held_at_its_own_share_and_never_below_its_lowest_step(tmp_path):
    big, little = policy(tmp_path, 0, 2000000, 400000), policy(tmp_path, 4, 1000000, 600000)
    cap = Cap(cpu_clocks(tmp_path))
    assert cap.set(0.5) is None
    assert (big.read_text(), little.read_text()) == ("1000000\n", "600000\n")


def test_a_limit_that_a_person_had_set_is_kept_and_given_back(tmp_path):
    limit = policy(tmp_path, limit=1200000)
    cap = Cap(cpu_clocks(tmp_path))
    assert cap.set(0.9) is None
    assert limit.read_text() == "1200000\n"
    assert cap.set(0.5) is None
    assert cap.release() is None
    assert limit.read_text() == "1200000\n"


def test_a_limit_that_is_set_while_we_hold_ours_is_not_overwritten_when_we_let_go(tmp_path):
    limit = policy(tmp_path)
    cap = Cap(cpu_clocks(tmp_path))
    cap.set(0.5)
    limit.write_text("1500000\n")  # a power mode was chosen
    assert cap.release() is None
    assert limit.read_text() == "1500000\n"


def test_a_newer_and_higher_limit_is_what_we_give_back_later(tmp_path):
    limit = policy(tmp_path, limit=1200000)
    cap = Cap(cpu_clocks(tmp_path))
    cap.set(0.5)
    limit.write_text("1500000\n")
    cap.set(0.25)
    assert limit.read_text() == "500000\n"
    cap.release()
    assert limit.read_text() == "1500000\n"


def test_what_the_kernel_shows_while_it_throttles_is_nobodys_limit(tmp_path):
    limit = policy(tmp_path, limit=800000)
    cap = Cap(cpu_clocks(tmp_path))
    cap.throttled = True
    assert cap.set(0.5) is None
    cap.release()
    assert limit.read_text() == "2000000\n"


@pytest.fixture
def throttle(monkeypatch):
    """throttle(kHz): the kernel shows no limit above this one from now on, whoever asked for what; None: it shows all."""
    most: list[float] = [math.inf]
    read = sysfs.quantity

    def shown(path):
        found = read(path)
        return min(found, most[0]) if found is not None and path.name == "scaling_max_freq" else found

    monkeypatch.setattr(clocks, "quantity", shown)
    return lambda khz: most.__setitem__(0, khz or math.inf)


@pytest.mark.parametrize("let_go", [lambda cap: cap.set(1.0), lambda cap: cap.release()], ids=["set", "release"])
def test_a_cap_set_while_the_kernel_throttles_is_given_back_when_it_does_no_more(tmp_path, throttle, let_go):
    limit, keep = policy(tmp_path, limit=1500000), tmp_path / "clock.json"
    cap = Cap(cpu_clocks(tmp_path), keep)
    assert cap.set(0.9) is None
    throttle(600000)
    cap.throttled = True
    assert cap.set(0.45) is None
    throttle(None)
    cap.throttled = False
    assert cap.set(0.5) is None
    assert limit.read_text() == "1000000\n"
    assert let_go(cap) is None
    assert limit.read_text() == "1500000\n"
    assert not keep.exists()


def test_a_cap_is_given_back_while_the_kernel_throttles(tmp_path, throttle):
    limit = policy(tmp_path, limit=1500000)
    cap = Cap(cpu_clocks(tmp_path))
    cap.set(0.45)
    throttle(600000)
    cap.throttled = True
    assert cap.release() is None
    assert limit.read_text() == "1500000\n"


def test_a_kernel_that_holds_more_than_was_asked_for_is_told_of_and_gets_its_limit_back(tmp_path, monkeypatch):
    limit, read = policy(tmp_path, limit=1500000), sysfs.quantity
    cap = Cap(cpu_clocks(tmp_path))
    monkeypatch.setattr(clocks, "quantity", lambda path: 1.2 * (read(path) or 0))
    assert "asked for 900000 kHz, the kernel holds 1.08e+06" in str(cap.set(0.45))
    assert limit.read_text() == "1800000\n"  # 1.2 times what it had, as it showed it


def test_a_lower_limit_that_is_set_while_we_hold_ours_is_not_raised(tmp_path):
    limit = policy(tmp_path)
    cap = Cap(cpu_clocks(tmp_path))
    cap.set(0.75)
    limit.write_text("1000000\n")  # a power mode was chosen
    assert cap.set(0.625) is None
    assert limit.read_text() == "1000000\n"
    cap.release()
    assert limit.read_text() == "1000000\n"


def test_a_kernel_that_does_not_listen_is_told_of_and_all_is_as_it_was(tmp_path):
    first = policy(tmp_path, 0)
    deaf = policy(tmp_path, 4)
    deaf.unlink()
    deaf.symlink_to("/dev/full")  # takes no write
    assert str(Cap(cpu_clocks(tmp_path)).set(0.5)).startswith(f"{deaf}: ")
    assert first.read_text() == "2000000\n"


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(tmp_path, share):
    limit = policy(tmp_path)
    assert str(Cap(cpu_clocks(tmp_path)).set(share)).startswith("expected a share")
    assert limit.read_text() == "2000000\n"


def test_a_daemon_that_was_killed_leaves_its_cap_and_the_next_one_takes_it_back(tmp_path):
    limit, keep = policy(tmp_path), tmp_path / "clock.json"
    Cap(cpu_clocks(tmp_path), keep).set(0.5)
    assert limit.read_text() == "1000000\n"
    Cap(cpu_clocks(tmp_path), keep)
    assert limit.read_text() == "2000000\n"
    assert not keep.exists()


@pytest.mark.parametrize("left", ["", "[]", '{"/etc/passwd": 1}', '{"PATH": "x"}', "\xff"])
def test_a_damaged_note_of_the_cap_writes_nothing(tmp_path, left):
    limit, keep = policy(tmp_path, limit=1200000), tmp_path / "clock.json"
    keep.write_text(left.replace("PATH", str(limit)))
    Cap(cpu_clocks(tmp_path), keep)
    assert limit.read_text() == "1200000\n"


@pytest.mark.parametrize("end", ["exit", "exception"])
def test_the_cap_ends_with_the_process(tmp_path, end):
    limit = policy(tmp_path)
    code = "import sys; from pathlib import Path; from denoised.daemon.board.clocks import Cap, cpu_clocks\n"
    code += f"Cap(cpu_clocks(Path({str(tmp_path)!r}))).set(0.5)\nprint(Path({str(limit)!r}).read_text())\n"
    code += "raise ValueError" if end == "exception" else ""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "1000000"
    assert limit.read_text() == "2000000\n"
    assert done.returncode != -signal.SIGKILL


@needs_a_user
def test_without_the_right_no_cap_is_offered_and_the_file_is_named(tmp_path):
    limit = policy(tmp_path)
    limit.chmod(0o444)
    cap = Cap(cpu_clocks(tmp_path))
    assert cap.shares == (1.0,)
    assert cap.set(0.5) == f"no right to write {limit}: see 'The clock cap' in docs/boards.md"


def test_old_kernels_show_a_clock_for_each_core(tmp_path):
    for core in range(2):
        folder = tmp_path / f"devices/system/cpu/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        for name, value in {"cpuinfo_min_freq": 600000, "cpuinfo_max_freq": 1200000, "scaling_max_freq": 1200000}.items():
            (folder / name).write_text(f"{value}\n")
    assert [c.name for c in cpu_clocks(tmp_path)] == ["cpu0", "cpu1"]


def test_a_gpu_without_a_list_of_steps_has_its_limits(tmp_path):
    for name, value in {"min_freq": 306000000, "max_freq": 918000000, "cur_freq": 306000000}.items():
        (tmp_path / name).write_text(f"{value}\n")
    clock = gpu_clock(tmp_path)
    assert clock
    assert (clock.lowest, clock.top, clock.unit) == (306e6, 918e6, "Hz")
    (tmp_path / "max_freq").write_text("none")
    assert gpu_clock(tmp_path) is None
