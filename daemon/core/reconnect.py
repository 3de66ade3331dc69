"""How long to wait before the next connection, and whether somebody else keeps taking ours away. Pure: time is an argument."""

from __future__ import annotations

from dataclasses import dataclass

SHORTEST, LONGEST = 1.0, 60.0
_PROVEN_AFTER = 30.0
"""A connection that lived for so many seconds is no sign of trouble; the next wait is short again."""
_TAKEN_IN = 10.0
_TAKEN_TIMES = 4


@dataclass(frozen=True)
class Loss:
    """What to make of a lost connection: the longest wait before the next one, in seconds; who may have taken it."""

    longest: float
    taken_over: bool


class Backoff:
    """Doubles the wait with each failure.

    A broker that speaks MQTT 5 says that another client of our id took the session over (reason 0x8E). Of an older one
    it is guessed: connection after connection comes about at once and is ended from the other side within seconds.
    """

    def __init__(self) -> None:
        self._longest = SHORTEST
        self._since: float | None = None
        self._short_lives = 0

    def connected(self, now: float) -> None:
        """The broker took us."""
        self._since = now

    def calm(self) -> None:
        """Somebody else uses our id: the connection that we have may be theirs to take, and is not taken back at once."""
        self._longest = LONGEST

    def failed(self) -> float:
        """There was no connection to be had; the longest wait before the next try."""
        self._short_lives = 0
        return self._double()

    def lost(self, now: float, taken_over: bool = False) -> Loss:
        """The connection ended; `taken_over` where the broker said so."""
        life = 0.0 if self._since is None else now - self._since
        refused, self._since = self._since is None, None
        if life >= _PROVEN_AFTER:
            self._longest, self._short_lives = SHORTEST, 0
        elif not refused and life < _TAKEN_IN:
            self._short_lives += 1
        if taken_over:
            self._longest = LONGEST
            return Loss(LONGEST, True)
        return Loss(self._double(), self._short_lives >= _TAKEN_TIMES)

    def _double(self) -> float:
        longest, self._longest = self._longest, min(2 * self._longest, LONGEST)
        return longest
