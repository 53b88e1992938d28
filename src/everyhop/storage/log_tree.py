# SPDX-License-Identifier: Apache-2.0
"""The tree over the log in SQL: hashes from tiles and, where a tile still fills, from beside the records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from everyhop.auditlog.checkpoints import StoredCheckpoint
from everyhop.core.errors import Conflict, InputError, NotFound
from everyhop.storage.database import Database
from everyhop.storage.schema import from_micros, log_checkpoints, log_tiles, records, to_micros
from everyhop.storage.sealing import TILE, read_head
from everyhop.tlog.merkle import Frontier, split_hashes

MAX_HASHES: Final = TILE * TILE
_PAGE: Final = 1000
_HOUR: Final = 3_600_000_000  # microseconds
_LARGEST: Final = 2**63 - 1


class SqlLogTree:
    """The ``LogTree`` port on a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def head(self) -> tuple[int, Frontier]:
        """Return the number of leaves and the right edge."""
        with self._database.reading() as connection:
            frontier = read_head(connection)
        return frontier.size, frontier

    def hashes(self, level: int, start: int, count: int) -> list[bytes]:
        """Return hashes of a level."""
        if level < 0 or start < 0 or not 0 <= count <= MAX_HASHES or start + count > _LARGEST:
            raise InputError(f"at most {MAX_HASHES} hashes of a level that is there")
        with self._database.reading() as connection:
            found = (
                _leaves(connection, start, count) if level == 0 else _roots(connection, level, start, count)
            )
        if len(found) != count:
            raise NotFound(f"the tree has not {count} hashes behind {start} on level {level}")
        return found

    def tile(self, level: int, n: int, width: int = TILE) -> bytes:
        """Return a tile."""
        if not 1 <= width <= TILE or not 0 <= n <= _LARGEST // TILE:
            raise InputError(f"a tile has 1 to {TILE} hashes")
        return b"".join(self.hashes(level, n * TILE, width))

    def lines(self, start: int, end: int) -> Iterator[Sequence[bytes | None]]:
        """Yield pages of lines, each read in a short transaction."""
        for first in range(start, end, _PAGE):
            behind = min(first + _PAGE, end)
            statement = sa.select(records.c.n, records.c.line).where(
                records.c.n > first, records.c.n <= behind
            )
            with self._database.reading() as connection:
                found = {row.n: row.line for row in connection.execute(statement)}
            yield [found.get(n) for n in range(first + 1, behind + 1)]

    def index_of(self, record_id: str) -> int:
        """Return the index of a record."""
        with self._database.reading() as connection:
            n = connection.execute(sa.select(records.c.n).where(records.c.id == record_id)).scalar()
        if n is None:
            raise NotFound(f"there is no record {record_id[:80]}", hint="it may be older than what is kept")
        return int(n) - 1

    def first_kept(self) -> int:
        """Return the index of the oldest record that is kept."""
        with self._database.reading() as connection:
            n = connection.execute(sa.select(sa.func.min(records.c.n))).scalar()
            return read_head(connection).size if n is None else int(n) - 1

    def save_checkpoint(self, checkpoint: StoredCheckpoint) -> None:
        """Keep a checkpoint."""
        with self._database.writing() as connection:
            if checkpoint.size > read_head(connection).size:
                raise Conflict(f"a checkpoint of {checkpoint.size} records, and the log has fewer")
            same = sa.and_(
                log_checkpoints.c.origin == checkpoint.origin, log_checkpoints.c.size == checkpoint.size
            )
            root = connection.execute(sa.select(log_checkpoints.c.root).where(same)).scalar()
            if root is None:
                connection.execute(sa.insert(log_checkpoints).values(_columns(checkpoint)))
            elif root != checkpoint.root:
                raise Conflict(f"there is a checkpoint of {checkpoint.size} records with another root")

    def add_cosignatures(self, checkpoint: StoredCheckpoint) -> None:
        """Replace the note of a checkpoint."""
        same = sa.and_(
            log_checkpoints.c.origin == checkpoint.origin,
            log_checkpoints.c.size == checkpoint.size,
            log_checkpoints.c.root == checkpoint.root,
        )
        with self._database.writing() as connection:
            statement = sa.update(log_checkpoints).where(same).values(note=checkpoint.note)
            if not connection.execute(statement).rowcount:
                raise NotFound(f"there is no such checkpoint of {checkpoint.size} records")

    def thin_checkpoints(self, origin: str, *, before: datetime) -> int:
        """Remove all but one of each hour."""
        old = sa.and_(log_checkpoints.c.origin == origin, log_checkpoints.c.signed_at < to_micros(before))
        kept = (
            sa.select(sa.func.min(log_checkpoints.c.size))
            .where(old)
            .group_by(log_checkpoints.c.signed_at.op("/")(_HOUR))
        )
        with self._database.writing() as connection:
            doomed = sa.delete(log_checkpoints).where(old, log_checkpoints.c.size.not_in(kept))
            return connection.execute(doomed).rowcount

    def origins(self) -> list[str]:
        """Return every origin."""
        statement = sa.select(log_checkpoints.c.origin).distinct().order_by(log_checkpoints.c.origin)
        with self._database.reading() as connection:
            return list(connection.execute(statement).scalars())

    def latest_checkpoint(self, origin: str) -> StoredCheckpoint | None:
        """Return the largest checkpoint, or None."""
        statement = (
            sa.select(log_checkpoints)
            .where(log_checkpoints.c.origin == origin)
            .order_by(log_checkpoints.c.size.desc())
            .limit(1)
        )
        with self._database.reading() as connection:
            row = connection.execute(statement).one_or_none()
        return None if row is None else _checkpoint(row)

    def checkpoints(self, origin: str, *, behind: int = -1) -> Iterator[StoredCheckpoint]:
        """Yield checkpoints, page by page."""
        while True:
            statement = (
                sa.select(log_checkpoints)
                .where(log_checkpoints.c.origin == origin, log_checkpoints.c.size > behind)
                .order_by(log_checkpoints.c.size)
                .limit(_PAGE)
            )
            with self._database.reading() as connection:
                rows = connection.execute(statement).all()
            if not rows:
                return
            yield from map(_checkpoint, rows)
            behind = rows[-1].size


