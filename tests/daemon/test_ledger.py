from __future__ import annotations

import time

from denoised.daemon.ledger import Ledger


def test_a_clock_that_starts_in_1970_has_its_day_counted_among_many_that_are_remembered(tmp_path):
    ledger = Ledger(tmp_path / "energy.json", 1.0, 0.0)
    now = time.time()
    for day in range(70):
        ledger.add(float(day), 5.0, "rail", now + day * 86400)
    for second in range(5):
        ledger.add(100.0 + second, 5.0, "rail", 3 * 86400.0)
    assert ledger.today_j(3 * 86400.0) == 20.0
