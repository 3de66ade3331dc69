"""The judge's adapter and the bench: the daemon's policy behind an outside program's interface."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JUDGE = ROOT.parent / "shared" / "tools" / "governor_eval.py"


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not JUDGE.exists(), reason=f"needs the outside program at {JUDGE}")
@pytest.mark.parametrize("number", range(5))
def test_every_gate_is_passed_near_the_optimum(number):
    pytest.importorskip("numpy", reason="the outside program needs it")
    judge, adapter = load("governor_eval", JUDGE), load("adapter", ROOT / "bench" / "judges" / "governor.py")
    result = judge.simulate(judge.SCENARIOS[number], adapter.DenoisedPolicy(), seed=number + 1)
    assert result["gates"]
    assert result["score"] > 0.97
    assert result["over"] < 0.5


def test_the_bench_prints_its_table(capsys):
    load("bench_table", ROOT / "bench" / "governor.py").ours(0, 2, show=True)
    told = capsys.readouterr().out
    assert "knows all" in told
    assert "left to itself" in told
