from __future__ import annotations

import json
import time

import pytest
from denoised.daemon.board.energy import Integral
from denoised.daemon.core.job import Entry, Job
from denoised.daemon.core.reading import Traits
from denoised.daemon.ledger import Ledger, energy_of
from denoised.daemon.points import BoardPoint

NOON = time.mktime((2026, 11, 24, 12, 0, 0, 0, 0, -1))
DAY = 86400.0
TRAITS = Traits("generic", "g", 85.0, 100.0, has_power=True, idle_w=3.0, full_w=8.0)
RAN = {"run_ms": 4000, "paced_s": 0.0, "cpu_s": 2.0}


def ledger(tmp_path, tick=0.0):
    return Ledger(tmp_path / "energy.json", 1.0, tick)


def draw(book, watts, seconds, wall=NOON, tick=0.0):
    for n in range(seconds + 1):
        book.add(tick + n, watts, "rail", wall + n)


def test_days_and_months_are_added_up_and_kept(tmp_path):
    book = ledger(tmp_path)
    draw(book, 5.0, 100)
    draw(book, 5.0, 10, NOON + DAY, tick=1000.0)
    assert book.told(NOON)["today_j"] == pytest.approx(500)
    assert book.told(NOON + DAY) == {"today_j": pytest.approx(50), "month_j": pytest.approx(550), "method": "rail"}
    book.store(2000.0, now=True)
    assert ledger(tmp_path).told(NOON)["month_j"] == pytest.approx(550)


def test_a_clock_that_was_wrong_for_a_while_does_not_cost_the_totals_of_today(tmp_path):
    book = ledger(tmp_path)
    draw(book, 5.0, 100)
    draw(book, 5.0, 10, 0.0, tick=200.0)  # 1970, as after a boot without a network
    assert book.today_j(NOON) == pytest.approx(500)


def test_a_board_that_fell_silent_is_counted_without_a_gap_and_a_long_sleep_is_not(tmp_path):
    book = ledger(tmp_path)
    book.add(0.0, 5.0, "rail", NOON)
    book.add(4.0, 5.0, "model", NOON + 4)  # found out
    book.add(5.0, 5.0, "model", NOON + 5)
    assert book.today_j(NOON) == pytest.approx(25)
    book.add(500.0, 5.0, "model", NOON + 500)
    assert book.today_j(NOON) == pytest.approx(25)


def test_what_is_remembered_is_bounded(tmp_path):
    book = ledger(tmp_path)
    for day in range(100):
        draw(book, 5.0, 1, NOON + day * DAY, tick=10.0 * day)
    book.store(1e6, now=True)
    assert len(json.loads((tmp_path / "energy.json").read_text())["days"]) == 62


@pytest.mark.parametrize("text", ["", "[]", '{"days": 5}', '{"days": {"2026-11-24": "many"}}', "\0"])
def test_a_damaged_file_counts_as_absent(tmp_path, text):
    (tmp_path / "energy.json").write_text(text)
    assert ledger(tmp_path).today_j(NOON) == 0.0


def test_it_is_written_seldom(tmp_path):
    book = ledger(tmp_path)
    written = []
    for tick in range(0, 86400, 10):
        (tmp_path / "energy.json").unlink(missing_ok=True)
        book.store(float(tick))
        written.append((tmp_path / "energy.json").exists())
    assert sum(written) == 23
    book.worked()
    book.store(86400.0 + 500)
    assert (tmp_path / "energy.json").exists()


def entry(**more):
    made = Entry(Job("a", "toy", {}, 0, 4, 0.0))
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_a_job_under_the_boards_rails_is_told_by_them_with_what_they_missed_filled_in():
    meter = Integral(1.0)
    for at in (0.0, 1.0, 2.0, 3.0):
        meter.add(at, 7.0)
    told = energy_of(entry(meter=meter), RAN, TRAITS)
    assert told["energy_j"] == pytest.approx(28.0)
    assert told["energy"] == {"method": "rail", "uncertainty_j": pytest.approx(1.4), "per_sample_j": 7.0, "idle_j": 12.0}


def test_a_job_that_was_over_before_the_second_reading_is_told_by_the_calibration():
    for metered, method in ((True, "model"), (False, "estimate")):
        point = BoardPoint("sha", 0, 8, 1, 1, sample_s=0.5, busy_w=2.0, quality=0.9, metered=metered)
        told = energy_of(entry(point=point, meter=Integral(1.0)), {**RAN, "paced_s": 1.0}, TRAITS)
        assert (told["energy"]["method"], told["energy_j"]) == (method, pytest.approx(3.0 * 4 + 2.0 * 3))


def test_without_rails_and_calibration_it_is_an_estimate():
    told = energy_of(entry(), RAN, TRAITS)
    assert told["energy"]["method"] == "estimate"
    assert told["energy_j"] > told["energy"]["idle_j"] == 12.0


def test_a_job_that_never_ran_took_nothing_that_could_be_told():
    assert energy_of(entry(), {}, TRAITS) == {}


def test_a_clock_that_starts_in_1970_has_its_day_counted_among_many_that_are_remembered(tmp_path):
    book = ledger(tmp_path)
    for day in range(100):
        draw(book, 5.0, 1, NOON + day * DAY, tick=10.0 * day)
    draw(book, 5.0, 4, 3 * DAY, tick=5000.0)
    assert book.today_j(3 * DAY) == 20.0
