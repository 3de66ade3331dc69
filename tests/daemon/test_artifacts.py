from __future__ import annotations

import os

import pytest
from denoised.daemon.artifacts import sweep


@pytest.fixture
def folder(tmp_path):
    """Three jobs of 1000 bytes each, 30, 20 and 10 s old at time 1000; one that is being written."""
    for name, changed in (("old", 970), ("mid", 980), ("new", 990), (".busy.part", 900)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(bytes(1000))
        os.utime(tmp_path / name, (changed, changed))
    return tmp_path


def never(job_id):
    return False


def test_nothing_goes_while_quota_and_age_hold(folder):
    assert sweep(folder, 3000, 100.0, 1000.0, never) == []


def test_over_the_quota_the_oldest_go_first_and_no_more_than_needed(folder):
    assert sweep(folder, 2000, 100.0, 1000.0, never) == ["old"]
    assert sorted(p.name for p in folder.iterdir()) == [".busy.part", "mid", "new"]


def test_what_is_too_old_goes(folder):
    assert sweep(folder, 10**9, 15.0, 1000.0, never) == ["old", "mid"]


def test_what_is_not_delivered_stays_whatever_the_quota_says(folder):
    assert sweep(folder, 0, 1.0, 1000.0, lambda job_id: job_id == "old") == ["mid", "new"]


def test_a_folder_that_is_not_there_is_no_crash(tmp_path):
    assert sweep(tmp_path / "none", 0, 0.0, 0.0, never) == []
