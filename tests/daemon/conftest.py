"""Eclipse Tahu's own reader of Sparkplug payloads, for the tests that send some."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

TAHU = Path(__file__).resolve().parents[2] / ".venv" / "node_modules" / "sparkplug-payload"
READER = """
const spb = require(process.argv[1]).get("spBv1.0");
const lines = require("fs").readFileSync(0, "utf8").trim().split("\\n");
const plain = (key, v) => v && v.__isLong__ ? v.toString() : v;
for (const line of lines) console.log(JSON.stringify(spb.decodePayload(Buffer.from(line, "hex")), plain));
"""


@pytest.fixture(scope="session")
def tahu():
    """tahu([payload, ...]): each as the library in JavaScript reads it; its integers of 64 bits are text."""
    if shutil.which("node") is None or not TAHU.exists():
        pytest.skip("Eclipse Tahu's sparkplug-payload is not there: needs node and npm, then `make test` fetches it")

    def read(payloads: list[bytes]) -> list[dict]:
        command = ["node", "-e", READER, str(TAHU)]
        text = "\n".join(p.hex() for p in payloads)
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return read
