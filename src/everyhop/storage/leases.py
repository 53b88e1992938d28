# SPDX-License-Identifier: Apache-2.0
"""Leases in SQL: one of several servers does a thing at a time.

A lease ends by the clock of whoever asks for it, so the clocks of servers have to agree within a part of its length; a
holder stops well before the end (``control.leader``).  A lease keeps two from doing the work twice as a rule; it is no
proof that only one does, and what is done under one must bear a repetition.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from everyhop.core.errors import InputError
from everyhop.storage.database import Database
from everyhop.storage.dialect import write_row
from everyhop.storage.schema import leases, to_micros


class SqlLeases:
    """The ``Leases`` port on a database.  Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, name: str, holder: str, *, now: datetime, ttl: timedelta) -> bool:
        """Take a lease that is free, expired or one's own, until ``now + ttl``; return whether it is held now.

        Raises InputError for names without text, or no time.
        """
        if not name or not holder or ttl <= timedelta(0):
            raise InputError("a lease has a name, a holder and a length")
        until = to_micros(now + ttl)
        mine_or_over = sa.or_(leases.c.holder == holder, leases.c.until <= to_micros(now))
        with self._database.writing() as connection:
            return write_row(
                connection,
                leases,
                key={"name": name},
                values={"holder": holder, "until": until},
                further={},
                where=mine_or_over,
            )

    def release(self, name: str, holder: str) -> None:
        """Give up a lease; nothing happens when it is somebody else's by now."""
        with self._database.writing() as connection:
            connection.execute(sa.delete(leases).where(leases.c.name == name, leases.c.holder == holder))

    def holder(self, name: str, *, now: datetime) -> str | None:
        """Return who holds a lease, or None."""
        held = sa.select(leases.c.holder).where(leases.c.name == name, leases.c.until > to_micros(now))
        with self._database.reading() as connection:
            found: str | None = connection.execute(held).scalar()
        return found
