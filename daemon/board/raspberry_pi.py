"""Raspberry Pi 4 and 5: the firmware throttles, and tells so by a word of bits, not by the kernel's trip points.

The word (raspberrypi.com, documentation of vcgencmd get_throttled) is asked for, in this order: the kernel's file, which some
kernels have; the mailbox (/dev/vcio, tag 0x00030046 of the firmware's property interface); vcgencmd. Under-voltage alone is
also in hwmon (rpi_volt). Where none answers it is unknown, never fine.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..core.reading import Reading, Traits
from .generic import Generic, Occurred
from .power import Pmic, Source, find_pmic, find_rails
from .sysfs import Look, chips, model, outside
from .vcgencmd import Vcgencmd, find_vcgencmd

THROTTLE_C = 80.0
"""The firmware's: built in, and in no file. temp_limit in config.txt can lower it."""
UNDER_VOLTAGE, CAPPED, THROTTLED, SOFT_LIMIT = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_SINCE_BOOT = 16
_GET_THROTTLED = 0x00030046
_PROPERTY = (3 << 30) | (struct.calcsize("P") << 16) | (100 << 8)
"""_IOWR(100, 0, char *) of the downstream driver drivers/char/broadcom/vcio.c."""
_OLD_SOFT_C = {"Raspberry Pi 3 Model B Plus": 60.0, "Raspberry Pi 3 Model A Plus": 60.0}
_PMIC_IDLE_W, _PMIC_FULL_W = 1.55, 4.51
"""What the rails of a Pi 5 carry, where they are read; the other figures are of the whole board."""


class RaspberryPi(Generic):
    """A Pi with its firmware."""

    kind = "raspberry-pi"

    def __init__(self, sysfs: Path, keep: Path | None = None):
        self._low = Occurred()
        self._firmware: Vcgencmd | None = None
        super().__init__(sysfs, keep)

    def _find(self, now: float) -> None:
        root = outside(self.sysfs)
        self._words = sorted(self.sysfs.glob("devices/platform/*/*firmware*/get_throttled"))
        self._vcio = root / "dev/vcio"
        if self._firmware is None or not self._firmware.path.exists():
            self._firmware = find_vcgencmd(root)
        self._alarm = next((c / "in0_lcrit_alarm" for c in chips(self.sysfs, "rpi_volt")), None)
        super()._find(now)

    def _find_power(self, now: float) -> Source | None:
        five = re.search(r"Raspberry Pi (5|500|Compute Module 5)", model(self.sysfs))
        return find_rails(self.sysfs) or (find_pmic(self._firmware, now) if five and self._firmware else None)

    def _reading(self, look: Look, now: float) -> Reading:
        reading = super()._reading(look, now)
        word = self._word(look, now)
        if word is None:
            alarm = look.number(self._alarm, "under-voltage", "0 or 1", 0, 1) if self._alarm else None
            low = None if alarm is None else bool(alarm)
            return replace(
                reading,
                throttled=None,
                throttle_events=None,
                under_voltage=low,
                under_voltage_events=None if low is None else self._low.see(low),
            )
        since_boot, slow = word >> _SINCE_BOOT, CAPPED | THROTTLED | SOFT_LIMIT
        low = bool(word & UNDER_VOLTAGE)
        return replace(
            reading,
            throttled=bool(word & slow),
            throttle_events=self._throttles.see(bool(word & slow), bool(since_boot & slow)),
            under_voltage=low,
            under_voltage_events=self._low.see(low, bool(since_boot & UNDER_VOLTAGE)),
        )

    def _throttling(self, look: Look) -> tuple[bool | None, int | None]:
        return None, None  # the kernel's cooling devices are the fan alone; the firmware's word says more

    def _word(self, look: Look, now: float) -> int | None:
        """The firmware's word, None where nothing tells it; why stands under `throttle word`."""
        about = "throttle word"
        why: list[str] = []
        sources: list[Callable[[], str | None]] = [lambda f=f: look.text(f, about) for f in self._words]  # type: ignore[misc]
        if self._vcio.exists():
            sources.append(lambda: ask_mailbox(self._vcio, look, about))
        if tool := self._firmware:
            sources.append(lambda: (tool.ask("get_throttled", look, about, now) or "").removeprefix("throttled=") or None)
        for source in sources:
            text = source()
            if text is not None and (word := parse_word(text)) is not None:
                look.problems.pop(about, None)
                return word
            why.append(look.problems.get(about, "") if text is None else f"expected a hexadecimal word, found {text[:40]!r}")
        look.problems[about] = "; ".join(why) or "this kernel has no get_throttled, /dev/vcio or vcgencmd: unknown"
        return None

    def _traits(self) -> Traits:
        base, name = super()._traits(), model(self.sysfs)
        limits = [THROTTLE_C, *(c for words, c in _OLD_SOFT_C.items() if words in name)]
        limits += filter(None, [configured_limit(outside(self.sysfs))])
        five = "Raspberry Pi 5" in name or "Compute Module 5" in name
        # Table of measured boards: idle and full watts, then the Pi 5 with its usual cooler and fan, the Pi 4 bare.
        idle_w, full_w, die, sink, sink_s = (2.9, 8.0, 1.5, 4.0, 70.0) if five else (2.7, 6.0, 2.0, 9.0, 200.0)
        if five and not self._fan:
            idle_w, full_w, die, sink, sink_s = 2.7, 7.5, 2.0, 8.0, 180.0
        if isinstance(self._power, Pmic):
            more = full_w / _PMIC_FULL_W
            idle_w, full_w, die, sink = _PMIC_IDLE_W, _PMIC_FULL_W, die * more, sink * more
        return replace(
            base,
            throttle_c=min(limits),
            critical_c=max(base.critical_c, 85.0),
            idle_w=idle_w,
            full_w=full_w,
            die_k_per_w=die,
            die_s=4.0 if five else 5.0,
            sink_k_per_w=sink,
            sink_s=sink_s,
            supply_a=promised_amperes(self.sysfs),
        )


