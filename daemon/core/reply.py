"""What is said about a job on the bus: events, results, the short reply to a PLC. Pure: values in, JSON-ready values out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ...config.refusal import Refusal
from .job import Entry


def stamp(at: float) -> str:
    """Wall-clock seconds -> RFC 3339 UTC with milliseconds."""
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def event(entry: Entry, now: float) -> dict[str, Any]:
    """One state change, or progress of a running job."""
    out: dict[str, Any] = {"id": entry.job.id, "kind": entry.job.kind, "state": entry.state, "time": stamp(now)}
    if entry.state == "running" and entry.steps:
        out |= {"step": entry.step, "steps": entry.steps}
    if entry.job.items:
        out |= {"item": entry.item, "items": entry.job.items}
    if entry.reason:
        out["reason"] = entry.reason
    if entry.state == "accepted" and (promise := entry.job.promise) and not entry.moved:
        told = {"operating_point": promise.operating_point, "finish": promise.finish, "run_ms": promise.run_ms}
        out["promise"] = {**told, "energy_j": promise.energy_j, "basis": promise.basis}
    return out


def refused(job_id: str, kind: str, refusal: Refusal, now: float) -> dict[str, Any]:
    """The final reply to a request that was not taken."""
    return {"id": job_id, "kind": kind, "state": "failed", "time": stamp(now), "error": refusal.as_error()}


def clock_state(synchronised: bool | None) -> str:
    """What a time stamp is worth, in the word of results and telemetry."""
    return {True: "synchronised", False: "free-running", None: "unknown"}[synchronised]


def result(
    entry: Entry,
    state: str,
    wall: float,
    waited_s: float,
    facts: Mapping[str, Any],
    error: Refusal | None = None,
    synchronised: bool | None = None,
) -> dict[str, Any]:
    """The one final reply of a job that was taken; `facts` is what the worker reports of the run.

    waited_s: since it was accepted. synchronised: whether the clock that `time` is from is disciplined; None: unknown.
    """
    job, run_ms = entry.job, entry.spent_ms + facts.get("run_ms", 0)
    out = {
        "id": job.id,
        "kind": job.kind,
        "state": state,
        "time": stamp(wall),
        "clock": clock_state(synchronised),
        "queued_ms": max(0, round(waited_s * 1000) - run_ms),
        "run_ms": run_ms,
        "model": facts.get("model"),
        "operating_point": facts.get("operating_point"),
        "provider": facts.get("provider"),
        "energy_j": facts.get("energy_j"),
        "energy": facts.get("energy"),
        "seed": job.seed,
        "artifacts": facts.get("artifacts", []),
        "output": facts.get("output", {}),
    }
    if entry.point is not None and entry.point.quality is not None:
        out["quality"] = round(entry.point.quality, 4)
    if "quality_tier" in facts:
        out["quality_tier"] = facts["quality_tier"]
    if facts.get("resumed_steps"):
        out["resumed_steps"] = facts["resumed_steps"]
    if error is not None:
        out["error"] = error.as_error()
    elif entry.cancel_reason:
        out["reason"] = entry.cancel_reason
    return out


def plc(final: Mapping[str, Any], form: str) -> Any:
    """The short reply of a trigger: `{"id","ok","count","run_ms"}`, or the count alone (0 where the job failed)."""
    ok = final["state"] == "done"
    items = final.get("output", {}).get("items")
    count = (len(items) if isinstance(items, list) else 1) if ok else 0
    return count if form == "number" else {"id": final["id"], "ok": ok, "count": count, "run_ms": final.get("run_ms", 0)}
