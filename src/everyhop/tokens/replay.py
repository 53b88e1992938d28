# SPDX-License-Identifier: Apache-2.0
"""Single use: a name is good once, until everything that could carry it is over."""

from __future__ import annotations

import heapq
import threading
from typing import TYPE_CHECKING, Final, Protocol

from everyhop.tokens.limits import EXPIRY_SKEW_SECONDS

if TYPE_CHECKING:
    from everyhop.core.clock import Clock

MAX_ENTRIES: Final = 500_000  # about 100 MiB; 1,000 calls a second of 300 seconds each stay well below


class ReplayGuard(Protocol):
    """Remembers what was used.  An implementation is atomic: of two simultaneous uses one is the first."""

    def use(self, jti: str, expires_at: int) -> bool:
        """Return True only when this is certainly the first use; remember it until ``expires_at`` (seconds)."""


class MemoryReplayGuard:
    """The guard of one process.  Full of names that are still alive, it answers False: it fails closed."""

    def __init__(self, clock: Clock, *, max_entries: int = MAX_ENTRIES) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._used: set[str] = set()
        self._ends: list[tuple[int, str]] = []
        self.refused_full = 0
        """How many uses were refused for want of room."""

    def use(self, jti: str, expires_at: int) -> bool:
        """Return True for the first use of a name that is not over yet."""
        now = self._clock.now().timestamp()
        # As long as a verifier would still accept the token, and no second less.
        end = expires_at + EXPIRY_SKEW_SECONDS
        if end <= now:
            return False
        with self._lock:
            self._forget(now)
            if jti in self._used:
                return False
            if len(self._used) >= self._max_entries:
                self.refused_full += 1
                return False
            self._used.add(jti)
            heapq.heappush(self._ends, (end, jti))
            return True

    def _forget(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            self._used.discard(heapq.heappop(self._ends)[1])

    @property
    def size(self) -> int:
        """How many names are remembered; no ``__len__``, or an empty guard would be taken for none."""
        return len(self._used)
