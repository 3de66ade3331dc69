from __future__ import annotations

import numpy as np
from denoised.engines import noise


def test_noise_is_a_function_of_seed_item_and_step_alone():
    first = noise.gaussian(7, 3, 2, (4, 4))
    noise.gaussian(1, 1, 1, (100,))
    assert noise.gaussian(7, 3, 2, (4, 4)).tobytes() == first.tobytes()
    assert first.dtype == np.float32


def test_batch_neighbours_do_not_matter():
    alone = noise.batch(5, [8], 0, (2, 3))
    together = noise.batch(5, [1, 8, 2], 0, (2, 3))
    assert together[1].tobytes() == alone[0].tobytes()


def test_every_seed_item_and_step_has_noise_of_its_own():
    seen = {noise.gaussian(s, i, t, (8,)).tobytes() for s in (0, 1, 2**62) for i in range(5) for t in range(5)}
    assert len(seen) == 75


def test_streams_do_not_overlap_and_are_standard_normal():
    x = np.concatenate([noise.gaussian(3, i, 0, (4096,)) for i in range(16)])
    assert abs(x.mean()) < 0.02
    assert abs(x.std() - 1) < 0.02
    assert len(np.unique(x)) > 0.99 * len(x)
