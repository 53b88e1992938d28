# SPDX-License-Identifier: Apache-2.0
"""SQLite: a file of the state directory, the embedded default.

It is set up so that a commit is on the disk when it returns (WAL, synchronous FULL), and so that a writer takes the
write lock when it begins, not in the middle, where waiting is impossible and the answer would be an error.
"""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

from everyhop.core.errors import SettingsError
from everyhop.storage.database import POOL_SIZE, WRITE_WAIT_SECONDS, WRITERS, Database, Engines

_CONNECT_WAIT_MS: Final = 10_000
_PRAGMAS: Final = (
    f"PRAGMA busy_timeout = {_CONNECT_WAIT_MS}",  # first, so that the others wait as well
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
)
_WAIT: Final = "everyhop_wait_ms"


def open_database(path: Path) -> Database:
    """Open the SQLite file at ``path``, created 0600 in one step when it is missing.

    SQLite gives its side files the mode of the main one.  Raises SettingsError when the file is a symbolic link, is
    not ours, or others may read or write it.  Call :func:`~everyhop.storage.migrate.migrate` before using it.
    """
    _secure_file(path)
    reading, writing = (
        sa.create_engine(
            sa.URL.create("sqlite", database=str(path)), pool_size=size, max_overflow=0, pool_timeout=seconds
        )
        for size, seconds in ((POOL_SIZE, 30.0), (WRITERS, WRITE_WAIT_SECONDS))
    )
    for engine in (reading, writing):
        sa.event.listen(engine, "connect", _on_connect)
        sa.event.listen(engine, "begin", _on_begin)
    return Database(Engines(reading=reading, writing=writing, lock=_is_locked, options=_options))


def _options(wait: float) -> dict[str, Any]:
    return {_WAIT: math.ceil(wait * 1000)}


def _is_locked(_connection: sa.Connection, _wait: float) -> None:
    """Do nothing: BEGIN IMMEDIATE has taken the lock."""


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
    wait = connection.get_execution_options().get(_WAIT)
    if wait is None:
        connection.exec_driver_sql("BEGIN")
        return
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(wait)}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
