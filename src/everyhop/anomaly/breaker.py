# SPDX-License-Identifier: Apache-2.0
"""Too many blocks at once are more likely a mistake of ours, or of a policy, than that many attackers."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from everyhop.anomaly.model import Subject
    from everyhop.policy.detect import Breaker

ALWAYS: Final = 5
"""So many blocks are always made: of a handful of subjects, one is a large share."""

KNOWN_FOR: Final = 24 * 3600.0
MAX_KNOWN: Final = 100_000


class BlockBreaker:
    """Remembers who acted in the last day, and whom detectors blocked of late.  Times are monotonic seconds."""

    def __init__(self) -> None:
        self._known: OrderedDict[Subject, float] = OrderedDict()
        self._blocked: deque[tuple[float, Subject]] = deque()

    @property
    def known(self) -> int:
        """Return how many subjects are known."""
        return len(self._known)

    def see(self, subject: Subject, now: float) -> None:
        """Note that a subject acts."""
        self._known[subject] = now
        self._known.move_to_end(subject)
        while len(self._known) > MAX_KNOWN or next(iter(self._known.values())) < now - KNOWN_FOR:
            self._known.popitem(last=False)

    def admits(self, subject: Subject, breaker: Breaker | None, now: float) -> bool:
        """Tell whether one more may be blocked, and note it if so."""
        if breaker is None:
            return True
        since = now - breaker.within.total_seconds()
        while self._blocked and self._blocked[0][0] < since:
            self._blocked.popleft()
        blocked = {other for _, other in self._blocked} | {subject}
        if len(blocked) > max(ALWAYS, breaker.share * len(self._known)):
            return False
        self._blocked.append((now, subject))
        return True

    def blocked(self) -> int:
        """Return how many blocks count at present."""
        return len({subject for _, subject in self._blocked})