def _leaves(connection: sa.Connection, start: int, count: int) -> list[bytes]:
    """Return leaf hashes: of full tiles from the tiles, of the open one from beside the records."""
    end = start + count
    sealed = read_head(connection).size
    full = min(end, sealed - sealed % TILE)
    leaves: list[bytes] = []
    if start < full:
        tiles = _select(connection, log_tiles.c.hashes, 0, start // TILE, -(-full // TILE))
        joined = [leaf for hashes in tiles for leaf in split_hashes(hashes)]
        leaves = joined[start % TILE : start % TILE + full - start]
    rest = sa.select(records.c.leaf).where(records.c.n > max(start, full), records.c.n <= min(end, sealed))
    return leaves + list(connection.execute(rest.order_by(records.c.n)).scalars())


def _roots(connection: sa.Connection, level: int, start: int, count: int) -> list[bytes]:
    """Return hashes above leaves: they are the roots of the full tiles one level below."""
    return list(_select(connection, log_tiles.c.root, level - 1, start, start + count))


def _select(
    connection: sa.Connection, column: sa.ColumnElement[bytes], level: int, first: int, behind: int
) -> Sequence[bytes]:
    statement = sa.select(column).where(
        log_tiles.c.level == level, log_tiles.c.n >= first, log_tiles.c.n < behind
    )
    return connection.execute(statement.order_by(log_tiles.c.n)).scalars().all()


def _columns(checkpoint: StoredCheckpoint) -> dict[str, Any]:
    return {
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root,
        "signed_at": to_micros(checkpoint.signed_at),
        "note": checkpoint.note,
    }


def _checkpoint(row: sa.Row[Any]) -> StoredCheckpoint:
    return StoredCheckpoint(
        origin=row.origin, size=row.size, root=row.root, signed_at=from_micros(row.signed_at), note=row.note
    )
