"""What an integrator runs off the board, on a product line that no shipped model has seen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from denoised.engines.bundle import read_bundle
from denoised.tests.training import second_line
from denoised.training import cli, defects_check, defects_data


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("line")
    second_line.write(folder, pictures=4, free=6)
    return folder


@pytest.fixture
def line(drawn, tmp_path) -> Path:
    """A copy of the line's pictures to spoil."""
    shutil.copytree(drawn, tmp_path / "line")
    return tmp_path / "line"


def check(line: Path) -> defects_check.Checked:
    return defects_check.check(line / "images", line / "masks", line / "good")


def flaws(line: Path) -> list[str]:
    with pytest.raises(defects_check.Flawed) as caught:
        check(line)
    return caught.value.flaws


# ---- looking through the pictures ---------------------------------------------------------------------------------------


def test_good_pictures_are_counted_by_class_and_part(drawn):
    checked = check(drawn)
    assert checked.classes == ["dent", "scratch"] and len(checked.good) == 6
    assert checked.count("dent") == (4, 4) and all(0 < p.share < 0.2 for p in checked.pictures)
    assert any("5 or more" in note for note in checked.notes) and any("6 good pictures" in note for note in checked.notes)


def spoilt(what: str, line: Path) -> str:
    """Spoils one thing; returns the name that the error must begin with."""
    image, mask = line / "images" / "dent" / "p0d01_0.png", line / "masks" / "dent" / "p0d01_0.png"
    marked: Any = cv2.imread(str(mask), 0)
    if what == "no mask":
        mask.unlink()
    elif what == "empty mask":
        cv2.imwrite(str(mask), marked * 0)
    elif what == "mask of ones":
        cv2.imwrite(str(mask), marked // 255)
    elif what == "everything marked":
        cv2.imwrite(str(mask), 255 - marked)
    elif what == "mask of another size":
        cv2.imwrite(str(mask), marked[:100])
    elif what == "mask that is a picture":
        cv2.imwrite(str(mask), np.asarray(cv2.imread(str(image))))
    elif what == "speck":
        cv2.imwrite(str(mask), np.pad(np.full((2, 3), 255, np.uint8), ((50, 188), (50, 267))))
    elif what == "no picture":
        image.write_bytes(b"none")
    elif what == "small":
        cv2.imwrite(str(image), np.asarray(cv2.imread(str(image)))[:40])
    elif what == "grey":
        cv2.imwrite(str(image), np.full(marked.shape, 90, np.uint8))
    elif what == "good and bad":
        shutil.copy(image, line / "good" / "also.png")
    elif what == "class name":
        for folder in ("images", "masks"):
            (line / folder / "dent").rename(line / folder / "Big dent")
        return str(line / "images" / "Big dent")
    return str(mask if "mask" in what and what != "no mask" or what in ("speck", "everything marked") else image)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("no mask", ["no mask found", "p0d01_0_mask.png"]),
        ("empty mask", ["empty", "expected 255 on the defect"]),
        ("mask of ones", ["largest value is 1", "0 and 1 instead of 0 and 255"]),
        ("everything marked", ["% of the picture is marked", "invert it"]),
        ("mask of another size", ["320 x 100", "320 x 240", "draw the mask on that picture"]),
        ("mask that is a picture", ["neither 0 nor 255", "PNG without shading"]),
        ("speck", ["6 pixels", "at least 12"]),
        ("no picture", ["cannot be read as a picture (4 bytes)"]),
        ("small", ["320 x 40", "at least 64 x 64"]),
        ("grey", ["of one grey (90)"]),
        ("good and bad", ["the same picture as", "also.png"]),
        ("class name", ["'Big dent' is no class name", "rename the folder"]),
    ],
)
def test_what_is_wrong_with_a_picture_is_told_with_its_place_and_what_to_do(line, what, words):
    place = spoilt(what, line)
    (flaw,) = flaws(line)
    assert flaw.startswith(place) and all(word in flaw for word in words), flaw


