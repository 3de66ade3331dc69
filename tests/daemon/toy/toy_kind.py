"""A job kind of somebody else's, as a third party would install it: found by its entry point, not known to `denoised`."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Annotated

from denoised.engines.engine import EngineRunError
from denoised.plugins.kind import Artifact, Outcome, Problem
from msgspec import Meta


@dataclass(frozen=True)
class Params:
    count: Annotated[int, Meta(ge=1, le=10_000)] = 1
    die: str | None = None
    hold_mb: Annotated[int, Meta(ge=0, le=4096)] = 0
    camera: str | None = None
    model: str | None = None


HELD: list[bytes] = []
"""What the kind leaks."""


class Toy:
    name = "toy"
    params = Params

    def check(self, params, site):
        site.model(self.name, params.model)
        if params.camera:
            site.camera(params.camera, "params.camera")
        if params.die == "check":
            raise RuntimeError("a bug in check")
        return params.count

    def camera(self, params):
        return params.camera

    def self_test(self, bundle):
        return {"count": 6}

    def work(self, params, task):
        from denoised.engines import noise

        lines = []
        if task.frame:
            lines.append(task.frame.read_bytes().hex())
        for item in range(params.count):
            if params.hold_mb and item == params.count // 2:
                HELD.append(b"x" * (params.hold_mb << 20))
            if params.die == "always" or (params.die == "once" and not os.path.exists(f"{task.folder.parent}/toy-{task.id}")):
                open(f"{task.folder.parent}/toy-{task.id}", "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            if params.die == "hang":
                time.sleep(3600)
            if params.die == "engine" or (
                params.die == "engine-once" and not os.path.exists(f"{task.folder.parent}/toy-{task.id}")
            ):
                open(f"{task.folder.parent}/toy-{task.id}", "w").close()
                raise EngineRunError("a call that failed")
            if params.die == "raise":
                raise RuntimeError("a bug in work")
            x = yield Problem(noise.batch(task.seed, [item], 0, (256,)), {}, (item,))
            lines.append(x.tobytes().hex())
        (task.folder / "x.txt").write_text("\n".join(lines))
        return Outcome((Artifact("x.txt", "text/plain", "samples"),), {"items": [{"n": i} for i in range(params.count)]})


KIND = Toy()
