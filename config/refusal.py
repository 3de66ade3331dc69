"""The one way to say no to a request: a code of the plant contract, the field that is to blame, and what to do."""

from __future__ import annotations

CODES = (
    "bad-request", "conflict", "unknown-kind", "unknown-model", "unknown-input", "too-large",
    "overloaded", "deadline", "engine", "input", "storage", "internal",
)  # fmt: skip


class Refusal(Exception):
    """A request that will not be served, or a job that failed: `code` from `CODES`, `field` as `params.image.path`.

    retry_after_ms: when the same request may be taken; earliest: when it could be done (RFC 3339); where that can be said.
    """

    def __init__(
        self,
        code: str,
        message: str,
        field: str | None = None,
        retry_after_ms: int | None = None,
        earliest: str | None = None,
    ):
        assert code in CODES, code
        self.code, self.message, self.field = code, message, field
        self.retry_after_ms, self.earliest = retry_after_ms, earliest
        super().__init__(f"{code}: {field + ': ' if field else ''}{message}")

    def as_error(self) -> dict[str, str | int]:
        """The `error` object of a result."""
        error: dict[str, str | int] = {"code": self.code, "message": self.message}
        if self.field:
            error["field"] = self.field
        if self.retry_after_ms is not None:
            error["retry_after_ms"] = self.retry_after_ms
        if self.earliest is not None:
            error["earliest"] = self.earliest
        return error
