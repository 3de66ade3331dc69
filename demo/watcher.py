"""The demo's plain MQTT client: prints what arrives on the bus and keeps it."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from ..daemon.cli.progress import Progress
from ..daemon.client import Client
from .line import Line

_GRACE = 20.0
"""Seconds that jobs still in hand may take when the time is up."""


class Watcher:
    """A plain MQTT client that prints what arrives, and keeps it."""

    def __init__(self, out: Path):
        self._log = (out / "messages.jsonl").open("w")
        self.results: list[dict[str, Any]] = []
        self.repaired: dict[tuple[float, str], tuple[float, float, float]] = {}
        self.counts: Counter[str] = Counter()
        self._gapping: set[str] = set()
        self._gone: list[str] = []
        self._back: list[str] = []
        self._progress = Progress("demo")

    def wait_online(self, client: Client, daemon: subprocess.Popen[bytes]) -> None:
        """Until the daemon says that it is there."""
        until = time.monotonic() + 30
        while time.monotonic() < until and daemon.poll() is None:
            for message in client.messages(0.5):
                self._keep(message.topic, message.payload)
                if message.topic.endswith("/status") and json.loads(message.payload)["state"] == "online":
                    return
        raise ValueError("the daemon did not come online; see daemon.log")

    def watch(self, client: Client, seconds: float, line: Line) -> None:
        """Prints for `seconds`, then stops the line and waits for the jobs that are still in hand."""
        began = time.monotonic()
        stop_at, give_up_at = began + seconds, began + seconds + _GRACE
        with self._progress:
            while time.monotonic() < give_up_at:
                for message in client.messages(0.1):
                    self._show(message.topic, self._keep(message.topic, message.payload))
                self._tell_sensors()
                self._progress.show((time.monotonic() - began) / seconds, f"{len(self.results)} parts, {self._words()}")
                if time.monotonic() >= stop_at and line.is_alive():
                    line.stop()
                if not line.is_alive() and len(self.results) >= len(line.parts) and time.monotonic() > stop_at + 1:
                    break
        self._log.close()

    def _keep(self, topic: str, payload: bytes) -> Any:
        value = msgspec.json.decode(payload)
        self._log.write(
            json.dumps({"at": datetime.now().isoformat(timespec="milliseconds"), "topic": topic, "payload": value}) + "\n"
        )
        return value

    def _show(self, topic: str, value: Any) -> None:
        words = topic.split("/")
        if topic.endswith("/result"):
            self.results.append(value)
            items = value.get("output", {}).get("items", [])
            what = value["error"]["message"] if "error" in value else ", ".join(i["image"] for i in items)
            self._print(f"result    {value['id']} {value['state']} in {value.get('run_ms', 0)} ms: {what}")
        elif topic.endswith("/event"):
            if value["state"] == "accepted":
                self._print(f"accepted  {value['id']} ({value['kind']}, {value.get('items', 1)} pictures)")
        elif topic == "plant/line1/camera/done":
            self._print(f"to PLC    {json.dumps(value)}")
        elif len(words) > 3 and words[2] == "sensors":
            self._sample(words[-1], value)
        elif topic.endswith("/telemetry"):
            self.counts["telemetry"] += 1

    def _sample(self, tag: str, value: dict[str, Any]) -> None:
        self.counts[value["quality"]] += 1
        if value["quality"] == "good":
            if tag in self._gapping:
                self._gapping.discard(tag)
                self._back.append(tag)
            return
        if value["value"] is None:
            return
        at = datetime.fromisoformat(value["t"].replace("Z", "+00:00")).timestamp()
        self.repaired[at, tag] = (value["value"], value["q05"], value["q95"])
        if tag not in self._gapping:
            self._gapping.add(tag)
            self._gone.append(f"{tag} {value['value']:.4g} [{value['q05']:.4g} .. {value['q95']:.4g}]")

    def _tell_sensors(self) -> None:
        """What went missing and what came back since the last call, a line each."""
        if self._gone:
            self._print(f"sensors   missing, imputed: {_few(self._gone)}")
        if self._back:
            self._print(f"sensors   measured again: {_few(self._back)}")
        self._gone, self._back = [], []

    def _words(self) -> str:
        return f"{self.counts['good']} samples measured, {self.counts['imputed'] + self.counts['uncertain']} imputed"

    def _print(self, text: str) -> None:
        self._progress.clear()
        print(f"{datetime.now():%H:%M:%S.%f}"[:-3] + f"  {text}", flush=True)


def _few(words: list[str]) -> str:
    """The first three, and how many more."""
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")
