# SPDX-License-Identifier: Apache-2.0
"""Transactions on an engine: one that reads a consistent state, and one that writes, alone.

On both engines a write transaction begins by taking the one lock there is, and only then looks at anything.  So what a
repository reads before it writes is still true when it writes, whichever of several servers does it; and the numbers of
the log are given, and become visible, in one order.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

import sqlalchemy as sa

from everyhop.core.errors import InputError, Unavailable

WRITE_WAIT_SECONDS: Final = 2.0
"""How long a writer waits for its turn, in all: what has to be recorded before it is done fails closed after that."""
WRITE_SECONDS: Final = 1.0
"""How long his transaction may then take where that can be bounded."""
LONG_WAIT_SECONDS: Final = 60.0
"""The same for a migration, which another process may be at."""
READ_SECONDS: Final = 30.0
POOL_SIZE: Final = 12
WRITERS: Final = 2  # connections of their own, so that no number of readers keeps a writer waiting

# SQLSTATE classes (PostgreSQL's appendix A) of what may be over in a moment: connection, resources, locks, operators,
# a server that is not (or no longer) the one that writes.
_PASSING: Final = ("08", "25", "40", "53", "55", "57", "58")


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
    guard: Callable[[sa.Connection, float], AbstractContextManager[None]]


class Database:
    """An engine with its two kinds of transaction.  Safe to share between threads; one per process."""

    def __init__(self, engines: Engines) -> None:
        self.engine = engines.reading
        self._engines = engines
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
        (of PostgreSQL) nothing is heard for ``use`` seconds beyond that.
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
                    self._engines.lock(connection, max(end - time.monotonic(), 0.001))
                    yield connection
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
