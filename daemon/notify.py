"""Tells systemd how we are (sd_notify(3)); not under systemd, it does nothing. The only file that imports systemd."""

from __future__ import annotations

import contextlib
import os
import socket
import time

try:
    from systemd import daemon as sd
except ImportError:
    sd = None


def notify(state: str) -> None:
    """One or more `NAME=value` lines, such as `READY=1` or `STATUS=...`."""
    # systemd may be away for a moment (daemon-reexec); nothing that it is told is worth a crash.
    with contextlib.suppress(OSError):
        if sd is not None:
            sd.notify(state)
            return
        # The protocol is one datagram, so a gateway without the library is no worse off.
        address = os.environ.get("NOTIFY_SOCKET")
        if address:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
                s.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def reloading() -> None:
    """A reload has begun; `READY=1` ends it. systemd wants the monotonic time with it (Type=notify-reload)."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_period() -> float | None:
    """Seconds between two signs of life that systemd asks for, halved to be safe; None where it asks for none."""
    usec = os.environ.get("WATCHDOG_USEC")
    pid = os.environ.get("WATCHDOG_PID")
    if not usec or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2e6
