# SPDX-License-Identifier: Apache-2.0
"""The log in a database as one verifies it who believes nothing of it: lines, the columns beside them, the tree."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import sqlalchemy as sa

from everyhop.auditlog.codec import decode_record
from everyhop.auditlog.verifying import Entry
from everyhop.core.errors import InputError, NotFound, SettingsError, Unavailable
from everyhop.storage.database import Database, Engines
from everyhop.storage.log_tree import SqlLogTree
from everyhop.storage.record_rows import COLUMNS, Row, columns_of
from everyhop.storage.schema import records
from everyhop.storage.sealing import read_head

if TYPE_CHECKING:
    from everyhop.tlog import Tile

_WAIT_MS: Final = 10_000


def open_for_verifying(path: Path) -> Database:
    """Open the SQLite file at ``path`` for reading only, also while a server writes to it, and change nothing in it.

    Raises SettingsError when there is none.
    """
    if not path.is_file():
        raise SettingsError(f"there is no database {path}")
    name = f"file:{quote(str(path))}?mode=ro"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(name, uri=True, check_same_thread=False)
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {_WAIT_MS}")
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.StaticPool)
    return Database(Engines(reading=engine, writing=engine, lock=_refuse, options=lambda _wait: {}))


def _refuse(_connection: sa.Connection, _wait: float) -> None:
    raise Unavailable("the database was opened for reading only", retry=False)


class SqlLogSource:
    """The ``LogSource`` port on a database.

    The head is read once: what is appended meanwhile is not looked at.
    """

    def __init__(self, database: Database, origin: str | None) -> None:
        """``origin`` is whose checkpoints are given; None gives none.

        Raises Unavailable when the head is missing or cannot be read.
        """
        self._database = database
        self._origin = origin
        self._tree = SqlLogTree(database)
        with database.reading() as connection:
            try:
                self._head = read_head(connection)
            except (TypeError, AttributeError) as error:
                raise Unavailable("the head of the log is not of its type", retry=False) from error
            first = connection.execute(sa.select(sa.func.min(records.c.n))).scalar()
            last = connection.execute(sa.select(sa.func.max(records.c.n))).scalar() or 0
        self._first = self._head.size if first is None else max(0, int(first) - 1)
        self._unsealed = max(0, int(last) - self._head.size)

    @property
    def size(self) -> int:
        """Return the size that the head says."""
        return self._head.size

    @property
    def first_kept(self) -> int:
        """Return the first index that is kept.

        Records go by whole tiles, from the beginning; what is missing otherwise was not removed by age.
        """
        return self._first - self._first % 256

    @property
    def root(self) -> bytes:
        """Return the root that the head says."""
        return self._head.root()

    def tile(self, tile: Tile) -> bytes:
        """Return hashes as they are stored."""
        try:
            return self._tree.tile(tile.level or 0, tile.index, tile.width)
        except NotFound as error:
            raise InputError(f"{tile.path} is not in the database") from error
        except TypeError as error:
            raise InputError(f"{tile.path} is not of its type") from error

    def entries(self, start: int, count: int) -> list[Entry | None]:
        """Return records, each compared with its columns."""
        statement = sa.select(*(records.c[name] for name in COLUMNS)).where(
            records.c.n > start, records.c.n <= start + count
        )
        with self._database.reading() as connection:
            found = {row[0]: _entry(row) for row in connection.execute(statement).all()}
        return [found.get(n) for n in range(start + 1, start + count + 1)]

    def unsealed(self) -> int:
        """Return how many records stood behind the head when it was read."""
        return self._unsealed

    def notes(self) -> Iterator[bytes]:
        """Yield the checkpoints of the origin."""
        if self._origin is not None:
            for checkpoint in self._tree.checkpoints(self._origin):
                yield _bytes(checkpoint.note)


def _entry(row: sa.Row[Any]) -> Entry:
    line = row[-1] if type(row[-1]) is bytes else _bytes(row[-1])
    return Entry(line, _wrong(row[1:], line))


def _bytes(value: object) -> bytes:
    """Return what stands in a column; SQLite keeps values of any type in each, for those who write past us."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


def _wrong(columns: Sequence[object], line: bytes) -> str | None:
    """Return what the columns say that the line does not, or None; the leaf is compared elsewhere."""
    try:
        right = columns_of(decode_record(line))
    except InputError:
        return None  # then it is not what was sealed either
    if right == columns[: len(right)]:
        return None
    return next(
        f"{name} says {got!r:.60}, and the line {expected!r:.60}"
        for name, got, expected in zip(Row._fields, columns, right, strict=False)
        if got != expected
    )
