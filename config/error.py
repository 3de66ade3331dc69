"""What is wrong with a configuration, and where: made by config/load.py, shown by every command.

ConfigError (ValueError)    everything that is wrong with one configuration, in the order of its files
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Place:
    """Where a key or value stands: the file, line and column from 1, and that line as it is written."""

    file: str
    line: int = 1
    column: int = 1
    text: str = ""


@dataclass(frozen=True)
class Error:
    """One thing wrong, what is allowed and where it stands."""

    place: Place
    message: str

    def __str__(self) -> str:
        """`FILE:LINE:COL: error: message`, the line, and a caret under the column."""
        head = f"{self.place.file}:{self.place.line}:{self.place.column}: error: {self.message}"
        if not self.place.text.strip():
            return head
        at = self.place.column - 1
        start = max(0, at - 60)
        line = "".join(c if c.isprintable() or c == "\t" else "?" for c in self.place.text[start : start + 120].rstrip())
        under = "".join("\t" if c == "\t" else " " for c in line[: at - start])
        return f"{head}\n{self.place.line:>5} | {line}\n      | {under}^"

    def as_json(self) -> dict[str, str | int]:
        """The same for programs; `excerpt` is the whole line."""
        place = self.place
        where: dict[str, str | int] = {"file": place.file, "line": place.line, "column": place.column}
        return where | {"message": self.message, "excerpt": place.text}


class ConfigError(ValueError):
    """Everything that is wrong with one configuration."""

    def __init__(self, errors: Iterable[Error]):
        self.errors = tuple(errors)
        super().__init__("\n".join(map(str, self.errors)))
