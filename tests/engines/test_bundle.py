from __future__ import annotations

import onnx
import pytest
import yaml
from denoised.engines.bundle import SHIPPED, BundleError, find_bundles, read_bundle, write_sums
from denoised.engines.denoiser import Guidance

MANIFEST = {
    "name": "tiny",
    "version": "1.0.0",
    "kind": "defect-synthesis",
    "licence": "Apache-2.0",
    "training": {"data": "none"},
    "prediction": "v",
    "schedule": "cosine",
    "variants": {"fp32": {"denoiser": "denoiser.onnx"}},
    "operating_points": [{"variant": "fp32", "steps": 4}],
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "model.yaml").write_text(yaml.safe_dump(MANIFEST))
    (folder / "denoiser.onnx").write_bytes(b"weights")
    write_sums(folder)
    return folder


def test_a_bundle_is_read_and_verifies(folder):
    bundle = read_bundle(folder)
    bundle.verify()
    assert bundle.manifest.operating_points[0].steps == 4
    assert bundle.file("denoiser.onnx") == folder / "denoiser.onnx"


def test_a_changed_file_is_named(folder):
    bundle = read_bundle(folder)
    (folder / "denoiser.onnx").write_bytes(b"Weights")
    with pytest.raises(BundleError, match="denoiser.onnx: damaged"):
        bundle.verify()


def test_a_missing_file_is_named(folder):
    bundle = read_bundle(folder)
    (folder / "denoiser.onnx").unlink()
    with pytest.raises(BundleError, match="denoiser.onnx: No such file"):
        bundle.verify()


def test_a_changed_manifest_is_refused(folder):
    (folder / "model.yaml").write_text(yaml.safe_dump({**MANIFEST, "version": "9.9.9"}))
    with pytest.raises(BundleError, match="differs from its sum"):
        read_bundle(folder)


def test_a_file_outside_the_sums_cannot_be_used(folder):
    (folder / "more.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match="not listed"):
        read_bundle(folder).file("more.onnx")


@pytest.mark.parametrize("line", ["abc", "0" * 64 + "  ../../etc/passwd", "0" * 64 + "  .hidden", "0" * 64 + " one-space"])
def test_sums_that_point_elsewhere_are_refused(folder, line):
    (folder / "SHA256SUMS").write_text(line + "\n")
    with pytest.raises(BundleError, match="expected lines of"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prediction": "w"}, "prediction"),
        ({"variants": {}}, "names variant 'fp32'"),
        ({"operating_points": []}, "at least one"),
        ({"nmae": "x"}, "did you mean 'name'"),
        ({"version": "one"}, "version"),
        ({"schedule": "cosin"}, "schedule: unknown schedule 'cosin', did you mean 'cosine'"),
        ({"schedule_args": {"t_mx": 1}}, "schedule_args: cosine takes t_max, found 't_mx'"),
        ({"operating_points": [{"sampler": "unipcc"}]}, "sampler: unknown sampler 'unipcc', did you mean 'unipc'"),
        ({"operating_points": [{"sampler": "ddim", "sampler_args": {"order": 3}}]}, "ddim takes eta, found 'order'"),
        ({"operating_points": [{"sampler": "ddpm", "sampler_args": {"eta": 1}}]}, "ddpm takes no such choices"),
    ],
)
def test_a_wrong_manifest_says_which_field(folder, change, words):
    (folder / "model.yaml").write_text(yaml.safe_dump({**MANIFEST, **change}))
    write_sums(folder)
    with pytest.raises(BundleError, match=words):
        read_bundle(folder)


def test_the_identity_changes_with_any_file(folder):
    before = read_bundle(folder).sha256
    (folder / "denoiser.onnx").write_bytes(b"other")
    write_sums(folder)
    assert read_bundle(folder).sha256 != before


def test_find_bundles_tells_good_from_bad(folder):
    (folder.parent / "rubbish").mkdir()
    good, bad = find_bundles(folder.parent)
    assert [b.manifest.name for b in good] == ["tiny"]
    assert len(bad) == 1
    assert "rubbish" in bad[0]


def test_every_shipped_bundle_verifies():
    good, bad = find_bundles(SHIPPED)
    assert not bad
    assert {b.manifest.kind for b in good} == {"defect-synthesis", "sensor-imputation"}
    for bundle in good:
        bundle.verify()


def test_an_operating_point_may_choose_within_its_method_and_guide(folder):
    point = {"variant": "fp32", "sampler": "unipc", "sampler_args": {"order": 3}, "guidance": {"scale": 2, "high": 5}}
    (folder / "model.yaml").write_text(yaml.safe_dump({**MANIFEST, "operating_points": [point]}))
    write_sums(folder)
    read = read_bundle(folder).manifest.operating_points[0]
    assert (read.sampler_args, read.guidance) == ({"order": 3}, Guidance(2.0, 0.0, 5.0))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"schedule": "karras", "schedule_args": {"sigma_min": 0}}, "must fall from step to step to 0, found"),
        ({"schedule": "karras", "schedule_args": {"sigma_min": 100}}, "must fall from step to step to 0, found"),
        ({"schedule": "cosine", "schedule_args": {"t_max": 1.2}}, "must fall from step to step to 0, found"),
        (
            {"operating_points": [{"sampler": "unipc", "sampler_args": {"order": 9}}]},
            "expected order 1, 2 or 3, found",
        ),
        ({"operating_points": [{"sampler": "ddim", "sampler_args": {"eta": 1.5}}]}, "expected eta from 0 to 1, found eta: 1.5"),
    ],
)
def test_choices_that_make_no_trajectory_are_refused_with_the_bundle_and_not_in_a_job(folder, more, message):
    (folder / "model.yaml").write_text(yaml.safe_dump({**MANIFEST, **more}))
    write_sums(folder)
    with pytest.raises(BundleError, match=message):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"batch": [1, 8]}, r"ranges.batch: expected a list of length 3, found \[1, 8\]"),
        ({"batch": [4, 2, 8]}, "ranges: range of 'batch': expected 1 <= least <= usual <= most, found 4, 2, 8"),
        ({"batch": [0, 2, 8]}, "found 0, 2, 8"),
    ],
)
def test_a_range_that_is_none_is_refused(folder, ranges, message):
    (folder / "model.yaml").write_text(yaml.safe_dump({**MANIFEST, "ranges": ranges}))
    write_sums(folder)
    with pytest.raises(BundleError, match=message):
        read_bundle(folder)


def test_the_ranges_of_the_shipped_models_hold_their_operating_points_and_name_every_free_dimension():
    for bundle in find_bundles(SHIPPED)[0]:
        manifest, symbols = bundle.manifest, set()
        for file in {file for files in manifest.variants.values() for file in files.values()}:
            inputs = onnx.load(bundle.file(file), load_external_data=False).graph.input
            symbols |= {d.dim_param for i in inputs for d in i.type.tensor_type.shape.dim if d.dim_param}
        assert set(manifest.ranges) == symbols
        rows = manifest.ranges["batch" if "batch" in symbols else "windows"]
        assert rows[2] >= max(point.batch for point in manifest.operating_points)
