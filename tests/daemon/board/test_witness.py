"""What a board admits to: the firmware's bits, the kernel's counters, and the words for them."""

from __future__ import annotations

import errno
import struct

import pytest
from denoised.daemon.board import raspberry_pi
from denoised.daemon.board.generic import Occurred
from denoised.daemon.board.raspberry_pi import ask_mailbox, parse_word
from denoised.daemon.board.sysfs import Look
from denoised.daemon.board.witness import known, news, problems
from denoised.daemon.core.reading import Reading, Traits

TRAITS = Traits("raspberry-pi", "Raspberry Pi 5", 80.0, 110.0, has_power=False, supply_a=3.0)
FINE = Reading(0.0, 50.0, throttled=False, throttle_events=0, under_voltage=False, under_voltage_events=0)


def reading(**words):
    return Reading(1.0, 81.25, **words)


def test_a_board_that_is_well_or_cannot_tell_has_nothing_to_say():
    assert problems(FINE, TRAITS) == problems(Reading(0.0, None), TRAITS) == []
    assert news(None, FINE) == news(FINE, FINE) == news(FINE, Reading(1.0, None)) == []


def test_a_weak_supply_and_throttling_are_problems_in_words_that_tell_what_to_do():
    now = reading(throttled=True, throttle_events=2, under_voltage=True, under_voltage_events=1, over_current_events=3)
    assert problems(now, TRAITS) == [
        "under-voltage now: the power supply or its cable is too weak (it promises 3 A, 5 A are wanted); "
        "the board may go off under load",
        "throttled now: the board slows itself down; see to cooling and supply",
    ]


def test_what_is_over_stays_a_problem_until_the_next_boot():
    after = reading(throttled=False, throttle_events=2, under_voltage=False, under_voltage_events=1)
    assert [p.partition(":")[0] for p in problems(after, TRAITS)] == [
        "under-voltage once since boot",
        "throttled 2 times since boot",
    ]


def test_the_log_has_one_line_for_each_change_and_none_in_between():
    began = reading(throttled=True, throttle_events=1, under_voltage=False, under_voltage_events=0)
    over = reading(throttled=False, throttle_events=1, under_voltage=False, under_voltage_events=0)
    assert news(FINE, began) == ["throttling began at 81.2 C"]
    assert news(began, began) == []
    assert news(began, over) == ["throttling ended at 81.2 C"]
    assert news(FINE, reading(throttled=False, throttle_events=1)) == ["throttled once since boot"]  # it was short
    assert news(FINE, reading(under_voltage=True)) == ["under-voltage: the supply sags"]
    assert news(FINE, reading(over_current_events=5)) == ["over-current protection acted 5 times since boot"]


def test_what_happened_before_the_daemon_began_is_told_once():
    assert news(None, reading(throttled=False, throttle_events=1)) == ["throttled once since boot"]


def test_a_board_that_does_not_answer_once_has_neither_news_nor_fewer_problems():
    before = reading(throttled=True, throttle_events=2, under_voltage=True, under_voltage_events=1, over_current_events=3)
    silent = known(before, Reading(2.0, None))
    assert news(before, silent) == news(silent, known(silent, before)) == []
    assert len(problems(silent, TRAITS)) == 2
    over = known(silent, reading(throttled=False, throttle_events=2, under_voltage=False, under_voltage_events=1))
    assert news(silent, over) == ["under-voltage is over", "throttling ended at 81.2 C"]


@pytest.mark.parametrize(
    ("word", "throttled", "events", "low", "lows"),
    [
        (0x0, False, 0, False, 0),
        (0x50005, True, 1, True, 1),
        (0x50000, False, 1, False, 1),  # has occurred since boot, is over
        (0xE0008, True, 1, False, 0),  # the soft limit
        (0x20002, True, 1, False, 0),  # the clock is capped
        (0x10001, False, 0, True, 1),
    ],
)
def test_a_pis_throttle_word(board_of, word, throttled, events, low, lows):
    path = "sys/devices/platform/soc/soc:firmware/get_throttled"
    found = board_of({path: f"{word:x}"}, kind="raspberry-pi").read(1.0)
    told = found.throttled, found.throttle_events, found.under_voltage, found.under_voltage_events
    assert told == (throttled, events, low, lows)


def test_each_new_beginning_is_counted_where_the_board_remembers_only_that_it_happened(board_of, tmp_path):
    path = "sys/devices/platform/soc/soc:firmware/get_throttled"
    board = board_of({path: "0"}, kind="raspberry-pi")
    counted = []
    for word in ("0", "40004", "40004", "40000", "40004", "40000"):
        (tmp_path / path).write_text(word)
        counted.append(board.read(1.0).throttle_events)
    assert counted == [0, 1, 1, 1, 2, 2]


def test_a_beginning_is_counted_once_and_unknown_is_no_end():
    occurred = Occurred()
    assert [occurred.see(now) for now in (None, True, None, True, False, True)] == [0, 1, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("text", "word"),
    [("50000", 0x50000), ("0x50000", 0x50000), ("0", 0), ("", None), ("throttled", None), ("-1", None), ("123456789", None)],
)
def test_the_word_is_hexadecimal_with_or_without_its_mark(text, word):
    assert parse_word(text) == word


