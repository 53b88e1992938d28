# SPDX-License-Identifier: Apache-2.0
"""Issues and refusals of tokens in the audit log: refusals at once, issues many to a transaction."""

from __future__ import annotations

import threading
from typing import Final

from everyhop.auditlog.append import append_events
from everyhop.auditlog.model import Event, Kind
from everyhop.core.clock import Entropy
from everyhop.issuing.ports import TokenEvent
from everyhop.storage.database import Database
from everyhop.storage.records import SqlRecordWriter

MAX_WAITING: Final = 5_000


class SqlTokenJournal:
    """The ``TokenJournal`` port on a database.

    Issues wait in memory until :meth:`flush`, until there are 5,000 of them, or until a refusal takes them along; a
    crash loses those that waited, which is the price of issuing without a commit for each.
    """

    def __init__(self, database: Database, *, entropy: Entropy, producer: str = "server") -> None:
        self._database = database
        self._entropy = entropy
        self._producer = producer
        self._lock = threading.Lock()
        self._waiting: list[TokenEvent] = []

    def issued(self, event: TokenEvent) -> None:
        """Note an issue."""
        with self._lock:
            self._waiting.append(event)
            is_full = len(self._waiting) >= MAX_WAITING
        if is_full:
            self.flush()

    def refused(self, event: TokenEvent) -> None:
        """Record a refusal, and what waited before it."""
        with self._lock:
            self._waiting.append(event)
        self.flush()

    def flush(self) -> int:
        """Write what waits, in one transaction; call it about once a second.  Returns how many records that were."""
        with self._lock:
            batch, self._waiting = self._waiting, []
        if not batch:
            return 0
        try:
            with self._database.writing() as connection:
                append_events(
                    SqlRecordWriter(connection),
                    [_event(event) for event in batch],
                    producer=self._producer,
                    entropy=self._entropy,
                )
        except BaseException:
            with self._lock:
                self._waiting[:0] = batch[-MAX_WAITING:]
            raise
        return len(batch)


def _event(event: TokenEvent) -> Event:
    is_refused = event.refused is not None
    detail = dict(event.detail)
    if event.refused is not None:
        detail["error"] = event.refused
    return Event(
        kind=Kind.TOKEN,
        action=event.action,
        time=event.time,
        caller=event.caller,
        target=event.target,
        decision="deny" if is_refused else "allow",
        reason=event.reason,
        detail=detail,
    )
