# SPDX-License-Identifier: Apache-2.0
"""Signing keys and revocations in SQL, with their sequence, and their events in the same transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from everyhop.auditlog.append import append_event
from everyhop.auditlog.model import Event, Kind
from everyhop.core.clock import Entropy
from everyhop.core.errors import Conflict, NotFound
from everyhop.issuing.model import IssuingState, KeyStatus, Revocation, RevokedKind, SigningKey
from everyhop.issuing.ports import SigningEvent
from everyhop.jose.algorithms import Algorithm
from everyhop.storage.database import Database
from everyhop.storage.dialect import upsert
from everyhop.storage.records import SqlRecordWriter
from everyhop.storage.schema import (
    from_micros,
    read_moments,
    signing_keys,
    to_micros,
    token_revocations,
    token_state,
    write_moments,
)

_MOMENTS: Final = ("created_at", "activated_at", "retired_at")
_PLAIN: Final = ("kid", "public", "wrapped_key", "published_sequence")


class SqlIssuingStore:
    """The ``IssuingStore`` port on a database.  ``producer`` names this server in the audit log."""

    def __init__(self, database: Database, *, entropy: Entropy, producer: str = "server") -> None:
        self._database = database
        self._entropy = entropy
        self._producer = producer

    def sequence(self) -> int:
        """Return the number of the present state."""
        with self._database.reading() as connection:
            return read_sequence(connection)

    def load(self) -> IssuingState:
        """Return a consistent state."""
        with self._database.reading() as connection:
            return _load(connection)

    @contextmanager
    def transaction(self) -> Iterator[SqlIssuingTransaction]:
        """Begin a write transaction."""
        with self._database.writing() as connection:
            yield SqlIssuingTransaction(connection, entropy=self._entropy, producer=self._producer)


class SqlIssuingTransaction:
    """One write transaction on keys and revocations."""

    def __init__(self, connection: sa.Connection, *, entropy: Entropy, producer: str) -> None:
        self._connection = connection
        self._entropy = entropy
        self._producer = producer

    def load(self) -> IssuingState:
        """Return keys and sequence as this transaction sees them, without revocations."""
        return IssuingState(
            keys=_load_keys(self._connection), revocations=(), sequence=read_sequence(self._connection)
        )

    def insert_key(self, key: SigningKey) -> None:
        """Add a key."""
        with _conflicts(key):
            self._connection.execute(sa.insert(signing_keys).values(_columns(key)))

    def update_key(self, key: SigningKey) -> None:
        """Replace the key of the same kid."""
        with _conflicts(key):
            done = self._connection.execute(
                sa.update(signing_keys).where(signing_keys.c.kid == key.kid).values(_columns(key))
            )
        _demand_one(done.rowcount, key.kid)

    def delete_key(self, kid: str) -> None:
        """Remove a key."""
        done = self._connection.execute(sa.delete(signing_keys).where(signing_keys.c.kid == kid))
        _demand_one(done.rowcount, kid)

    def advance(self) -> int:
        """Let the sequence grow by one."""
        return advance_sequence(self._connection)

    def revoke(self, revocation: Revocation) -> None:
        """Store a revocation, or extend the one of the same name."""
        store_revocation(self._connection, revocation)

    def count_revocations(self, by: str | None = None) -> int:
        """Count the stored revocations, or those of one asker."""
        statement = sa.select(sa.func.count()).select_from(token_revocations)
        if by is not None:
            statement = statement.where(token_revocations.c.revoked_by == by)
        return int(self._connection.execute(statement).scalar_one())

    def prune_revocations(self, now: datetime) -> int:
        """Remove the revocations that are over."""
        done = self._connection.execute(
            sa.delete(token_revocations).where(token_revocations.c.expires_at <= to_micros(now))
        )
        return done.rowcount

    def record(self, event: SigningEvent) -> None:
        """Append an event to the audit log."""
        detail = {"authority_kind": "token", **event.detail}
        if event.kid is not None:
            detail["authority"] = event.kid
        append_event(
            SqlRecordWriter(self._connection),
            Event(
                kind=Kind.TOKEN if event.kid is None else Kind.KEY,
                action=event.action,
                time=event.time,
                caller=event.caller,
                detail=detail,
            ),
            producer=self._producer,
            entropy=self._entropy,
        )


def read_sequence(connection: sa.Connection) -> int:
    """Return the sequence of tokens, 0 before the first key."""
    return int(connection.execute(sa.select(token_state.c.sequence)).scalar() or 0)


def advance_sequence(connection: sa.Connection) -> int:
    """Let the sequence grow by one and return it."""
    statement = upsert(token_state).values(one=1, sequence=1)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["one"], set_={"sequence": token_state.c.sequence + 1})
    )
    return read_sequence(connection)


def store_revocation(connection: sa.Connection, revocation: Revocation) -> None:
    """Store a revocation; one of the same name lasts until the later end and names the later moment."""
    statement = upsert(token_revocations).values(
        kind=revocation.kind.value,
        value=revocation.value,
        revoked_at=to_micros(revocation.revoked_at),
        expires_at=to_micros(revocation.expires_at),
        revoked_by=revocation.by,
    )
    later = {
        name: sa.case((stored > new, stored), else_=new)
        for name, stored, new in (
            (name, token_revocations.c[name], statement.excluded[name])
            for name in ("revoked_at", "expires_at")
        )
    }
    connection.execute(statement.on_conflict_do_update(index_elements=["kind", "value"], set_=later))


def _load_keys(connection: sa.Connection) -> tuple[SigningKey, ...]:
    rows = connection.execute(sa.select(signing_keys).order_by(signing_keys.c.n)).mappings()
    return tuple(_key(row) for row in rows)


def _load(connection: sa.Connection) -> IssuingState:
    revocations = connection.execute(sa.select(token_revocations).order_by(token_revocations.c.n))
    return IssuingState(
        keys=_load_keys(connection),
        revocations=tuple(
            Revocation(
                kind=RevokedKind(row.kind),
                value=row.value,
                revoked_at=from_micros(row.revoked_at),
                expires_at=from_micros(row.expires_at),
                by=row.revoked_by,
            )
            for row in revocations
        ),
        sequence=read_sequence(connection),
    )


def _key(row: sa.RowMapping) -> SigningKey:
    return SigningKey(
        algorithm=Algorithm(row["algorithm"]),
        status=KeyStatus(row["status"]),
        **{name: row[name] for name in _PLAIN},
        **read_moments(row, _MOMENTS),
    )


def _columns(key: SigningKey) -> dict[str, Any]:
    return {
        "algorithm": key.algorithm.value,
        "status": key.status.value,
        **{name: getattr(key, name) for name in _PLAIN},
        **write_moments(key, _MOMENTS),
    }


@contextmanager
def _conflicts(key: SigningKey) -> Iterator[None]:
    try:
        yield
    except sa.exc.IntegrityError as error:
        raise Conflict(
            f"there is another {key.status.value} signing key of {key.algorithm.value}, or one of the same name"
        ) from error


def _demand_one(count: int, kid: str) -> None:
    if count != 1:
        raise NotFound(f"there is no signing key {kid}")
