"""The documentation against the code: commands, error codes, examples, the plugin, links."""

from __future__ import annotations

import argparse
import configparser
import dataclasses
import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from denoised.config import typed
from denoised.config.load import load
from denoised.config.refusal import CODES, Refusal
from denoised.config.tree import Config
from denoised.daemon.cli.main import VERBS
from denoised.daemon.core import reply, triggers
from denoised.daemon.core.check import check_config
from denoised.daemon.core.intake import Envelope, decode, read_request
from denoised.daemon.core.job import Entry, Job, Promise
from denoised.daemon.models import find_models
from denoised.engines.bundle import SHIPPED, Manifest, read_bundle, write_sums
from denoised.engines.standin import StandInEngine
from denoised.plugins.kind import Site, Task, load_kinds
from denoised.plugins.play import play

HOUSE = Path(__file__).resolve().parents[2]
DOCS = HOUSE / "docs"
PAGES = [HOUSE / "README.md", HOUSE / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```(\S+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str, *marks: str) -> Iterator[tuple[str, list[str], str]]:
    """(page and number, marks, text) of each fenced example in that language which carries all these marks."""
    for page in PAGES:
        for number, match in enumerate(FENCE.finditer(page.read_text("utf-8"))):
            if match[1] == language and set(marks) <= set(match[2].split()):
                yield f"{page.name}-{number}", match[2].split(), match[3]


def examples(language: str, *marks: str) -> pytest.MarkDecorator:
    found = list(blocks(language, *marks))
    return pytest.mark.parametrize(("marks", "text"), [(m, t) for _, m, t in found], ids=[name for name, _, _ in found])


def parser_of(verb: str) -> argparse.ArgumentParser:
    module = importlib.import_module(VERBS[verb][0], "denoised.daemon.cli")
    parser = argparse.ArgumentParser(prog=f"denoised {verb}", exit_on_error=False)
    module.add_arguments(parser)
    return parser


# ---- commands and codes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_section_with_every_option_of_its_help(verb: str) -> None:
    sections = re.split(r"^### ", (DOCS / "reference.md").read_text("utf-8"), flags=re.MULTILINE)
    (section,) = (s for s in sections if re.match(rf"`denoised {verb}(?![\w-])", s))
    parser = parser_of(verb)
    told = re.findall(r"--[a-z][a-z-]*", parser.format_help())
    wanted = {o for o in told if o != "--help"} | {str(c) for a in parser._actions for c in a.choices or ()}
    missing = {w for w in wanted if not re.search(rf"(?<![\w-]){w}(?![\w-])", section)}
    assert missing == set()


@pytest.mark.parametrize("verb", VERBS)
def test_no_section_tells_of_an_option_that_is_not_there(verb: str) -> None:
    sections = re.split(r"^### ", (DOCS / "reference.md").read_text("utf-8"), flags=re.MULTILINE)
    (section,) = (s for s in sections if re.match(rf"`denoised {verb}(?![\w-])", s))
    there = {o for a in parser_of(verb)._actions for o in a.option_strings}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", section)) <= there


def commands() -> Iterator[str]:
    """Every command line `denoised ...` in an indented block, continued lines joined."""
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")
        yield from (line.strip() for line in re.findall(r"^ {4}(denoised .+)$", text, re.MULTILINE))


@pytest.mark.parametrize("line", list(commands()))
def test_every_command_line_in_the_docs_is_understood(line: str) -> None:
    verb, *rest = shlex.split(line)[1:]
    parser_of(verb).parse_args(rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_docs_name_no_verb_that_is_not_there(page: Path) -> None:
    named = re.findall(r"`denoised ([a-z][a-z-]*)\b[^`]*`", page.read_text("utf-8"))
    assert set(named) <= {*VERBS}


def test_every_error_code_has_its_section() -> None:
    page = (DOCS / "technician.md").read_text("utf-8")
    assert tuple(re.findall(r"^### `([a-z-]+)`$", page, re.MULTILINE)) == CODES


def test_the_readme_leads_with_two_commands_that_the_makefile_has() -> None:
    readme, makefile = (HOUSE / "README.md").read_text("utf-8"), (HOUSE / "Makefile").read_text()
    first = readme.index("\n## ")
    for target in ("demo", "test"):
        assert f"make {target}" in readme[first : readme.index("\n## ", first + 1)]
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


# ---- examples -----------------------------------------------------------------------------------------------------------


def test_every_example_is_marked_so_that_a_test_runs_it() -> None:
    assert [name for name, marks, _ in blocks("yaml") if not {"config", "model"} & set(marks)] == []
    assert {language for page in PAGES for language, _, _ in FENCE.findall(page.read_text("utf-8"))} <= {
        "yaml", "json", "python", "toml"
    }  # fmt: skip


def read_config(text: str, folder: Path) -> Config:
    (folder / "denoised.yaml").write_text(text, "utf-8")
    return load(folder / "denoised.yaml", partial(check_config, kinds=load_kinds()))


@examples("yaml", "config")
def test_a_configuration_in_the_docs_is_valid(
    marks: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENOISED_BROKER", "10.0.0.5")
    (tmp_path / "line1.url").write_text("rtsp://viewer:secret@10.0.0.9/stream1\n")
    assert read_config(text, tmp_path) != Config()


@examples("yaml", "model")
def test_a_model_yaml_in_the_docs_is_a_manifest(marks: list[str], text: str) -> None:
    manifest = typed.read(yaml.safe_load(text), Manifest)
    if "plugin" not in marks:
        shipped = read_bundle(SHIPPED / manifest.name).manifest
        for part in ("kind", "licence", "prediction", "schedule", "variants", "classes", "geometry"):
            assert getattr(manifest, part) == getattr(shipped, part), part


@examples("json")
def test_json_in_the_docs_is_json(marks: list[str], text: str) -> None:
    assert isinstance(decode(text.encode(), 1 << 20), dict)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """The shipped models, one picture and one camera."""
    (tmp_path / "part.png").touch()
    return Site((tmp_path,), frozenset({"line1"}), find_models(Config())[0])


def accept(kind: str, body: Any, site: Site) -> Job:
    return read_request(kind, body, Envelope(0.0), load_kinds(), site, lambda: "made-up")


@examples("json", "request")
def test_a_request_in_the_docs_is_accepted(marks: list[str], text: str, site: Site) -> None:
    body = json.loads(text)
    job = accept(marks[1], body, site)
    assert (job.id, job.kind, job.items > 0) == (body.get("id", "made-up"), marks[1], True)


def json_of_plc() -> list[dict[str, Any]]:
    return [json.loads(text) for name, _, text in blocks("json") if name.startswith("plc.md")]


def test_events_and_results_in_the_docs_have_the_fields_that_are_sent(site: Site) -> None:
    job = accept("defect-synthesis", {"id": "L1-000123", "params": {"image": {"path": "part.png"}}}, site)
    entry = Entry(job)
    sent = {"accepted": reply.event(entry, 0.0)}
    entry.move("running")
    entry.steps = 8
    sent["running"] = reply.event(entry, 0.0)
    entry.move("paused", "preempted")
    sent["paused"] = reply.event(entry, 0.0)
    sent["done"] = reply.result(entry, "done", 0.0, 0.0, {})
    shown = {e["state"]: e for e in reversed(json_of_plc()) if e.get("state") in sent and e.get("kind") == job.kind}
    assert {state: list(e) for state, e in shown.items()} == {state: list(e) for state, e in sent.items()}


def test_the_promise_in_the_docs_has_the_fields_that_are_sent(site: Site) -> None:
    job = accept("defect-synthesis", {"params": {"image": {"path": "part.png"}, "count": 8}}, site)
    point = {"variant": "fp32", "sampler": "dpmpp_2m", "steps": 8, "batch": 8, "threads": 3}
    promise = Promise(point, 0.0, "2026-11-23T09:52:19.602Z", 1210, 9.1, "calibration")
    sent = reply.event(Entry(dataclasses.replace(job, promise=promise)), 0.0)
    (shown,) = (e for e in json_of_plc() if "promise" in e)
    assert (list(shown), shown["promise"]) == (list(sent), sent["promise"])


def test_the_refusal_in_the_docs_is_what_that_mistake_gets(site: Site) -> None:
    body = {"id": "L1-000125", "params": {"image": {"path": "part.png"}, "defect": "blowhole", "cuont": 2}}
    with pytest.raises(Refusal) as refused:
        accept("defect-synthesis", body, site)
    shown = [e["error"] for e in json_of_plc() if e.get("id") == "L1-000125"]
    assert shown == [refused.value.as_error()]


def test_the_trigger_in_the_docs_makes_a_job_of_the_message_in_the_docs(tmp_path: Path, site: Site) -> None:
    config = next(text for name, _, text in blocks("yaml", "config") if name.startswith("plc.md"))
    trigger = read_config(config, tmp_path).triggers["photo"]
    message, answer = json_of_plc()[:2]
    assert triggers.fires(trigger.when, message)
    job = accept(trigger.kind, triggers.request(trigger, message), site)
    final = reply.result(Entry(job), "done", 0.0, 0.0, {"run_ms": 200, "output": {"items": [{}]}})
    assert trigger.reply and reply.plc(final, trigger.reply.form) == answer


# ---- the plugin ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The plugin of integrator.md as pip would leave it in site-packages."""
    ((_, _, code),) = blocks("python", "plugin")
    ((_, _, project),) = blocks("toml", "plugin")
    toml = configparser.ConfigParser()
    toml.read_string(project)
    points = toml['project.entry-points."denoised.kinds"']
    info = tmp_path / "waveform_kind-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: waveform-kind\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[denoised.kinds]\n" + "".join(f"{n} = {v[1:-1]}\n" for n, v in points.items()))
    (tmp_path / "waveform_kind.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    load_kinds.cache_clear()
    yield tmp_path
    load_kinds.cache_clear()
    sys.modules.pop("waveform_kind", None)


def test_the_plugin_in_the_docs_is_found_checks_and_works(plugin: Path) -> None:
    kind = load_kinds()["waveform"]
    ((_, _, manifest),) = blocks("yaml", "model", "plugin")
    folder, out = plugin / "my-waveforms", plugin / "out"
    folder.mkdir()
    out.mkdir()
    (folder / "model.yaml").write_text(manifest)
    write_sums(folder)
    bundle = read_bundle(folder)
    site = Site(models={"waveform": (bundle,)})
    job = accept("waveform", {"id": "w", "seed": 5, "params": {"count": 3}}, site)
    assert job.items == 3
    with pytest.raises(Refusal, match="unknown-model"):
        accept("waveform", {"params": {}}, Site())
    point, engine = bundle.manifest.operating_points[0], StandInEngine((64,), std=2.0)
    task = Task("w", job.seed, out, bundle, point, lambda name: engine, site)
    outcome = play(kind, job.params, task)
    assert [item["row"] for item in outcome.output["items"]] == [0, 1, 2]
    assert all(1.0 < item["rms"] < 3.0 for item in outcome.output["items"])  # the network is one of deviation 2
    rows = (out / outcome.artifacts[0].name).read_text().splitlines()
    assert [len(row.split(",")) for row in rows] == [64, 64, 64]
    again = play(kind, job.params, dataclasses.replace(task, id="other"))
    assert again.output == outcome.output


def test_the_plugin_in_the_docs_keeps_numpy_out_of_the_supervisor(plugin: Path) -> None:
    code = "import sys, waveform_kind; print(sys.modules.keys() & {'numpy', 'cv2', 'onnxruntime'})"
    done = subprocess.run([sys.executable, "-c", code], cwd=plugin, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---- links and pictures -------------------------------------------------------------------------------------------------


def slug(heading: str) -> str:
    """A heading's anchor as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def links() -> Iterator[Any]:
    for page in (*PAGES, HOUSE / "yocto" / "meta-denoised" / "README.md"):
        for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text("utf-8"))):
            if "://" not in target:
                yield pytest.param(page, target, id=f"{page.name}-{target}")


@pytest.mark.parametrize(("page", "target"), list(links()))
def test_a_link_leads_somewhere(page: Path, target: str) -> None:
    name, _, anchor = target.partition("#")
    there = (page.parent / name).resolve() if name else page
    assert there.exists()
    if anchor:
        assert anchor in map(slug, re.findall(r"^#+ (.+)$", there.read_text("utf-8"), re.MULTILINE))


def test_the_pictures_are_small() -> None:
    sizes = {p.name: p.stat().st_size for p in (DOCS / "pictures").glob("*.png")}
    governor = {"governor-live.png", "governor-pi5.png", "governor-orin-box.png"}
    assert sizes.keys() >= {"contact-sheet.png", "sensors.png", *governor}
    assert max(sizes.values()) < 300_000
