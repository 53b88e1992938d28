# SPDX-License-Identifier: Apache-2.0
"""Issues and refusals of tokens in the audit log: on record before anybody is handed one, many to a commit."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from everyhop.auditlog.append import append_events
from everyhop.auditlog.model import Event, Kind
from everyhop.core.clock import Entropy
from everyhop.core.errors import Unavailable
from everyhop.core.turns import Turns
from everyhop.issuing.ports import TokenEvent
from everyhop.storage.database import Database
from everyhop.storage.records import SqlRecordWriter

MAX_NOTED: Final = 5_000
MAX_TOGETHER: Final = 2_000
MAX_WAITING: Final = 40_000


class SqlTokenJournal:
    """The ``TokenJournal`` port on a database.

    Whoever issues waits for the commit, and shares it with everybody who issues at the same time.  Only what is merely
    noted waits in memory until :meth:`flush`; a crash loses it, and nobody was given anything.
    """

    def __init__(self, database: Database, *, entropy: Entropy, producer: str = "server") -> None:
        self._database = database
        self._entropy = entropy
        self._producer = producer
        self._turns: Turns[TokenEvent, None] = Turns(
            self._write, at_most=MAX_TOGETHER, max_waiting=MAX_WAITING
        )
        self._lock = threading.Lock()
        self._noted: list[TokenEvent] = []
        self._together = threading.local()

    def issued(self, event: TokenEvent) -> None:
        """Record an issue; durable when this returns, or when the block of :meth:`together` ends."""
        collected: list[TokenEvent] | None = getattr(self._together, "events", None)
        if collected is None:
            self._submit([event])
        else:
            collected.append(event)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Record everything that this thread issues inside at once, durably, before the block ends.

        Raises Unavailable when that fails: nothing that was issued inside may be handed out then.
        """
        self._together.events = events = list[TokenEvent]()
        try:
            yield
        finally:
            self._together.events = None
        self._submit(events)

    def refused(self, event: TokenEvent) -> None:
        """Record a refusal, and what was noted before it; durable when it returns."""
        with self._lock:
            noted, self._noted = self._noted, []
        try:
            self._submit([*noted, event])
        except BaseException:
            self._keep(noted)
            raise

    def noted(self, event: TokenEvent) -> None:
        """Note something by which nobody is given anything; it is written with the next refusal or :meth:`flush`."""
        with self._lock:
            self._noted.append(event)
            is_full = len(self._noted) >= MAX_NOTED
        if is_full:
            self.flush()

    def flush(self) -> int:
        """Write what was noted; call it about once a second.  Returns how many records that were."""
        with self._lock:
            noted, self._noted = self._noted, []
        try:
            self._submit(noted)
        except BaseException:
            self._keep(noted)
            raise
        return len(noted)

    def _keep(self, noted: list[TokenEvent]) -> None:
        with self._lock:
            self._noted[:0] = noted[-MAX_NOTED:]

    def _submit(self, events: Sequence[TokenEvent]) -> None:
        if events:
            self._turns.submit(events)

    def _write(self, batches: Sequence[Sequence[TokenEvent]]) -> list[None]:
        try:
            with self._database.writing() as connection:
                append_events(
                    SqlRecordWriter(connection),
                    [_event(event) for events in batches for event in events],
                    producer=self._producer,
                    entropy=self._entropy,
                )
        except Exception as error:
            raise Unavailable("the record could not be written") from error
        return [None] * len(batches)


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
