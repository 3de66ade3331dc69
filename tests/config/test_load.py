"""YAML and conf.d into a Config, or every error with the place where it stands."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from denoised.config.error import ConfigError, Error
from denoised.config.load import load
from denoised.config.tree import Config
from denoised.config.typed import Flaw
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the main file and, by keyword, files of conf.d (`line1="..."` is conf.d/line1.yaml)."""

    def write_(text: str | bytes, **more: str) -> Path:
        path = tmp_path / "denoised.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        for name, part in more.items():
            (tmp_path / "conf.d").mkdir(exist_ok=True)
            (tmp_path / "conf.d" / f"{name}.yaml").write_text(part, "utf-8")
        return path

    return write_


def errors(path: Path) -> list[Error]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return list(caught.value.errors)


def the_error(path: Path) -> Error:
    found = errors(path)
    assert len(found) == 1, found
    return found[0]


def places(path: Path) -> list[tuple[str, int, int]]:
    return [(Path(e.place.file).name, e.place.line, e.place.column) for e in errors(path)]


# --- what is read ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "{}", "# nothing\n", "---\n", "null", "\ufeff{}", "mqtt:\ncameras:\nmqtt2: &a {}\n"[:14]])
def test_a_file_with_nothing_in_it_is_the_defaults(write: Write, text: str) -> None:
    assert load(write(text)) == Config()


def test_json_is_yaml_too(write: Write) -> None:
    assert load(write('{"mqtt": {"port": 8883, "protocol": "3.1.1"}}')).mqtt.port == 8883


def test_an_empty_section_is_its_defaults(write: Write) -> None:
    assert load(write("mqtt:\n  tls:\ncameras:\n")) == Config()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("no", "no"), ("on", "on"), ("yes", "yes"), ("12:30:45", "12:30:45"), ("2026-11-23", "2026-11-23"), (".nan", ".nan"),
        ("0b1", "0b1"), ("1_000", "1_000"), ("010", 10), ("0x1F", 31), ("0o17", 15), ("-3", -3), ("1e3", 1000.0),
        (".5", 0.5), ("true", True), ("~", None), ("", None), ("'5'", "5"), ("!!str 5", "5"), ("! 5", "5"), ("=", "="),
    ],
)  # fmt: skip
def test_plain_values_mean_what_they_mean_to_an_editor(write: Write, written: str, read: object) -> None:
    params = load(write(f"triggers: {{t: {{topic: a, kind: k, params: {{x: {written}}}}}}}")).triggers["t"].params
    assert params == {"x": read} and type(params["x"]) is type(read)


@pytest.mark.parametrize(("written", "read"), [("5", 5), ('"5"', 5), ("5.0", 5), ("3.1.1", "3.1.1")])
def test_both_protocols_are_read_however_they_are_written(write: Write, written: str, read: object) -> None:
    assert load(write(f"mqtt: {{protocol: {written}}}")).mqtt.protocol == read


@pytest.mark.parametrize("written", ["4", "3.1", "true", "v5", "[5]", "null"])
def test_other_protocols_are_refused(write: Write, written: str) -> None:
    assert the_error(write(f"mqtt: {{protocol: {written}}}")).message.startswith("expected 5 or 3.1.1, found ")


def test_keys_are_names_however_they_look(write: Write) -> None:
    config = load(write("cameras: {no: {source: a}, 5: {source: b}, 1.0: {source: c}, null: {source: d}}"))
    assert list(config.cameras) == ["no", "5", "1.0", "null"]


def test_anchors_and_merge_keys_work(write: Write) -> None:
    text = "cameras:\n  a: &a {source: x, max_age: 1s}\n  b: {<<: *a, source: y}\n  c: {<<: [{max_age: 3s}, *a]}\n  d: *a\n"
    cameras = load(write(text)).cameras
    assert [(c.source, c.max_age) for c in cameras.values()] == [("x", 1.0), ("y", 1.0), ("x", 3.0), ("x", 1.0)]


def test_conf_d_is_merged_in_name_order(write: Write) -> None:
    path = write(
        "mqtt: {host: a, port: 1}\ninputs: {folders: [/a, /b]}\ncameras: {one: {source: x}}",
        b="mqtt: {host: c}\ncameras: {two: {source: y}}",
        a="mqtt: {host: b, username: u}\ninputs: {folders: [/c]}",
    )
    (path.parent / "conf.d" / ".hidden.yaml").write_text("nonsense: 1")
    (path.parent / "conf.d" / "old.yaml.bak").write_text("nonsense: 1")
    config = load(path)
    assert (config.mqtt.host, config.mqtt.port, config.mqtt.username) == ("c", 1, "u")
    assert config.inputs.folders == ("/c",) and list(config.cameras) == ["one", "two"]


