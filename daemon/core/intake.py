"""From the bytes of a request to a `Job` or a `Refusal`. Pure: kinds, site and time come in as arguments."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ...config import typed
from ...config.refusal import Refusal
from .job import Job, default_seed, digest

ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class Request:
    """The envelope of the plant contract, section 3, and what it has grown since: `quality`, `anytime`."""

    params: dict[str, Any]
    id: Annotated[str, Meta(pattern=f"^{ID.pattern}$")] | None = None
    priority: Annotated[int, Meta(ge=0, le=9)] = 4
    deadline_ms: Annotated[int, Meta(ge=1, le=10**12)] | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    deliver: Literal["file", "mqtt"] = "file"
    quality: Annotated[float, Meta(ge=0, le=1)] | None = None
    anytime: bool = False


@dataclass(frozen=True)
class Envelope:
    """What MQTT says around a request."""

    now: float
    response_topic: str | None = None
    correlation: bytes | None = None
    expiry_s: float | None = None
    source: str = "submit"


def decode(payload: bytes, limit: int) -> Any:
    """JSON in UTF-8, at most `limit` bytes; NaN and Infinity are not JSON."""
    if len(payload) > limit:
        raise Refusal("too-large", f"{len(payload)} bytes, at most {limit} are taken; send a path instead of the data")
    try:
        return msgspec.json.decode(payload)
    except UnicodeDecodeError as e:
        raise Refusal("bad-request", f"not UTF-8: byte {e.start} is 0x{payload[e.start]:02x}") from e
    except (msgspec.MsgspecError, RecursionError) as e:
        raise Refusal("bad-request", f"not JSON: {e}") from e


def usable_id(body: Any) -> str | None:
    """The id that a reply to this body can be sent under, however broken the rest of it is."""
    wanted = body.get("id") if isinstance(body, Mapping) else None
    return wanted if isinstance(wanted, str) and ID.fullmatch(wanted) else None


def read_request(
    kind_name: str, body: Any, around: Envelope, kinds: Mapping[str, Any], site: Any, new_id: Callable[[], str]
) -> Job:
    """The job that `body` asks for; `Refusal` names the first field that is to blame and all that is wrong."""
    kind = kinds.get(kind_name)
    if kind is None:
        raise Refusal("unknown-kind", f"no job kind '{kind_name[:64]}'{typed.did_you_mean(kind_name, kinds)}", "kind")
    request = _read(body, Request, ())
    params = _read(request.params, kind.params, ("params",))
    items = kind.check(params, site)
    job_id = request.id or new_id()
    return Job(
        id=job_id,
        kind=kind_name,
        params=request.params,
        seed=default_seed(job_id) if request.seed is None else request.seed,
        items=items,
        received_at=around.now,
        priority=request.priority,
        deadline_at=None if request.deadline_ms is None else around.now + request.deadline_ms / 1000,
        start_by=None if around.expiry_s is None else around.now + around.expiry_s,
        deliver=request.deliver,
        digest=digest(kind_name, body),
        response_topic=around.response_topic,
        correlation=around.correlation,
        source=around.source,
        camera=kind.camera(params),
        quality=request.quality,
        anytime=request.anytime,
    )


def _read(value: Any, type_: Any, prefix: tuple[str, ...]) -> Any:
    try:
        return typed.read(value, type_)
    except typed.Flaws as e:
        places = [(typed.field_name((*prefix, *flaw.path)), flaw.message) for flaw in e.flaws[:8]]
        (field, text), *others = places  # the first is named by the refusal's field, the others by the text
        text = "; ".join([text, *(f"{place}: {message}" for place, message in others)])
        raise Refusal("bad-request", text, field or None) from e
