# SPDX-License-Identifier: Apache-2.0
"""Refusals of the OAuth endpoints in the audit log: each of a known client, and of strangers only so many."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from everyhop.issuing.ports import TokenEvent

if TYPE_CHECKING:
    from everyhop.core.clock import Clock
    from everyhop.issuing.ports import TokenJournal

_log = logging.getLogger(__name__)

ACTION: Final = "oauth"
STRANGERS_A_SECOND: Final = 5.0
STRANGERS_AT_ONCE: Final = 100.0


class RefusalLog:
    """Records refusals that the token service has not seen.  Called from worker threads, one event at a time is fine.

    Anybody on the network can be refused as often as he likes.  So what nobody known has caused waits for the next
    write instead of asking for one, and beyond a rate it is only counted.
    """

    def __init__(self, journal: TokenJournal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._room = STRANGERS_AT_ONCE
        self._filled_at = clock.now()
        self._unrecorded = 0

    def note(self, *, caller: str | None, error: str, reason: str, detail: dict[str, str]) -> None:
        """Record one refusal; see the class."""
        now = self._clock.now()
        event = TokenEvent(
            action=ACTION, time=now, caller=caller, refused=error, reason=reason, detail=dict(detail)
        )
        if caller is not None:
            self._journal.refused(event)
            return
        elapsed = max(0.0, (now - self._filled_at).total_seconds())
        self._filled_at = now
        self._room = min(STRANGERS_AT_ONCE, self._room + elapsed * STRANGERS_A_SECOND)
        if self._room < 1:
            self._unrecorded += 1
            return
        self._room -= 1
        if self._unrecorded:
            _log.warning("refusals of strangers were not recorded", extra={"count": self._unrecorded})
            self._unrecorded = 0
        self._journal.noted(event)
