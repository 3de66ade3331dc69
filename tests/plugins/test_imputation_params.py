import math
import subprocess
import sys

import pytest
from denoised.config.refusal import Refusal
from denoised.config.typed import Flaws, read
from denoised.engines.bundle import SHIPPED, read_bundle
from denoised.plugins.kind import Site, load_kinds
from denoised.plugins.sensor_imputation.kind import KIND, SensorImputation
from denoised.plugins.sensor_imputation.params import MOST_CELLS, ImputationParams

GOOD = {"tags": ["a", "b"], "values": [[1, 2.5], [None, 3], [4, None]]}
SITE = Site(models={"sensor-imputation": (read_bundle(SHIPPED / "plant-imputer"),)})


def test_the_smallest_request_is_enough():
    params = read(GOOD, ImputationParams)
    assert params.quantiles == (0.05, 0.5, 0.95)
    assert params.samples == 32
    assert params.values == ((1, 2.5), (None, 3), (4, None))


def test_whole_numbers_stay_whole():
    assert [type(v) for v in read(GOOD, ImputationParams).values[0]] == [int, float]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tags": []}, "tags"),
        ({"tags": ["a", "a"]}, "tags[1]"),
        ({"tags": ["a", ""]}, "tags[1]"),
        ({"tags": ["a", 7]}, "tags[1]"),
        ({"tags": [str(i) for i in range(257)]}, "tags"),
        ({"tags": "ab"}, "tags"),
        ({"values": []}, "values"),
        ({"values": [[1, 2], [3]]}, "values[1]"),
        ({"values": [[1, 2], [3, 4, 5]]}, "values[1]"),
        ({"values": [[1, 2], [3, "x"]]}, "values[1][1]"),
        ({"values": [[1, 2], [3, True]]}, "values[1][1]"),
        ({"values": [[1, 2], [3, math.nan]]}, "values[1][1]"),
        ({"values": [[1, 2], [3, math.inf]]}, "values[1][1]"),
        ({"values": [[1, 2], [10**400, 3]]}, "values[1][0]"),
        ({"values": [[None, None], [None, None]]}, "values"),
        ({"values": [[1, 2], None]}, "values[1]"),
        ({"values": [[1, 2]] * (MOST_CELLS // 2 + 1)}, "values"),
        ({"quantiles": []}, "quantiles"),
        ({"quantiles": [0.5, 0.5]}, "quantiles"),
        ({"quantiles": [0.5, 1.0]}, "quantiles[1]"),
        ({"quantiles": [50]}, "quantiles[0]"),
        ({"samples": 0}, "samples"),
        ({"samples": 257}, "samples"),
        ({"samples": 2.5}, "samples"),
        ({"period_ms": 0}, "period_ms"),
        ({"period_ms": -5}, "period_ms"),
        ({"period_ms": math.nan}, "period_ms"),
        ({"start": "yesterday"}, "start"),
        ({"start": 5}, "start"),
        ({"model": 5}, "model"),
        ({"tag": ["a"]}, "tag"),
    ],
)
def test_a_wrong_field_is_named(change, field):
    with pytest.raises(Flaws) as refused:
        read({**GOOD, **change}, ImputationParams)
    assert field in [flaw.field for flaw in refused.value.flaws]


@pytest.mark.parametrize("missing", ["tags", "values"])
def test_a_missing_field_is_named(missing):
    with pytest.raises(Flaws, match=missing):
        read({k: v for k, v in GOOD.items() if k != missing}, ImputationParams)


def test_the_kind_is_found_by_its_entry_point():
    assert isinstance(load_kinds()["sensor-imputation"], SensorImputation)


def test_an_unknown_model_is_refused():
    with pytest.raises(Refusal) as refused:
        KIND.check(read({**GOOD, "model": "plant-inputer"}, ImputationParams), SITE)
    assert refused.value.code == "unknown-model"


@pytest.mark.parametrize(("rows", "holes", "windows"), [(3, [1], 1), (48, [0], 1), (96, [95], 1), (96, [30], 2), (50, [], 0)])
def test_items_are_the_windows_with_something_missing(rows, holes, windows):
    values = [[None if i in holes else 1.0, 2.0] for i in range(rows)]
    assert KIND.check(read({"tags": ["a", "b"], "values": values}, ImputationParams), SITE) == windows


def test_the_supervisor_needs_no_numpy_for_it():
    code = "import sys; from denoised.plugins.sensor_imputation.kind import KIND; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
