# SPDX-License-Identifier: Apache-2.0
"""Bring a database to the newest schema.

When it is there already, which is every start but one, Alembic is not even imported: that import costs more than the
check by two orders of magnitude.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from everyhop.core.errors import SettingsError
from everyhop.storage.database import LONG_WAIT_SECONDS, Database
from everyhop.storage.schema import HEAD

MIGRATIONS: Final = Path(__file__).parent / "migrations"


def migrate(database: Database, revision: str = HEAD) -> bool:
    """Apply what is missing, in one transaction; tell whether anything was.

    Two processes may call it at once: the second waits for the lock and finds nothing to do.  Raises SettingsError
    when the database was made by a newer everyhop, Unavailable when it does not answer.
    """
    with database.reading() as connection:
        if current_revision(connection) == revision:
            return False
    with database.writing(wait=LONG_WAIT_SECONDS, use=math.inf) as connection:
        found = current_revision(connection)
        if found == revision:
            return False
        if found is not None and found > HEAD:
            raise SettingsError(
                f"the database has the schema {found}, this everyhop knows up to {HEAD}",
                hint="it was written by a newer everyhop; use that one",
            )
        _run(connection, revision, is_upgrade=found is None or found < revision)
    return True


def current_revision(connection: sa.Connection) -> str | None:
    """Return the revision of a database, or None when it is empty."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return revision


def _run(connection: sa.Connection, revision: str, *, is_upgrade: bool) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    (command.upgrade if is_upgrade else command.downgrade)(config, revision)
