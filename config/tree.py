"""The whole configuration as one tree of frozen dataclasses: type, default, bound and help stand on the field.

A new option is one field here; the YAML reader, `denoised check` and `denoised schema` follow by themselves.
Sections arrive with their feature. Defaults make the smallest file `{}` valid.
"""

from __future__ import annotations

import hashlib
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from .fields import DOT_PATH, FilePath, Hours, JobId, Port, Protocol, TopicFilter, TopicLevel, TopicName, Word
from .typed import Bad, Duration


def _host_name() -> str:
    name = "".join(c if c.isascii() and c.isalnum() or c in "._-" else "-" for c in socket.gethostname())
    return name.strip("._-")[:64] or "gateway"


def _machine() -> str:
    """Tells this machine from others without giving its id away, as machine-id(5) asks."""
    try:
        machine_id = Path("/etc/machine-id").read_bytes().strip()
    except OSError:
        machine_id = socket.gethostname().encode()
    return hashlib.sha256(b"denoised" + machine_id).hexdigest()[:8]


@dataclass(frozen=True)
class Gateway:
    """Who this gateway is."""

    id: Annotated[Word, Meta(description="name of this gateway on the bus; default: the host name")] = field(
        default_factory=_host_name
    )


@dataclass(frozen=True)
class Tls:
    """TLS to the broker: on as soon as `ca` is given."""

    ca: Annotated[FilePath | None, Meta(description="file of the certificate authority to trust")] = None
    cert: Annotated[FilePath | None, Meta(description="client certificate file (mutual TLS)")] = None
    key: Annotated[FilePath | None, Meta(description="client key file (mutual TLS)")] = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise Bad("cert" if self.cert is None else "key", "cert and key belong together: give both or none")
        if self.cert and not self.ca:
            raise Bad("ca", "a client certificate needs 'ca' as well")


@dataclass(frozen=True)
class Mqtt:
    """The plant's bus."""

    host: Annotated[str, Meta(min_length=1, description="broker's host name or address")] = "127.0.0.1"
    port: Port = 1883
    protocol: Annotated[Protocol, Meta(description="MQTT version: 5 or 3.1.1")] = 5
    base_topic: Annotated[TopicName | None, Meta(description="base of our own topics; default denoised/<gateway.id>")] = None
    client_id: Annotated[
        Word | None, Meta(description="MQTT client id; default <gateway.id>-jobs- and 8 digits that tell machines apart")
    ] = None
    username: Annotated[str | None, Meta(description="user at the broker")] = None
    password_file: Annotated[FilePath | None, Meta(description="file that holds the password, never the password itself")] = (
        None
    )
    keepalive: Annotated[Duration, Meta(description="longest silence before the broker is asked for a sign of life")] = 30.0
    session_expiry: Annotated[
        Duration, Meta(description="how long the broker keeps requests for us while we are away (MQTT 5)")
    ] = 3600.0
    max_payload: Annotated[
        int, Meta(ge=1024, le=268435455, description="largest request taken, in bytes; larger ones are refused as too-large")
    ] = 16_000_000
    tls: Tls = field(default_factory=Tls)

    def __post_init__(self) -> None:
        if self.keepalive > 65535:
            raise Bad("keepalive", f"expected at most 65535 s, as MQTT has no room for more, found {self.keepalive:g} s")
        if self.session_expiry >= 2**32:
            raise Bad("session_expiry", f"expected less than 2^32 s (136 years), found {self.session_expiry:g} s")


@dataclass(frozen=True)
class Artifacts:
    """Where results lie as files."""

    dir: Annotated[FilePath | None, Meta(description="folder of artifacts; default <state_dir>/artifacts")] = None
    quota_mb: Annotated[int, Meta(ge=1, description="most space that artifacts may take, oldest go first")] = 2048
    keep_days: Annotated[float, Meta(gt=0, description="days that artifacts are kept")] = 7


@dataclass(frozen=True)
class Inputs:
    """What requests may read."""

    folders: Annotated[
        tuple[FilePath, ...] | None,
        Meta(description="folders that request paths are resolved in; default [<state_dir>/inputs]"),
    ] = None
    max_megapixels: Annotated[float, Meta(gt=0, le=1000, description="largest picture taken, in millions of pixels")] = 64


@dataclass(frozen=True)
class Models:
    """Model bundles beside those shipped with the package."""

    dir: Annotated[FilePath | None, Meta(description="folder of installed bundles; default <state_dir>/models")] = None
    require_signature: Annotated[bool, Meta(description="load installed bundles only if a trusted key signed them")] = True


