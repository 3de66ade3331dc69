"""Which plan belongs to which network and machine, and which may be loaded; no TensorRT needed."""

from __future__ import annotations

import dataclasses
import json
import os
import stat

import pytest
from denoised.engines import trt_plans
from denoised.engines.engine import EngineLoadError, TensorSpec
from denoised.engines.trt_library import Gpu
from denoised.engines.trt_plans import (
    Sidecar,
    identify,
    keep,
    keep_timing,
    look_up,
    read_plan,
    read_sidecar,
    refuse,
    timing_cache,
)

GPU = Gpu("Orin", "8.7", 8, "12.6", True, 1 << 30, 1 << 33)
SPECS = (TensorSpec("x", "float32", ("batch", 4)),), (TensorSpec("out", "float32", ("out.0", 4)),)


@pytest.fixture
def network(tmp_path):
    path = tmp_path / "bundle" / "denoiser.onnx"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    return path


def kept(network, cache, library="tensorrt 10.3.0", gpu=GPU, ranges=None, data=b"plan"):
    identity = identify(network, library, gpu, ranges or {})
    keep(identity.plan(cache), data, Sidecar(identity, inputs=SPECS[0], outputs=SPECS[1], built_s=1.5))
    return identity


def found(identity, cache):
    plan = look_up(identity, cache)
    assert plan is not None
    return plan


def test_a_plan_is_found_again_with_what_it_is(network, plan_cache):
    identity = kept(network, plan_cache)
    plan = found(identity, plan_cache)
    assert plan.name.startswith("bundle-denoiser-") and plan.suffix == ".plan"
    data, sidecar = read_plan(plan)
    assert data == b"plan"
    assert (sidecar.identity, sidecar.inputs, sidecar.outputs) == (identity, *SPECS)
    readable = json.loads(plan.with_suffix(".json").read_text())
    assert readable["identity"]["gpu"] == "Orin" and readable["built_s"] == 1.5


@pytest.mark.parametrize(
    "change",
    [
        {"library": "tensorrt 10.3.1"},
        {"library": "tensorrt_rtx 10.3.0"},
        {"gpu": dataclasses.replace(GPU, name="A2")},
        {"gpu": dataclasses.replace(GPU, capability="8.6")},
        {"gpu": dataclasses.replace(GPU, processors=16)},
        {"gpu": dataclasses.replace(GPU, cuda="13.2")},
        {"ranges": {"batch": (1, 4, 8)}},
        {"onnx": b"other weights"},
        {"external": b"weights beside it"},
        {"options": {"tf32": True}},
    ],
    ids=str,
)
def test_whatever_a_plan_hangs_on_changes_its_identity(network, plan_cache, change, monkeypatch):
    before = kept(network, plan_cache)
    network.write_bytes(change.get("onnx", b"weights"))
    if "external" in change:
        network.with_name("denoiser.onnx.data").write_bytes(change["external"])
    if "options" in change:
        monkeypatch.setitem(trt_plans.OPTIONS, "tf32", True)
    after = identify(network, change.get("library", "tensorrt 10.3.0"), change.get("gpu", GPU), change.get("ranges", {}))
    assert after != before and look_up(after, plan_cache) is None
    assert look_up(before, plan_cache)


def test_free_memory_does_not_change_it(network, plan_cache):
    assert identify(network, "t", GPU, {}) == identify(network, "t", dataclasses.replace(GPU, free_bytes=5, total_bytes=6), {})


@pytest.mark.parametrize("wrong", [(0, 1, 2), (4, 2, 8), (1, 9, 8)])
def test_a_range_that_is_none_is_named(network, wrong):
    with pytest.raises(EngineLoadError, match="range of 'batch': expected 1 <= least <= usual <= most, found"):
        identify(network, "t", GPU, {"batch": wrong})


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b'{"identity": {"ranges": 3}}', b"\xff"])
def test_a_plan_without_a_sidecar_of_ours_is_none(network, plan_cache, content):
    identity = kept(network, plan_cache)
    beside = identity.plan(plan_cache).with_suffix(".json")
    if content is None:
        beside.unlink()
    else:
        beside.write_bytes(content)
    assert look_up(identity, plan_cache) is None
    with pytest.raises(EngineLoadError, match="nothing beside it says what it is; deleted"):
        read_plan(identity.plan(plan_cache))