def test_a_word_that_is_garbage_is_asked_for_at_the_next_source(board_of, tmp_path):
    path = "sys/devices/platform/soc/soc:firmware/get_throttled"
    tool = '#!/bin/sh\necho "throttled=0x4"\n'
    found = board_of({path: "garbage", "usr/bin/vcgencmd": tool}, kind="raspberry-pi").read(1.0)
    assert found.throttled is True and "throttle word" not in found.problems


def test_where_nothing_tells_it_throttling_is_unknown_and_never_denied(board_of, tmp_path):
    path = "sys/devices/platform/soc/soc:firmware/get_throttled"
    found = board_of({path: "garbage"}, kind="raspberry-pi").read(1.0)
    assert (found.throttled, found.throttle_events, found.under_voltage) == (None, None, None)
    assert "expected a hexadecimal word, found 'garbage'" in found.problems["throttle word"]


def test_the_mailbox_is_asked_by_the_firmwares_property_interface(tmp_path):
    (tmp_path / "vcio").write_bytes(b"")

    def firmware(fd, request, message, mutate):
        """What drivers/char/broadcom/vcio.c and the firmware do with a message of one tag."""
        assert request == 0xC0006400 | struct.calcsize("P") << 16
        size, code, tag, room, length, value, end = struct.unpack("=7I", message)
        assert (size, code, tag, room, end) == (28, 0, 0x00030046, 4, 0)
        assert value == 0  # a mask here would clear what others have not read yet
        struct.pack_into("=7I", message, 0, size, 0x80000000, tag, room, 0x80000004, 0x50005, end)

    look = Look()
    assert ask_mailbox(tmp_path / "vcio", look, "word", firmware) == "50005"
    assert look.problems == {}


def test_a_mailbox_that_refuses_is_unknown_and_says_why(tmp_path):
    def refuses(fd, request, message, mutate):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def errs(fd, request, message, mutate):
        struct.pack_into("=I", message, 4, 0x80000001)

    device, look = tmp_path / "vcio", Look()
    assert ask_mailbox(device, look, "word") is None
    assert look.problems["word"] == f"{device}: No such file or directory"
    device.write_bytes(b"")
    assert ask_mailbox(device, look, "word", refuses) is None
    assert look.problems["word"] == f"{device}: Operation not permitted"
    assert ask_mailbox(device, look, "word", errs) is None
    assert look.problems["word"] == f"{device}: the firmware answered 0x80000001"
    assert ask_mailbox(device, look, "word") is None  # a plain file knows no ioctl


def test_an_orins_counters_tell_a_sagging_supply_by_what_they_gain(board_of, tmp_path):
    tree = {"sys/class/hwmon/hwmon3/name": "soctherm_oc"}
    tree |= {f"sys/class/hwmon/hwmon3/oc{n}_event_cnt": "5" for n in (1, 2, 3)}
    board = board_of(tree, kind="jetson")
    assert (board.read(1.0).under_voltage, board.read(2.0).under_voltage_events) == (False, 5)
    (tmp_path / "sys/class/hwmon/hwmon3/oc1_event_cnt").write_text("6")
    (tmp_path / "sys/class/hwmon/hwmon3/oc3_event_cnt").write_text("9")
    found = board.read(3.0)
    assert (found.under_voltage, found.under_voltage_events, found.over_current_events) == (True, 6, 14)
    assert board.read(4.0).under_voltage is False


def test_an_orins_power_mode_is_told_by_name_and_its_table_follows(board_of, tmp_path):
    conf = "< POWER_MODEL NAME=15W ID=0 >\n< POWER_MODEL ID=7 NAME=7W >\n"
    tree = {"sys/firmware/devicetree/base/model": "NVIDIA Jetson Orin Nano\0", "etc/nvpmodel.conf": conf}
    board = board_of({**tree, "var/lib/nvpmodel/status": "pmode:0000"})
    assert (board.read(1.0).mode, board.traits.full_w) == ("15W", 13.0)
    (tmp_path / "var/lib/nvpmodel/status").write_text("pmode:0007")
    assert (board.read(2.0).mode, board.traits.full_w) == ("7W", 7.0)
    (tmp_path / "var/lib/nvpmodel/status").write_text("pmode:9")
    assert board.read(3.0).mode == "mode 9"
    (tmp_path / "var/lib/nvpmodel/status").write_text("off")
    found = board.read(4.0)
    assert found.mode is None and "expected pmode:NUMBER" in found.problems["power mode"]


@pytest.mark.parametrize(
    ("text", "limit"),
    [("temp_limit=70", 70.0), ("temp_limit=85\n[pi4]\ntemp_limit = 75 # cabinet", 75.0), ("#temp_limit=60", None), ("", None)],
)
def test_a_lower_limit_in_config_txt_counts(tmp_path, text, limit):
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/config.txt").write_text(text)
    assert raspberry_pi.configured_limit(tmp_path) == limit
