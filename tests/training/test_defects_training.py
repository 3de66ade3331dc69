import csv

import cv2
import numpy as np
import pytest
from denoised.demo import surface
from denoised.engines.bundle import read_bundle
from denoised.plugins.defect_synthesis import masks
from denoised.training import defects_clean, defects_data, defects_draw


def silent(what, done, of):
    pass


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder as the training wants it: two classes of procedural defects as if they were real, and good parts."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for defect in ("blowhole", "crack"):
        (folder / defect).mkdir()
        for n in range(3):
            good = surface.frame(n, n, 320, 240).astype(np.float32)
            part = masks.part_of(good)
            mask = masks.draw(defects_draw.SHAPES[defect], part, rng, 1.0)
            cv2.imwrite(str(folder / defect / f"p{n}.png"), defects_draw.paint(defect, good, mask, part, rng).astype(np.uint8))
            cv2.imwrite(str(folder / defect / f"p{n}_mask.png"), mask * 255)
    (folder / "free").mkdir()
    for n in range(3):
        cv2.imwrite(str(folder / "free" / f"g{n}.png"), surface.frame(n, 10 + n, 320, 240))
    return folder


def test_real_defects_are_read_with_their_masks(images):
    reals = defects_data.read_real(images)
    assert [r.defect for r in reals] == ["blowhole"] * 3 + ["crack"] * 3
    assert all(set(np.unique(r.mask)) == {0, 1} and r.mask.shape == r.image.shape for r in reals)


def test_a_list_of_shots_is_all_that_is_read(images, tmp_path):
    shots = tmp_path / "shots.csv"
    with shots.open("w", newline="") as f:
        csv.writer(f).writerows(
            [("seed", "image"), (0, "train/crack/p1.png"), (0, "blowhole/p0.png"), (1, "train/crack/p1.png")]
        )
    assert [(r.defect) for r in defects_data.read_real(images, shots)] == ["crack", "blowhole"]


def test_a_picture_without_its_mask_is_named(images, tmp_path):
    (tmp_path / "dent").mkdir()
    cv2.imwrite(str(tmp_path / "dent" / "a.png"), np.zeros((9, 9), np.uint8))
    with pytest.raises(ValueError, match="a_mask.png"):
        defects_data.read_real(tmp_path)


@pytest.mark.parametrize("defect", list(defects_draw.PAINTERS))
def test_a_procedural_defect_is_seen_inside_its_mask_and_nowhere_else(defect):
    good = surface.frame(1, 0).astype(np.float32)
    part = masks.part_of(good)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        mask = masks.draw(defects_draw.SHAPES[defect], part, rng, 1.5)
        painted = defects_draw.paint(defect, good, mask, part, rng)
        assert (painted[mask == 0] == good[mask == 0]).all()
        assert np.abs(painted - good)[mask > 0].mean() > 3


