from __future__ import annotations

import math

import numpy as np
import pytest
from denoised.daemon.checkpoints import Checkpoints, interval
from denoised.engines.denoise import Checkpoint, denoise, start
from denoised.engines.host import CallableBound
from denoised.engines.samplers import SAMPLERS
from denoised.engines.schedules import cosine


def checkpoints(folder, identity="job"):
    return Checkpoints(folder, identity, budget_per_day=1e9, uptime_s=86400)


def test_a_new_job_has_nothing(tmp_path):
    fresh = checkpoints(tmp_path)
    assert (fresh.count, fresh.current, fresh.result(0)) == (0, None, None)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_trajectory_that_goes_on_from_the_disk_ends_in_the_same_bytes(tmp_path, sampler):
    sigmas, x = cosine(8), np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)

    def run(at):
        bound = CallableBound([lambda x, t: np.tanh(x)], x)
        return denoise(bound, SAMPLERS[sampler], "v", sigmas, at, lambda step: np.full_like(x, 0.1 * step))

    *_, last = run(start(x, sigmas))
    for at in run(start(x, sigmas)):
        if at.step == 5:
            checkpoints(tmp_path).keep([], at)
            kept = at.x.tobytes()
    read = checkpoints(tmp_path).current
    assert (read.step, read.x.dtype, read.x.tobytes()) == (5, np.float32, kept)
    *_, resumed = run(read)
    assert resumed.x.tobytes() == last.x.tobytes()


def test_results_come_back_in_order_and_the_checkpoint_behind_them(tmp_path):
    first = checkpoints(tmp_path)
    first.keep([np.array([1, 2], np.float32)], Checkpoint(3, np.array([9], np.float32)))
    first.keep([np.array([3], np.float32)], Checkpoint(1, np.array([8], np.float32)))
    again = checkpoints(tmp_path)
    assert [again.result(n).tolist() for n in range(again.count)] == [[1, 2], [3]]
    assert (again.current.step, again.current.x.tolist()) == (1, [8])


def test_a_checkpoint_that_does_not_belong_behind_the_results_is_not_used(tmp_path):
    checkpoints(tmp_path).keep([], Checkpoint(3, np.array([9], np.float32)))
    later = checkpoints(tmp_path)
    later.keep([np.array([1], np.float32)], None)
    assert (checkpoints(tmp_path).count, checkpoints(tmp_path).current) == (1, None)


def test_another_request_model_or_operating_point_starts_afresh(tmp_path):
    checkpoints(tmp_path, ["toy", {"n": 1}]).keep([np.array([1], np.float32)], Checkpoint(1, np.array([1], np.float32)))
    assert checkpoints(tmp_path, ["toy", {"n": 2}]).count == 0


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_file_cut_short_by_a_power_cut_is_as_if_it_was_not_there(tmp_path, cut):
    checkpoints(tmp_path).keep([np.zeros(50, np.float32), np.ones(50, np.float32)], Checkpoint(2, np.zeros(50, np.float32)))
    torn = next(p for p in tmp_path.iterdir() if p.name.endswith("result-1.npz"))
    torn.write_bytes(torn.read_bytes()[:cut])
    again = checkpoints(tmp_path)
    assert (again.count, again.current) == (1, None)


def test_flipped_bits_are_noticed(tmp_path):
    checkpoints(tmp_path).keep([np.zeros(5000, np.float32)], None)
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert checkpoints(tmp_path).count == 0


def test_the_interval_follows_young_until_the_wear_budget_binds():
    assert interval(0.01, 1000, 1e12, 86400) == pytest.approx(math.sqrt(2 * 0.01 * 86400))
    assert interval(0.01, 1_000_000, 86_400_000, 1) == pytest.approx(1000)
