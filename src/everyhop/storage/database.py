# SPDX-License-Identifier: Apache-2.0
"""Transactions on an engine: one that reads a consistent state, and one that writes, alone.

On both engines a write transaction begins by taking the one lock there is, and only then looks at anything.  So what a
repository reads before it writes is still true when it writes, whichever of several servers does it; and the numbers of
the log are given, and become visible, in one order.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

import sqlalchemy as sa

from everyhop.auditlog.model import Record
from everyhop.core.errors import InputError, Unavailable

WRITE_WAIT_SECONDS: Final = 2.0
"""How long a writer waits for its turn, in all: what has to be recorded before it is done fails closed after that."""
WRITE_SECONDS: Final = 10.0
"""How long his transaction may then take where that can be bounded: a large batch on a busy machine takes seconds."""
LONG_WAIT_SECONDS: Final = 60.0
"""The same for a migration, which another process may be at."""
READ_SECONDS: Final = 30.0
POOL_SIZE: Final = 12
WRITERS: Final = 2  # connections of their own, so that no number of readers keeps a writer waiting

_RECORDED: Final = "everyhop_recorded"
_DISGUISE: Final = "everyhop_disguise"

Disguise = Callable[[sa.Connection, Sequence[Record]], list[Record]]
"""Returns records with pseudonyms for persons, made on the transaction in which they are written."""

# SQLSTATE classes (PostgreSQL's appendix A) of what may be over in a moment: connection, resources, locks, operators,
# a server that is not (or no longer) the one that writes.
_PASSING: Final = ("08", "25", "40", "53", "55", "57", "58")


def disguise_of(connection: sa.Connection) -> Disguise | None:
    """Return what puts pseudonyms into the records of this transaction."""
    found: Disguise | None = connection.get_execution_options().get(_DISGUISE)
    return found


def _unguarded(_connection: sa.Connection, _seconds: float) -> AbstractContextManager[None]:
    """Do nothing: a file has no other side that could fall silent."""
    return nullcontext()


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """Two engines on one database, and how a transaction of the second becomes the only one that writes.

    ``lock`` is called first in a write transaction, with its connection and the seconds that it may wait;
    ``options`` gives, for these seconds, the execution options with which the transaction begins.  ``guard`` bounds
    what a transaction may take in all, whatever the database does.
    """

    reading: sa.Engine
    writing: sa.Engine
    lock: Callable[[sa.Connection, float], None]
    options: Callable[[float], dict[str, Any]]
    guard: Callable[[sa.Connection, float], AbstractContextManager[None]] = _unguarded


class Recorded(Protocol):
    """A row of a record that was inserted."""

    @property
    def producer(self) -> str:
        """Return its producer."""

    @property
    def seq(self) -> int:
        """Return its number."""

    @property
    def leaf(self) -> bytes:
        """Return the hash of its line."""


class Sealing(Protocol):
    """Signs what this process records."""

    def seal(self, connection: sa.Connection, rows: Sequence[Recorded], /) -> None:
        """Sign those records that are this process's own, in their transaction."""


class Database:
    """An engine with its two kinds of transaction.  Safe to share between threads; one per process."""

    def __init__(self, engines: Engines) -> None:
        self.engine = engines.reading
        self._engines = engines
        self.disguise: Disguise | None = None
        """What puts pseudonyms into records on the append path; None where they are switched off."""
        self.own_seals: Sealing | None = None
        # Threads queue here; SQLite's own way to wait is to sleep and try again, unfairly.
        self._turn = threading.Lock()

    @property
    def dialect(self) -> str:
        """Return ``sqlite`` or ``postgresql``."""
        return self.engine.dialect.name

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a transaction that sees one consistent state and writes nothing.

        Raises Unavailable when the database does not answer.
        """
        with (
            _wrapped_errors(),
            self.engine.connect() as connection,
            self._engines.guard(connection, READ_SECONDS),
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def writing(
        self, *, wait: float = WRITE_WAIT_SECONDS, use: float = WRITE_SECONDS
    ) -> Iterator[sa.Connection]:
        """Open the one write transaction; it commits when the block ends and rolls back when the block raises.

        Raises Unavailable when the lock is not to be had within ``wait`` seconds, or the disk is full or broken, or
        (of PostgreSQL) the transaction takes more than ``use`` seconds beyond that.
        """
        end = time.monotonic() + wait
        if not self._turn.acquire(timeout=wait):
            raise Unavailable("the database does not answer: other threads hold it")
        try:
            with _wrapped_errors():
                options = self._engines.options(max(end - time.monotonic(), 0.001))
                writer = self._engines.writing.execution_options(**options)
                with (
                    writer.connect() as connection,
                    self._engines.guard(connection, max(end - time.monotonic(), 0.0) + use),
                    connection.begin(),
                ):
                    connection.execution_options(**{_DISGUISE: self.disguise})
                    self._engines.lock(connection, max(end - time.monotonic(), 0.001))
                    recorded = begin_recording(connection)
                    yield connection
                    if recorded and self.own_seals is not None:
                        self.own_seals.seal(connection, recorded)
        finally:
            self._turn.release()

    def close(self) -> None:
        """Close every connection; SQLite's last one folds the write-ahead log into the file."""
        self._engines.writing.dispose()
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def begin_recording(connection: sa.Connection) -> list[Recorded]:
    """Return the list of the records that this transaction inserts, empty at its beginning."""
    recorded: list[Recorded] = []
    connection.info[_RECORDED] = recorded
    return recorded


def note_recorded(connection: sa.Connection, inserted: Iterable[Recorded]) -> None:
    """Note that records were inserted."""
    connection.info.setdefault(_RECORDED, []).extend(inserted)


@contextmanager
def _wrapped_errors() -> Iterator[None]:
    try:
        yield
    except sa.exc.IntegrityError:
        raise  # the repositories say what the constraint means
    except sa.exc.DataError as error:
        # PostgreSQL keeps no NUL in texts and no number beyond its type: what holds one is nothing that is there.
        raise InputError(f"the database cannot hold such a value: {_cause(error)}") from error
    except (sa.exc.OperationalError, sa.exc.TimeoutError, sa.exc.InterfaceError) as error:
        raise Unavailable(f"the database does not answer: {_cause(error)}") from error
    except sa.exc.DatabaseError as error:
        state = getattr(error.orig, "sqlstate", None)
        if state is None:  # SQLite has no other word for it
            raise Unavailable(f"the database is damaged: {_cause(error)}", retry=False) from error
        is_passing = state.startswith(_PASSING)
        raise Unavailable(f"the database refuses: {_cause(error)}", retry=is_passing) from error


def _cause(error: sa.exc.SQLAlchemyError) -> str:
    """Name the driver's error without the statement or a detail, either of which may hold records."""
    original = getattr(error, "orig", None)
    primary = getattr(getattr(original, "diag", None), "message_primary", None)
    return str(primary or original or type(error).__name__).strip()
