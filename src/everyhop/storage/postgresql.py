# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL: one database for several servers.

A write transaction takes an advisory lock first, which is to PostgreSQL what BEGIN IMMEDIATE is to SQLite: one writer at
a time, of all servers, so the repositories are written once.  It ends with its transaction, also when the server that
held it dies.  What is committed is on PostgreSQL's disk: ``synchronous_commit`` is put on where it is off.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import AbstractContextManager
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

from everyhop.core.errors import SettingsError, Unavailable
from everyhop.storage.database import (
    POOL_SIZE,
    READ_SECONDS,
    WRITE_SECONDS,
    WRITE_WAIT_SECONDS,
    WRITERS,
    Database,
    Engines,
)
from everyhop.storage.watchdog import Watchdog

SCHEMES: Final = ("postgresql://", "postgres://")

_LOCK: Final = 0x65766572_79686F70  # "everyhop"
# What the URL, the service file or the environment may say otherwise.
_DEFAULTS: Final = {
    "application_name": "everyhop",
    "connect_timeout": "2",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "2000",
}
_ANSWER_SECONDS: Final = 1.0
# A server that stops in the middle of a transaction must not keep the others from writing for long.
_IDLE_SECONDS: Final = 10
_TAKE: Final = "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true), pg_advisory_xact_lock(%s)"
# A connection that was idle this long may be gone without a word; asking every time would cost a round trip.
_TRUSTED_SECONDS: Final = 5.0

_log: Final = logging.getLogger(__name__)


def open_postgresql(url: str) -> Database:
    """Open the database that a libpq URL names (``postgresql://…``); what it leaves out, libpq finds as it always does.

    Raises SettingsError when the URL cannot be read, the driver is not installed, or the database cannot hold every
    text; Unavailable when it does not answer.  Call :func:`~everyhop.storage.migrate.migrate` before using it.
    """
    connect = _connector(url)
    options: dict[str, Any] = {"creator": connect, "max_overflow": 0}
    reading = sa.create_engine(
        "postgresql+psycopg://",
        pool_size=POOL_SIZE,
        pool_timeout=30.0,
        isolation_level="REPEATABLE READ",
        **options,
    )
    writing = sa.create_engine(
        "postgresql+psycopg://",
        pool_size=WRITERS,
        pool_timeout=WRITE_WAIT_SECONDS,
        isolation_level="READ COMMITTED",  # each statement sees what was committed before the lock was ours
        **options,
    )
    for engine in (reading, writing):
        sa.event.listen(engine, "connect", _on_connect)
        sa.event.listen(engine, "checkin", _on_checkin)
        sa.event.listen(engine, "checkout", _on_checkout)
    database = Database(
        Engines(
            reading=reading.execution_options(postgresql_readonly=True),
            writing=writing,
            lock=_lock,
            options=lambda _wait: {},
            guard=_guard,
        )
    )
    try:
        _check(database)
    except BaseException:
        database.close()
        raise
    return database


def _connector(url: str) -> Any:
    try:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise SettingsError(
            "the setting database names PostgreSQL, and its driver is not installed",
            hint="pip install 'everyhop[postgres]'",
        ) from error
    try:
        if not url.startswith(SCHEMES):
            raise psycopg.ProgrammingError
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # Neither the text nor its cause: either may hold the password.
        raise SettingsError("the setting database is no URL that PostgreSQL's library reads") from None
    # Nothing is prepared: a plan that was made for a small table would be kept while the log grows (seen: a sequential
    # scan for each batch), and a pooler in between may hand every transaction to another session.
    parameters: dict[str, Any] = {**_DEFAULTS, **given, "prepare_threshold": None}
    return lambda: psycopg.connect(**parameters)


def _on_connect(connection: Any, _entry: ConnectionPoolEntry) -> None:
    from psycopg.types.string import BytesBinaryDumper

    # COPY finds dumpers by type; the one registered last for bytes is written in Python, and slow.
    connection.adapters.register_dumper(bytes, BytesBinaryDumper)
    cursor = connection.cursor()
    cursor.execute("SHOW synchronous_commit")
    if cursor.fetchone()[0] == "off":
        cursor.execute("SET synchronous_commit = on")
    cursor.execute(f"SET statement_timeout = '{READ_SECONDS:.0f}s'")
    cursor.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'")
    cursor.close()
    connection.commit()


def _driver_error() -> type[Exception]:
    import psycopg

    return psycopg.Error


_watchdog: Final = Watchdog()


def _guard(connection: sa.Connection, seconds: float) -> AbstractContextManager[None]:
    foreign: Any = connection.connection.driver_connection
    return _watchdog.limit(foreign.fileno(), seconds)


def _on_checkin(_connection: Any, entry: ConnectionPoolEntry) -> None:
    entry.info["since"] = time.monotonic()


def _on_checkout(connection: Any, entry: ConnectionPoolEntry, _proxy: Any) -> None:
    if time.monotonic() - entry.info.get("since", math.inf) < _TRUSTED_SECONDS:
        return
    try:
        with _watchdog.limit(connection.fileno(), _ANSWER_SECONDS):
            connection.execute("SELECT 1")
            connection.rollback()
    except _driver_error() as error:
        raise sa.exc.DisconnectionError from error  # the pool opens another one


def _lock(connection: sa.Connection, wait: float) -> None:
    # Who waited long for his turn still gets the time to use it.
    waits = [f"{math.ceil(seconds * 1000)}ms" for seconds in (wait, wait + WRITE_SECONDS)]
    # Whether anybody answers at all is known a second after the lock could have been.
    with _guard(connection, wait + _ANSWER_SECONDS):
        connection.exec_driver_sql(_TAKE, (*waits, _LOCK))


def _check(database: Database) -> None:
    with database.reading() as connection:
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
        is_durable = connection.exec_driver_sql("SHOW fsync").scalar() == "on"
        is_standby = connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar()
    if encoding != "UTF8":
        raise SettingsError(
            f"the database holds {encoding}, and texts of every language are to be kept",
            hint="CREATE DATABASE everyhop ENCODING 'UTF8' TEMPLATE template0",
        )
    if is_standby:
        raise Unavailable("the database is a standby, which nobody can write to")
    if not is_durable:
        _log.warning("the database runs with fsync = off: what it has confirmed may be lost with the power")
