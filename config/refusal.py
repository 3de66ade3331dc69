"""The one way to say no to a request: a code of the plant contract, the field that is to blame, and what to do."""

from __future__ import annotations

CODES = (
    "bad-request", "conflict", "unknown-kind", "unknown-model", "unknown-input", "too-large",
    "overloaded", "deadline", "engine", "input", "storage", "internal",
)  # fmt: skip


class Refusal(Exception):
    """A request that will not be served, or a job that failed: `code` from `CODES`, `field` as `params.image.path`."""

    def __init__(self, code: str, message: str, field: str | None = None):
        assert code in CODES, code
        self.code, self.message, self.field = code, message, field
        super().__init__(f"{code}: {field + ': ' if field else ''}{message}")

    def as_error(self) -> dict[str, str]:
        """The `error` object of a result."""
        error = {"code": self.code, "message": self.message}
        return {**error, "field": self.field} if self.field else error
