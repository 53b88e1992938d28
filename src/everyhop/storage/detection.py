# SPDX-License-Identifier: Apache-2.0
"""What detection writes: its findings and how far it is, in one transaction, so none is told twice and none is skipped."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from everyhop.auditlog.append import append_events
from everyhop.auditlog.model import Event, Record
from everyhop.core.clock import Entropy
from everyhop.storage.consumers import move
from everyhop.storage.database import Database
from everyhop.storage.records import SqlRecordWriter


class SqlDetection:
    """The ``FindingStore`` port on a database.  ``producer`` names this server in the audit log."""

    def __init__(self, database: Database, *, entropy: Entropy, producer: str = "server") -> None:
        self._database = database
        self._entropy = entropy
        self._producer = producer

    def commit(
        self, consumer: str, events: Sequence[Event], position: int, *, at: datetime
    ) -> tuple[Record, ...]:
        """Append events and move the cursor; durable when it returns.

        Nothing is appended when the cursor stands there already or further: then another server has done this stretch.
        """
        with self._database.writing() as connection:
            if not move(connection, consumer, position, at=at):
                return ()
            return append_events(
                SqlRecordWriter(connection), events, producer=self._producer, entropy=self._entropy
            )

    def append(self, events: Sequence[Event]) -> tuple[Record, ...]:
        """Append events and leave the cursor."""
        with self._database.writing() as connection:
            return append_events(
                SqlRecordWriter(connection), events, producer=self._producer, entropy=self._entropy
            )
