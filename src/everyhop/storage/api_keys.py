# SPDX-License-Identifier: Apache-2.0
"""API keys in SQL: MACs, never keys; their events in the same transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from ipaddress import ip_network
from typing import Any, Final

import sqlalchemy as sa

from everyhop.apikeys.model import ApiKeyEntry, Pepper
from everyhop.apikeys.ports import ApiKeyEvent
from everyhop.auditlog.append import append_event
from everyhop.auditlog.model import Event, Kind
from everyhop.core.clock import Entropy
from everyhop.core.errors import Conflict, NotFound
from everyhop.issuing.model import Revocation, RevokedKind
from everyhop.storage.database import Database
from everyhop.storage.issuing import advance_sequence, store_revocation
from everyhop.storage.records import SqlRecordWriter
from everyhop.storage.schema import (
    api_key_peppers,
    api_keys,
    from_micros,
    read_moments,
    to_micros,
    write_moments,
)

_MOMENTS: Final = ("created_at", "expires_at", "revoked_at", "last_used_at")
_PLAIN: Final = ("lookup", "environment", "kind", "owner", "mac", "pepper", "enabled", "replaces")

_successors = api_keys.alias()
_ENTRY: Final = (
    sa.select(api_keys, _successors.c.lookup.label("replaced_by"))
    .select_from(api_keys.outerjoin(_successors, _successors.c.replaces == api_keys.c.lookup))
    .order_by(api_keys.c.n)
)


class SqlApiKeyStore:
    """The ``ApiKeyStore`` port on a database.  ``producer`` names this server in the audit log."""

    def __init__(self, database: Database, *, entropy: Entropy, producer: str = "server") -> None:
        self._database = database
        self._entropy = entropy
        self._producer = producer

    def find(self, lookup: str) -> ApiKeyEntry | None:
        """Return a key by its lookup, or None."""
        with self._database.reading() as connection:
            return _find(connection, lookup)

    def list(self, owner: str | None = None) -> tuple[ApiKeyEntry, ...]:
        """Return the keys, or those of one owner, oldest first."""
        statement = _ENTRY if owner is None else _ENTRY.where(api_keys.c.owner == owner)
        with self._database.reading() as connection:
            return tuple(_entry(row) for row in connection.execute(statement).mappings())

    def peppers(self) -> tuple[Pepper, ...]:
        """Return every pepper, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(api_key_peppers).order_by(*_PEPPER_AGE))
            return tuple(_pepper(row) for row in rows)

    def touch(self, used: Mapping[str, datetime]) -> None:
        """Store when keys were last used."""
        column = api_keys.c.last_used_at
        with self._database.writing() as connection:
            for lookup, moment in used.items():
                micros = to_micros(moment)
                connection.execute(
                    sa.update(api_keys)
                    .where(api_keys.c.lookup == lookup, sa.or_(column.is_(None), column < micros))
                    .values(last_used_at=micros)
                )

    @contextmanager
    def transaction(self) -> Iterator[SqlApiKeyTransaction]:
        """Begin a write transaction."""
        with self._database.writing() as connection:
            yield SqlApiKeyTransaction(connection, entropy=self._entropy, producer=self._producer)


class SqlApiKeyTransaction:
    """One write transaction on the API keys."""

    def __init__(self, connection: sa.Connection, *, entropy: Entropy, producer: str) -> None:
        self._connection = connection
        self._entropy = entropy
        self._producer = producer

    def find(self, lookup: str) -> ApiKeyEntry | None:
        """Return a key by its lookup, or None."""
        return _find(self._connection, lookup)

    def insert(self, entry: ApiKeyEntry) -> None:
        """Add a key."""
        try:
            self._connection.execute(sa.insert(api_keys).values(_columns(entry)))
        except sa.exc.IntegrityError as error:
            raise Conflict("the API key was rotated already, or its name is taken") from error

    def update(self, entry: ApiKeyEntry) -> None:
        """Replace the key of the same lookup."""
        done = self._connection.execute(
            sa.update(api_keys).where(api_keys.c.lookup == entry.lookup).values(_columns(entry))
        )
        if done.rowcount != 1:
            raise NotFound(f"there is no API key {entry.lookup}")

    def count(self) -> int:
        """Count the keys that are held."""
        return int(self._connection.execute(sa.select(sa.func.count()).select_from(api_keys)).scalar_one())

    def pepper(self) -> Pepper | None:
        """Return the newest pepper, or None."""
        newest = sa.select(api_key_peppers).order_by(*(c.desc() for c in _PEPPER_AGE)).limit(1)
        row = self._connection.execute(newest).one_or_none()
        return None if row is None else _pepper(row)

    def insert_pepper(self, pepper: Pepper) -> None:
        """Add a pepper."""
        self._connection.execute(
            sa.insert(api_key_peppers).values(
                id=pepper.id, wrapped=pepper.wrapped, created_at=to_micros(pepper.created_at)
            )
        )

    def revoke_subject(self, subject: str, *, by: str, at: datetime, until: datetime) -> None:
        """Refuse every token that was issued to ``subject`` up to ``at``."""
        store_revocation(
            self._connection,
            Revocation(kind=RevokedKind.SUBJECT, value=subject, revoked_at=at, expires_at=until, by=by),
        )

    def advance(self) -> int:
        """Let the sequence of tokens grow."""
        return advance_sequence(self._connection)

    def record(self, event: ApiKeyEvent) -> None:
        """Append an event to the audit log."""
        append_event(
            SqlRecordWriter(self._connection),
            Event(
                kind=Kind.TOKEN,
                action=f"{event.action}-api-key",
                time=event.time,
                caller=event.by,
                detail={"api_key": event.lookup, **event.detail},
            ),
            producer=self._producer,
            entropy=self._entropy,
        )


_PEPPER_AGE: Final = (api_key_peppers.c.created_at, api_key_peppers.c.id)


def _find(connection: sa.Connection, lookup: str) -> ApiKeyEntry | None:
    row = connection.execute(_ENTRY.where(api_keys.c.lookup == lookup)).mappings().one_or_none()
    return None if row is None else _entry(row)


def _entry(row: sa.RowMapping) -> ApiKeyEntry:
    return ApiKeyEntry(
        scopes=frozenset(row["scopes"].split()),
        sources=tuple(ip_network(text) for text in row["sources"].split()),
        replaced_by=row["replaced_by"],
        **{name: row[name] for name in _PLAIN},
        **read_moments(row, _MOMENTS),
    )


def _columns(entry: ApiKeyEntry) -> dict[str, Any]:
    return {
        "scopes": " ".join(sorted(entry.scopes)),
        "sources": " ".join(map(str, entry.sources)),
        **{name: getattr(entry, name) for name in _PLAIN},
        **write_moments(entry, _MOMENTS),
    }


def _pepper(row: sa.Row[Any]) -> Pepper:
    return Pepper(id=row.id, wrapped=row.wrapped, created_at=from_micros(row.created_at))
