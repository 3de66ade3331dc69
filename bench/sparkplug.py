"""What the Sparkplug edge node costs: bytes of its messages, samples a second on one core, memory of what it keeps.

    .venv/bin/python bench/sparkplug.py

Sizes are of the payload; topic and MQTT header come to some 50 bytes. Times are the least of five runs, from a sample of the
repaired stream to the bytes of its message; beside them is the same number of payloads from the library alone.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

from denoised.config import typed
from denoised.config.tree import Tag
from denoised.daemon.core import sparkplug_tags as tags
from denoised.daemon.core.gaps import Sample
from denoised.daemon.core.sparkplug import Edge
from denoised.daemon.core.sparkplug_metric import GOOD, Message, Metric, Type
from denoised.daemon.sparkplug_payload import encode

WALL = 1_800_000_000.0
GROUPS, TAGS = 200, 10


def node(groups: int, names: list[str], aliases: bool = False, keep: int = 10_000) -> Edge:
    """An edge node with so many sensor groups, each with tags of these names."""
    edge = Edge(False, aliases=aliases, keep=keep)
    edge.declare(None, tags.node(["defect-synthesis", "sensor-imputation"]))
    settings = {name: typed.read({"topic": "t", "low": 0, "high": 200}, Tag) for name in names}
    for i in range(groups):
        edge.declare(f"sensors-{i}", tags.group(settings))
    return edge


def told(edge: Edge, sample: Sample, device: str, wall: float) -> None:
    for name, value, quality in tags.of_sample(sample):
        edge.update(device, name, value, sample.at, wall, quality)


def least(run: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def sizes(names: list[str], aliases: bool) -> tuple[int, int, float, float]:
    """Bytes of NBIRTH, of a group's DBIRTH, and of a DDATA per measured and per imputed sample."""
    edge = node(1, names, aliases)
    edge.connected(0.0)
    births = [encode(m) for m in edge.turn(WALL, 0.0)]
    out = []
    for second, quality in ((1.0, "good"), (2.0, "imputed")):
        for k, name in enumerate(names):
            band = (k + 60.5, k + 62.5) if quality == "imputed" else (None, None)
            told(edge, Sample(name, WALL + second, k + 61.5, quality, *band), "sensors-0", WALL + second)
        out.append(sum(len(encode(m)) for m in edge.turn(WALL + second, second)) / len(names))
    return len(births[0]), len(births[1]), out[0], out[1]


def samples_a_second() -> tuple[float, float]:
    """Of the edge node, and payloads with as many values by the library alone."""
    names = [f"tag{i}" for i in range(TAGS)]
    edge = node(GROUPS, names)
    edge.connected(0.0)
    edge.turn(WALL, 0.0)
    second = 0

    def run() -> None:
        nonlocal second
        second += 1
        for i in range(GROUPS):
            for k, name in enumerate(names):
                told(edge, Sample(name, WALL + second, second + k / 10, "good"), f"sensors-{i}", WALL + second)
        for message in edge.turn(WALL + second, float(second)):
            encode(message)

    metrics = tuple(Metric(name, Type.DOUBLE, k / 10, WALL, GOOD) for k, name in enumerate(names))
    message = Message("DDATA", "d", metrics, WALL, 1)
    count = GROUPS * TAGS
    return count / least(run), count / least(lambda: [encode(message) for _ in range(GROUPS)])


def bytes_a_kept_value(count: int = 10_000) -> float:
    edge = node(1, ["oil"], keep=count)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for i in range(count):
        told(edge, Sample("oil", WALL + i, 61.5 + i, "good"), "sensors-0", WALL + i)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return grown / edge.waiting


def main() -> None:
    print(f"{'':34}{'NBIRTH':>9}{'DBIRTH':>9}{'measured':>10}{'imputed':>9}   bytes; the last two per sample")
    for what, names, aliases in (
        ("10 tags of 12 letters", [f"{i:02}" + "x" * 10 for i in range(10)], False),
        ("10 tags of 12 letters, aliases", [f"{i:02}" + "x" * 10 for i in range(10)], True),
        ("256 tags of 64 letters", [f"{i:03}" + "x" * 61 for i in range(256)], False),
    ):
        nbirth, dbirth, measured, imputed = sizes(names, aliases)
        print(f"{what:34}{nbirth:>9}{dbirth:>9}{measured:>10.1f}{imputed:>9.1f}")
    ours, library = samples_a_second()
    print(f"{GROUPS} groups of {TAGS} tags: {ours:,.0f} samples/s on one core; encoding alone {library:,.0f} values/s")
    print(f"a kept value: {bytes_a_kept_value():.0f} bytes of memory")


if __name__ == "__main__":
    main()
