"""`denoised demo`: the main job on one machine with nothing else set up; leaves pictures, a plot and the message log."""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from ..config import typed
from ..config.tree import Config, Mqtt
from ..daemon.client import Client
from ..daemon.models import find_models
from .broker import Broker, NoBroker
from .line import Line, Recording
from .plant import Plant
from .report import report
from .watcher import Watcher

_PERIOD = 0.25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `denoised demo --help`."""
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N", help="how long the line runs (60)")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), metavar="DIR", help="where everything is left (demo-out)")
    parser.add_argument("--frames", type=Path, metavar="DIR", help="pictures of good parts instead of simulated ones")
    parser.add_argument("--sensors", type=Path, metavar="FILE.csv", help="a sensor recording instead of the simulated plant")
    parser.add_argument(
        "--broker", choices=("auto", "mosquitto", "embedded"), default="auto", help="which broker to start (auto)"
    )
    parser.add_argument("--seed", type=int, default=1, help="another seed is another product and another plant (1)")


def main(args: argparse.Namespace) -> int:
    """0 where defects and repaired samples came back over the bus."""
    if args.seconds < 5:
        print("denoised demo: --seconds must be at least 5", file=sys.stderr)
        return 2
    out = args.out.resolve()
    for folder in ("images", "frames"):
        shutil.rmtree(out / folder, ignore_errors=True)
        (out / folder).mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="denoised-demo-") as state:
        try:
            with Broker(args.broker, Path(state)) as broker:
                print(f"broker    {broker.name} on 127.0.0.1:{broker.port}, MQTT {broker.protocol}")
                return _play(args, out, Path(state), broker)
        except (NoBroker, ValueError, OSError) as e:
            print(f"denoised demo: {e}", file=sys.stderr)
            return 1


def _play(args: argparse.Namespace, out: Path, state: Path, broker: Any) -> int:
    sensors = Recording(args.sensors, args.seed, _PERIOD) if args.sensors else Plant(args.seed, _PERIOD)
    # Nothing that the simulated press measures can be negative; of a recording nothing is known.
    config = _config(out, state, broker, list(sensors.tags), {} if args.sensors else {"low": 0.0})
    (out / "denoised.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    mqtt = typed.read(config["mqtt"], Mqtt)
    classes = _classes()
    line = Line(
        mqtt,
        sensors,
        _PERIOD,
        out / "frames",
        classes,
        max(2.0, min(4.0, args.seconds / len(classes) / 2)),
        args.seed,
        args.frames,
    )
    began = time.monotonic()
    with (out / "daemon.log").open("wb") as log, Client(mqtt, ["denoised/#", "plant/line1/camera/done"]) as client:
        command = [sys.executable, "-m", "denoised", "run", "--config", str(out / "denoised.yaml")]
        daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            watcher = Watcher(out)
            watcher.wait_online(client, daemon)
            print(f"daemon    online after {time.monotonic() - began:.1f} s, log in {out / 'daemon.log'}")
            line.start()
            watcher.watch(client, args.seconds, line)
        finally:
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
    return report(watcher, line, list(sensors.tags), _PERIOD, out, daemon.returncode)


def _config(out: Path, state: Path, broker: Any, tags: list[str], limits: dict[str, float]) -> dict[str, Any]:
    """A configuration as a technician would write it, for the simulated line."""
    return {
        "gateway": {"id": "demo"},
        "mqtt": {"port": broker.port, "protocol": broker.protocol},
        "state_dir": str(state),
        "artifacts": {"dir": str(out / "images")},
        "cameras": {"line1": {"source": str(out / "frames")}},
        "triggers": {
            "inspect-line1": {
                "topic": "plant/line1/camera",
                "when": {"field": "ok", "equals": True},
                "kind": "defect-synthesis",
                "id": "$.part",
                "params": {"image": {"camera": "line1"}, "defect": "$.recipe", "severity": "$.severity", "count": 2},
                "reply": {"topic": "plant/line1/camera/done"},
            }
        },
        "sensors": {
            "press": {
                "period": _PERIOD,
                "max_latency": 0.5,
                "tags": {tag: {"topic": f"plant/line1/sensors/{tag}", **limits} for tag in tags},
            }
        },
    }


def _classes() -> list[str]:
    """The defect classes of the shipped model."""
    models = find_models(Config())[0].get("defect-synthesis", ())
    if not models:
        raise ValueError("no defect-synthesis model is shipped with this package")
    return list(models[0].manifest.classes)
