"""What `denoised top` shows: the last words of a daemon, and the lines that they make. Knows no bus and no terminal.

A field that is missing, or of another form than it should be, leaves its line out or a dash in it.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping
from typing import Any, TypeGuard

RED, YELLOW, GREEN, BOLD, PLAIN = "\033[31m", "\033[33m", "\033[32m", "\033[1m", "\033[0m"
_BAR = 16
_REFUSALS = 5
_OVER = ("done", "failed", "cancelled", "expired")
_SILENT_AFTER = 10.0
"""Seconds without a word after which the figures are called old."""


class Seen:
    """What has been told on the bus so far."""

    def __init__(self, base: str):
        self.base = base
        self.status: dict[str, Any] = {}
        self.telemetry: dict[str, Any] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        """The last event of each job that is not over."""
        self.refused: deque[dict[str, Any]] = deque(maxlen=_REFUSALS)
        self.at: float | None = None
        """When the last telemetry came; monotonic seconds."""

    def take(self, topic: str, payload: bytes, now: float) -> None:
        """One message; what is no JSON object is none of the daemon's."""
        try:
            value = json.loads(payload)
        except (ValueError, RecursionError):
            return
        if not isinstance(value, dict):
            return
        levels = topic.removeprefix(f"{self.base}/").split("/")
        if levels == ["status"]:
            self.status = value
        elif levels == ["telemetry"]:
            self.telemetry, self.at = value, now
            # A job whose end was told while nobody listened is not shown for ever.
            running = {str(j.get("id")) for j in _list(value, "running") if isinstance(j, dict)}
            self.jobs = {name: job for name, job in self.jobs.items() if name in running}
        elif levels[-1] == "event" and len(levels) == 3:
            self.jobs[levels[1]] = value
            if value.get("state") in _OVER:
                del self.jobs[levels[1]]
        elif levels[-1] in ("result", "refused"):
            self.jobs.pop(levels[1], None)
            if isinstance(value.get("error"), dict):
                self.refused.append(value)

    def json(self) -> str:
        """All of it in one line."""
        return json.dumps(
            {
                "status": self.status,
                "telemetry": self.telemetry,
                "jobs": list(self.jobs.values()),
                "refused": list(self.refused),
            }
        )