def test_a_sidecar_that_tells_of_another_plan_is_none(network, plan_cache):
    identity = kept(network, plan_cache)
    beside = identity.plan(plan_cache).with_suffix(".json")
    beside.write_text(beside.read_text().replace('"Orin"', '"Xavier"'))
    assert look_up(identity, plan_cache) is None


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d + b"x", lambda d: b"", lambda d: b"P" + d[1:]])
def test_a_damaged_plan_is_deleted_before_it_is_loaded(network, plan_cache, damage):
    plan = found(kept(network, plan_cache), plan_cache)
    plan.write_bytes(damage(plan.read_bytes()))
    with pytest.raises(EngineLoadError, match="damaged"):
        read_plan(plan)
    assert not plan.exists()


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_plan_that_others_may_write_is_never_loaded(network, plan_cache, mode):
    plan = found(kept(network, plan_cache), plan_cache)
    plan.chmod(mode)
    with pytest.raises(EngineLoadError, match="others may write it, and a plan is native code; deleted"):
        read_plan(plan)
    assert not plan.exists()


def test_a_plan_that_another_user_owns_is_never_loaded(network, plan_cache):
    plan = found(kept(network, plan_cache), plan_cache)
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    os.chown(plan, 12345, -1)
    with pytest.raises(EngineLoadError, match="others may write it"):
        read_plan(plan)


def test_files_are_ours_alone_to_write_whatever_the_umask(network, plan_cache):
    before = os.umask(0)
    try:
        plan = found(kept(network, plan_cache), plan_cache)
    finally:
        os.umask(before)
    assert stat.S_IMODE(plan.stat().st_mode) == 0o644


def test_a_refused_plan_is_remembered_and_given_up_after_the_second_time(network, plan_cache):
    for _ in range(2):
        identity = kept(network, plan_cache)
        plan = found(identity, plan_cache)
        refuse(plan)
        assert not plan.exists()
    with pytest.raises(EngineLoadError, match="refused this plan 2 times"):
        look_up(identity, plan_cache)
    other = identify(network, "tensorrt 10.4.0", GPU, {})
    assert look_up(other, plan_cache) is None


def test_older_plans_of_a_network_stay_for_the_way_back_but_not_for_ever(network, plan_cache):
    other = network.with_name("encoder.onnx")
    other.write_bytes(b"other")
    stays = kept(other, plan_cache)
    identities = [kept(network, plan_cache, library=f"tensorrt 10.{n}.0") for n in range(3, 8)]
    for age, identity in enumerate(reversed(identities)):
        if identity.plan(plan_cache).exists():
            os.utime(identity.plan(plan_cache), (1e9 - age, 1e9 - age))
    identities.append(kept(network, plan_cache, library="tensorrt 11.0.0"))
    there = [identity.library for identity in identities if look_up(identity, plan_cache)]
    assert there == ["tensorrt 10.6.0", "tensorrt 10.7.0", "tensorrt 11.0.0"]
    assert look_up(stays, plan_cache)
    assert len(list(plan_cache.glob("*.json"))) == 4


def test_a_write_that_fails_leaves_what_was_there(network, plan_cache, monkeypatch):
    identity = kept(network, plan_cache)

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        kept(network, plan_cache, data=b"new plan")
    assert read_plan(found(identity, plan_cache))[0] == b"plan"
    assert list(plan_cache.glob(".*")) == []


def test_timing_caches_belong_to_a_tensorrt_and_a_gpu(network, plan_cache):
    paths = {timing_cache(identify(network, f"tensorrt 10.{n}.0", GPU, {}), plan_cache) for n in range(5)}
    assert len(paths) == 5
    for path in paths:
        keep_timing(path, b"times")
    assert len(list(plan_cache.glob("timing-*"))) == 3
    narrow = identify(network, "tensorrt 10.3.0", GPU, {"batch": (1, 1, 1)})
    assert timing_cache(narrow, plan_cache) in paths
    assert read_sidecar(plan_cache / "none.plan") is None
