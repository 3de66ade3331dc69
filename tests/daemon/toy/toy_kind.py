"""A job kind of somebody else's, as a third party would install it: found by its entry point, not known to `denoised`."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Annotated

from denoised.plugins.kind import Artifact, Outcome, Problem
from msgspec import Meta


@dataclass(frozen=True)
class Params:
    count: Annotated[int, Meta(ge=1, le=10_000)] = 1
    die: str | None = None
    camera: str | None = None
    model: str | None = None


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
            if params.die == "always" or (params.die == "once" and not os.path.exists(f"/tmp/toy-{task.id}")):
                open(f"/tmp/toy-{task.id}", "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            if params.die == "hang":
                time.sleep(3600)
            if params.die == "raise":
                raise RuntimeError("a bug in work")
            x = yield Problem(noise.batch(task.seed, [item], 0, (256,)), {}, (item,))
            lines.append(x.tobytes().hex())
        (task.folder / "x.txt").write_text("\n".join(lines))
        return Outcome((Artifact("x.txt", "text/plain", "samples"),), {"items": [{"n": i} for i in range(params.count)]})


KIND = Toy()