def parse_word(text: str) -> int | None:
    """Hexadecimal with or without 0x; None for anything else."""
    return int(text, 16) if re.fullmatch(r"(0x)?[0-9a-fA-F]{1,8}", text) else None


def ask_mailbox(vcio: Path, look: Look, about: str, ioctl: Callable[..., object] = fcntl.ioctl) -> str | None:
    """The word as hexadecimal text, by the firmware's property interface: one u32 there and back; 0 clears nothing."""
    message = bytearray(struct.pack("=7I", 28, 0, _GET_THROTTLED, 4, 4, 0, 0))
    try:
        fd = os.open(vcio, os.O_RDWR | os.O_CLOEXEC)
    except OSError as e:
        look.problems[about] = f"{vcio}: {e.strerror}"
        return None
    try:
        ioctl(fd, _PROPERTY, message, True)
    except OSError as e:
        look.problems[about] = f"{vcio}: {e.strerror}"
        return None
    finally:
        os.close(fd)
    _, answer, _, _, _, word, _ = struct.unpack("=7I", message)
    if answer != 0x80000000:
        look.problems[about] = f"{vcio}: the firmware answered {answer:#x}"
        return None
    return f"{word:x}"


def configured_limit(root: Path) -> float | None:
    """temp_limit of config.txt: the last line that gives one, whatever its section (a lower limit is on the safe side)."""
    for path in (root / "boot/firmware/config.txt", root / "boot/config.txt"):
        try:
            text = path.read_text("utf-8", "replace")
        except OSError:
            continue
        found = re.findall(r"^\s*temp_limit\s*=\s*(\d{1,3})\s*(?:#.*)?$", text, re.MULTILINE)
        if limits := [float(f) for f in found if 40 <= float(f) <= 85]:
            return min(limits)
    return None


def promised_amperes(sysfs: Path) -> float | None:
    """What the supply of a Pi 5 has promised by USB-PD: 5 A, or 3 A of any other."""
    try:
        raw = (sysfs / "firmware/devicetree/base/chosen/power/max_current").read_bytes()
    except OSError:
        return None
    return int.from_bytes(raw, "big") / 1e3 if len(raw) == 4 and any(raw) else None