class Panel:
    """The lines for what was seen, at `now` (monotonic seconds)."""

    def __init__(self, seen: Seen, now: float, colours: bool):
        self._seen, self._now, self._colours = seen, now, colours
        self._said = seen.telemetry
        self._governor = _dict(self._said, "governor")

    def lines(self, width: int, height: int) -> list[str]:
        """At most `height` lines of at most `width` columns; the least important are left out first."""
        if self._seen.status.get("state") != "online" and not self._said:
            state = self._seen.status.get("state", "never seen at this broker; is 'denoised run' started with this config?")
            return [_fit(f"{self._seen.base}: {state}", width)]
        head = [self._title(), *self._heat(), *self._power(), *self._point(), *self._reason()]
        rest = [*self._witness(), *self._promises(), *self._queue(), *self._running(), *self._problems()]
        rest += [*self._refused(), *self._models(), *self._zones()]
        lines = [self._paint(_fit(text, width), colour) for text, colour in (*head, *rest)]
        return lines[: max(1, height)]

    def line(self) -> str:
        """The same in one line."""
        g = self._governor
        if not self._said or self._seen.status.get("state") == "offline":
            return f"{self._seen.base}: {_text(self._seen.status.get('state', 'no telemetry yet'))}"
        words = [_text(self._said.get("time", "-"))]
        words.append(f"{_number(g, 'temp_c', '.1f')} C of {_number(g, 'limit_c', '.1f')}, {_number(g, 'power_w', '.1f')} W")
        words.append(f"clock {_percent(g.get('clock'))}, pace {_percent(g.get('duty'))}")
        words.append(f"{_number(_dict(self._said, 'queue'), 'jobs', 'd')} jobs")
        running = [f"{_text(j.get('id'))} {self._steps(j)}".strip() for j in self._jobs()[:1]]
        return "; ".join([", ".join(words), *running, *([_text(g["reason"])] if g.get("reason") else [])])

    # ---- one line or a few for each topic, with its colour

    def _title(self) -> tuple[str, str]:
        status, at = self._seen.status, self._seen.at
        state, board = _text(status.get("state", "-")), _dict(self._governor, "board").get("name", status.get("board", ""))
        old = at is not None and self._now - at > _SILENT_AFTER
        up = _span(self._said.get("uptime_s"))
        words = f"{self._seen.base}  {state}{f' for {up}' if up else ''}  {_text(status.get('version', ''))}  {_text(board)}"
        if old and at is not None:
            return f"{words}  SILENT for {self._now - at:.0f} s", RED
        return words, BOLD if state == "online" else RED

    def _heat(self) -> list[tuple[str, str]]:
        g = self._governor
        temp, limit = g.get("temp_c"), g.get("limit_c")
        if not _is_number(temp) and not _is_number(limit):
            return []
        words = f"temp     {_number(g, 'temp_c', '5.1f')} C of {_number(g, 'limit_c', '.1f')}"
        colour = ""
        if _is_number(temp) and _is_number(limit):
            words += f"  {_bar((temp - 20) / max(limit - 20, 1))}"
            colour = RED if temp > limit + 0.5 else YELLOW if temp > limit - 3 else GREEN
        words += f"  headroom {_number(g, 'headroom_k', '.1f')} K"
        words += f", throttles at {_number(g, 'throttle_c', '.0f')}" if _is_number(g.get("throttle_c")) else ""
        return [(words, colour)]

    def _power(self) -> list[tuple[str, str]]:
        g, energy = self._governor, _dict(self._said, "energy")
        if not g and not energy:
            return []
        words = f"power    {_number(g, 'power_w', '5.1f')} W  clock {_percent(g.get('clock'))}  pace {_percent(g.get('duty'))}"
        if energy:
            method = f" ({_text(energy['method'])})" if energy.get("method") else ""
            words += f"  energy {_joules(energy.get('today_j'))} today, {_joules(energy.get('month_j'))} this month{method}"
        return [(words, "")]

    def _point(self) -> list[tuple[str, str]]:
        point = _dict(self._said, "operating_point")
        if not point:
            return []
        words = f"point    {_text(point.get('variant', '-'))} {_text(point.get('sampler', ''))}"
        parts = [f"{point[n]} {n}" for n in ("steps", "threads") if _is_number(point.get(n))]
        parts += [f"batch {point['batch']}"] if _is_number(point.get("batch")) else []
        return [(", ".join([words.rstrip(), *parts]), "")]

    def _reason(self) -> list[tuple[str, str]]:
        g = self._governor
        if not g.get("reason"):
            return []
        doubt = g.get("trust")  # why the sensor is not believed
        words = f"governor {_text(g['reason'])}" + (f"  sensor not believed: {_text(doubt)}" if doubt else "")
        words += "  takes no shared jobs" if g.get("share") is False else ""
        return [(words, YELLOW if doubt or g.get("share") is False else "")]

    def _witness(self) -> list[tuple[str, str]]:
        words = supply(self._governor)
        return [(f"supply   {words}", RED if "YES" in words or self._governor.get("throttle_events") else "")] if words else []

    def _promises(self) -> list[tuple[str, str]]:
        promises = _dict(self._governor, "promises")
        if not promises:
            return []
        words = ", ".join(f"{_number(promises, n, 'd')} {n}" for n in ("made", "kept", "broken"))
        return [(f"promises {words}", YELLOW if promises.get("broken") else "")]

    def _queue(self) -> list[tuple[str, str]]:
        queue, waiting = _dict(self._said, "queue"), _dict(_dict(self._said, "outbox"), "waiting")
        if not queue:
            return []
        words = f"queue    {_number(queue, 'jobs', 'd')} of {_number(queue, 'max_jobs', 'd')} jobs"
        if to_deliver := sum(n for n in waiting.values() if _is_number(n)):
            words += f", {to_deliver} messages to deliver"
        counts = _dict(self._said, "jobs")
        return [(words + "".join(f", {n} {_text(state)}" for state, n in counts.items() if _is_number(n)), "")]

    def _jobs(self) -> list[dict[str, Any]]:
        """Those that run or are laid aside, with the last that was heard of each."""
        told = [j for j in _list(self._said, "running") if isinstance(j, dict)]
        return [{**j, **self._seen.jobs.get(str(j.get("id")), {})} for j in told]

    def _running(self) -> list[tuple[str, str]]:
        lines = []
        for job in self._jobs():
            step, steps = job.get("step"), job.get("steps")
            share = step / steps if _is_number(step) and _is_number(steps) and steps else None
            name, kind, state = (_text(job.get(n, "-")) for n in ("id", "kind", "state"))
            words = f"job      {name[:24]:24} {kind[:18]:18} {state[:8]:8}"
            words += f" {_bar(share, 10)} {self._steps(job)}" if share is not None else ""
            why = f" {_text(job['reason'])}" if job.get("reason") else ""
            lines.append((words.rstrip() + why, ""))
        return lines

    def _steps(self, job: Mapping[str, Any]) -> str:
        pairs = [(n, job.get(n), job.get(f"{n}s")) for n in ("step", "item")]
        return " ".join(f"{n} {a}/{b}" for n, a, b in pairs if _is_number(a) and _is_number(b))

    def _problems(self) -> list[tuple[str, str]]:
        found = [p for p in _list(self._seen.status, "problems") if isinstance(p, dict)]
        return [(f"PROBLEM  {_text(p.get('about', '-'))}: {_text(p.get('message', ''))}", RED) for p in found]

    def _refused(self) -> list[tuple[str, str]]:
        lines = []
        for value in reversed(self._seen.refused):
            error, at = value["error"], _text(value.get("time", ""))[11:19]
            why = f"{_text(error.get('code', '-'))}: {_text(error.get('message', ''))}"
            lines.append((f"failed   {at} {_text(value.get('id', '-'))} {why}", YELLOW))
        return lines

    def _models(self) -> list[tuple[str, str]]:
        found = [m for m in _list(self._seen.status, "models") if isinstance(m, dict)]
        words = [" ".join(_text(m.get(n, "-")) for n in ("name", "version", "kind")) for m in found]
        return [(f"model    {w}", "") for w in words]

    def _zones(self) -> list[tuple[str, str]]:
        zones = _dict(self._said, "zones_c")
        words = "  ".join(f"{_text(name)} {t:.1f}" for name, t in zones.items() if _is_number(t))
        return [(f"zones    {words}", "")] if words else []

    def _paint(self, text: str, colour: str) -> str:
        return f"{colour}{text}{PLAIN}" if self._colours and colour else text


