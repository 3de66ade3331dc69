import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
from denoised.demo import surface
from denoised.engines.bundle import SHIPPED

pytest.importorskip("onnxruntime", reason="the shipped network needs onnxruntime")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def judge():
    spec = importlib.util.spec_from_file_location("judge_synthesize", ROOT / "bench" / "judges" / "synthesize.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    for n in range(3):
        cv2.imwrite(str(folder / f"part{n}.png"), surface.frame(n, n, 320, 240))
    return folder


def made(judge, good, out, seed):
    arguments = [
        "--good",
        good,
        "--bundle",
        SHIPPED / "surface-defects",
        "--count",
        2,
        "--seed",
        seed,
        "--steps",
        2,
        "--out",
        out,
    ]
    assert judge.main([str(a) for a in arguments]) == 0
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*.png"))}


def test_every_class_gets_its_pictures_with_masks_of_the_same_size(judge, good, tmp_path):
    files = made(judge, good, tmp_path, 0)
    assert sorted(files) == sorted(
        f"{c}/{c}_000{n}{end}.png"
        for c in ("blowhole", "break", "crack", "fray", "uneven")
        for n in (0, 1)
        for end in ("", "_mask")
    )
    for name in files:
        if name.endswith("_mask.png"):
            mask, image = (np.asarray(cv2.imread(str(tmp_path / n), -1)) for n in (name, name.replace("_mask", "")))
            assert mask.shape == image.shape and set(np.unique(mask)) == {0, 255}


def test_the_seed_decides_every_byte(judge, good, tmp_path):
    one, again, other = (made(judge, good, tmp_path / str(n), seed) for n, seed in enumerate((3, 3, 4)))
    assert one == again and one.keys() == other.keys() and one != other


def test_without_a_bundle_shots_and_images_are_asked_for(judge, good, tmp_path, capsys):
    with pytest.raises(SystemExit):
        judge.main(["--good", str(good), "--out", str(tmp_path)])
    assert "--shots and --images" in capsys.readouterr().err