@dataclass(frozen=True)
class Engine:
    """What runs the networks."""

    backend: Annotated[
        Literal["onnxruntime", "tensorrt"],
        Meta(description="library that runs the networks; tensorrt: on an NVIDIA GPU, for which it compiles them first"),
    ] = "onnxruntime"
    provider: Annotated[
        Literal["cpu", "cuda"],
        Meta(description="where onnxruntime computes; one that does not start is an error, never replaced"),
    ] = "cpu"
    threads: Annotated[
        int | Literal["auto"], Meta(description="threads of one network call; auto: the cores we may use, less one")
    ] = "auto"

    patience: Annotated[
        Duration, Meta(description="a worker that is silent for this long, and for 30 steps, hangs and is replaced")
    ] = 30.0
    memory_limit_mb: Annotated[
        int | Literal["auto"],
        Meta(description="a worker that holds more memory is replaced, its job goes on; auto: half of the machine's memory"),
    ] = "auto"
    unload_after: Annotated[
        Duration | None, Meta(description="the networks leave the memory when no job came for this long; null: never")
    ] = 600.0

    def __post_init__(self) -> None:
        if isinstance(self.threads, int) and not 1 <= self.threads <= 256:
            raise Bad("threads", f"expected 1 to 256 or auto, found {self.threads}")
        if isinstance(self.memory_limit_mb, int) and self.memory_limit_mb < 64:
            raise Bad("memory_limit_mb", f"expected at least 64 or auto, found {self.memory_limit_mb}")


@dataclass(frozen=True)
class Board:
    """The machine we run on."""

    kind: Annotated[
        Literal["auto", "generic", "jetson", "raspberry-pi", "simulated"],
        Meta(description="board family; auto: find out; simulated: no hardware, a model of one, for trials"),
    ] = "auto"
    sysfs_root: Annotated[
        FilePath,
        Meta(description="where the kernel's /sys lies; of DIR/sys, /dev, /etc and /var are looked for in DIR, else inside it"),
    ] = "/sys"
    preset: Annotated[Word, Meta(description="simulated: the board that is played")] = "orin-nano"
    ambient_c: Annotated[float, Meta(ge=-40, le=90, description="simulated: temperature of the air around it")] = 25.0
    speedup: Annotated[
        float, Meta(ge=1, le=1000, description="for trials, of a board that is not real: its seconds per second")
    ] = 1.0


@dataclass(frozen=True)
class Telemetry:
    """What is said on <base>/telemetry."""

    period: Annotated[Duration, Meta(description="time between two telemetry messages, at least 100ms")] = 1.0

    def __post_init__(self) -> None:
        if self.period < 0.1:
            raise Bad("period", f"expected at least 100ms, found {self.period:g} s")


@dataclass(frozen=True)
class Queue:
    """Jobs that wait."""

    max_jobs: Annotated[
        int, Meta(ge=1, le=1_000_000, description="most jobs that may wait; more are refused as overloaded")
    ] = 1000
    min_free_mb: Annotated[
        int, Meta(ge=0, description="free space below which no job is accepted, so that those accepted can be finished")
    ] = 32
    caller_patience: Annotated[
        Duration | None,
        Meta(description="a job whose Response Topic nobody has read for this long is cancelled (MQTT 5); null: never"),
    ] = None


@dataclass(frozen=True)
class Signal:
    """A price, a battery or a grid signal of the plant, and when bulk work waits for it."""

    topic: TopicName
    field: Annotated[
        str | None, Meta(description="field path of the value in a JSON payload; absent: the payload is the number")
    ] = None
    above: Annotated[float | None, Meta(description="bulk work waits while the value is above this")] = None
    below: Annotated[float | None, Meta(description="bulk work waits while the value is below this")] = None

    def __post_init__(self) -> None:
        if (self.above is None) == (self.below is None):
            raise Bad("above", "give one of 'above' (a price) and 'below' (a battery)")


