# SPDX-License-Identifier: Apache-2.0
"""The engine, and transactions on it.

SQLite is set up so that a commit is on the disk when it returns (WAL, synchronous FULL), and so that a writer takes
the write lock when it begins, not in the middle, where waiting is impossible and the answer would be an error.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

from everyhop.auditlog.model import Record
from everyhop.core.errors import SettingsError, Unavailable

BUSY_TIMEOUT_MS: Final = 10_000
POOL_SIZE: Final = 8

_PRAGMAS: Final = (
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}",  # first, so that the others wait as well
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
)
_WRITE: Final = "everyhop_write"
_DISGUISE: Final = "everyhop_disguise"

Disguise = Callable[[sa.Connection, Sequence[Record]], list[Record]]
"""Returns records with pseudonyms for persons, made on the transaction in which they are written."""


def disguise_of(connection: sa.Connection) -> Disguise | None:
    """Return what puts pseudonyms into the records of this transaction."""
    found: Disguise | None = connection.get_execution_options().get(_DISGUISE)
    return found


class Database:
    """An engine with its two kinds of transaction.  Safe to share between threads; one per process."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._writer = engine.execution_options(**{_WRITE: True})
        self.disguise: Disguise | None = None
        """What puts pseudonyms into records on the append path; None where they are switched off."""
        # Threads queue here; SQLite's own way to wait is to sleep and try again, unfairly.
        self._turn = threading.Lock()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a transaction that sees one consistent state and writes nothing.

        Raises Unavailable when the database does not answer.
        """
        with _wrapped_errors(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Open a write transaction; it commits when the block ends and rolls back when the block raises.

        Raises Unavailable when the lock is not to be had within ten seconds, or the disk is full or broken.
        """
        if not self._turn.acquire(timeout=BUSY_TIMEOUT_MS / 1000):
            raise Unavailable("the database does not answer: other threads hold it")
        try:
            with _wrapped_errors(), self._writer.connect() as connection, connection.begin():
                connection.execution_options(**{_DISGUISE: self.disguise})
                yield connection
        finally:
            self._turn.release()

    def close(self) -> None:
        """Close every connection; the last one folds the write-ahead log into the file."""
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_database(path: Path) -> Database:
    """Open the SQLite file at ``path``, created 0600 in one step when it is missing.

    SQLite gives its side files the mode of the main one.  Raises SettingsError when the file is a symbolic link, is
    not ours, or others may read or write it.  Call :func:`~everyhop.storage.migrate.migrate` before using it.
    """
    _secure_file(path)
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)), pool_size=POOL_SIZE, max_overflow=0, pool_timeout=30
    )
    sa.event.listen(engine, "connect", _on_connect)
    sa.event.listen(engine, "begin", _on_begin)
    return Database(engine)


def _secure_file(path: Path) -> None:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            descriptor = os.open(path, flags)
    except OSError as error:
        raise SettingsError(f"cannot open the database {path}: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        raise SettingsError(f"the database {path} is not a file of this user")
    if status.st_mode & 0o077:
        raise SettingsError(f"others may open the database {path}", hint=f"chmod 600 {path}")


def _on_connect(connection: Any, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver must not begin transactions behind our back
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _on_begin(connection: sa.Connection) -> None:
    is_writer = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")


@contextmanager
def _wrapped_errors() -> Iterator[None]:
    try:
        yield
    except sa.exc.IntegrityError:
        raise  # the repositories say what the constraint means
    except (sa.exc.OperationalError, sa.exc.TimeoutError, sa.exc.InterfaceError) as error:
        raise Unavailable(f"the database does not answer: {_cause(error)}") from error
    except sa.exc.DatabaseError as error:
        raise Unavailable(f"the database is damaged: {_cause(error)}", retry=False) from error


def _cause(error: sa.exc.SQLAlchemyError) -> str:
    """Name the driver's error without the statement, whose parameters may hold records."""
    return str(getattr(error, "orig", None) or type(error).__name__)
