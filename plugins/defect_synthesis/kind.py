"""The job kind `defect-synthesis`: realistic defects, with their exact masks, in a picture of a good part.

Light on purpose: the supervisor imports this file. The pictures are made by `work.py`, in the worker.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from ...config.refusal import Refusal
from ...config.typed import did_you_mean
from ...engines.bundle import Bundle
from ..kind import Outcome, Problem, Site, Task
from .params import Params

if TYPE_CHECKING:
    import numpy as np

ANY = "any"


class DefectSynthesis:
    """See `plugins.kind.JobKind`."""

    name = "defect-synthesis"
    params: type = Params

    def check(self, params: Params, site: Site) -> int:
        """Model, class, camera and paths must be there; pictures are opened in `work`."""
        manifest = site.model(self.name, params.model).manifest
        classes = manifest.classes
        if params.defect != ANY and params.defect not in classes:
            hint = did_you_mean(params.defect, (ANY, *classes))
            raise Refusal("bad-request", f"unknown defect '{params.defect}'{hint}", "params.defect")
        if params.gate == "strict" and "gate" not in manifest.geometry:
            text = f"model '{manifest.name}' knows nothing of real defects to be strict with; expected 'on' or 'off'"
            raise Refusal("bad-request", text, "params.gate")
        if params.image.camera is not None:
            site.camera(params.image.camera, "params.image.camera")
        if params.image.path is not None:
            site.input_path(params.image.path, "params.image.path")
        if params.region.mask is not None and params.region.mask.path is not None:
            site.input_path(params.region.mask.path, "params.region.mask.path")
        return params.count

    def camera(self, params: Params) -> str | None:
        """The camera that the image comes from, if it does."""
        return params.image.camera

    def self_test(self, bundle: Bundle) -> dict[str, Any]:
        """Every sort of defect on a brushed surface of our own making."""
        from .self_test import params

        return params()

    def work(self, params: Params, task: Task) -> Generator[Problem, np.ndarray, Outcome]:
        """See `work.py`."""
        from .work import work

        return work(params, task)


KIND = DefectSynthesis()
