from __future__ import annotations

import json
import logging

from denoised.daemon.logs import RateLimit
from denoised.daemon.recorder import Recorder, flights


def record(words="no broker at %s", *args):
    return logging.LogRecord("bus", logging.ERROR, "f", 1, words, args or ("a",), None)


def test_the_eleventh_of_one_kind_in_a_minute_is_counted_and_not_written():
    now = [0.0]
    limit = RateLimit(lambda: now[0])
    assert [limit.filter(record("no broker at %s", str(n))) for n in range(12)] == [True] * 10 + [False] * 2
    assert limit.filter(record("something else %s"))
    now[0] = 61.0
    late = record("no broker at %s", "last")
    assert limit.filter(late)
    assert late.getMessage() == "no broker at last (and 2 more like it before)"


def test_words_that_never_repeat_do_not_grow_it():
    limit = RateLimit(lambda: 0.0)
    for n in range(5000):
        limit.filter(record(f"{n} %s"))
    assert len(limit._seen) <= 1001


def test_a_dump_holds_the_fault_and_what_came_before_it(tmp_path):
    recorder = Recorder(tmp_path / "flight")
    recorder.emit(record())
    recorder.note(1.0, {"memory_mb": {"worker": 90.0}})
    recorder.dump("the worker died", 2.0, 100.0)
    (path,) = flights(tmp_path / "flight")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["level"] for line in lines] == ["FAULT", "ERROR", "MEASURED"]
    assert (lines[0]["text"], lines[1]["text"]) == ("the worker died", "no broker at a")


def test_faults_in_a_loop_write_one_record_a_minute_and_keep_the_newest_eight(tmp_path):
    recorder = Recorder(tmp_path)
    for second in range(0, 1200, 10):
        recorder.dump(f"fault {second}", float(second), float(second))
    found = flights(tmp_path)
    assert len(found) == 8
    assert json.loads(found[0].read_text().splitlines()[0])["text"] == "fault 1140"


def test_a_disk_that_takes_no_record_is_no_second_fault(tmp_path, caplog):
    (tmp_path / "flight").write_text("a file where the folder should be")
    Recorder(tmp_path / "flight").dump("why", 1.0, 1.0)
    assert "no flight record of 'why'" in caplog.text


def test_the_ring_is_bounded(tmp_path):
    recorder = Recorder(tmp_path)
    for _ in range(5000):
        recorder.emit(record())
    assert len(recorder._ring) == 600
