"""What the gateway is to a SCADA host: the metrics of the node, of cameras and of sensor groups, and where they come from.

Pure. The tables here are those of docs/sparkplug.md. A metric that nothing fills yet is null, never left out, for a birth
must name all that will ever be told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .gaps import Sample
from .sparkplug_metric import BAD, GOOD, STALE, Metric, Type, Value

SUBMIT, CANCEL, ACTIVE = "Jobs/{}/Submit", "Jobs/Cancel", "Models/Active/{}"
REFUSED, REFUSAL = "Commands/Refused", "Commands/Last Refusal"
LAST_ERROR, FRAMES = "Last Error", "Frames"
PROPERTIES = ("Version", "Started", "Board")
_INT, _REAL, _TEXT, _SWITCH = Type.INT64, Type.DOUBLE, Type.STRING, Type.BOOLEAN

# Metric, type, unit, field path in the telemetry message.
_TELEMETRY: tuple[tuple[str, Type, str, str], ...] = (
    ("Jobs/Accepted", _INT, "", "jobs.accepted"),
    ("Jobs/Done", _INT, "", "jobs.done"),
    ("Jobs/Failed", _INT, "", "jobs.failed"),
    ("Jobs/Cancelled", _INT, "", "jobs.cancelled"),
    ("Jobs/Expired", _INT, "", "jobs.expired"),
    ("Jobs/Refused", _INT, "", "jobs.refused"),
    ("Jobs/Waiting", _INT, "", "queue.jobs"),
    ("Jobs/Waiting Max", _INT, "", "queue.max_jobs"),
    ("Jobs/Mean Run Time", _INT, "ms", "queue.mean_run_ms"),
    ("Jobs/Running/Id", _TEXT, "", "running.id"),
    ("Jobs/Running/Kind", _TEXT, "", "running.kind"),
    ("Governor/Temperature", _REAL, "C", "governor.temp_c"),
    ("Governor/Limit", _REAL, "C", "governor.limit_c"),
    ("Governor/Headroom", _REAL, "K", "governor.headroom_k"),
    ("Governor/Power", _REAL, "W", "governor.power_w"),
    ("Governor/Duty", _REAL, "", "governor.duty"),
    ("Governor/Reason", _TEXT, "", "governor.reason"),
    ("Governor/Throttle Events", _INT, "", "governor.throttle_events"),
    ("Governor/Under Voltage", _SWITCH, "", "governor.under_voltage"),
    ("Governor/Operating Point", _TEXT, "", "operating_point"),
    ("Energy/Today", _REAL, "J", "energy.today_j"),
    ("Energy/Month", _REAL, "J", "energy.month_j"),
    ("Worker/State", _TEXT, "", "worker.state"),
    ("Memory/Supervisor", _INT, "MB", "memory_mb.supervisor"),
    ("Memory/Worker", _INT, "MB", "memory_mb.worker"),
    ("Disk/Free", _INT, "MB", "disk.free_mb"),
    ("Disk/Full", _TEXT, "", "disk.full"),
    ("Results/Waiting", _INT, "", "outbox.waiting.result"),
    ("Properties/Clock", _TEXT, "", "clock"),
    ("Store/Waiting", _INT, "", "sparkplug.waiting"),
    ("Store/Dropped", _INT, "", "sparkplug.dropped"),
)
# Metric, type, unit, field of the result that ended the last job.
_LAST: tuple[tuple[str, Type, str, str], ...] = (
    ("Jobs/Last/Id", _TEXT, "", "id"),
    ("Jobs/Last/Kind", _TEXT, "", "kind"),
    ("Jobs/Last/State", _TEXT, "", "state"),
    ("Jobs/Last/Queued", _INT, "ms", "queued_ms"),
    ("Jobs/Last/Run Time", _INT, "ms", "run_ms"),
    ("Jobs/Last/Energy", _REAL, "J", "energy_j"),
    ("Jobs/Last/Model", _TEXT, "", "model.name"),
    ("Jobs/Last/Error", _TEXT, "", "error.code"),
    ("Jobs/Last/Error Field", _TEXT, "", "error.field"),
    ("Jobs/Last/Error Message", _TEXT, "", "error.message"),
)


def node(kinds: Iterable[str]) -> Iterator[Metric]:
    """The node's own metrics. kinds: of job that can be asked for."""
    for name in PROPERTIES:
        yield Metric(f"Properties/{name}", _TEXT)
    for name, kind, unit, _ in _TELEMETRY:
        yield Metric(name, kind, properties=_unit(unit))
    for name, kind, unit, _ in _LAST:
        yield Metric(name, kind, properties=_unit(unit), stored=True)
    for job_kind in kinds:
        yield Metric(SUBMIT.format(job_kind), _TEXT, writable=True)
        yield Metric(ACTIVE.format(job_kind), _TEXT)
    yield Metric(CANCEL, _TEXT, writable=True)
    yield Metric(REFUSED, _INT)
    yield Metric(REFUSAL, _TEXT)


def camera() -> Iterator[Metric]:
    """A camera's."""
    yield Metric(FRAMES, _INT)
    yield Metric(LAST_ERROR, _TEXT)


def group(tags: Mapping[str, Any]) -> Iterator[Metric]:
    """A sensor group's, from the `tags` of its `SensorGroup`; what the imputation says never stands in the tag itself."""
    for tag, settings in tags.items():
        limits = {"engLow": settings.low, "engHigh": settings.high}
        properties = {key: float(value) for key, value in limits.items() if value is not None}
        yield Metric(tag, _REAL, quality=STALE, properties=properties, stored=True)
        for part in ("value", "q05", "q95"):
            yield Metric(f"imputed/{tag}/{part}", _REAL, quality=STALE, stored=True)


def of_telemetry(message: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    """Metric and value of everything in a telemetry message that is told."""
    running = message.get("running") or [{}]
    jobs = dict.fromkeys(("accepted", "done", "failed", "cancelled", "expired", "refused"), 0) | message.get("jobs", {})
    point = message.get("operating_point")
    words = " ".join(f"{key}={value}" for key, value in point.items()) if point else None
    return _values(_TELEMETRY, {**message, "running": running[-1], "jobs": jobs, "operating_point": words})


def of_final(message: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    """Metric and value of a final reply: a result, or the refusal of a request."""
    return _values(_LAST, message)


def of_sample(sample: Sample) -> Iterator[tuple[str, Value, int]]:
    """Metric, value and quality: a measured value in the tag, an imputed one beside it, each null while the other is there."""
    measured = sample.quality == "good"
    yield sample.tag, sample.value if measured else None, {"good": GOOD, "bad": BAD}.get(sample.quality, STALE)
    for part, value in (("value", sample.value), ("q05", sample.q05), ("q95", sample.q95)):
        quality = {"imputed": GOOD, "bad": BAD}.get(sample.quality, STALE)
        yield f"imputed/{sample.tag}/{part}", None if measured else value, quality


def _values(table: Iterable[tuple[str, Type, str, str]], message: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    for name, kind, _, path in table:
        value: Any = message
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            yield name, None
        elif kind is _INT:
            yield name, round(value)
        elif kind is _REAL:
            yield name, round(float(value), 2)
        elif kind is _SWITCH:
            yield name, bool(value)
        else:
            yield name, value if isinstance(value, str) else str(value)


def _unit(unit: str) -> Mapping[str, str]:
    return {"engUnit": unit} if unit else {}