def test_everything_wrong_is_told_at_once(line):
    (line / "masks" / "dent" / "p0d01_0.png").unlink()
    (line / "images" / "scratch" / "p0s02_0.png").write_bytes(b"none")
    shutil.rmtree(line / "good")
    (line / "good").mkdir()
    found = flaws(line)
    assert len(found) == 3 and any("no picture found; expected pictures of good parts" in f for f in found)


@pytest.mark.parametrize("folder", ["images", "masks", "good"])
def test_a_folder_that_is_not_there_is_named(line, folder):
    shutil.rmtree(line / folder)
    assert any(f.startswith(f"{line / folder}: no such folder") for f in flaws(line))


def test_pictures_without_class_folders_are_told_where_to_go(line):
    for path in (line / "images" / "dent").iterdir():
        path.rename(line / "images" / path.name)
    shutil.rmtree(line / "images" / "scratch")
    (line / "images" / "dent").rmdir()
    assert "expected a folder for each class" in flaws(line)[0]


def test_a_mask_may_be_called_either_way_and_lie_beside_its_picture(line):
    for path in sorted((line / "masks").rglob("*.png")):
        path.rename(line / "images" / path.parent.name / f"{path.stem}_mask.png")
    assert len(defects_check.check(line / "images", line / "images", line / "good").pictures) == 8


def test_staged_pictures_are_what_the_training_reads(drawn, tmp_path):
    folder = defects_check.stage(check(drawn), tmp_path / "pictures")
    real = defects_data.read_real(folder)
    assert [r.defect for r in real] == ["dent"] * 4 + ["scratch"] * 4
    assert all(set(np.unique(r.mask)) == {0, 1} and r.image.shape == (240, 320) for r in real)


def test_other_pictures_have_another_identity(line):
    before = defects_check.identity(check(line))
    assert defects_check.identity(check(line)) == before
    cv2.imwrite(str(line / "good" / "g0000.png"), second_line.good(np.random.default_rng(99)))
    assert defects_check.identity(check(line)) != before


@pytest.mark.parametrize(
    ("stems", "parts"),
    [
        (["t1_e1", "t1_e2", "t2_e1"], ["t1", "t1", "t2"]),
        (["img_0001", "img_0002"], ["img_0001", "img_0002"]),
        (["a", "b"], ["a", "b"]),
    ],
)
def test_parts_are_told_by_the_name_before_the_first_underscore(stems, parts):
    assert defects_check.parts_of(stems) == parts


# ---- the command --------------------------------------------------------------------------------------------------------


def test_without_torch_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(cli, "NEEDED", ("no_such_module", "json"))
    assert cli.main(["defects", "--help"]) == 1
    said = capsys.readouterr().err
    assert "training needs no_such_module" in said and "pip install 'denoised[train]'" in said


def test_help_lists_every_verb_and_an_unknown_one_is_bad_usage(capsys):
    assert cli.main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"  {verb} " in told for verb in cli.VERBS)
    assert cli.main([]) == 2 and cli.main(["defect"]) == 2
    assert "expected one of defects, gate, evaluate, imputer" in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(drawn, tmp_path_factory) -> Path:
    """The whole way with seconds of training: what comes out is no good, and complete."""
    pytest.importorskip("torch", reason="training needs torch: pip install denoised[train]")
    pytest.importorskip("onnxruntime", reason="the report draws with onnxruntime")
    from denoised.training import defects_line, defects_quality

    out = tmp_path_factory.mktemp("trained") / "hammered"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(defects_quality, "DRAWN", 4)
        patch.setattr(defects_line, "GATE_STEPS", 10)
        assert cli.main(words("defects", drawn, out)) == 0
    return out


