# SPDX-License-Identifier: Apache-2.0
"""Shared counters with a local twin: who counts with others goes on alone while they do not answer.

The twin counts along all the time, so an outage does not begin at zero; while it stands in, thresholds are divided by the
number of those who count.  A breaker keeps a server that is slow from making everything slow: after one failure nobody asks
for a second, then for twice as long, up to half a minute.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from everyhop.anomaly.window import NOTHING, Count, Hit, Look, MemoryWindows, Windows
from everyhop.core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0


class TwinWindows:
    """``Windows`` over shared ones that may raise Unavailable.  Used from one thread at a time."""

    def __init__(
        self,
        shared: Windows,
        *,
        told: Callable[[bool], None],
        replicas: int = 1,
        counts_alone: Callable[[], bool] = lambda: True,
        local: MemoryWindows | None = None,
    ) -> None:
        """``told(True)`` is called once when an outage begins, ``told(False)`` once when it is over.

        ``counts_alone`` says whether to count meanwhile (the policy's ``on_error``).
        """
        self._shared = shared
        self._local = MemoryWindows() if local is None else local
        self._told = told
        self._replicas = replicas
        self._counts_alone = counts_alone
        self._pause = FIRST_PAUSE
        self._closed_at = -math.inf
        self.is_degraded = False

    @property
    def evicted(self) -> int:
        """Return how many counters the twin forgot for want of room."""
        return self._local.evicted

    def count(self, hits: Sequence[Hit], *, now: float) -> list[Count]:
        """Count with the others, or alone."""
        if now >= self._closed_at:
            try:
                counts = self._shared.count(hits, now=now)
            except Unavailable:
                self._fail(now)
            else:
                self._succeed()
                self._local.count(hits, now=now)
                return counts
        share = [hit._replace(threshold=hit.threshold.divided(self._replicas)) for hit in hits]
        counts = self._local.count(share, now=now)
        return counts if self._counts_alone() else [NOTHING] * len(hits)

    def release(self, key: str, *, now: float) -> None:
        """Begin at zero, here and, when it answers, there."""
        self._local.release(key, now=now)
        self._also(lambda: self._shared.release(key, now=now), now)

    def hold(self, key: str, seconds: float, *, now: float) -> None:
        """Take over a block, here and, when it answers, there."""
        self._local.hold(key, seconds, now=now)
        self._also(lambda: self._shared.hold(key, seconds, now=now), now)

    def look(self, key: str, window: float, *, now: float) -> Look:
        """Return a counter."""
        if now >= self._closed_at:
            try:
                return self._shared.look(key, window, now=now)
            except Unavailable:
                self._fail(now)
        return self._local.look(key, window, now=now)

    def _also(self, act: Callable[[], None], now: float) -> None:
        if now < self._closed_at:
            return
        try:
            act()
        except Unavailable:
            self._fail(now)

    def _fail(self, now: float) -> None:
        self._closed_at = now + self._pause
        self._pause = min(LONGEST_PAUSE, self._pause * 2)
        if not self.is_degraded:
            self.is_degraded = True
            self._told(True)

    def _succeed(self) -> None:
        self._pause = FIRST_PAUSE
        if self.is_degraded:
            self.is_degraded = False
            self._told(False)
