# SPDX-License-Identifier: Apache-2.0
"""Time and randomness as arguments; only ``runtime`` builds the real ones."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Return the present moment, aware, in UTC."""


class Entropy(Protocol):
    """Gives randomness fit for keys, serial numbers and jitter."""

    def token_bytes(self, count: int) -> bytes:
        """Return ``count`` unpredictable bytes."""

    def fraction(self) -> float:
        """Return a number in [0, 1) for jitter."""


def seconds_of(clock: Clock) -> Callable[[], float]:
    """Return what tells the seconds since 1970 of a clock.

    A clock may have a method ``seconds`` of its own, which is asked then: building an aware datetime to take it
    apart again is a third of the price of looking at a token that was seen before.
    """
    own = getattr(clock, "seconds", None)
    return own if callable(own) else lambda: clock.now().timestamp()


def rfc3339(moment: datetime) -> str:
    """Render an aware moment as RFC 3339 in UTC with microseconds and ``Z``."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_rfc3339(text: str) -> datetime:
    """Parse what :func:`rfc3339` writes, and any RFC 3339 moment with a zone.

    Raises ``ValueError`` when the text is no date-time or has no zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone, e.g. 2026-01-31T09:00:00Z")
    return moment.astimezone(UTC)
