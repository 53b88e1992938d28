# SPDX-License-Identifier: Apache-2.0
"""Update a row, or insert it when it is not there: the same statements on every engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa


def update_or_insert(
    connection: sa.Connection,
    table: sa.Table,
    *,
    key: Mapping[str, Any],
    values: Mapping[str, Any],
    further: Mapping[str, Any],
    where: sa.ColumnElement[bool] | None = None,
) -> bool:
    """Write ``values`` to the row of ``key`` if ``where`` holds of it; return whether they were written.

    A row that is not there is inserted, with ``further`` for the columns that an update leaves alone.  Two
    transactions that insert at once are told apart by the table's key: the later one updates.
    """
    here = sa.and_(*(table.c[name] == value for name, value in key.items()))
    update = sa.update(table).where(here if where is None else sa.and_(here, where)).values(**values)
    if connection.execute(update).rowcount:
        return True
    if connection.execute(sa.select(sa.literal(1)).select_from(table).where(here)).scalar() is not None:
        return False
    try:
        with connection.begin_nested():
            connection.execute(sa.insert(table).values(**key, **values, **further))
    except sa.exc.IntegrityError:  # another transaction was faster
        return bool(connection.execute(update).rowcount)
    return True
