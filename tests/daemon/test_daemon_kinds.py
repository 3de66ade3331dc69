"""The two job kinds with their shipped models, asked for over a real broker: pictures, windows and a live group."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import time
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest
from denoised.engines.bundle import SHIPPED
from denoised.plugins.provenance import read_text

DEFECTS, SENSORS = "defect-synthesis", "sensor-imputation"
WIDTH, HEIGHT = 260, 200
POLYGON = [[40, 40], [200, 60], [120, 160]]
PERIOD = 0.2

if len(list(SHIPPED.glob("*/SHA256SUMS"))) < 2:
    pytest.skip(f"the shipped models are not in {SHIPPED}", allow_module_level=True)


def surface(channels: int = 1) -> np.ndarray:
    """A brushed surface (HEIGHT, WIDTH[, channels]), uint8."""
    shape = (HEIGHT, WIDTH, channels) if channels > 1 else (HEIGHT, WIDTH)
    return np.random.default_rng(7).integers(140, 170, shape, np.uint8)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def wanted_mask() -> np.ndarray:
    return cv2.circle(np.zeros((HEIGHT, WIDTH), np.uint8), (130, 100), 30, 255, cv2.FILLED)


@pytest.fixture(scope="module")
def gateway(make_shared_daemon, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    for name in ("inputs", "frames"):
        (folder / name).mkdir()
    (folder / "inputs" / "good.png").write_bytes(png(surface()))
    (folder / "inputs" / "colour.png").write_bytes(png(surface(3)))
    (folder / "inputs" / "mask.png").write_bytes(png(wanted_mask()))
    (folder / "frames" / "frame.png").write_bytes(png(surface()))
    daemon = make_shared_daemon(
        start=False,
        inputs={"folders": [str(folder / "inputs")]},
        cameras={"line1": {"source": str(folder / "frames"), "max_age": "1h"}},
        models={"dir": str(folder / "models")},
        engine={"threads": 1},
    )
    tags = {tag: {"topic": f"plant-{daemon.id}/{tag}", "field": "v", "time": "t"} for tag in ("a", "b", "c")}
    daemon.settings["sensors"] = {"line": {"period": PERIOD, "window": 48, "max_latency": 1.0, "tags": tags}}
    daemon.write()
    daemon.start()
    return daemon


NUMBERS = itertools.count(1)


def done(daemon, kind: str, seed: int = 5, **params) -> dict:
    job_id = f"job-{next(NUMBERS)}"
    daemon.submit(kind, {"id": job_id, "seed": seed, "params": params})
    result = daemon.result(job_id)
    assert result["state"] == "done", result.get("error")
    return result


def files(result: dict) -> dict[str, bytes]:
    """The artifacts by name, each as its line in the result says it is."""
    out = {}
    for artifact in result["artifacts"]:
        data = Path(artifact["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (artifact["bytes"], artifact["sha256"])
        out[artifact["name"]] = data
    return out


def pixels(data: bytes) -> np.ndarray:
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert read is not None
    return read


def items(result: dict) -> list[tuple[dict, np.ndarray, np.ndarray]]:
    """(item, picture, mask) of every item."""
    found = files(result)
    return [(item, pixels(found[item["image"]]), pixels(found[item["mask"]])) for item in result["output"]["items"]]


@pytest.mark.parametrize(
    ("image", "source"),
    [
        ({"path": "good.png"}, surface()),
        ({"data": base64.b64encode(png(surface())).decode()}, surface()),
        ({"camera": "line1"}, surface()),
        ({"path": "colour.png"}, surface(3)),
    ],
    ids=["path", "data", "camera", "colour"],
)
def test_pixels_outside_the_mask_are_those_of_the_picture(gateway, image, source):
    for item, picture, mask in items(done(gateway, DEFECTS, image=image, count=2, severity=0.9)):
        assert picture.shape == source.shape
        assert mask.shape == source.shape[:2]
        assert set(np.unique(mask)) == {0, 255}
        assert (picture[mask == 0] == source[mask == 0]).all()
        assert (picture[mask > 0] != source[mask > 0]).any()
        assert item["box"] == list(cv2.boundingRect(mask))


@pytest.mark.parametrize(
    ("region", "allowed"),
    [
        ({"box": [50, 30, 90, 80]}, cv2.rectangle(np.zeros((HEIGHT, WIDTH), np.uint8), (50, 30), (139, 109), 1, cv2.FILLED)),
        ({"polygon": POLYGON}, cv2.fillPoly(np.zeros((HEIGHT, WIDTH), np.uint8), [np.array(POLYGON)], 1)),
        ({"mask": {"path": "mask.png"}}, wanted_mask()),
        ({"mask": {"data": base64.b64encode(png(wanted_mask())).decode()}}, wanted_mask()),
        ("auto", np.ones((HEIGHT, WIDTH), np.uint8)),
    ],
    ids=["box", "polygon", "mask", "inline-mask", "auto"],
)
def test_the_defect_lies_inside_the_region(gateway, region, allowed):
    result = done(gateway, DEFECTS, image={"path": "good.png"}, region=region, count=3, severity=0.9)
    for _, _, mask in items(result):
        assert mask.any()
        assert not mask[allowed == 0].any()


def test_the_coco_file_says_what_the_masks_say(gateway):
    result = done(gateway, DEFECTS, image={"path": "good.png"}, defect="blowhole", count=3, severity=0.9)
    coco = json.loads(files(result)[result["output"]["annotations"]])
    categories = {c["id"]: c["name"] for c in coco["categories"]}
    assert len(coco["images"]) == len(coco["annotations"]) == 3
    for (item, picture, mask), image, annotation in zip(items(result), coco["images"], coco["annotations"]):
        assert (image["file_name"], image["height"], image["width"]) == (item["image"], *picture.shape[:2])
        assert annotation["image_id"] == image["id"]
        assert categories[annotation["category_id"]] == item["defect"] == "blowhole"
        assert (annotation["bbox"], annotation["area"]) == (item["box"], int((mask > 0).sum()))
    assert len({a["id"] for a in coco["annotations"]}) == 3


def test_every_picture_and_the_coco_file_say_where_they_come_from(gateway):
    result = done(gateway, DEFECTS, image={"path": "good.png"})
    facts = {
        "gateway": gateway.id,
        "job": result["id"],
        "model": result["model"]["name"],
        "model_version": result["model"]["version"],
        "model_sha256": result["model"]["sha256"],
        "seed": "5",
        "source_sha256": hashlib.sha256(png(surface())).hexdigest(),
    }
    for name, data in files(result).items():
        said = json.loads(data)["info"] if name.endswith(".json") else read_text(data)
        prefix = "" if name.endswith(".json") else "denoised:"
        assert {key: said[prefix + key] for key in facts} == facts
        assert "trainedAlgorithmicMedia" in said[prefix + "digital_source_type"]
        assert said[prefix + "operating_point"]


def test_the_same_seed_gives_the_same_pictures_and_another_one_others(gateway):
    one, same, other = (done(gateway, DEFECTS, seed, image={"path": "good.png"}, count=2) for seed in (5, 5, 6))
    assert one["output"] == same["output"]
    drawn = [[p.tobytes() + m.tobytes() for _, p, m in items(result)] for result in (one, same, other)]
    assert drawn[0] == drawn[1]
    assert not set(drawn[0]) & set(drawn[2])
    annotations = [json.loads(files(r)["annotations.json"])["annotations"] for r in (one, same)]
    assert annotations[0] == annotations[1]


AWKWARD = [0.1 + 0.2, 1e-300, -0.0, 2**53, -(2**53), 0, 5e-324, 1 / 3]
"""Numbers that a careless way through JSON or float32 would change."""


def series(rows: int, tags: int) -> list[list[float | int | None]]:
    """Slow waves with gaps; the last of the last row is surely one."""
    rng = np.random.default_rng(rows * tags)
    wave = 20 + np.sin(np.arange(rows)[:, None] / 9 + np.arange(tags)) + rng.normal(0, 0.05, (rows, tags))
    values: list[list[float | int | None]] = [[None if rng.random() < 0.2 else v for v in row] for row in wave.tolist()]
    values[-1][-1] = None
    return values


def check_window(values: list[list], output: dict) -> None:
    assert output["imputed"] == [[v is None for v in row] for row in values]
    levels = [output["quantiles"][level] for level in ("0.05", "0.5", "0.95")]
    for i, row in enumerate(values):
        for k, measured in enumerate(row):
            answer, low, middle, high = output["values"][i][k], *(table[i][k] for table in levels)
            if measured is None:
                assert low <= middle <= high
                assert low <= answer <= high
            else:
                assert {repr(v) for v in (answer, low, middle, high)} == {repr(measured)}


@pytest.mark.parametrize(("rows", "tags"), [(5, 1), (5, 12), (48, 3), (200, 1), (200, 12)])
def test_windows_of_any_size_are_filled_and_measured_values_untouched(gateway, rows, tags):
    values = series(rows, tags)
    output = done(gateway, SENSORS, tags=[f"t{k}" for k in range(tags)], values=values)["output"]
    assert output["tags"] == [f"t{k}" for k in range(tags)]
    assert output["uncertain"] == []
    check_window(values, output)


def test_awkward_numbers_come_back_to_the_last_bit(gateway):
    values = [[number, None if i % 3 == 1 else number] for i, number in enumerate(AWKWARD * 2)]
    check_window(values, done(gateway, SENSORS, tags=["x", "y"], values=values)["output"])


def test_a_tag_without_any_measurement_is_answered_and_said_to_be_uncertain(gateway):
    values = [[*row, None] for row in series(48, 3)]
    output = done(gateway, SENSORS, tags=["a", "b", "c", "silent"], values=values)["output"]
    assert output["uncertain"] == ["silent"]
    check_window(values, output)


def test_the_same_seed_gives_the_same_numbers(gateway):
    one, same, other = (done(gateway, SENSORS, seed, tags=["a", "b", "c"], values=series(48, 3)) for seed in (5, 5, 6))
    assert one["output"] == same["output"] != other["output"]


def measure(daemon, tag: str, value: float, at: str | None = None) -> None:
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    daemon.client.publish(f"plant-{daemon.id}/{tag}", {"v": value, "t": at or now})


def test_a_live_group_is_repaired_and_a_late_measurement_said_once_more(gateway):
    until = time.monotonic() + 30
    for n in itertools.count():
        repaired = [m for m in gateway.all("sensors/line/c") if m["quality"] == "imputed"]
        if len(repaired) >= 3:
            break
        assert time.monotonic() < until, gateway.logged()[-2000:]
        for tag in ("a", "b", "c") if n < 20 else ("a", "b"):
            measure(gateway, tag, 20 + math.sin(n / 20))
        gateway.look(0.05)
    for message in repaired:
        assert message["q05"] <= message["value"] <= message["q95"]
    for tag in ("a", "b", "c"):
        said = gateway.all(f"sensors/line/{tag}")
        first = min(m["t"] for m in said if m["quality"] == "good")  # before it there is nothing to answer from
        assert {m["quality"] for m in said if m["t"] >= first} <= {"good", "imputed"}
    late = repaired[-1]["t"]
    measure(gateway, "c", 21.5, late)
    again = gateway.wait_for("sensors/line/c", lambda m: m["value"] == 21.5)
    assert again == {"t": late, "value": 21.5, "quality": "good"}
    stored = done(gateway, SENSORS, tags=["x"], values=[[1.0], [None]])["id"]
    state = gateway.folder / "state"
    spool = b"".join(path.read_bytes() for path in state.glob("spool.db*"))
    assert stored.encode() in spool
    assert b"sensors:line" not in spool
    assert b"sensors/line" not in spool
    assert [path for path in state.rglob("*") if path.name.startswith(("sensors:", ".sensors:"))] == []
