"""The board we run on: what every kind of it answers to, and which one it is."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ...config import tree
from ..core.reading import Reading, Traits
from .generic import Generic
from .jetson import Jetson
from .raspberry_pi import RaspberryPi
from .sysfs import compatible, model


class Board(Protocol):
    """Where a gateway's temperatures and watts come from, and what may be set on it. Knows no governor and no job."""

    traits: Traits
    """Another object after a `read` that found another power mode, clock right or sensor; else the same one."""

    def read(self, now: float) -> Reading:
        """One look at every sensor; now is monotonic seconds. What does not answer is None with its reason; raises nothing."""

    def cap_clock(self, share: float) -> str | None:
        """Holds the clocks at or below this share (one of `traits.clocks`); None: done, else why not."""

    def close(self) -> None:
        """Gives the clocks back; done at exit in any case."""


def find_board(config: tree.Board, keep: Path | None = None) -> Board:
    """The board that the configuration names, or what the device tree says we run on.

    keep: a file on a tmpfs; with it the clocks that a killed daemon left capped are set free by the next one.
    """
    if config.kind == "simulated":
        from .simulated import SimulatedBoard

        return SimulatedBoard(config)
    sysfs = Path(config.sysfs_root)
    kinds = {"generic": Generic, "jetson": Jetson, "raspberry-pi": RaspberryPi}
    return kinds[config.kind if config.kind != "auto" else family(sysfs)](sysfs, keep)


def family(sysfs: Path) -> str:
    """jetson, raspberry-pi or generic, as the device tree tells."""
    names = [*compatible(sysfs), model(sysfs).lower()]
    if any(n.startswith("nvidia,") and ("tegra" in n or n[7:9] in ("p3", "p2")) or "jetson" in n for n in names):
        return "jetson"
    return "raspberry-pi" if any(n.startswith(("raspberrypi,", "raspberry pi")) for n in names) else "generic"
