# SPDX-License-Identifier: Apache-2.0
"""Policy snapshots in SQL: every one that was ever in force, so an old decision can be explained."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from everyhop.auditlog.append import append_event
from everyhop.auditlog.model import Event, Kind
from everyhop.core.clock import Clock, Entropy
from everyhop.core.errors import Conflict, NotFound
from everyhop.storage.database import Database
from everyhop.storage.records import SqlRecordWriter
from everyhop.storage.schema import from_micros, snapshots, to_micros


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSnapshot:
    """A snapshot as it was saved; ``content`` is what ``encode_snapshot`` gave."""

    hash: str
    source: str
    saved_at: datetime
    content: bytes


class SqlSnapshotStore:
    """Keeps snapshots by their hash.  ``producer`` names this server in the audit log."""

    def __init__(
        self, database: Database, *, clock: Clock, entropy: Entropy, producer: str = "server"
    ) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._producer = producer

    def save(self, content: bytes, hash: str, source: str) -> bool:  # noqa: A002  # the column's name, and the reader's
        """Put a snapshot in force and record it; False, and nothing written, when it is the latest already.

        Raises Conflict when another content is stored under the hash.
        """
        now = self._clock.now()
        with self._database.writing() as connection:
            latest = _latest(connection)
            if latest is not None and latest.hash == hash and latest.content == content:
                return False
            _put(connection, StoredSnapshot(hash=hash, source=source, saved_at=now, content=content))
            append_event(
                SqlRecordWriter(connection),
                Event(
                    kind=Kind.POLICY,
                    action="apply",
                    time=now,
                    snapshot=hash,
                    detail={"source": source, "previous": None if latest is None else latest.hash},
                ),
                producer=self._producer,
                entropy=self._entropy,
            )
        return True

    def load(self, hash: str) -> StoredSnapshot:  # noqa: A002  # the column's name, and the reader's
        """Return a snapshot by its hash.  Raises NotFound."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(snapshots).where(snapshots.c.hash == hash)).one_or_none()
        if row is None:
            raise NotFound(f"there is no snapshot {hash[:64]}")
        return _snapshot(row)

    def latest(self) -> StoredSnapshot | None:
        """Return the snapshot that was put in force last, or None."""
        with self._database.reading() as connection:
            return _latest(connection)


def _latest(connection: sa.Connection) -> StoredSnapshot | None:
    row = connection.execute(sa.select(snapshots).order_by(snapshots.c.applied.desc()).limit(1)).one_or_none()
    return None if row is None else _snapshot(row)


def _put(connection: sa.Connection, snapshot: StoredSnapshot) -> None:
    applied = int(connection.execute(sa.select(sa.func.max(snapshots.c.applied))).scalar() or 0) + 1
    stored = connection.execute(
        sa.select(snapshots.c.content).where(snapshots.c.hash == snapshot.hash)
    ).scalar()
    values = {"source": snapshot.source, "saved_at": to_micros(snapshot.saved_at), "applied": applied}
    if stored is None:
        connection.execute(
            sa.insert(snapshots).values(hash=snapshot.hash, content=snapshot.content, **values)
        )
        return
    if stored != snapshot.content:
        raise Conflict(f"another content is stored under the hash {snapshot.hash[:64]}")
    connection.execute(sa.update(snapshots).where(snapshots.c.hash == snapshot.hash).values(values))


def _snapshot(row: sa.Row[tuple[object, ...]]) -> StoredSnapshot:
    values = row._mapping  # noqa: SLF001  # SQLAlchemy's documented accessor
    return StoredSnapshot(
        hash=values["hash"],
        source=values["source"],
        saved_at=from_micros(values["saved_at"]),
        content=values["content"],
    )
