# SPDX-License-Identifier: Apache-2.0
"""The log's lines as they are stored, with their numbers, for those who hand them on."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from everyhop.core.errors import InputError
from everyhop.storage.database import Database
from everyhop.storage.schema import records

MAX_LINES: Final = 1000


class SqlLogLines:
    """Reads lines in their order.  Every call is a transaction of its own; safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, after: int, *, limit: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """Return number and line of the records behind ``after``, to the byte what was sealed.

        At most ``limit`` (1,000) of them, and no more than fill ``max_bytes``, but always one where there is one.
        """
        if not 0 < limit <= MAX_LINES:
            raise InputError(f"a page has 1 to {MAX_LINES} records")
        statement = (
            sa.select(records.c.n, records.c.line)
            .where(records.c.n > after)
            .order_by(records.c.n)
            .limit(limit)
        )
        found: list[tuple[int, bytes]] = []
        size = 0
        with (
            self._database.reading() as connection,
            connection.execution_options(yield_per=50).execute(statement) as rows,
        ):
            for row in rows:
                size += len(row.line)
                if found and size > max_bytes:
                    break
                found.append((row.n, bytes(row.line)))
        return found

    def head(self) -> int:
        """Return the number of the newest record, 0 when there is none."""
        with self._database.reading() as connection:
            return int(connection.execute(sa.select(sa.func.max(records.c.n))).scalar() or 0)