def words(verb: str, line: Path, out: Path, minutes: str = "0.05") -> list[str]:
    folders = [f"--{name}={line / name}" for name in ("images", "masks", "good")]
    return [verb, *folders, f"--out={out}", f"--minutes={minutes}"]


def test_training_a_new_line_ends_in_a_bundle_with_a_gate_that_verifies(trained):
    bundle = read_bundle(trained)
    bundle.verify()
    assert (bundle.manifest.name, bundle.manifest.classes) == ("hammered", ("dent", "scratch"))
    assert {"denoiser.onnx", "detector.onnx", "gate.json", "model.yaml", "shapes.json"} == set(bundle.sums)
    assert bundle.manifest.variants["fp32"]["detector"] == "detector.onnx" and bundle.manifest.geometry["gate"] == "gate.json"
    assert bundle.file("detector.onnx").stat().st_size < 300_000


def test_the_report_has_figures_and_pictures_of_every_class(trained):
    text = (trained / "report" / "report.md").read_text()
    for wanted in ("| dent | 4 | 4 |", "| fp32 | dpmpp_2m | 8 |", "## The gate", "of the draws are accepted", "(scratch.png)"):
        assert wanted in text
    for name in ("dent", "scratch"):
        sheet = cv2.imread(str(trained / "report" / f"{name}.png"))
        assert sheet is not None and sheet.shape[1] == 1024 and sheet.shape[0] > 250


def test_the_reference_holds_the_real_defects_and_no_picture(trained):
    known = json.loads((trained / "gate.json").read_text())
    for facts in known["classes"].values():
        assert facts["pictures"] == facts["parts"] == 4
        assert 0 < facts["contrast"][0] < facts["contrast"][1] and 0 < facts["completeness"][0] < facts["completeness"][1]
    assert (trained / "gate.json").stat().st_size < 10_000


def test_a_training_is_not_gone_on_with_on_other_pictures(trained, line, capsys):
    cv2.imwrite(str(line / "good" / "more.png"), second_line.good(np.random.default_rng(98)))
    assert cli.main(words("defects", line, trained)) == 1
    assert "begun with other pictures" in capsys.readouterr().err


def test_nothing_is_trained_on_pictures_with_flaws(line, tmp_path, capsys):
    pytest.importorskip("torch", reason="training needs torch: pip install denoised[train]")
    (line / "masks" / "dent" / "p0d01_0.png").unlink()
    assert cli.main(words("defects", line, tmp_path / "out")) == 1
    assert "1 to mend; nothing was trained" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_with_and_without_synthetic_pictures_are_compared_on_parts_never_seen(trained, drawn, tmp_path, capsys):
    second_line.write(tmp_path / "made", pictures=3, free=0, seed=5)
    second_line.write(tmp_path / "other", pictures=3, free=4, seed=6)
    test = defects_check.stage(check(tmp_path / "other"), tmp_path / "test")
    shutil.copytree(drawn / "good", tmp_path / "made" / "good", dirs_exist_ok=True)
    made = defects_check.stage(check(tmp_path / "made"), tmp_path / "synthetic")
    call = ["evaluate", f"--real={trained / 'work' / 'pictures'}", f"--good={drawn / 'good'}", f"--synthetic={made}"]
    call += [f"--test={test}", f"--test-good={tmp_path / 'other' / 'good'}", "--steps=20", "--seeds=1"]
    assert cli.main([*call, f"--json={tmp_path / 'told.json'}"]) == 0
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["parts"] == {"dent": 3, "scratch": 3}
    for figure in ("miss", "f1"):
        low, high = told[figure]["difference"]["interval"]
        assert low <= told[figure]["difference"]["value"] + 1e-3 and told[figure]["difference"]["value"] <= high + 1e-3
    assert "The interval of the difference in miss" in capsys.readouterr().out
    learnt = [*call[:4], f"--test={trained / 'work' / 'pictures'}", *call[5:]]
    assert cli.main(learnt) == 1 and "is in --real too" in capsys.readouterr().err
