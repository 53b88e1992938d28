# SPDX-License-Identifier: Apache-2.0
"""Who reads the log from its beginning to its end, and who of several servers does so now: the ports.

A consumer remembers the number of the last record that it is done with.  What it does with records is done at least
once: it does its work first and moves afterwards, so a crash between the two repeats work and skips none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a consumer is: done with every record up to ``position`` (0 for none).

    ``state`` is a text of the consumer's own, empty when it has nothing to say; ``moved_at`` is aware.
    """

    name: str
    position: int
    moved_at: datetime
    state: str = ""


class Consumers(Protocol):
    """Cursors that survive this process.  Every call is a transaction of its own."""

    def position(self, name: str) -> int:
        """Return how far a consumer is; 0 for one that never moved."""

    def get(self, name: str) -> Progress | None:
        """Return what is known of a consumer, or None."""

    def all(self) -> Mapping[str, Progress]:
        """Return every consumer by its name."""

    def move(self, name: str, position: int, *, at: datetime, state: str | None = None) -> bool:
        """Move forward to ``position``; return whether that was forward.

        A cursor never moves backwards: of two servers the one that is further is right.  ``state`` of None leaves
        the state as it is; a state goes in with the move or not at all.
        """

    def say(self, name: str, state: str, *, at: datetime) -> None:
        """Replace the state and leave the position."""

    def forget(self, name: str) -> bool:
        """Remove a consumer; return whether it was there.  One of that name would begin at 0."""


class Leases(Protocol):
    """What one of several servers does at a time.  Every call is a transaction of its own."""

    def take(self, name: str, holder: str, *, now: datetime, ttl: timedelta) -> bool:
        """Take a lease that is free, expired or one's own, until ``now + ttl``; return whether it is held now."""

    def release(self, name: str, holder: str) -> None:
        """Give up a lease; nothing happens when it is somebody else's by now."""

    def holder(self, name: str, *, now: datetime) -> str | None:
        """Return who holds a lease, or None."""
