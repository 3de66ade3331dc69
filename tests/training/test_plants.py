import numpy as np
import pytest
from denoised.plugins.sensor_imputation.features import CELL_FEATURES, LIMIT
from denoised.plugins.sensor_imputation.gaussian import LENGTH
from denoised.training import cases, plants


def rng(number):
    return np.random.default_rng([5, number])


@pytest.mark.parametrize("number", range(20))
def test_every_plant_is_finite_and_moves(number):
    tags = 1 + number % 14
    recording = plants.plant(rng(number), tags, 1500)
    assert recording.shape == (1500, tags)
    assert np.isfinite(recording).all()
    assert (recording.std(0) > 0).any()


def test_the_same_generator_gives_the_same_plant_and_another_another():
    assert np.array_equal(plants.plant(rng(1), 4, 600), plants.plant(rng(1), 4, 600))
    assert not np.array_equal(plants.plant(rng(1), 4, 600), plants.plant(rng(2), 4, 600))


def test_plants_differ_in_memory_and_in_how_their_sensors_hang_together():
    memory, likeness = [], []
    for number in range(40):
        z = plants.plant(rng(number), 5, 1500)
        z = (z - z.mean(0)) / (z.std(0) + 1e-12)
        memory.append((z[1:] * z[:-1]).mean())
        likeness.append(np.abs(np.corrcoef(z.T + 1e-9 * rng(0).standard_normal(z.T.shape))[0, 1:]).mean())
    assert min(memory) < 0.4 and max(memory) > 0.85
    assert min(likeness) < 0.2 and max(likeness) > 0.5


@pytest.mark.parametrize("tags", [1, 2, 9])
def test_dropouts_lose_something_and_never_everything(tags):
    for number in range(200):
        mask = plants.dropout(rng(number), LENGTH, tags)
        assert mask.any() and not mask.all()


def test_dropouts_are_of_every_sort():
    masks = [plants.dropout(rng(number), LENGTH, 5) for number in range(300)]
    assert any(m.all(0).sum() == 1 for m in masks)  # one dead sensor
    assert any(m.all(1).sum() >= 5 and (~m).all(1).any() for m in masks)  # a blackout
    assert any(m[-1].any() and not m[:-8].any() for m in masks)  # only the newest rows
    assert any(m.mean() > 0.85 for m in masks) and any(m.mean() < 0.05 for m in masks)


@pytest.fixture(scope="module")
def shard():
    return cases.shard(1)


def test_a_shard_is_a_function_of_its_number(shard):
    again = cases.shard(1)
    assert all(np.array_equal(shard[name], again[name]) for name in shard)


def test_a_shard_holds_what_the_network_is_fed(shard):
    count, tags = shard["relation"].shape[:2]
    assert shard["cells"].shape == (count, tags, LENGTH, CELL_FEATURES)
    assert shard["noise"].shape == (count, cases.NOISES, tags, LENGTH)
    assert all(np.isfinite(a.astype(np.float32)).all() for a in shard.values())


def test_noise_and_residual_live_on_missing_cells_alone(shard):
    hidden = shard["missing"] > 0
    assert not shard["residual"][~hidden].any()
    assert not shard["noise"].transpose(0, 2, 3, 1)[~hidden].any()
    assert np.abs(shard["residual"].astype(np.float32)).max() <= LIMIT
    assert shard["noise"].transpose(0, 2, 3, 1)[hidden].astype(np.float32).std() == pytest.approx(1, abs=0.1)
