"""The job kind `sensor-imputation`: a series with gaps in, the same series with every gap answered and its quantiles out."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from ...engines.bundle import Bundle
from ..kind import Outcome, Problem, Site, Task
from .params import ImputationParams

if TYPE_CHECKING:
    import numpy as np

_HALF = 24


class SensorImputation:
    """See `plugins.kind.JobKind`."""

    name = "sensor-imputation"
    params = ImputationParams

    def check(self, params: ImputationParams, site: Site) -> int:
        """The number of windows with something missing, as an item is one window."""
        site.model(self.name, params.model)
        rows = len(params.values)
        front = max(2 * _HALF, -(-rows // _HALF) * _HALF) - rows
        holed = {(i + front) // _HALF for i, row in enumerate(params.values) if None in row}
        last = (front + rows) // _HALF - 2
        return len({window for block in holed for window in (block - 1, block) if 0 <= window <= last})

    def camera(self, params: ImputationParams) -> str | None:
        """No pictures here."""
        return None

    def self_test(self, bundle: Bundle) -> dict[str, Any]:
        """Sixteen windows of a plant of our own making, with gaps in each."""
        from .self_test import params

        return params()

    def work(self, params: ImputationParams, task: Task) -> Generator[Problem, np.ndarray, Outcome]:
        """See `work.repair`."""
        from .work import repair

        output: dict[str, Any] = yield from repair(params, task)
        return Outcome((), output)


KIND = SensorImputation()
