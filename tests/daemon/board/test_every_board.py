"""One suite over every recorded board: what it says, whatever its drivers are numbered, and whatever of it is broken."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from denoised.config.tree import Board as BoardConfig
from denoised.daemon.board import sysfs
from denoised.daemon.board.board import find_board
from hypothesis import given
from hypothesis import strategies as st


def said(board, now=1.0):
    return board.read(now), board.traits


def test_a_board_is_known_and_read_by_name(board_of, recorded):
    reading, traits = said(board_of(recorded.files))
    assert (traits.kind, traits.name, traits.throttle_c) == (recorded.kind, recorded.name, recorded.throttle_c)
    assert (traits.has_power, traits.power_from) == (bool(recorded.power_from), recorded.power_from)
    assert {name: getattr(traits, name) for name in recorded.traits} == recorded.traits
    assert reading.temp_c == recorded.temp_c
    assert reading.power_w == pytest.approx(recorded.power_w)
    assert tuple(reading.rails_w) == recorded.rails
    assert (reading.speed, reading.fan, reading.mode) == (recorded.speed, recorded.fan, recorded.mode)
    assert (reading.throttled, reading.throttle_events) == (recorded.throttled, recorded.throttle_events)
    assert (reading.under_voltage, reading.over_current_events) == (recorded.under_voltage, recorded.over_current_events)
    assert set(reading.problems) == set(recorded.unknown)


def test_numbers_that_move_between_boots_change_nothing(board_of, recorded, renumbered_of):
    reading, traits = said(board_of(renumbered_of(recorded.files)))
    assert (traits.name, traits.throttle_c, traits.power_from) == (recorded.name, recorded.throttle_c, recorded.power_from)
    assert reading.temp_c == recorded.temp_c
    assert reading.power_w == pytest.approx(recorded.power_w)
    assert (reading.throttled, reading.over_current_events) == (recorded.throttled, recorded.over_current_events)


@pytest.mark.parametrize("broken", ["gone", "empty", "garbage", "a folder", "dead", "endless"])
def test_whatever_is_broken_the_rest_is_read_and_nothing_is_raised(board_of, recorded, tmp_path, broken):
    board = board_of(recorded.files)
    whole = board.read(0.0)
    for name in recorded.files:
        path = tmp_path / name
        if not path.exists():
            continue
        kept = path.read_bytes(), path.stat().st_mode
        _break(path, broken)
        # Once with the sensors as they were found, once looked for anew.
        for reading in (board.read(1.0), board.read(100.0)):
            assert all(t in (None, whole.zones_c.get(n)) for n, t in reading.zones_c.items())
            assert reading.temp_c in (None, *whole.zones_c.values())
            assert reading.power_w is None or reading.power_w == pytest.approx(whole.power_w)
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(kept[0])
        path.chmod(kept[1])
    again = board.read(200.0)
    assert (again.temp_c, again.power_w) == (whole.temp_c, pytest.approx(whole.power_w))


def _break(path: Path, how: str) -> None:
    path.unlink()
    if how == "dead":
        path.symlink_to("/proc/self/mem")
    elif how == "a folder":
        path.mkdir()
    elif how != "gone":
        path.write_bytes({"empty": b"", "garbage": b"\x1b\xff error", "endless": b"9" * 100_000}[how])


def test_traits_are_the_same_object_while_nothing_changes(board_of, recorded):
    board = board_of(recorded.files)
    traits = board.traits
    for now in (0.0, 1.0, 61.0, 500.0):
        board.read(now)
    assert board.traits is traits


def test_a_rail_that_sways_and_a_mode_that_does_not_answer_once_make_no_other_board(board_of, recorded, tmp_path):
    board = board_of(recorded.files)
    traits = board.traits
    for volts in tmp_path.rglob("in*_input"):
        volts.write_text(f"{int(float(volts.read_text()) * 0.97)}\n")
    status = tmp_path / "var/lib/nvpmodel/status"
    if status.exists():
        status.write_text("")
    board.read(61.0)
    assert board.traits is traits


def test_a_sensor_that_has_gone_for_good_is_looked_for_once_a_minute(board_of, recorded, tmp_path, monkeypatch):
    board = board_of(recorded.files)
    board.read(1.0)
    looks: list[float] = []
    find = board._find

    def looked(now):
        looks.append(now)
        find(now)

    monkeypatch.setattr(board, "_find", looked)
    zones = list((tmp_path / "sys/class/thermal").glob("thermal_zone*"))
    for zone in zones:
        shutil.rmtree(zone)
    for now in range(2, 100):
        board.read(float(now))
    assert looks == ([3.0, 63.0] if zones else [61.0])


def test_each_reading_that_failed_says_where_and_why(board_of, recorded, tmp_path):
    board = board_of(recorded.files)
    for folder in tmp_path.iterdir():
        shutil.rmtree(folder)
    reading = board.read(1.0)
    assert reading.temp_c is None and reading.power_w is None
    assert all(t is None for t in reading.zones_c.values())
    assert {f"zone {name}" for name in reading.zones_c} <= set(reading.problems)
    assert all(str(board.sysfs.parent) in why or "unknown" in why for why in reading.problems.values())


def test_a_zone_that_was_held_on_to_is_not_replaced_by_another_when_it_goes(board_of, tmp_path, recorded):
    board = board_of(recorded.files)
    for zone in (tmp_path / "sys/class/thermal").glob("thermal_zone*"):
        if (zone / "type").read_text().strip() not in ("acpitz", "wlan0"):
            shutil.rmtree(zone)
    for chip in (tmp_path / "sys/class/hwmon").glob("*"):
        shutil.rmtree(chip)
    assert board.read(1.0).temp_c is None
    assert board.read(100.0).temp_c is None


def test_a_cap_is_set_read_back_and_given_back(board_of, tmp_path, recorded):
    board = board_of(recorded.files)
    clocks = board.traits.clocks
    limits = [p for p in tmp_path.rglob("*") if p.name in ("scaling_max_freq", "max_freq")]
    before = [p.read_text().strip() for p in limits]
    if not limits:
        assert clocks == (1.0,)
        assert board.cap_clock(0.5) == "this board shows no clock that can be capped"
        return
    assert list(clocks) == sorted(clocks) and clocks[-1] == 1.0 and len(clocks) > 2
    assert board.cap_clock(clocks[2]) is None
    for path, was in zip(limits, before):
        assert int(path.read_text()) == max(int(clocks[2] * int(was)), int(_lowest(path)))
    assert board.cap_clock(1.0) is None
    assert [p.read_text().strip() for p in limits] == before


def _lowest(limit: Path) -> str:
    return (limit.parent / ("cpuinfo_min_freq" if limit.name == "scaling_max_freq" else "min_freq")).read_text()


def test_the_family_in_the_configuration_goes_before_what_is_found(board_of, recorded):
    assert board_of(recorded.files, kind="generic").traits.kind == "generic"
    assert board_of(recorded.files, kind="raspberry-pi").traits.throttle_c <= 80.0


def test_the_machine_of_this_test_is_a_board_as_well():
    board = find_board(BoardConfig())
    reading = board.read(1.0)
    assert board.traits.name
    assert reading.temp_c is not None or reading.problems


@given(st.binary(max_size=40))
def test_no_text_in_a_sensors_file_is_taken_for_more_than_a_number_in_range(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("zone") / "temp"
    path.write_bytes(text)
    look = sysfs.Look()
    celsius = look.celsius(path, "zone")
    assert (celsius is None) == ("zone" in look.problems)
    if celsius is not None:
        assert 1.0 <= abs(celsius) <= 150.0
        assert celsius == float(text.strip(b"\0 \t\r\n")) / 1e3


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("45.2'C", 'expected a number in millidegrees, found "45.2\'C"'),
        ("temp=45.2", "expected a number in millidegrees, found 'temp=45.2'"),
        ("45", "found 45, which is no temperature of a running chip in millidegrees"),
        ("452", "found 452, which is no temperature of a running chip in millidegrees"),
        ("0", "found 0, which is no temperature of a running chip in millidegrees"),
        ("45200000", "expected -60000 to 150000 millidegrees, found 45200000"),
        ("", "empty"),
        ("nan", "expected a number in millidegrees, found 'nan'"),
        ("1e5", "expected a number in millidegrees, found '1e5'"),
        ("-256000", "expected -60000 to 150000 millidegrees, found -256000"),
    ],
)
def test_a_temperature_in_another_unit_is_discarded_and_not_guessed(tmp_path, text, why):
    look = sysfs.Look()
    (tmp_path / "temp").write_text(text + "\n")
    assert look.celsius(tmp_path / "temp", "zone") is None
    assert look.problems["zone"] == f"{tmp_path}/temp: {why}"