def supply(governor: Mapping[str, Any]) -> str:
    """Under-voltage, over-current and throttling in one line; empty where nothing is told of them."""
    if not governor.keys() & {"throttle_events", "under_voltage", "over_current_events"}:
        return ""
    low = governor.get("under_voltage")
    words = f"under-voltage {'unknown' if low is None else 'YES' if low else 'no'}"
    counts = _count(governor.get("over_current_events")), _count(governor.get("throttle_events"))
    return f"{words}, over-current {counts[0]}, throttled {counts[1]}"


def _dict(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _list(value: Mapping[str, Any], name: str) -> list[Any]:
    found = value.get(name)
    return found if isinstance(found, list) else []


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: Mapping[str, Any], name: str, form: str) -> str:
    found = value.get(name)
    return format(round(found) if form == "d" else found, form) if _is_number(found) and found is not None else "-"


def _percent(share: Any) -> str:
    return f"{share:.0%}" if _is_number(share) else "-"


def _count(events: Any) -> str:
    return "unknown" if not _is_number(events) else "once" if events == 1 else f"{events} times" if events else "never"


def _joules(value: Any) -> str:
    if not _is_number(value):
        return "-"
    return f"{value / 1e6:.2f} MJ" if value >= 1e6 else f"{value / 1e3:.1f} kJ" if value >= 1e3 else f"{value:.0f} J"


def _span(seconds: Any) -> str:
    if not _is_number(seconds):
        return ""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    return f"{days} d {hours % 24} h" if days else f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def _bar(share: float, width: int = _BAR) -> str:
    full = int(min(max(share, 0.0), 1.0) * width)
    return "[" + "#" * full + "-" * (width - full) + "]"


def _text(value: Any) -> str:
    """For a terminal: what came over the bus may hold anything, escapes too."""
    return "".join(c if c.isprintable() else " " for c in str(value))


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + ">"
