"""What a library for typed configuration costs a small gateway: CPU time and memory, each in a fresh process.

    python -m venv /tmp/libraries && /tmp/libraries/bin/pip install msgspec pydantic cattrs
    /tmp/libraries/bin/python bench/config_libraries.py

Each library reads one and the same section from a mapping. The time is the process's CPU time for that, import
included and the interpreter's own start left out; the memory is the peak of the whole process. Median of several runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

SECTION = {"host": "127.0.0.1", "port": 1883, "username": None}
LIBRARIES = {
    "nothing": "",
    "dataclasses": """
from dataclasses import dataclass
@dataclass(frozen=True)
class Mqtt:
    host: str = "localhost"
    port: int = 1883
    username: "str | None" = None
Mqtt(**section)
""",
    "msgspec": """
from dataclasses import dataclass
from typing import Annotated, Optional
import msgspec
@dataclass(frozen=True)
class Mqtt:
    host: str = "localhost"
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 1883
    username: Optional[str] = None
msgspec.convert(section, Mqtt)
""",
    "cattrs": """
from typing import Optional
import attrs, cattrs
@attrs.frozen
class Mqtt:
    host: str = "localhost"
    port: int = attrs.field(default=1883, validator=[attrs.validators.ge(1), attrs.validators.le(65535)])
    username: Optional[str] = None
cattrs.structure(section, Mqtt)
""",
    "pydantic": """
from typing import Optional
from pydantic import BaseModel, Field
class Mqtt(BaseModel, extra="forbid", frozen=True):
    host: str = "localhost"
    port: int = Field(1883, ge=1, le=65535)
    username: Optional[str] = None
Mqtt(**section)
""",
}
MEASURE = """
import time
section = %r
start = time.process_time()
%s
cpu = time.process_time() - start
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(1000 * cpu, peak / 1024)
"""


def measure(code: str, runs: int) -> tuple[float, float] | None:
    """CPU time in ms and peak memory in MiB, or None where the library is not installed."""
    seen = []
    for _ in range(runs + 1):  # the first one compiles and warms the page cache
        child = subprocess.run([sys.executable, "-c", MEASURE % (SECTION, code)], capture_output=True, text=True, check=False)
        if "ModuleNotFoundError" in child.stderr:
            return None
        child.check_returncode()
        seen.append([float(word) for word in child.stdout.split()])
    cpu, peak = zip(*seen[1:])
    return statistics.median(cpu), statistics.median(peak)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=11, help="processes per library (default 11)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args()
    found = {name: measure(code, args.runs) for name, code in LIBRARIES.items()}
    if args.json:
        print(
            json.dumps({name: None if row is None else {"cpu_ms": row[0], "peak_mib": row[1]} for name, row in found.items()})
        )
        return
    print(f"{'library':12} {'CPU ms':>8} {'peak MiB':>9}")
    for name, row in found.items():
        print(f"{name:12} " + ("not installed" if row is None else f"{row[0]:8.1f} {row[1]:9.1f}"))


if __name__ == "__main__":
    main()
