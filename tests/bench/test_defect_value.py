import importlib.util
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("defect_value", ROOT / "bench" / "defect_value.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(arm, number, miss):
    """A run in which every class has the tiles and misses of `miss`."""
    classes = ("blowhole", "break", "crack")
    return {
        "k": 1,
        "list": number,
        "arm": arm,
        "seed": 0,
        "miss": dict.fromkeys(classes, miss),
        "escape": dict.fromkeys(classes, miss),
    }


def test_without_the_judge_it_says_that_it_is_skipped(bench, tmp_path, capsys):
    gone = tmp_path / "judge.py"
    assert bench.main(["--judge", str(gone), "--tiles", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert f"skipped: {gone}" in capsys.readouterr().out


def test_tiles_of_the_listed_pictures_are_not_tested_on(bench, tmp_path):
    for part, tile in (("train", "t001"), ("train", "t002"), ("val", "t003")):
        folder = tmp_path / part / "crack"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{tile}_e1_1.jpg").touch()
    assert [p.name[:4] for p in bench._tests(tmp_path, {"t001"})] == ["t002", "t003"]


def test_a_cut_is_that_of_the_means_over_tiles_and_lists(bench):
    pairs = [[row("c", 0, {"t1": 0.2, "t2": 0.4}), row("b", 0, {"t1": 0.5, "t2": 0.7})]]
    pairs.append([row("c", 1, {"t1": 0.3}), row("b", 1, {"t1": 0.6})])
    cut, at_breaks = bench.cut_by(pairs, None)
    assert cut == pytest.approx(1 - 0.6 / 1.2) and at_breaks == pytest.approx(0.5)


def test_the_interval_of_arms_that_differ_alike_on_every_tile_is_narrow_and_of_others_wide(bench):
    rng = np.random.default_rng(0)
    other = {f"t{n}": 0.6 for n in range(9)}
    alike, apart = dict.fromkeys(other, 0.3), {t: 0.6 * n / 8 for n, t in enumerate(other)}
    widths = []
    for mine in (alike, apart):
        cuts = [bench.cut_by([[row("c", 0, mine), row("b", 0, other)]], rng)[0] for _ in range(200)]
        widths.append(np.ptp(np.quantile(cuts, (0.025, 0.975))))
    assert widths[0] < 1e-9 < 0.2 < widths[1]


def test_the_table_has_a_row_for_each_arm_and_each_pair_that_was_run(bench):
    rows = [row(arm, n, {"t1": miss, "t2": miss}) for arm, miss in (("a", 0.8), ("b", 0.5), ("c", 0.4)) for n in (0, 1)]
    text = bench.table(rows, draws=20)
    assert "| c | 2 | 0.400 |" in text and "| c against a | 2 | +50.0% |" in text and "| c against b | 2 | +20.0% |" in text
    assert "s against b" not in text
