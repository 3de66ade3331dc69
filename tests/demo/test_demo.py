"""The demo as a newcomer runs it, over both brokers; short."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import cv2
import pytest
from denoised.daemon.cli.main import main
from denoised.demo.broker import find_mosquitto


def demo(*words):
    return subprocess.run(
        [sys.executable, "-m", "denoised", "demo", *map(str, words)], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("broker", ["mosquitto", "embedded"])
def test_the_demo_leaves_pictures_plot_coco_and_messages(tmp_path, broker):
    if broker == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    if broker == "embedded" and find_spec("amqtt") is None:
        pytest.skip("the extra 'demo' (amqtt) is not installed")
    out = tmp_path / "out"
    run = demo("--seconds", 7, "--out", out, "--broker", broker)
    assert run.returncode == 0, run.stdout + run.stderr + (out / "daemon.log").read_text()
    for name in ("contact-sheet.png", "sensors.png"):
        assert cv2.imread(str(out / name)) is not None
    messages = [json.loads(line) for line in (out / "messages.jsonl").read_text().splitlines()]
    results = [m["payload"] for m in messages if m["topic"].endswith("/result")]
    assert results and all(r["state"] == "done" for r in results)
    coco = json.loads((out / "annotations.json").read_text())
    assert len(coco["images"]) == len(coco["annotations"]) == sum(len(r["output"]["items"]) for r in results)
    for image in coco["images"]:
        picture = cv2.imread(str(out / image["file_name"]))
        assert picture is not None
        assert picture.shape[:2] == (image["height"], image["width"])
    qualities = {m["payload"]["quality"] for m in messages if "/sensors/press/" in m["topic"]}
    assert {"good", "imputed"} <= qualities


def test_the_demo_takes_frames_and_a_recording_of_somebody_elses(tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    from denoised.demo.surface import frame

    for n in range(2):
        cv2.imwrite(str(frames / f"real{n}.jpg"), frame(3, n))
    rows = [f"2026-11-23 10:00:{n:02d},{n % 7}.5,{20 - n % 5},x" for n in range(60)]
    (tmp_path / "r.csv").write_text("when,speed,load,note\n" + "\n".join(rows) + "\n")
    out = tmp_path / "out"
    run = demo("--seconds", 6, "--out", out, "--frames", frames, "--sensors", tmp_path / "r.csv")
    assert run.returncode == 0, run.stdout + run.stderr
    assert (out / "frames" / "part-0000.png").read_bytes() in [p.read_bytes() for p in frames.iterdir()]
    assert "/sensors/press/speed" in (out / "messages.jsonl").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seconds", "1"], "at least 5"),
        (["--frames", "{tmp}"], "no pictures"),
        (["--sensors", "{tmp}/none.csv"], "none.csv"),
        (["--sensors", "{tmp}/words.csv"], "no column of numbers"),
    ],
)
def test_bad_usage_of_the_demo_is_said_plainly(tmp_path, capsys, words, said):
    (tmp_path / "words.csv").write_text("a,b\nx,y\n")
    status = main(["demo", "--out", str(tmp_path / "out"), *(w.format(tmp=tmp_path) for w in words)])
    assert status in (1, 2)
    assert said in capsys.readouterr().err