@dataclass(frozen=True)
class Policy:
    """What the work may cost in heat and energy. Bulk work is every job without a deadline."""

    governor: Annotated[
        Literal["on", "off"],
        Meta(description="on: chooses operating point, clock and pace; off: the model's first operating point at full speed"),
    ] = "on"
    objective: Annotated[
        Literal["throughput", "energy"],
        Meta(description="throughput: as fast as heat allows; energy: as few joules as the deadlines allow"),
    ] = "throughput"
    temperature_limit_c: Annotated[
        Annotated[float, Meta(ge=30, le=120)] | None,
        Meta(description="where the temperature is held, in C; null: 2 below the point at which the board slows itself down"),
    ] = None
    power_limit_w: Annotated[
        Annotated[float, Meta(gt=0, le=10000)] | None,
        Meta(description="most that the whole board may draw, in watts; null: no limit"),
    ] = None
    energy_budget_j_per_day: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(
            description="joules that the whole board may take in a day (3600 J are 1 Wh); bulk work is spread over the day and "
            "waits when they are used up; null: no budget"
        ),
    ] = None
    quiet_hours: Annotated[
        tuple[Hours, ...], Meta(description="local times of day in which bulk work waits, such as 22:00-06:00")
    ] = ()
    background_kinds: Annotated[
        tuple[Word, ...],
        Meta(description="job kinds that run when nothing else waits, whatever their priority; bulk even with a deadline"),
    ] = ()
    signal: Signal | None = None

    def __post_init__(self) -> None:
        for hours in self.quiet_hours:
            if hours[:5] == hours[-5:]:
                raise Bad("quiet_hours", f"expected two different times of day, found {hours}; 00:00-23:59 is nearly always")


@dataclass(frozen=True)
class Checkpoints:
    """How often a running job is written down, so that it goes on from there after a crash or a power cut."""

    write_budget_mb_per_day: Annotated[
        float, Meta(gt=0, description="most that checkpoints may write in a day; less spares the flash")
    ] = 1000
    expected_uptime: Annotated[
        Duration, Meta(description="how long the gateway usually runs between two crashes or power cuts")
    ] = 86400.0


@dataclass(frozen=True)
class Camera:
    """Anything OpenCV opens."""

    source: Annotated[
        str,
        DOT_PATH,
        Meta(
            min_length=1, description="device (/dev/video0), URL, GStreamer pipeline, picture, video file or folder of frames"
        ),
    ]
    max_age: Annotated[Duration, Meta(description="oldest frame that may be used; an older one fails the job")] = 5.0


@dataclass(frozen=True)
class Condition:
    """A condition on the payload of a trigger: the value at `field` equals `equals`."""

    field: Annotated[str, Meta(min_length=1, description="field path in the payload, such as part.ok or results[0].code")]
    equals: Annotated[str | float | bool | None, Meta(description="the value that fires the trigger")]


@dataclass(frozen=True)
class Reply:
    """A short answer that a PLC can read, published when the job ends."""

    topic: TopicName
    form: Annotated[
        Literal["json", "number"],
        Meta(description="json: {id, ok, count, run_ms}; number: the count of items made, 0 where the job failed"),
    ] = "json"


@dataclass(frozen=True)
class Trigger:
    """A plant topic bound to a job."""

    topic: TopicFilter
    kind: Annotated[Word, Meta(description="job kind, such as defect-synthesis")]
    params: Annotated[
        dict[str, Any], Meta(description="the job's params; a text '$.a.b' is replaced by the payload's field a.b")
    ] = field(default_factory=dict)
    when: Condition | None = None
    id: Annotated[JobId | None, Meta(description="job id, usually a field path such as $.part_id; made up where absent")] = None
    priority: Annotated[int, Meta(ge=0, le=9, description="0 to 9, higher first")] = 4
    deadline: Annotated[Duration | None, Meta(description="time from the trigger after which the job is not worth doing")] = (
        None
    )
    deliver: Annotated[Literal["file", "mqtt"], Meta(description="artifacts as files, or as messages as well")] = "file"
    quality: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(description="least quality that is acceptable, 0 to 1, as calibrate measures it; absent: as the model ships"),
    ] = None
    anytime: Annotated[bool, Meta(description="when its time is up, the best so far is better than nothing")] = False
    reply: Reply | None = None


@dataclass(frozen=True)
class Tag:
    """One sensor of a group."""

    topic: TopicName
    field: Annotated[
        str | None, Meta(description="field path of the value in a JSON payload; absent: the payload is the number")
    ] = None
    time: Annotated[
        str | None, Meta(description="field path of the measurement's own time in a JSON payload; absent: when it arrives")
    ] = None
    low: Annotated[float | None, Meta(description="smallest plausible value; less is a gap")] = None
    high: Annotated[float | None, Meta(description="largest plausible value; more is a gap")] = None
    stuck_after: Annotated[
        Annotated[int, Meta(ge=2)] | None, Meta(description="this many equal samples in a row are a gap; absent: never stuck")
    ] = None

    def __post_init__(self) -> None:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise Bad("low", f"low ({self.low}) must be less than high ({self.high})")