@pytest.mark.parametrize("size", [12, 60, 200])
def test_a_defect_is_filled_with_good_surface_and_nothing_else_is_touched(size):
    good = surface.frame(0, 0).astype(np.float32)
    mask = np.zeros(good.shape, np.uint8)
    cv2.ellipse(mask, (320, 240), (size, size // 2 + 3), 20, 0, 360, 1, -1)
    dark = np.where(mask > 0, good * 0.4, good)
    clean = defects_clean.without(dark, mask, mask, np.random.default_rng(0))
    assert (clean[mask == 0] == dark[mask == 0]).all()
    assert abs(clean[mask > 0].mean() - good[mask > 0].mean()) < 0.25 * abs(dark[mask > 0].mean() - good[mask > 0].mean())


def test_a_transplanted_stain_keeps_the_grain_below():
    good = surface.frame(0, 0)[100:200, 200:300].astype(np.float32)
    clean, stained = np.full((40, 40), 100, np.float32), np.full((40, 40), 60, np.float32)
    mask = np.zeros((40, 40), np.uint8)
    mask[5:35, 5:35] = 1
    out = defects_clean.transplant(stained, clean, mask, good, (20, 30), True)
    inside, before = out[40:60, 30:50], good[40:60, 30:50]
    assert np.corrcoef(inside.ravel(), before.ravel())[0, 1] > 0.99
    assert inside.mean() / before.mean() == pytest.approx(0.62, abs=0.06)


@pytest.fixture(scope="module")
def pool(images):
    reals, good = defects_data.read_real(images), defects_data.read_good(images / "free")
    made = defects_data.build(reals, good, ("blowhole", "crack"), {}, 0, silent, per_real=3, target=6, windows=40)
    return defects_data.columns(made)


def test_the_pool_holds_real_and_procedural_windows_of_every_class(pool):
    found = set(zip(pool["label"].tolist(), pool["real"].tolist()))
    assert found == {(0, False), (0, True), (1, False), (1, True)}
    assert pool["defect"].shape[1:] == (64, 64) and len({len(v) for v in pool.values()}) == 1


def test_without_a_good_picture_defects_are_painted_on_metal_parts():
    made = defects_data.painted([], ("crack", "dent"), {}, 20, np.random.default_rng(0))
    assert len(made.label) >= 20 and set(made.label) == {0} and not any(made.real)


def test_a_bent_defect_changes_nothing_outside_its_own_mask():
    good = surface.frame(0, 0, 320, 240).astype(np.float32)
    mask = np.zeros(good.shape, np.uint8)
    cv2.ellipse(mask, (150, 120), (24, 9), 20, 0, 360, 1, -1)
    dark = np.where(mask > 0, good * 0.4, good)
    for seed in range(8):
        bent, at = defects_data._bent(dark, good, mask, np.random.default_rng(seed))
        assert (bent[at == 0] == good[at == 0]).all()
        assert 0.4 < at.sum() / mask.sum() < 2.5 and bent[at > 0].mean() < 0.8 * good[at > 0].mean()


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_a_defect_at_an_edge_of_a_picture_stays_at_that_edge_of_another(side):
    good = np.full((100, 80), 90, np.float32)
    mask = np.zeros(good.shape, np.uint8)
    place = {"left": np.s_[40:60, :8], "right": np.s_[40:60, 72:], "top": np.s_[:8, 30:50], "bottom": np.s_[92:, 30:50]}
    mask[place[side]] = 1
    host = defects_data.Host(np.full((120, 150), 120, np.float32), np.ones((120, 150), np.uint8))
    out, clean, moved = defects_data._slid(good - 40 * mask, good, mask, host, np.random.default_rng(0))
    edge = {"left": moved[:, 0], "right": moved[:, -1], "top": moved[0], "bottom": moved[-1]}[side]
    assert edge.any() and moved.sum() == mask.sum()
    assert (out[moved == 0] == clean[moved == 0]).all() and (out[moved > 0] < 80).all()


def test_outside_the_mask_of_a_pore_a_window_and_its_clean_twin_are_alike(pool):
    pores = pool["label"] == 0
    outside = pool["mask"][pores] == 0
    assert (pool["defect"][pores] == pool["clean"][pores])[outside].mean() > 0.98


def test_the_table_of_strengths_rises_with_severity(pool):
    for quantiles in defects_data.strength_table(pool, ("blowhole", "crack")).values():
        assert quantiles == sorted(quantiles) and quantiles[-1] > quantiles[0] > 0


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    pytest.importorskip("torch", reason="training needs torch: pip install denoised[train]")
    from denoised.training import defects

    out = tmp_path_factory.mktemp("trained")
    done = defects.main(["--images", str(images), "--out", str(out), "--minutes", "0.03", "--name", "toy", "--windows", "40"])
    assert done == 0
    return out


def test_training_ends_in_a_bundle_that_verifies(trained):
    bundle = read_bundle(trained)
    bundle.verify()
    assert bundle.manifest.classes == ("blowhole", "crack") and bundle.manifest.prediction == "v"
    assert all(point.quality["rms_grey"] >= 0 for point in bundle.manifest.operating_points)
    assert bundle.manifest.training["real_defects"] == {"blowhole": 3, "crack": 3}


def test_the_exported_network_is_zero_outside_the_mask(trained):
    from denoised.engines.engine import open_engine

    engine = open_engine(trained / "denoiser.onnx")
    rng = np.random.default_rng(0)
    feeds = {
        name: rng.standard_normal([2 if isinstance(d, str) else d for d in spec.shape]).astype(np.float32)
        for name, spec in engine.inputs.items()
    }
    feeds["mask"] = (feeds["mask"] > 0.5).astype(np.float32)
    out = engine.run(feeds)["out"]
    assert (out[feeds["mask"] == 0] == 0).all() and (out[feeds["mask"] > 0] != 0).any()


def test_training_goes_on_where_it_stopped(trained, images, capsys):
    from denoised.training import defects

    defects.main(["--images", str(images), "--out", str(trained), "--minutes", "0.06", "--name", "toy"])
    assert "going on from step" in capsys.readouterr().out
    read_bundle(trained).verify()


def test_a_class_that_the_base_does_not_know_begins_as_the_mean_of_those_that_it_does():
    pytest.importorskip("torch", reason="training needs torch: pip install denoised[train]")
    from denoised.training.defects_base import BASE
    from denoised.training.defects_net import load_weights

    known = load_weights(BASE, tuple(defects_draw.PAINTERS)).embed[0].weight
    mixed = load_weights(BASE, ("dent", "crack")).embed[0].weight
    at = known.shape[1] - 2 - len(defects_draw.PAINTERS)
    assert (mixed[:, at + 1] == known[:, at + list(defects_draw.PAINTERS).index("crack")]).all()
    assert np.allclose(mixed[:, at].detach(), known[:, at:-2].mean(1).detach())


def test_a_distilled_variant_joins_the_bundle_with_the_points_it_was_made_for(trained):
    pytest.importorskip("torch", reason="training needs torch: pip install denoised[train]")
    from denoised.training import defects_distil

    before = read_bundle(trained)
    assert defects_distil.main([str(trained), "--minutes", "0.02", "--pairs", "16"]) == 0
    after = read_bundle(trained)
    after.verify()
    assert list(after.manifest.variants) == ["fp32", "distilled"]
    assert [(p.sampler, p.steps) for p in after.manifest.operating_points if p.variant == "distilled"] == [
        ("ddim", 4), ("ddim", 2), ("ddim", 1),
    ]  # fmt: skip
    assert after.sums["denoiser.onnx"] == before.sums["denoiser.onnx"]
