# SPDX-License-Identifier: Apache-2.0
"""Authorities in SQL, and their events in the same transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from everyhop.auditlog.append import append_event
from everyhop.auditlog.model import Event, Kind
from everyhop.authority.model import AuthorityEntry, AuthorityKind, AuthorityState, AuthorityStatus
from everyhop.authority.ports import AuthorityEvent
from everyhop.core.clock import Entropy
from everyhop.core.errors import Conflict, NotFound
from everyhop.storage.database import Database
from everyhop.storage.dialect import upsert
from everyhop.storage.records import SqlRecordWriter
from everyhop.storage.schema import authorities, bundle_state, read_moments, to_micros, write_moments

_MOMENTS: Final = ("created_at", "not_before", "not_after", "activated_at", "retired_at", "signed_until")
_PLAIN: Final = ("id", "public", "wrapped_key", "published_sequence")


class SqlAuthorityStore:
    """The ``AuthorityStore`` port on a database.  ``producer`` names this server in the audit log."""

    def __init__(self, database: Database, *, entropy: Entropy, producer: str = "server") -> None:
        self._database = database
        self._entropy = entropy
        self._producer = producer

    def load(self) -> AuthorityState:
        """Return a consistent state."""
        with self._database.reading() as connection:
            return _load(connection)

    @contextmanager
    def transaction(self) -> Iterator[SqlAuthorityTransaction]:
        """Begin a write transaction."""
        with self._database.writing() as connection:
            yield SqlAuthorityTransaction(connection, entropy=self._entropy, producer=self._producer)


class SqlAuthorityTransaction:
    """One write transaction on the authorities."""

    def __init__(self, connection: sa.Connection, *, entropy: Entropy, producer: str) -> None:
        self._connection = connection
        self._entropy = entropy
        self._producer = producer

    def load(self) -> AuthorityState:
        """Return the state as this transaction sees it."""
        return _load(self._connection)

    def insert(self, entry: AuthorityEntry) -> None:
        """Add an authority."""
        with _conflicts(entry):
            self._connection.execute(sa.insert(authorities).values(_columns(entry)))

    def update(self, entry: AuthorityEntry) -> None:
        """Replace the authority of the same id."""
        with _conflicts(entry):
            done = self._connection.execute(
                sa.update(authorities).where(authorities.c.id == entry.id).values(_columns(entry))
            )
        _demand_one(done.rowcount, entry.id)

    def delete(self, authority_id: str) -> None:
        """Remove an authority."""
        done = self._connection.execute(sa.delete(authorities).where(authorities.c.id == authority_id))
        _demand_one(done.rowcount, authority_id)

    def set_sequence(self, sequence: int) -> None:
        """Store the bundle's sequence number, which only grows."""
        if sequence <= _sequence(self._connection):
            raise Conflict("the sequence number of a bundle only grows")
        statement = upsert(bundle_state).values(one=1, sequence=sequence)
        self._connection.execute(
            statement.on_conflict_do_update(index_elements=["one"], set_={"sequence": sequence})
        )

    def extend_signed_until(self, authority_id: str, moment: datetime) -> bool:
        """Raise ``signed_until`` of an active authority."""
        micros = to_micros(moment)
        column = authorities.c.signed_until
        done = self._connection.execute(
            sa.update(authorities)
            .where(authorities.c.id == authority_id, authorities.c.status == AuthorityStatus.ACTIVE.value)
            .values(signed_until=sa.case((column > micros, column), else_=micros))
        )
        return done.rowcount == 1

    def record(self, event: AuthorityEvent) -> None:
        """Append an event to the audit log."""
        is_issue = event.subject is not None
        append_event(
            SqlRecordWriter(self._connection),
            Event(
                kind=Kind.IDENTITY if is_issue else Kind.KEY,
                action=event.action,
                time=event.time,
                caller=event.subject,
                decision="allow" if is_issue else None,
                detail={"authority_kind": event.kind.value, "authority": event.authority_id, **event.detail},
            ),
            producer=self._producer,
            entropy=self._entropy,
        )


def _load(connection: sa.Connection) -> AuthorityState:
    rows = connection.execute(sa.select(authorities).order_by(authorities.c.n)).mappings()
    return AuthorityState(entries=tuple(_entry(row) for row in rows), sequence=_sequence(connection))


def _sequence(connection: sa.Connection) -> int:
    return int(connection.execute(sa.select(bundle_state.c.sequence)).scalar() or 0)


def _entry(row: sa.RowMapping) -> AuthorityEntry:
    return AuthorityEntry(
        kind=AuthorityKind(row["kind"]),
        status=AuthorityStatus(row["status"]),
        **{name: row[name] for name in _PLAIN},
        **read_moments(row, _MOMENTS),
    )


def _columns(entry: AuthorityEntry) -> dict[str, Any]:
    return {
        "kind": entry.kind.value,
        "status": entry.status.value,
        **{name: getattr(entry, name) for name in _PLAIN},
        **write_moments(entry, _MOMENTS),
    }


@contextmanager
def _conflicts(entry: AuthorityEntry) -> Iterator[None]:
    try:
        yield
    except sa.exc.IntegrityError as error:
        raise Conflict(
            f"there is another {entry.status.value} {entry.kind.value} authority, or one of the same id"
        ) from error


def _demand_one(count: int, authority_id: str) -> None:
    if count != 1:
        raise NotFound(f"there is no authority {authority_id}")
