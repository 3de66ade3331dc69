"""Whether the worker is alive, and what to do where it is not. Pure: readings and times come in as arguments."""

from __future__ import annotations

from dataclasses import dataclass

LOADING_PATIENCE_S = 120.0
"""A worker that opens its networks may say nothing for so long: a slow card and a large model."""
IDLE_PATIENCE_S = 15.0
"""It is asked every few seconds; whatever a job may take, an answer takes no longer."""
_STEPS = 30


@dataclass(frozen=True)
class Worker:
    """What is known of the worker now.

    state: `none` (it is to be started, or unloaded), `loading`, `idle` or `busy`. silent_s: since it last said something or
    was last given something. rss_mb: memory it holds; None: unknown.
    """

    state: str
    silent_s: float
    rss_mb: float | None = None


def hangs(worker: Worker, patience_s: float, longest_step_s: float) -> bool:
    """Silent for far longer than a step takes. An idle worker is asked now and then, and answers at once."""
    if worker.state == "none":
        return False
    least = {"loading": LOADING_PATIENCE_S, "idle": IDLE_PATIENCE_S}.get(worker.state, 0.0)
    limit = max(patience_s, least)
    return worker.silent_s > max(limit, _STEPS * longest_step_s)


def too_big(worker: Worker, limit_mb: float) -> str | None:
    """`renew` it now that it is idle, `kill` it where it is half as big again as it may be, or None."""
    if worker.rss_mb is None or worker.rss_mb <= limit_mb:
        return None
    if worker.state == "idle":
        return "renew"
    return "kill" if worker.rss_mb > 1.5 * limit_mb else None
