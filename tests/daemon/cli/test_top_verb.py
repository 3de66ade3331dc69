"""`denoised top`: what it shows of a daemon's words, and how it behaves on a terminal and elsewhere."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import Any

import pytest
from denoised.daemon.cli.panel import Panel, Seen
from hypothesis import given
from hypothesis import strategies as st

STATUS = {
    "state": "online",
    "version": "0.1.0",
    "board": "Raspberry Pi 5 Model B Rev 1.0",
    "models": [{"name": f"model-{n}", "version": "1.0.0", "kind": "defect-synthesis"} for n in range(20)],
    "problems": [{"code": "engine", "about": "worker", "message": "the worker died 3 times in a row"}],
}
TELEMETRY: dict[str, Any] = {
    "time": "2026-11-24T15:00:00.000Z",
    "uptime_s": 7500,
    "governor": {
        "temp_c": 73.5, "limit_c": 75.0, "throttle_c": 80.0, "headroom_k": 1.5, "power_w": 6.25, "clock": 0.9, "duty": 0.8,
        "reason": "heat: holds 75.0 C", "trust": None, "throttle_events": 1,
        "under_voltage": False, "over_current_events": None,
        "promises": {"made": 12, "kept": 11, "broken": 1}, "share": False, "board": {"kind": "raspberry-pi", "name": "A Pi"},
    },
    "operating_point": {"variant": "int8", "sampler": "dpmpp_2m", "steps": 8, "batch": 4, "threads": 3},
    "energy": {"today_j": 12345.6, "month_j": 3.01e6, "method": "rail"},
    "zones_c": {"cpu": 73.5, "radio": None},
    "queue": {"jobs": 3, "max_jobs": 1000},
    "outbox": {"waiting": {"result": 2, "event": 1}},
    "running": [{"id": "part-1", "kind": "defect-synthesis", "state": "running"}],
    "jobs": {"done": 120, "failed": 2},
}  # fmt: skip
EVENT = {"id": "part-1", "state": "running", "step": 12, "steps": 20, "item": 2, "items": 8}


def seen(telemetry=TELEMETRY, status=STATUS):
    found = Seen("denoised/gw1")
    for topic, value in (("status", status), ("telemetry", telemetry), ("jobs/part-1/event", EVENT)):
        found.take(f"denoised/gw1/{topic}", json.dumps(value).encode(), 100.0)
    return found


def shown(found, width=80, height=24, now=101.0):
    return Panel(found, now, colours=False).lines(width, height)


def test_a_terminal_of_80_by_24_holds_what_matters_and_the_rest_is_left_out():
    lines = shown(seen())
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for words in (
        "denoised/gw1  online for 2 h 5 min  0.1.0  A Pi",
        "temp      73.5 C of 75.0  [###############-]  headroom 1.5 K, throttles at 80",
        "power      6.2 W  clock 90%  pace 80%  energy 12.3 kJ today, 3.01 MJ this mo",
        "point    int8 dpmpp_2m, 8 steps, 3 threads, batch 4",
        "governor heat: holds 75.0 C  takes no shared jobs",
        "supply   under-voltage no, over-current unknown, throttled once",
        "promises 12 made, 11 kept, 1 broken",
        "queue    3 of 1000 jobs, 3 messages to deliver, 120 done, 2 failed",
        "job      part-1                   defect-synthesis   running  [######----]",
        "PROBLEM  worker: the worker died 3 times in a row",
        "model    model-0 1.0.0 defect-synthesis",
    ):
        assert words in text, words
    assert "zones    cpu 73.5" in shown(seen(), height=100)[-1]


def test_a_sensor_that_is_not_believed_is_said_beside_the_reason():
    blind = {**TELEMETRY, "governor": {**TELEMETRY["governor"], "trust": "stuck for 40 s", "share": True}}
    assert "governor heat: holds 75.0 C  sensor not believed: stuck for 40 s" in shown(seen(blind))


def test_the_one_line_for_a_log_holds_the_same():
    assert Panel(seen(), 101.0, colours=False).line() == (
        "2026-11-24T15:00:00.000Z, 73.5 C of 75.0, 6.2 W, clock 90%, pace 80%, 3 jobs; part-1 step 12/20 item 2/8; "
        "heat: holds 75.0 C"
    )


@pytest.mark.parametrize("missing", [*TELEMETRY, None])
def test_what_an_older_daemon_does_not_tell_is_left_out(missing):
    telemetry = {} if missing is None else {name: value for name, value in TELEMETRY.items() if name != missing}
    assert shown(seen(telemetry))[0].startswith("denoised/gw1  online")
    assert Panel(seen(telemetry), 101.0, colours=False).line()


FIELDS = [*TELEMETRY["governor"], "id", "step"]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from([*TELEMETRY]), values, max_size=6),
    st.dictionaries(st.sampled_from([*STATUS, "state"]), values, max_size=4),
    st.integers(1, 300),
    st.integers(1, 60),
)
def test_whatever_is_said_the_panel_is_drawn_within_its_window_and_without_control_characters(telemetry, status, width, height):
    found = seen({**TELEMETRY, **telemetry}, {**STATUS, **status})
    lines = shown(found, width, height)
    assert len(lines) <= height and max(map(len, lines)) <= width
    assert "".join(lines).isprintable()
    assert Panel(found, 101.0, colours=False).line().isprintable()
    json.loads(found.json())


def test_escapes_that_come_over_the_bus_do_not_reach_the_terminal():
    evil = {"code": "x", "about": "a\033]0;title\007", "message": "b\033[2J"}
    assert "\033" not in "".join(shown(seen(status={**STATUS, "problems": [evil]})))


def test_what_is_no_json_object_is_passed_over():
    found = seen()
    for payload in (b"", b"[]", b"\xff", b"[" * 100_000, b"NaN"):
        for topic in ("status", "telemetry", "jobs/x/event", "jobs/refused"):
            found.take(f"denoised/gw1/{topic}", payload, 102.0)
    assert found.status == STATUS and found.telemetry == TELEMETRY


def test_a_job_that_is_over_goes_and_one_that_failed_is_kept_with_its_reason():
    found = seen()
    failed = {
        "id": "part-1",
        "state": "failed",
        "time": "2026-11-24T15:00:01.000Z",
        "error": {"code": "input", "message": "no"},
    }
    found.take("denoised/gw1/jobs/part-1/event", json.dumps({**EVENT, "state": "failed"}).encode(), 102.0)
    assert found.jobs == {}
    for _ in range(9):
        found.take("denoised/gw1/jobs/part-1/result", json.dumps(failed).encode(), 102.0)
    found.take("denoised/gw1/jobs/part-2/result", json.dumps({"id": "part-2", "state": "done"}).encode(), 102.0)
    assert len(found.refused) == 5
    assert "failed   15:00:01 part-1 input: no" in shown(found)


def test_old_figures_are_called_old():
    assert shown(seen(), now=130.0)[0].endswith("SILENT for 30 s")


def test_a_daemon_that_is_not_there_says_so_in_one_line():
    assert shown(Seen("denoised/gw1")) == ["denoised/gw1: never seen at this broker; is 'denoised run' started with this co>"]
    found = Seen("denoised/gw1")
    found.take("denoised/gw1/status", b'{"state": "offline"}', 1.0)
    assert shown(found) == ["denoised/gw1: offline"]


def test_colours_are_of_terminals_alone():
    assert "\033[31m" in "".join(Panel(seen(), 101.0, colours=True).lines(80, 24))
    assert "\033" not in "".join(Panel(seen(), 101.0, colours=False).lines(80, 24))


# ---- beside a real daemon --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(make_shared_daemon):
    return make_shared_daemon()


def top(gateway, *options, **how):
    command = [sys.executable, "-m", "denoised", "top", "--config", str(gateway.config), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=gateway.folder, **how)


def test_one_look_ends_by_itself(gateway):
    process = top(gateway, "--once")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.startswith(f"{gateway.base}  online for ")
    assert "queue    0 of 1000 jobs" in out and "\033" not in out


def test_one_look_as_json_is_what_is_on_the_bus(gateway):
    process = top(gateway, "--once", "--json")
    out, _ = process.communicate(timeout=60)
    told = json.loads(out)
    assert process.returncode == 0
    assert told.keys() == {"status", "telemetry", "jobs", "refused"}
    assert told["status"]["state"] == "online" and "queue" in told["telemetry"]


def test_without_a_terminal_there_is_a_line_for_each_telemetry_and_ctrl_c_is_no_failure(gateway):
    process = top(gateway)
    lines = [process.stdout.readline() for _ in range(4)]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert all(re.match(r"\S+Z, .* jobs", line) for line in lines[1:]), lines


def test_without_a_daemon_the_exit_status_is_1(gateway, tmp_path):
    (tmp_path / "denoised.yaml").write_text(f"{{gateway: {{id: nobody}}, mqtt: {{port: {gateway.settings['mqtt']['port']}}}}}")
    command = [sys.executable, "-m", "denoised", "top", "--once", "--config", str(tmp_path / "denoised.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 1
    assert "never seen at this broker" in done.stdout


def test_without_a_broker_the_exit_status_is_1_and_says_where_it_looked(tmp_path):
    (tmp_path / "denoised.yaml").write_text("{mqtt: {port: 1}}")
    command = [sys.executable, "-m", "denoised", "top", "--config", str(tmp_path / "denoised.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("denoised top: no connection to 127.0.0.1:1")


class Terminal:
    """A pseudo terminal with the command on it, and all that it has drawn."""

    def __init__(self, gateway, rows, columns):
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        command = [sys.executable, "-m", "denoised", "top", "--config", str(gateway.config)]
        env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, cwd=gateway.folder, env=env, start_new_session=True
        )
        os.close(slave)
        self.drawn = ""

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, pattern, patience=60.0):
        """Reads until this was drawn since the last call."""
        end, start = time.monotonic() + patience, len(self.drawn)
        while not re.search(pattern, self.drawn[start:], re.DOTALL):
            assert time.monotonic() < end, self.drawn[-2000:]
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.drawn += os.read(self.master, 65536).decode()
                except OSError:  # the other end is closed
                    break
        return self.drawn[start:]


def test_on_a_terminal_a_screen_is_drawn_in_its_size_and_ctrl_c_gives_the_terminal_back(gateway):
    terminal = Terminal(gateway, 24, 80)
    frame = re.compile(r"\033\[H(.*?)\033\[K\033\[J", re.DOTALL)
    try:
        told = terminal.until(r"\033\[H.*queue .*\033\[J")
        assert told.startswith("\033[?1049h\033[?25l")
        _fits(frame.findall(told)[-1], 24, 80)
        terminal.resize(5, 40)
        told = terminal.until(r"\033\[J.*\033\[J.*\033\[J")
        _fits(frame.findall(told)[-1], 5, 40)
        terminal.process.send_signal(signal.SIGINT)
        terminal.until(r"\033\[\?25h\033\[\?1049l")
        assert terminal.process.wait(60) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            terminal.process.kill()
        os.close(terminal.master)


def _fits(frame, rows, columns):
    lines = re.sub(r"\033\[[0-9;]*[mK]", "", frame).split("\r\n")
    assert len(lines) <= rows and max(map(len, lines)) <= columns, lines
