"""A Sparkplug B 3.0 edge node and its devices: births, deaths, sequence numbers, the primary host, what is kept for later.

Pure: times come in as arguments, messages go out as values; bytes and the broker are none of its business. The rules and
their names are those of the Sparkplug 3.0 specification, chapters 4 to 6 (eclipse-sparkplug/sparkplug).

    offline -> waiting (for the primary host, where one is configured) -> alive -> offline

Whatever happens only notes what is to be said; `turn` says it, in the one order that hosts accept: NBIRTH, every DBIRTH,
live data, then what could not be said earlier.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from .sparkplug_metric import Message, Metric, Received, Type, Value, as_type

REBIRTH = "Node Control/Rebirth"
_BD_SEQ = "bdSeq"
_COALESCE_S = 1.0
"""Hosts that ask for a rebirth within so many seconds after the last one are answered with one rebirth."""
_FLUSH_S = 0.1
"""What changes within so many seconds goes in one message per device."""
_MOST_METRICS = 1000
"""Metrics of one data message."""
_REPLAY_METRICS, _REPLAY_S = 250, 0.1
"""So many kept values are sent in so many seconds: live ones are not to wait for them."""
_HOST_PATIENCE_S = 30.0
"""Where there are several brokers, how long to wait on one for the primary host before the next is tried."""


@dataclass
class _Thing:
    """The node itself or a device: its metrics by name, whether it is there, and whether the host knows that it is."""

    metrics: dict[str, Metric]
    there: bool = True
    born: bool = False
    told: dict[str, tuple[Value, int | None]] = field(default_factory=dict)
    """Value and quality of each metric as the host has it, where it is born."""


class Edge:
    """The edge node of one gateway. `wall` is seconds since 1970, `tick` any clock that never jumps.

    last_bd_seq: of the last connection that an earlier run made. keep: most values kept for later, the oldest dropped.
    brokers: how many there are to choose from.
    """

    def __init__(
        self, primary_host: bool, last_bd_seq: int | None = None, keep: int = 10_000, aliases: bool = False, brokers: int = 1
    ):
        self._primary_host, self._keep, self._aliased, self._brokers = primary_host, keep, aliases, brokers
        self.state = "offline"
        self.bd_seq = 0 if last_bd_seq is None else (last_bd_seq + 1) % 256
        """Of this connection, or of the next one where there is none."""
        self.broker = 0
        """Number of the broker that we are at, or go to next."""
        self.leaving = False
        """The connection is to be ended once `turn` has said so; then tell `lost`."""
        self.dropped = 0
        """Values that no host will get: they were too many to be kept, or their metric is no more."""
        self._things: dict[str | None, _Thing] = {None: _Thing({})}
        self._aliases: dict[tuple[str | None, str], int] = {}
        self._pending: dict[tuple[str | None, str, int], Metric] = {}
        self._pendings = 0
        self._kept: deque[tuple[str | None, Metric]] = deque()
        self._seq = 0
        self._birth_wanted = False
        self._birth_at = self._flush_at = self._replay_at = 0.0
        self._gives_up_at = 0.0
        self._host: dict[int, tuple[float, float | None]] = {}
        """Per broker: the newest time stamp of the host's STATE, and that of the last one that said online."""

    # ---- the connection -------------------------------------------------------------------------------------------

    def death(self, wall: float) -> Message:
        """The last will of the connection, and what is said when it is ended on purpose: the same bdSeq, no seq."""
        return Message("NDEATH", None, (Metric(_BD_SEQ, Type.INT64, self.bd_seq, wall),), wall)

    def connected(self, tick: float) -> None:
        """The broker has taken us and our subscriptions."""
        self.state = "waiting" if self._primary_host else "alive"
        self._birth_wanted, self._birth_at = True, 0.0
        self._gives_up_at = tick + _HOST_PATIENCE_S

    def lost(self, opened: bool) -> None:
        """The connection is over or could not be made; `opened`: a CONNECT packet went out on it, so its bdSeq is used up."""
        self._shelve()
        for thing in self._things.values():
            thing.born = False
        self.state, self.leaving, self._birth_wanted = "offline", False, False
        self.broker = (self.broker + 1) % self._brokers
        if opened:
            self.bd_seq = (self.bd_seq + 1) % 256

    def host(self, online: bool, timestamp: float) -> None:
        """The primary host's STATE, milliseconds since 1970. An older one is of a session that is over already.

        online: valid if not older than any STATE before it; offline: if not older than the last that said online.
        """
        newest, online_at = self._host.get(self.broker, (timestamp, None))
        if timestamp < (newest if online else online_at or 0):
            return
        self._host[self.broker] = (max(newest, timestamp), timestamp if online else online_at)
        if online and self.state == "waiting":
            self.state = "alive"
        elif not online and (self.state == "alive" or (self.state == "waiting" and self._brokers > 1)):
            self.leaving = True

    def rebirth(self) -> None:
        """A host asks for all births: nothing else is said before them."""
        if self.state == "alive":
            self._birth_wanted = True

    # ---- what there is to tell ------------------------------------------------------------------------------------

    def declare(self, device: str | None, metrics: Iterable[Metric]) -> None:
        """Every metric that the node (None) or a device will ever report. Another set than before is born anew.

        What is known of a metric that was there before is kept.
        """
        thing = self._things.setdefault(device, _Thing({}))
        before, named = thing.metrics, {m.name: self._with_alias(device, m) for m in metrics}
        for name, old in before.items():
            if name in named and named[name].type == old.type:
                named[name] = replace(named[name], value=old.value, at=old.at, quality=old.quality)
        if list(named.items()) == list(before.items()):
            return
        self._shelve()
        thing.metrics, thing.born = named, False
        if not before:
            thing.there = True
        if device is None:
            self.rebirth()

    def devices(self) -> list[str]:
        """Those declared."""
        return [d for d in self._things if d is not None]

    def remove(self, device: str) -> None:
        """It is in the configuration no more."""
        self.lose(device)
        self._things[device].metrics = {}

    def lose(self, device: str) -> None:
        """The device does not answer."""
        self._things[device].there = False

    def find(self, device: str) -> None:
        """The device answers."""
        self._things[device].there = True

    def has(self, device: str | None, name: str) -> bool:
        """Whether this metric is declared."""
        return device in self._things and name in self._things[device].metrics

    def value(self, device: str | None, name: str) -> Value:
        """What was last told to `update`."""
        return self._things[device].metrics[name].value

    def update(self, device: str | None, name: str, value: Value, at: float, wall: float, quality: int | None = None) -> None:
        """A value acquired `at`. One that is as before is not told again; one from before the newest is history."""
        thing = self._things[device]
        old = thing.metrics[name]
        new = replace(old, value=value, at=at, quality=quality)
        if at < old.at <= wall:  # not where the clock was set back
            if old.stored and thing.there:
                self._put_by(device, new)
            return
        thing.metrics[name] = new
        if (value, quality) == (old.value, old.quality):
            return
        if thing.born:
            self._pendings += old.stored
            key = (device, name, self._pendings if old.stored else 0)
            self._pending.pop(key, None)
            self._pending[key] = new
            if len(self._pending) > self._keep:  # nobody fetched them for long
                self._shelve()
                self.rebirth()
        elif old.stored and thing.there:
            self._put_by(device, new)

    def command(self, metrics: Sequence[Received]) -> tuple[list[tuple[str, Value]], list[str]]:
        """An NCMD: what is to be done, as (metric, value), and in words what is not. A rebirth is seen to here."""
        orders: list[tuple[str, Value]] = []
        refused: list[str] = []
        if self.state != "alive":
            return orders, refused
        node = self._things[None].metrics
        by_alias = {m.alias: m for m in node.values() if m.alias is not None}
        for metric in metrics:
            if metric.name == REBIRTH:
                if metric.value is True:
                    self.rebirth()
                continue
            wanted = node.get(metric.name) if metric.name else by_alias.get(metric.alias or 0)
            try:
                if wanted is None:
                    raise ValueError(f"there is no metric '{metric.name[:64] or metric.alias}'")
                if not wanted.writable:
                    raise ValueError(f"'{wanted.name}' only reports, it cannot be written")
                orders.append((wanted.name, as_type(metric.value, wanted.type)))
            except ValueError as e:
                refused.append(f"{wanted.name}: {e}" if wanted and wanted.writable else str(e))
        return orders, refused

    # ---- telling --------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Values that are kept for later."""
        return len(self._kept)

    def due(self, tick: float) -> float | None:
        """When `turn` has something to say, on the clock of `tick`; None: nothing yet."""
        if self.leaving:
            return tick
        if self.state == "waiting":
            return self._gives_up_at if self._brokers > 1 else None
        if self.state != "alive":
            return None
        if self._birth_wanted:
            return self._birth_at
        if any(t.there != t.born for d, t in self._things.items() if d is not None):
            return tick
        times = [at for at, there in ((self._flush_at, self._pending), (self._replay_at, self._kept)) if there]
        return min(times, default=None)

    def turn(self, wall: float, tick: float) -> list[Message]:
        """All that is to be published now, in order."""
        if self.state == "waiting" and self._brokers > 1 and tick >= self._gives_up_at:
            self.leaving = True
        if self.leaving:
            return [self.death(wall)]
        if self.state != "alive":
            return []
        if self._birth_wanted:
            if tick < self._birth_at:
                return []
            self._birth_at = tick + _COALESCE_S
            return self._births(wall)
        out = self._devices(wall)
        if self._pending and tick >= self._flush_at:
            self._flush_at = tick + _FLUSH_S
            out += self._data(wall)
        if self._kept and tick >= self._replay_at:
            self._replay_at = tick + _REPLAY_S
            out += self._replay(wall)
        return out

    def _births(self, wall: float) -> list[Message]:
        self._shelve()
        self._birth_wanted, self._seq = False, 0
        node = self._things[None]
        own = (Metric(_BD_SEQ, Type.INT64, self.bd_seq, wall), Metric(REBIRTH, Type.BOOLEAN, False, wall, writable=True))
        out = [self._message("NBIRTH", None, (*own, *self._born(None, node, wall)), wall)]
        for thing in self._things.values():
            thing.born = thing is node
        return out + self._devices(wall)

    def _devices(self, wall: float) -> list[Message]:
        """Deaths and births of the devices that came and went; the last words of a device go before its death."""
        dying = any(thing.born and not thing.there for thing in self._things.values())
        out = self._data(wall) if dying else []
        for device, thing in list(self._things.items()):
            if device is None:
                continue
            if thing.born and not thing.there:
                thing.born = False
                out.append(self._message("DDEATH", device, (), wall))
            elif thing.there and not thing.born:
                thing.born = True
                out.append(self._message("DBIRTH", device, self._born(device, thing, wall), wall))
            if not thing.there and not thing.metrics:
                del self._things[device]
        return out

    def _born(self, device: str | None, thing: _Thing, wall: float) -> tuple[Metric, ...]:
        """The metrics as they are now; what is kept of them is said here, and need not be said again."""
        newest = {(m.name, m.at, m.value, m.quality) for m in thing.metrics.values()}
        self._kept = deque((d, m) for d, m in self._kept if d != device or (m.name, m.at, m.value, m.quality) not in newest)
        thing.told = {m.name: (m.value, m.quality) for m in thing.metrics.values()}
        metrics = (m if m.at else replace(m, at=wall) for m in thing.metrics.values())
        return tuple(sorted(metrics, key=lambda m: m.at))

    def _data(self, wall: float) -> list[Message]:
        by_device: dict[str | None, list[Metric]] = {}
        for (device, _, _), metric in self._pending.items():
            told, now = self._things[device].told, (metric.value, metric.quality)
            if told.get(metric.name) != now:  # it may have gone there and back since
                told[metric.name] = now
                by_device.setdefault(device, []).append(metric)
        self._pending.clear()
        return [m for device, metrics in by_device.items() for m in self._in_parts(device, metrics, wall)]

    def _replay(self, wall: float) -> list[Message]:
        """Some of what is kept, the oldest first. Dropped is what belongs to no metric, or to a device that is not there."""
        by_device: dict[str | None, list[Metric]] = {}
        for _ in range(min(len(self._kept), _REPLAY_METRICS)):
            device, metric = self._kept.popleft()
            thing = self._things.get(device)
            if thing is not None and thing.born and metric.name in thing.metrics:
                by_device.setdefault(device, []).append(replace(metric, historical=True))
            else:
                self.dropped += 1
        return [m for device, metrics in by_device.items() for m in self._in_parts(device, metrics, wall)]

    def _in_parts(self, device: str | None, metrics: list[Metric], wall: float) -> list[Message]:
        metrics.sort(key=lambda m: m.at)
        kind = "NDATA" if device is None else "DDATA"
        parts = (metrics[i : i + _MOST_METRICS] for i in range(0, len(metrics), _MOST_METRICS))
        return [self._message(kind, device, tuple(part), wall) for part in parts]

    def _message(self, kind: str, device: str | None, metrics: tuple[Metric, ...], wall: float) -> Message:
        message = Message(kind, device, metrics, wall, self._seq)
        self._seq = (self._seq + 1) % 256
        return message

    # ---- keeping --------------------------------------------------------------------------------------------------

    def _shelve(self) -> None:
        """What was not sent in time is kept where each value matters; the births say the newest of the others."""
        for (device, _, _), metric in self._pending.items():
            if metric.stored:
                self._put_by(device, metric)
        self._pending.clear()

    def _put_by(self, device: str | None, metric: Metric) -> None:
        self._kept.append((device, metric))
        while len(self._kept) > self._keep:
            self._kept.popleft()
            self.dropped += 1

    def _with_alias(self, device: str | None, metric: Metric) -> Metric:
        """The same number as long as we live, so that a host which missed a birth is not misled."""
        if not self._aliased:
            return metric
        return replace(metric, alias=self._aliases.setdefault((device, metric.name), len(self._aliases) + 1))
