# SPDX-License-Identifier: Apache-2.0
"""Cursors of the log's consumers in SQL."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import sqlalchemy as sa

from everyhop.auditlog.consumer import Progress
from everyhop.core.errors import InputError
from everyhop.storage.database import Database
from everyhop.storage.dialect import write_row
from everyhop.storage.schema import consumers, from_micros, to_micros

MAX_NAME: Final = 128
MAX_STATE: Final = 64 * 1024


class SqlConsumers:
    """The ``Consumers`` port on a database.  Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def position(self, name: str) -> int:
        """Return how far a consumer is; 0 for one that never moved."""
        found = self.get(name)
        return 0 if found is None else found.position

    def get(self, name: str) -> Progress | None:
        """Return what is known of a consumer, or None."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(consumers).where(consumers.c.name == name)).one_or_none()
        return None if row is None else _progress(row)

    def all(self) -> dict[str, Progress]:
        """Return every consumer by its name."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(consumers).order_by(consumers.c.name)).all()
        return {row.name: _progress(row) for row in rows}

    def move(self, name: str, position: int, *, at: datetime, state: str | None = None) -> bool:
        """Move forward to ``position``; return whether that was forward.  Raises InputError for no position."""
        with self._database.writing() as connection:
            return move(connection, name, position, at=at, state=state)

    def say(self, name: str, state: str, *, at: datetime) -> None:
        """Replace the state and leave the position.  Raises InputError for more than 64 KiB of it."""
        _check(name, 0, state)
        with self._database.writing() as connection:
            write_row(
                connection,
                consumers,
                key={"name": name},
                values={"state": state},
                further={"position": 0, "moved_at": to_micros(at)},
            )

    def forget(self, name: str) -> bool:
        """Remove a consumer; return whether it was there."""
        with self._database.writing() as connection:
            return bool(connection.execute(sa.delete(consumers).where(consumers.c.name == name)).rowcount)


def move(
    connection: sa.Connection, name: str, position: int, *, at: datetime, state: str | None = None
) -> bool:
    """Do what :meth:`SqlConsumers.move` does in an open write transaction: work and cursor together."""
    _check(name, position, state)
    values = {"position": position, "moved_at": to_micros(at)} | ({} if state is None else {"state": state})
    return write_row(
        connection,
        consumers,
        key={"name": name},
        values=values,
        further={} if state is not None else {"state": ""},
        where=consumers.c.position < position,
    )


def _check(name: str, position: int, state: str | None) -> None:
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise InputError(f"a consumer's name has 1 to {MAX_NAME} printable characters")
    if not 0 <= position < 2**63:
        raise InputError(f"no place in the log: {position}")
    if state is not None and len(state) > MAX_STATE:
        raise InputError(f"a consumer's state has at most {MAX_STATE} characters")


def _progress(row: sa.Row[tuple[object, ...]]) -> Progress:
    return Progress(name=row.name, position=row.position, moved_at=from_micros(row.moved_at), state=row.state)
