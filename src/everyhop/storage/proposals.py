# SPDX-License-Identifier: Apache-2.0
"""The policy that waits for approval, kept across restarts; each change in one transaction with its record."""

from __future__ import annotations

import base64
from typing import Final

import sqlalchemy as sa

from everyhop.auditlog.append import append_event
from everyhop.auditlog.model import Event
from everyhop.core.clock import Entropy
from everyhop.storage.database import Database
from everyhop.storage.dialect import upsert
from everyhop.storage.records import SqlRecordWriter
from everyhop.storage.schema import meta

_KEY: Final = "policy.proposal"


class SqlProposalStore:
    """Keeps at most one proposal.  ``producer`` names this server in the audit log."""

    def __init__(self, database: Database, *, entropy: Entropy, producer: str = "server") -> None:
        self._database = database
        self._entropy = entropy
        self._producer = producer

    def get(self) -> bytes | None:
        """Return the proposal, or None."""
        with self._database.reading() as connection:
            value = connection.execute(sa.select(meta.c.value).where(meta.c.key == _KEY)).scalar()
        return None if value is None else base64.b64decode(value)

    def put(self, proposal: bytes, event: Event) -> None:
        """Keep a proposal in place of the one that is there."""
        value = base64.b64encode(proposal).decode()
        with self._database.writing() as connection:
            statement = upsert(meta).values(key=_KEY, value=value)
            connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_={"value": value}))
            self._append(connection, event)

    def clear(self, event: Event | None) -> None:
        """Keep none."""
        with self._database.writing() as connection:
            connection.execute(sa.delete(meta).where(meta.c.key == _KEY))
            if event is not None:
                self._append(connection, event)

    def note(self, event: Event) -> None:
        """Record what changes nothing."""
        with self._database.writing() as connection:
            self._append(connection, event)

    def _append(self, connection: sa.Connection, event: Event) -> None:
        append_event(SqlRecordWriter(connection), event, producer=self._producer, entropy=self._entropy)
