"""vcgencmd, the Raspberry Pi's own tool for asking its firmware (raspberrypi.com, documentation of vcgencmd)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from .sysfs import Look

_PERIOD, _HUNG_FOR, _PATIENCE = 1.0, 60.0, 0.5


class Vcgencmd:
    """Each question costs a process and some 10 ms: the same one is asked at most once a second, and a tool that hung is left
    alone for a minute. In between the last answer holds. Times are monotonic seconds."""

    def __init__(self, path: Path):
        self.path = path
        self._asked: dict[str, tuple[float, str | None, str]] = {}
        """Question -> when to ask again, the answer, and why there is none."""

    def ask(self, question: str, look: Look, about: str, now: float) -> str | None:
        """The answer; None where there is none, and why stands in `look.problems`."""
        again, answer, why = self._asked.get(question, (now, None, ""))
        if not again - _HUNG_FOR <= now < again:
            answer, why, hung = self._run(question)
            self._asked[question] = now + (_HUNG_FOR if hung else _PERIOD), answer, why
        if answer is None:
            look.problems[about] = f"{self.path} {question}: {why}"
        return answer

    def _run(self, question: str) -> tuple[str | None, str, bool]:
        """(answer, why there is none, whether it hung)."""
        try:
            done = subprocess.run([self.path, question], capture_output=True, timeout=_PATIENCE, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            return None, f"no answer in {_PATIENCE:g} s", True
        except OSError as e:
            return None, e.strerror or str(e), False
        answer = done.stdout.decode("utf-8", "replace").strip()
        if done.returncode or "error" in answer:
            return None, (answer or done.stderr.decode("utf-8", "replace").strip())[:80], False
        return answer, "", False


def find_vcgencmd(root: Path) -> Vcgencmd | None:
    """Where distributions have it; it must be ours to run."""
    places = [root / folder / "vcgencmd" for folder in ("usr/bin", "bin", "opt/vc/bin")]
    return next((Vcgencmd(p) for p in places if os.access(p, os.X_OK) and p.is_file()), None)
