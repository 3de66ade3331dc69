"""Live sensor groups: plant values in, the repaired stream out; gaps are imputed by ephemeral `sensor-imputation` jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from ..config.refusal import Refusal
from ..config.tree import Config, SensorGroup, Tag
from .bus import Message
from .core import triggers
from .core.gaps import Group, Repair, Sample
from .core.intake import decode
from .core.job import Job
from .desk import Desk
from .outbox import Outbox
from .results import JSON
from .spool import Outgoing

_KIND = "sensor-imputation"
_PRIORITY = 10
"""Above any request: a live sample is worth little when it comes late."""
_LARGEST = 65536
"""Bytes of a sensor message; more is no measurement."""


class Groups:
    """Every configured group. `wall` is the wall clock in seconds: that is what plants put on their measurements.

    told: who else gets each sample, with the name of its group.
    """

    def __init__(
        self, config: Config, outbox: Outbox, desk: Desk, wall: float, told: Sequence[Callable[[str, Sample], None]] = ()
    ):
        self._base, self._outbox, self._desk, self._told = config.base, outbox, desk, told
        self._groups = {name: Group(name, group, wall) for name, group in config.sensors.items()}
        self._pending: dict[str, str] = {}
        self._by_topic: dict[str, list[tuple[Group, str, Tag]]] = {}
        for group in self._groups.values():
            for tag, settings in group.config.tags.items():
                self._by_topic.setdefault(settings.topic, []).append((group, tag, settings))

    @property
    def topics(self) -> list[str]:
        """The plant topics to subscribe to."""
        return list(self._by_topic)

    @property
    def due(self) -> float | None:
        """When `close` has to be called next."""
        return min((g.due for g in self._groups.values()), default=None)

    def measure(self, message: Message, wall: float) -> bool:
        """A plant value; False where the topic belongs to no group. A retained one is old and not used."""
        wanted = self._by_topic.get(message.topic)
        if wanted is None:
            return False
        for group, tag, settings in wanted if not message.retained else ():
            value, at = _read(message.payload, settings)
            sample = group.measure(tag, value, wall, at)
            if sample is not None:
                self._publish(group.name, [sample])
        return True

    def close(self, wall: float, now: float) -> None:
        """Ends the slots that are due and has their gaps imputed, in place of an imputation that is still waiting.

        now: gateway time, for the jobs.
        """
        for name, group in self._groups.items():
            if wall < group.due:
                continue
            repair = group.close(wall)
            if repair is None:
                continue
            if name in self._pending:  # what it would have answered, the new one answers too
                self._desk.drop(self._pending[name])
            if any(v is not None for row in repair.values for v in row):
                self._impute(group, repair, now)
            else:  # nothing to answer from
                self._publish(name, group.unrepaired(repair))

    def counts(self) -> dict[str, dict[str, int]]:
        """Gaps and late measurements of each group since the start."""
        return {name: {"gaps": g.gaps, "late": g.late} for name, g in self._groups.items()}

    def _impute(self, group: Group, repair: Repair, now: float) -> None:
        config: SensorGroup = group.config
        params: dict[str, Any] = {"tags": group.tags, "values": repair.values, "quantiles": [0.05, 0.5, 0.95]}
        if config.model:
            params["model"] = config.model
        job_id = f"sensors:{group.name}:{repair.slot}"  # no request can have an id with a colon
        job = Job(
            id=job_id,
            kind=_KIND,
            params=params,
            seed=repair.slot % 2**32,
            items=0,
            received_at=now,
            priority=_PRIORITY,
            wanted_at=now + config.max_latency / 2,
            durable=False,
        )
        self._pending[group.name] = job_id
        self._desk.ephemeral(job, self._answer(group, repair, job_id))

    def _answer(self, group: Group, repair: Repair, job_id: str) -> Callable[[Mapping[str, Any] | None], None]:
        def publish(output: Mapping[str, Any] | None) -> None:
            if self._pending.get(group.name) == job_id:
                del self._pending[group.name]
            self._publish(group.name, group.unrepaired(repair) if output is None else group.repaired(repair, output))

        return publish

    def _publish(self, group: str, samples: list[Sample]) -> None:
        for sample in samples:
            for tell in self._told:
                tell(group, sample)
            topic = f"{self._base}/sensors/{group}/{sample.tag}"
            self._outbox.say("sample", Outgoing(topic, msgspec.json.encode(sample.message()), content_type=JSON))


def measured(payload: bytes, field: str | None) -> float | None:
    """The number in a plant's message; None where it holds none."""
    try:
        body = decode(payload, _LARGEST)
        value = triggers.at(body, field) if field else body
    except (Refusal, KeyError):
        return None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _read(payload: bytes, settings: Tag) -> tuple[Any, float | None]:
    """The value in a sensor message, and its own time where it has one; None where it is not there."""
    try:
        body = decode(payload, _LARGEST)
    except Refusal:
        return None, None
    value, at = body, None
    try:
        value = triggers.at(body, settings.field) if settings.field else body
        if settings.time:
            at = _time(triggers.at(body, settings.time))
    except (KeyError, ValueError, OverflowError):
        return None, None
    return value, at


def _time(value: Any) -> float:
    """RFC 3339 text, or seconds or milliseconds since 1970, as wall-clock seconds."""
    if isinstance(value, str):
        return datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(value)
    return value / 1000 if value > 1e11 else float(value)
