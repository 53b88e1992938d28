# SPDX-License-Identifier: Apache-2.0
"""Small facts by name, such as the id of this installation."""

from __future__ import annotations

import sqlalchemy as sa

from everyhop.storage.database import Database
from everyhop.storage.dialect import upsert
from everyhop.storage.schema import meta


class SqlMeta:
    """A small table of texts; nothing secret belongs here."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, key: str) -> str | None:
        """Return a value, or None."""
        with self._database.reading() as connection:
            value: str | None = connection.execute(sa.select(meta.c.value).where(meta.c.key == key)).scalar()
        return value

    def set(self, key: str, value: str) -> None:
        """Store a value."""
        with self._database.writing() as connection:
            statement = upsert(meta).values(key=key, value=value)
            connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_={"value": value}))

    def set_once(self, key: str, value: str) -> str:
        """Store a value unless there is one; return the one that is stored, whoever was first."""
        with self._database.writing() as connection:
            connection.execute(upsert(meta).values(key=key, value=value).on_conflict_do_nothing())
            stored: str = connection.execute(sa.select(meta.c.value).where(meta.c.key == key)).scalar_one()
        return stored
