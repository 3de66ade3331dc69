from __future__ import annotations

import os

import pytest
from denoised.daemon.networks import must_fit
from denoised.engines.engine import EngineUnavailable


def test_a_network_that_does_not_fit_into_the_memory_is_refused_with_what_would(tmp_path):
    """Before it is read: on a small board with swap it would run, a hundred times slower, or take others down."""
    huge = tmp_path / "huge.onnx"
    huge.touch()
    os.truncate(huge, 1 << 40)  # sparse
    with pytest.raises(EngineUnavailable, match=r"needs some 4398047 MB of memory, \d+ MB are available; .* would fit now"):
        must_fit(huge)


def test_a_network_that_fits_passes_and_one_that_is_not_there_is_somebody_elses_to_name(tmp_path):
    small = tmp_path / "small.onnx"
    small.write_bytes(b"x" * 1000)
    must_fit(small)
    must_fit(tmp_path / "none.onnx")
