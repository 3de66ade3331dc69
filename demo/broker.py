"""A broker of the demo's own on a free loopback port: mosquitto where the machine has it, else the one from PyPI (amqtt)."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path


class NoBroker(RuntimeError):
    """No broker can be started here: what to install."""


class Broker:
    """`with Broker("auto", folder) as b:` - a broker at 127.0.0.1:b.port (a free one, unless given) speaking `b.protocol`.

    settings: more lines for mosquitto's own configuration.
    """

    def __init__(self, which: str, folder: Path, port: int | None = None, settings: str = ""):
        self._mosquitto = find_mosquitto() if which in ("auto", "mosquitto") else None
        if self._mosquitto is None and (which == "mosquitto" or find_spec("amqtt") is None):
            raise NoBroker("no broker found: install mosquitto (apt install mosquitto) or pip install 'denoised[demo]'")
        self.port = port or free_port()
        self.name = "mosquitto" if self._mosquitto else "amqtt"
        self.protocol = "5" if self._mosquitto else "3.1.1"
        self._folder, self._settings = folder, settings
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Broker:
        command = [sys.executable, "-m", "denoised.demo.broker", str(self.port)]
        if self._mosquitto:
            settings = self._folder / "mosquitto.conf"
            # Without set_tcp_nodelay each small exchange costs some 40 ms.
            settings.write_text(
                f"listener {self.port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n{self._settings}\n"
            )
            command = [self._mosquitto, "-c", str(settings)]
        with (self._folder / "broker.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        until = time.monotonic() + 15
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > until:
                self.__exit__()
                raise NoBroker(f"{self.name} did not start: {(self._folder / 'broker.log').read_text()[-500:]}")
            time.sleep(0.02)
        return self

    def kill(self) -> None:
        """As a power cut would end it."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def __exit__(self, *error: object) -> None:
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(3)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def free_port() -> int:
    """A TCP port that is free on loopback now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def find_mosquitto() -> str | None:
    """The broker's executable, or None."""
    # Debian puts it into sbin, which is not on a user's PATH.
    return shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def _listens(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


async def _serve(port: int) -> None:
    from amqtt.broker import Broker as Amqtt

    settings = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    await Amqtt(settings).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(_serve(int(sys.argv[1])))
