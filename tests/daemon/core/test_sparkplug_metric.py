"""Values as others send them, read as the type that was announced."""

from __future__ import annotations

import pytest
from denoised.daemon.core.sparkplug_metric import Type, as_type


@pytest.mark.parametrize(
    ("value", "wanted", "result"),
    [
        (255, Type.INT8, -1),
        (2**32 - 1, Type.INT8, -1),
        (2**64 - 1, Type.INT64, -1),
        (2**64 - 5, Type.INT32, -5),
        (127, Type.INT8, 127),
        (2**64 - 1, Type.UINT64, 2**64 - 1),
        (3, Type.DOUBLE, 3.0),
        (True, Type.BOOLEAN, True),
        ("a", Type.TEXT, "a"),
    ],
)
def test_a_received_value_is_read_as_the_type_of_the_birth(value, wanted, result):
    assert as_type(value, wanted) == result


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(256, Type.UINT8), (-1, Type.UINT32), (True, Type.INT32), (1.5, Type.INT64), (1, Type.BOOLEAN), (None, Type.STRING)],
)
def test_a_value_that_does_not_fit_is_refused_with_what_was_expected(value, wanted):
    with pytest.raises(ValueError, match="expected .*, found "):
        as_type(value, wanted)
