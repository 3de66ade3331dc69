"""Plain mappings into dataclasses: every flaw at once, each at its place and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from denoised.config.typed import Bad, Duration, Flaws, Parsed, Secret, did_you_mean, field_name, read, seconds
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta


@dataclass(frozen=True)
class Inner:
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise Bad("low", "low must be less than high")


def _inner_or_auto(value: Any) -> Inner:
    return Inner() if value == "auto" else read(value, Inner)


Small = Annotated[str, Meta(pattern="^[a-z]+$", extra={"expected": "small letters"})]


@dataclass(frozen=True)
class Outer:
    port: Annotated[int, Meta(ge=1, le=65535)]
    name: Small = "x"
    names: tuple[Small, ...] | None = None
    mode: Literal["fast", "slow"] = "fast"
    threads: int | Literal["auto"] = "auto"
    period: Duration = 1.0
    wait: Annotated[Duration | None, Meta(description="or not at all")] = None
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    either: Annotated[Inner, Parsed(_inner_or_auto)] = Inner()
    by_name: dict[Annotated[str, Meta(max_length=3)], Inner] = field(default_factory=dict)
    rows: tuple[Inner, ...] = ()
    values: list[list[float | None]] = field(default_factory=list)
    weights: dict[str, float] | None = None
    anything: dict[str, Any] = field(default_factory=dict)


def flaws(value: Any) -> dict[str, str]:
    with pytest.raises(Flaws) as caught:
        read(value, Outer)
    return {f.field: f.message for f in caught.value.flaws}


def test_defaults_fill_what_is_not_given() -> None:
    assert read({"port": 1}, Outer) == Outer(port=1)


def test_nested_values_and_durations_are_read() -> None:
    read_ = read({"port": 2, "period": "500ms", "wait": "2min", "by_name": {"a": {"low": 1}}, "rows": [{"high": 2}]}, Outer)
    assert (read_.period, read_.wait) == (0.5, 120.0)
    assert read_.by_name["a"] == Inner(low=1.0) and read_.rows == (Inner(high=2.0),)


def test_every_flaw_comes_at_once_at_its_place() -> None:
    found = flaws(
        {
            "prot": 1,
            "mode": "fats",
            "threads": 1.5,
            "period": "1 parsec",
            "wait": [],
            "inner": {"hihg": 2},
            "maybe": 3,
            "either": {"lwo": 1, "high": "x"},
            "by_name": {"long name": {"low": "x"}},
            "rows": [{}, {"low": 2, "high": 1}],
            "values": [[1, "a"], [None, True]],
            "weights": {"a.b": "c"},
        }
    )
    assert set(found) == {
        "prot", "port", "mode", "threads", "period", "wait", "inner.hihg", "maybe", "either.lwo",
        "either.high", "by_name.long name",
        "by_name.long name.low", "rows[1].low", "values[0][1]", "values[1][1]", "weights.a.b",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "place", "message"),
    [
        ({"port": 1, "prot": 2}, "prot", "unknown field 'prot', did you mean 'port'?"),
        ({}, "port", "required field 'port' is missing"),
        ({"port": 0}, "port", "expected a whole number >= 1, found 0"),
        ({"port": "80"}, "port", "expected a whole number, found '80'"),
        ({"port": None}, "port", "expected a whole number, found None"),
        ({"port": 1, "name": "A"}, "name", "expected small letters, found 'A'"),
        ({"port": 1, "name": "a\n"}, "name", "expected small letters, found 'a\\n'"),
        ({"port": 1, "names": ["a", "b\n"]}, "names[1]", "expected small letters, found 'b\\n'"),
        ({"port": 1, "name": 5}, "name", "expected text, found 5; put it in quotes"),
        ({"port": 1, "mode": "fats"}, "mode", "expected one of 'fast', 'slow', found 'fats', did you mean 'fast'?"),
        ({"port": 1, "threads": []}, "threads", "expected a whole number or 'auto', found []"),
        ({"port": 1, "period": -1}, "period", "expected a duration such as 500ms, 1s, 5min, 2h or 7d, found -1"),
        ({"port": 1, "inner": []}, "inner", "expected a mapping with low, high, found []"),
        ({"port": 1, "rows": {}}, "rows", "expected a list, found {}"),
        ({"port": 1, "by_name": []}, "by_name", "expected a mapping of names, found []"),
        ({"port": 1, "inner": {"low": math.nan}}, "inner.low", "expected a finite number, found nan"),
        ([], "", "expected a mapping with port, name,"),
    ],
)
def test_a_message_says_what_is_allowed_and_what_was_found(value: Any, place: str, message: str) -> None:
    found = flaws(value)
    assert list(found) == [place]
    assert found[place].startswith(message)


def test_a_misspelt_key_is_blamed_as_a_key() -> None:
    with pytest.raises(Flaws) as caught:
        read({"port": "x", "prot": 1}, Outer)
    assert {f.field: f.at_key for f in caught.value.flaws} == {"prot": True, "port": False}


@pytest.mark.parametrize(
    "value", ["x" * 10_000, list(range(10_000)), {i: i for i in range(10_000)}, [[[["x" * 1000]]]], 10**4000]
)
def test_a_long_value_is_shown_short(value: Any) -> None:
    assert len(flaws({"port": value})["port"]) < 120


def test_no_input_makes_more_flaws_than_anybody_reads() -> None:
    many = 100_000
    found = flaws(
        {"k" * many: 1, **{f"k{i}": 1 for i in range(many)}, "values": [["x"] * many], "weights": dict.fromkeys("abc", "x")}
    )
    assert 3 < len(found) < 200 and all(len(place) < 200 and len(message) < 500 for place, message in found.items())


@pytest.mark.parametrize("place", ["port", "name", "mode", "threads", "period", "inner"])
def test_a_secret_is_never_shown(place: str) -> None:
    found = flaws({"port": 1, place: Secret("S3CRET")})
    assert place in found and "S3CRET" not in str(found)


def test_a_secret_becomes_the_number_that_is_wanted() -> None:
    assert read({"port": Secret("1883"), "period": Secret("2s"), "name": Secret("abc")}, Outer) == Outer(
        1883, "abc", period=2.0
    )


@pytest.mark.parametrize(
    ("text", "value"), [("500ms", 0.5), (" 1.5 s ", 1.5), ("5min", 300.0), ("2h", 7200.0), ("7d", 604800.0)]
)
def test_durations(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize(
    "value", [True, None, -1, math.inf, math.nan, 10**400, "9" * 400, "", "s", "-1s", "1e3s", "1 s s", "١s", [], {}]
)
def test_what_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        seconds(value)


def test_did_you_mean_names_the_near_word_or_all_of_a_few() -> None:
    assert did_you_mean("hots", ["host", "port"]) == ", did you mean 'host'?"
    assert did_you_mean("xyz", ["host", "port"]) == "; known here: host, port"
    assert did_you_mean("xyz", []) == ""


def test_field_names_read_like_the_payload() -> None:
    assert field_name(("values", 3, 0, "x")) == "values[3][0].x"


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(st.sampled_from([*Outer.__dataclass_fields__, "low", "x"]), below)
    ),
    max_leaves=12,
)


@given(plain)
def test_any_plain_value_is_read_or_refused(value: Any) -> None:
    try:
        assert isinstance(read(value, Outer), Outer)
    except Flaws as e:
        assert e.flaws and all(f.message for f in e.flaws)
