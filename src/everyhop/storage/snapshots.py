# SPDX-License-Identifier: Apache-2.0
"""Policy snapshots in SQL: every one that was ever in force, so an old decision can be explained."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from everyhop.auditlog.append import append_event
from everyhop.auditlog.model import Event, Kind, Scalar
from everyhop.core.clock import Entropy
from everyhop.core.errors import NotFound
from everyhop.storage.database import Database
from everyhop.storage.records import SqlRecordWriter
from everyhop.storage.schema import from_micros, snapshots, to_micros


class SnapshotStore:
    """Keeps snapshots by their hash.  ``producer`` names this server in the audit log."""

    def __init__(self, database: Database, *, entropy: Entropy, producer: str = "server") -> None:
        self._database = database
        self._entropy = entropy
        self._producer = producer

    def save(
        self,
        content: bytes,
        content_hash: str,
        source: str,
        at: datetime,
        *,
        by: str | None = None,
        detail: Mapping[str, Scalar] | None = None,
    ) -> bool:
        """Put a snapshot in force and record that in the audit log, both in one transaction.

        ``content`` is what ``encode_snapshot`` gave, ``source`` where it came from, ``at`` aware, ``by``
        who did it and ``detail`` what else the record says.  Returns False, and
        records nothing, when the latest has the hash already: the hash covers what a policy means, the content also
        where each line of it stands, so a comment that moved the lines is kept but is no change of policy.
        """
        with self._database.writing() as connection:
            previous = connection.execute(_LATEST).one_or_none()
            if previous is not None and previous.hash == content_hash:
                if previous.content != content:
                    _replace(connection, content_hash, content=content)
                return False
            _put(connection, content, content_hash, source, at)
            event = Event(
                kind=Kind.POLICY,
                action="apply",
                time=at,
                caller=by,
                snapshot=content_hash,
                detail={
                    **(detail or {}),
                    "source": source,
                    "previous": None if previous is None else previous.hash,
                },
            )
            append_event(SqlRecordWriter(connection), event, producer=self._producer, entropy=self._entropy)
        return True

    def load(self, content_hash: str) -> bytes:
        """Return a snapshot by its hash.  Raises NotFound."""
        with self._database.reading() as connection:
            content = _content(connection, content_hash)
        if content is None:
            raise NotFound(f"there is no snapshot {content_hash[:64]}")
        return content

    def in_force_since(self, content_hash: str) -> datetime | None:
        """Return when a snapshot last came into force, or None where it is not known."""
        with self._database.reading() as connection:
            statement = sa.select(snapshots.c.saved_at).where(snapshots.c.hash == content_hash)
            found = connection.execute(statement).scalar()
        return None if found is None else from_micros(found)

    def history(self, limit: int) -> tuple[tuple[str, datetime], ...]:
        """Return the hashes of the newest snapshots and since when each is (or last was) in force, the newest first."""
        statement = (
            sa.select(snapshots.c.hash, snapshots.c.saved_at)
            .order_by(snapshots.c.applied.desc())
            .limit(limit)
        )
        with self._database.reading() as connection:
            return tuple((row.hash, from_micros(row.saved_at)) for row in connection.execute(statement))

    def latest(self) -> bytes | None:
        """Return the snapshot that was put in force last, or None."""
        with self._database.reading() as connection:
            row = connection.execute(_LATEST).one_or_none()
        return None if row is None else row.content


_LATEST = sa.select(snapshots.c.hash, snapshots.c.content).order_by(snapshots.c.applied.desc()).limit(1)


def _content(connection: sa.Connection, content_hash: str) -> bytes | None:
    return connection.execute(sa.select(snapshots.c.content).where(snapshots.c.hash == content_hash)).scalar()


def _put(connection: sa.Connection, content: bytes, content_hash: str, source: str, at: datetime) -> None:
    highest = connection.execute(sa.select(sa.func.max(snapshots.c.applied))).scalar()
    values: dict[str, Any] = {
        "content": content,
        "source": source,
        "saved_at": to_micros(at),
        "applied": int(highest or 0) + 1,
    }
    if _content(connection, content_hash) is None:
        connection.execute(sa.insert(snapshots).values(hash=content_hash, **values))
    else:
        _replace(connection, content_hash, **values)


def _replace(connection: sa.Connection, content_hash: str, **values: Any) -> None:
    connection.execute(sa.update(snapshots).where(snapshots.c.hash == content_hash).values(values))