@dataclass(frozen=True)
class SensorGroup:
    """Sensors that are watched and repaired together."""

    tags: dict[TopicLevel, Tag]
    period: Annotated[Duration, Meta(description="sample period of the group")] = 1.0
    model: Annotated[Word | None, Meta(description="model bundle; default: the first sensor-imputation model")] = None
    window: Annotated[int, Meta(ge=8, le=4096, description="samples kept and looked at, the oldest forgotten")] = 192
    max_latency: Annotated[
        Duration, Meta(description="an imputed sample is published at most this long after the measurement was due")
    ] = 1.0

    def __post_init__(self) -> None:
        if not 1 <= len(self.tags) <= 256:
            raise Bad("tags", f"expected 1 to 256 tags, found {len(self.tags)}")
        if self.period < 0.01:
            raise Bad("period", f"expected at least 10ms, found {self.period:g} s")


@dataclass(frozen=True)
class Address:
    """A broker by host and port."""

    host: Annotated[str, Meta(min_length=1, description="broker's host name or address")]
    port: Port = 1883


@dataclass(frozen=True)
class Sparkplug:
    """The Sparkplug B 3.0 edge node that this gateway is to a SCADA host. User, password, TLS and keepalive: those of mqtt."""

    group: Annotated[TopicLevel, Meta(description="Sparkplug group id, one for a plant or a line")]
    node: Annotated[TopicLevel | None, Meta(description="edge node id, unique in its group; default: gateway.id")] = None
    primary_host: Annotated[
        TopicLevel | None,
        Meta(description="host id of the primary host: nothing is sent while it is offline; null: none is waited for"),
    ] = None
    aliases: Annotated[bool, Meta(description="data messages carry numbers in place of names; not every host follows")] = False
    keep: Annotated[
        int, Meta(ge=0, le=1_000_000, description="most values kept in memory for a host that is away, oldest dropped")
    ] = 10_000
    brokers: Annotated[
        tuple[Address, ...] | None,
        Meta(description="brokers of the plant, walked through while the primary host is offline; default: that of mqtt"),
    ] = None

    def __post_init__(self) -> None:
        if self.group == "STATE":
            raise Bad("group", "expected a group other than STATE, as hosts tell their state under that name")
        if self.brokers is not None and not 1 <= len(self.brokers) <= 16:
            raise Bad("brokers", f"expected 1 to 16 brokers, found {len(self.brokers)}")


@dataclass(frozen=True)
class Config:
    """The configuration of one gateway."""

    gateway: Gateway = field(default_factory=Gateway)
    mqtt: Mqtt = field(default_factory=Mqtt)
    state_dir: Annotated[FilePath, Meta(description="spool, models, calibration; the only place written in normal work")] = (
        "/var/lib/denoised"
    )
    cache_dir: Annotated[FilePath, Meta(description="what can be made again")] = "/var/cache/denoised"
    run_dir: Annotated[FilePath, Meta(description="sockets")] = "/run/denoised"
    artifacts: Artifacts = field(default_factory=Artifacts)
    inputs: Inputs = field(default_factory=Inputs)
    models: Models = field(default_factory=Models)
    engine: Engine = field(default_factory=Engine)
    board: Board = field(default_factory=Board)
    telemetry: Telemetry = field(default_factory=Telemetry)
    queue: Queue = field(default_factory=Queue)
    policy: Policy = field(default_factory=Policy)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    sparkplug: Sparkplug | None = None
    cameras: dict[TopicLevel, Camera] = field(default_factory=dict)
    triggers: dict[str, Trigger] = field(default_factory=dict)
    sensors: dict[TopicLevel, SensorGroup] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """The base of our own topics."""
        return self.mqtt.base_topic or f"denoised/{self.gateway.id}"

    @property
    def client_id(self) -> str:
        """Who we are at the broker: two gateways of one name must not take each other's connection away."""
        return self.mqtt.client_id or f"{self.gateway.id[:50]}-jobs-{_machine()}"

    @property
    def sparkplug_client_id(self) -> str:
        """Who the Sparkplug connection is at the broker: one client id cannot be two clients."""
        return f"{self.mqtt.client_id}-spb" if self.mqtt.client_id else f"{self.gateway.id[:50]}-spb-{_machine()}"

    @property
    def artifacts_dir(self) -> Path:
        """Where artifacts lie, one folder per job."""
        return Path(self.artifacts.dir or f"{self.state_dir}/artifacts")

    @property
    def models_dir(self) -> Path:
        """Where installed bundles lie."""
        return Path(self.models.dir or f"{self.state_dir}/models")

    @property
    def plans_dir(self) -> Path:
        """Where networks lie that were compiled on this machine."""
        return Path(self.cache_dir) / "tensorrt"

    @property
    def input_folders(self) -> tuple[Path, ...]:
        """Where request paths are resolved."""
        folders = self.inputs.folders
        return tuple(Path(f) for f in ((f"{self.state_dir}/inputs",) if folders is None else folders))