def test_relative_paths_count_from_the_file_that_holds_them(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(
        "mqtt: {password_file: pw}\nstate_dir: /abs\ninputs: {folders: [in]}", a="cache_dir: c\ncameras: {x: {source: ./f}}"
    )
    monkeypatch.chdir(path.parent)
    config = load(Path("denoised.yaml"))
    folder = os.getcwd()
    assert (config.mqtt.password_file, config.state_dir, config.inputs.folders) == (f"{folder}/pw", "/abs", (f"{folder}/in",))
    assert config.cache_dir == f"{folder}/conf.d/c" and config.cameras["x"].source == f"{folder}/conf.d/./f"


def test_a_camera_source_that_is_no_path_stays_as_it_is(write: Write) -> None:
    pipeline = "v4l2src device=/dev/video0 ! appsink"
    assert load(write(f"cameras: {{x: {{source: {pipeline}}}}}")).cameras["x"].source == pipeline


# --- what is wrong, and where -----------------------------------------------------------------------------------------------


def test_every_error_comes_at_once_at_its_line_and_column(write: Write) -> None:
    path = write(
        "mqtt:\n"
        "  prot: 1883\n"
        "  port: x\n"
        "  tls: {cert: a}\n"
        "telemetry: {period: 1 parsec}\n"
        "cameras:\n"
        "  line1:\n"
        "    max_age: 3\n"
        "triggers:\n"
        "  t: {topic: a/#/b, kind: k, priority: 10}\n"
        "sensors:\n"
        '  "a/b": {tags: {T: {topic: x/+}}}\n'
        "nonsense: 1\n"
    )
    assert [(line, column) for _, line, column in places(path)] == [
        (2, 3), (3, 9), (4, 3), (5, 21), (7, 3), (10, 14), (10, 40), (12, 3), (12, 29), (13, 1),
    ]  # fmt: skip


def test_an_error_shows_the_line_and_a_caret(write: Write) -> None:
    path = write("gateway:\n\nmqtt:\n  prot: 1883  # comment\n")
    assert str(the_error(path)) == (
        f"{path}:4:3: error: unknown field 'prot', did you mean 'port'?\n    4 |   prot: 1883  # comment\n      |   ^"
    )
    assert the_error(path).as_json() == {
        "file": str(path),
        "line": 4,
        "column": 3,
        "message": "unknown field 'prot', did you mean 'port'?",
        "excerpt": "  prot: 1883  # comment",
    }


def test_a_caret_stands_right_in_a_very_long_line(write: Write) -> None:
    text = str(the_error(write("{gateway: {id: a}, " + " " * 5000 + "mqtt: {port: 0}, " + " " * 5000 + "}")))
    line, caret = text.splitlines()[1:]
    assert line[caret.index("^")] == "0" and len(line) < 200


def test_columns_count_characters_not_bytes(write: Write) -> None:
    assert places(write('cameras: {"größe": {sorce: 1, source: x}}')) == [("denoised.yaml", 1, 21)]


def test_an_error_in_a_merged_value_names_the_file_where_it_stands(write: Write) -> None:
    path = write("mqtt: {host: a, port: 0}\nqueue: {max_jobs: 0}\n", a="mqtt:\n  port: 99999\n", b="\nqueue: {max_job: 1}\n")
    assert places(path) == [("denoised.yaml", 2, 19), ("a.yaml", 2, 9), ("b.yaml", 2, 9)]


def test_an_error_behind_an_alias_stands_where_the_value_is_written(write: Write) -> None:
    assert places(write("cameras:\n  a: &a {source: 1}\n  b: {<<: *a}\n")) == [("denoised.yaml", 2, 18)] * 2


def test_equal_keys_are_an_error(write: Write) -> None:
    error = the_error(write("mqtt: {}\nqueue: {}\nmqtt: {}\n"))
    assert (error.place.line, error.message) == (3, "'mqtt' stands here a second time; first in line 1")


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: [1, 2\n", (1, 4), "not YAML"),
        ("a: {b: 1", (1, 4), "not YAML"),
        ("a: [1\nb: {}\n", (2, 2), "not YAML"),
        ("mqtt:\n\tport: 1\n", (2, 1), "spaces, not tabs"),
        ("mqtt:\n  host: @x\n", (2, 9), "in quotes"),
        ("mqtt:\n  host: a: b\n", (2, 10), "needs quotes"),
        ("mqtt: 'x\n", (1, 7), "not YAML"),
        ("%YAML 3.0\n---\n{}", (1, 1), "not YAML"),
        ("- a\n- b\n", (1, 1), "found a list"),
        ("hello", (1, 1), "found a single value"),
        ("a: 1\n---\nb: 1\n", (2, 1), "a second document"),
        ("mqtt: *x\n", (1, 7), "alias '*x'"),
        ("cameras: &x {*x : {}}\n", (1, 14), "a key must be plain text"),
        ("triggers: {t: {topic: a, kind: k, params: &x {a: *x}}}\n", (1, 50), "alias '*x'"),
        ("mqtt: {<<: 3}\n", (1, 12), "'<<' takes a mapping"),
        ("? [a]\n: b\n", (1, 3), "a key must be plain text"),
        ("!env X: b\n", (1, 1), "a key must be plain text"),
        ("mqtt: {port: 123456789012345678901234}\n", (1, 14), "too large"),
        ("mqtt: {port: 1e999}\n", (1, 14), "too large"),
        ("mqtt: {host: a\x07b}\n", (1, 15), "U+0007"),
        ("mqtt: {host: !!python/object:os.system x}\n", (1, 14), "tag '!!python/object:os.system' is not known"),
        ("mqtt: !env {}\n", (1, 7), "!env stands before a single value"),
        ("mqtt: !foo {}\n", (1, 7), "tag '!foo' is not known"),
        ("a: " + "[" * 900, (1, 54), "levels deep"),
        ("a: " + "{a: " * 5000, (1, 204), "levels deep"),
        ("- " * 5000, (1, 103), "levels deep"),
        ("x0: &x0 [a]\n" + "".join(f"x{i}: &x{i} [*x{i - 1}]\n" for i in range(1, 500)), (50, 6), "50 levels here"),
        ("x0: &x0 a\n" + "".join(f"x{i}: &x{i} [{f'*x{i - 1}, ' * 10}]\n" for i in range(1, 12)), (6, 5), "100000 values here"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(write: Write, text: str, place: tuple[int, int], words: str) -> None:
    error = the_error(write(text))
    assert words in error.message
    assert (error.place.line, error.place.column) == place


def test_brackets_beyond_every_readers_limit_are_one_clear_error(write: Write) -> None:
    assert "levels deep" in the_error(write("a: " + "[" * 5000)).message


def test_text_that_is_not_utf8_is_one_clear_error(write: Write) -> None:
    error = the_error(write(b"gateway: {}\nmqtt: {host: gr\xfc\xdfe}\n"))
    assert (error.place.line, error.place.column) == (2, 16) and "0xfc" in error.message
    assert "UTF-8" in the_error(write("mqtt: {}".encode("utf-16"))).message


def test_a_file_of_10_megabytes_is_one_clear_error(write: Write) -> None:
    assert "larger than 1 MiB" in the_error(write(b"#" * 10_000_000)).message


def test_files_that_are_not_there_or_not_files_are_one_clear_error(write: Write, tmp_path: Path) -> None:
    assert (
        str(the_error(tmp_path / "none.yaml"))
        == f"{tmp_path}/none.yaml:1:1: error: cannot read this file: No such file or directory"
    )
    assert "Is a directory" in the_error(tmp_path).message
    assert "Not a directory" in the_error(write("") / "x.yaml").message
    assert "null byte" in the_error(tmp_path / "a\0b").message


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_one_clear_error(write: Write) -> None:
    path = write("{}")
    path.chmod(0)
    assert "Permission denied" in the_error(path).message


def test_a_folder_named_like_a_file_of_conf_d_is_one_clear_error(write: Write, tmp_path: Path) -> None:
    (tmp_path / "conf.d" / "a.yaml").mkdir(parents=True)
    assert places(write("{}")) == [("a.yaml", 1, 1)]


def test_a_broken_file_of_conf_d_does_not_hide_what_is_unreadable_elsewhere(write: Write) -> None:
    assert places(write("a: [", a="- x", b="mqtt: *y")) == [("denoised.yaml", 1, 5), ("a.yaml", 1, 1), ("b.yaml", 1, 7)]


def test_further_checks_are_asked_even_where_the_tree_is_wrong(write: Write) -> None:
    path = write("mqtt: {port: 0}\ncameras: {line1: {source: x}}\n")
    with pytest.raises(ConfigError) as caught:
        load(path, lambda plain: [Flaw(("cameras", *plain["cameras"]), "no such device")])
    assert [(e.place.line, e.place.column, e.message) for e in caught.value.errors] == [
        (1, 14, "expected a whole number >= 1, found 0"),
        (2, 11, "no such device"),
    ]


# --- references ------------------------------------------------------------------------------------------------------------


def test_references_are_looked_up(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER", "10.0.0.5")
    monkeypatch.setenv("PORT", "8883")
    path = write("mqtt: {host: !env BROKER, port: !env PORT}", a="cameras: {line1: {source: !file line1.url}}")
    (path.parent / "conf.d" / "line1.url").write_text("rtsp://user:secret@cam/1\n")
    config = load(path)
    assert (config.mqtt.host, config.mqtt.port) == ("10.0.0.5", 8883)
    assert config.cameras["line1"].source == "rtsp://user:secret@cam/1"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("!env DENOISED_NONE", "environment variable DENOISED_NONE is not set"),
        ("!env DENOISED_EMPTY", "environment variable DENOISED_EMPTY is empty"),
        ("!env", "!env needs the name"),
        ("!file", "!file needs the path"),
        ("!file none", "none: No such file or directory"),
        ("!file .", ": Is a directory"),
        ("!file latin1", "does not hold UTF-8"),
        ("!file /dev/zero", "/dev/zero is larger than 1 MiB"),
    ],
)
def test_a_reference_without_a_value_is_an_error_at_its_place(
    write: Write, monkeypatch: pytest.MonkeyPatch, written: str, words: str
) -> None:
    monkeypatch.setenv("DENOISED_EMPTY", "")
    path = write(f"mqtt:\n  host: {written}\n")
    (path.parent / "latin1").write_bytes(b"\xfc")
    found = errors(path)
    assert words in found[0].message and {(e.place.line, e.place.column) for e in found} == {(2, 9)}


FIELDS = [
    "mqtt: {port: %s}", "mqtt: {protocol: %s}", "mqtt: {base_topic: %s}", "mqtt: {client_id: %s}", "gateway: {id: %s}",
    "mqtt: %s", "telemetry: {period: %s}", "models: {require_signature: %s}", "inputs: {folders: %s}",
    "inputs: {folders: [%s, 1]}", "cameras: %s", "triggers: {t: {topic: %s, kind: x, params: %s}}",
    "sensors: {s: {tags: {a: {topic: x, low: %s}}}}",
]  # fmt: skip


@given(secret=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=80), where=st.sampled_from(FIELDS))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@example(secret="\n'\"\\", where=FIELDS[0])
def test_a_referenced_value_is_in_no_message(write: Write, monkeypatch: pytest.MonkeyPatch, secret: str, where: str) -> None:
    secret = f"#S3CRET{secret}"  # wrong in each of these fields
    path = write(where.replace("%s", "!env X"))
    monkeypatch.setenv("X", secret)
    with pytest.raises(ConfigError) as caught:
        load(path, lambda plain: [Flaw((), f"a kind of job complains about '{secret}'")])
    assert len(caught.value.errors) > 1
    assert "S3CRET" not in str(caught.value) and "S3CRET" not in str([e.as_json() for e in caught.value.errors])


# --- anything --------------------------------------------------------------------------------------------------------------

TOKENS = """
mqtt port cameras sensors triggers tags line1 : - [ ] { } , ? | > & * &a *a << !env !file ! !!str !!binary ' " # % @ `
null true 1 1e999 .inf 0x 2026-11-23 --- ... %YAML \\x \\ud800 \u2028 \x85 \ufeff \ud7ff
"""
tokens = st.sampled_from([" ", "\n", "\n  ", "\t", ": ", *re.split("[ \n]+", TOKENS)])
texts = st.lists(tokens | st.text(max_size=3), max_size=40).map("".join)


@given(texts.map(lambda t: t.encode("utf-8", "replace")) | st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=400)
@example(b'"\\ud800": 1')
@example(b'mqtt: {host: "\\ud800"}')
def test_whatever_the_file_holds_there_is_a_config_or_errors_with_places(write: Write, raw: bytes) -> None:
    try:
        assert isinstance(load(write(raw)), Config)
    except ConfigError as e:
        assert e.errors
        for error in e.errors:
            assert error.place.line >= 1 and 1 <= error.place.column <= len(error.place.text) + 1
            assert str(error).startswith(f"{error.place.file}:{error.place.line}:{error.place.column}: error: ")
