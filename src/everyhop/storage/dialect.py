# SPDX-License-Identifier: Apache-2.0
"""What SQLite and PostgreSQL say differently, in one place; the repositories speak neither.

``upsert`` is ``INSERT`` with ``ON CONFLICT``, which both understand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

# PostgreSQL's construct compiles for SQLite too; SQLite's own does not compile for PostgreSQL.
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.compiler import compiles

from everyhop.storage.record_rows import COLUMNS, Row

__all__ = ["find_stored", "holds", "insert_records", "is_postgresql", "upsert", "write_row"]

Stored = tuple[str, str, int, bytes]
"""What is known of a stored record: id, producer, seq, hash of its line."""
Range = tuple[str, int, int]
"""A producer, and its first and last number, both inclusive."""

# One prepared statement for a whole batch, given to the driver directly: half the cost of an insert is otherwise
# spent on turning dictionaries into it.
_INSERT: Final = f"INSERT INTO records ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608
_COPY: Final = f"COPY records ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)"
_TYPES: Final = ("int8", "text", "text", "int8", "int8", *["text"] * 6, "bytea", "bytea")

# Records of these ids, records in these places (ranges of a producer), and what was pruned of these producers: three
# questions in one, since each would be a round trip under the lock.
_COLUMNS: Final = "r.id, r.producer, r.seq, r.leaf, NULL"
_PRUNED: Final = "SELECT NULL, p.producer, p.first, NULL, p.last FROM log_pruned p WHERE p.producer"
_FIND: Final = {
    "sqlite": f"""
        SELECT {_COLUMNS} FROM records r WHERE r.id IN (SELECT value FROM json_each(?))
        UNION ALL
        SELECT {_COLUMNS} FROM json_each(?) w JOIN records r ON r.producer = json_extract(w.value, '$[0]')
            AND r.seq BETWEEN json_extract(w.value, '$[1]') AND json_extract(w.value, '$[2]')
        UNION ALL
        {_PRUNED} IN (SELECT value FROM json_each(?))
    """,  # noqa: S608  # texts of ours
    "postgresql": f"""
        SELECT {_COLUMNS}::bigint FROM records r WHERE r.id = ANY(ARRAY(SELECT json_array_elements_text(%s::json)))
        UNION ALL
        SELECT {_COLUMNS} FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS w (producer, first, last)
            JOIN records r ON r.producer = w.producer AND r.seq BETWEEN w.first AND w.last
        UNION ALL
        {_PRUNED} = ANY(%s::text[])
    """,  # noqa: S608
}


def is_postgresql(connection: sa.Connection) -> bool:
    """Tell whether the connection is one to PostgreSQL; it is to SQLite otherwise."""
    return connection.dialect.name == "postgresql"


def write_row(
    connection: sa.Connection,
    table: sa.Table,
    *,
    key: Mapping[str, Any],
    values: Mapping[str, Any],
    further: Mapping[str, Any],
    where: sa.ColumnElement[bool] | None = None,
) -> bool:
    """Write ``values`` to the row of ``key`` if ``where`` holds of it; return whether they were written.

    A row that is not there is inserted, with ``further`` for the columns that an update leaves alone.
    """
    statement = upsert(table).values(**key, **values, **further)
    written = connection.execute(
        statement.on_conflict_do_update(index_elements=list(key), set_=dict(values), where=where),
        execution_options={"preserve_rowcount": True},  # which is kept of updates alone otherwise
    )
    return bool(written.rowcount)


def find_stored(
    connection: sa.Connection, ids: Sequence[str], ranges: Sequence[Range]
) -> tuple[list[Stored], list[Range]]:
    """Return what is stored under any of these ids or in any of these ranges, and what was pruned of their producers."""
    producers = sorted({producer for producer, _, _ in ranges})
    if is_postgresql(connection):
        values: tuple[Any, ...] = (json.dumps(ids), *map(list, zip(*ranges, strict=True)), producers)
    else:
        values = (json.dumps(ids), json.dumps(ranges), json.dumps(producers))
    stored: list[Stored] = []
    pruned: list[Range] = []
    for record_id, producer, seq, leaf, last in connection.exec_driver_sql(
        _FIND[connection.dialect.name], values
    ):
        if last is None:
            stored.append((record_id, producer, seq, leaf))
        else:
            pruned.append((producer, seq, last))
    return stored, pruned


def insert_records(connection: sa.Connection, first: int, rows: Sequence[Row]) -> None:
    """Insert rows of records numbered from ``first``.

    Raises IntegrityError when a number, an id or a place is taken.
    """
    if not is_postgresql(connection):
        connection.exec_driver_sql(_INSERT, [(n, *row) for n, row in enumerate(rows, first)])
        return
    dialect = connection.dialect
    foreign: Any = connection.connection.driver_connection
    errors: Any = dialect.loaded_dbapi.Error
    try:
        with foreign.cursor().copy(_COPY) as copy:
            copy.set_types(_TYPES)
            for n, row in enumerate(rows, first):
                copy.write_row((n, *row))
    except errors as error:
        raise sa.exc.DBAPIError.instance(_COPY, None, error, errors, dialect=dialect) from error


def holds(column: sa.ColumnElement[bytes], part: bytes) -> sa.ColumnElement[bool]:
    """Say that a column of bytes holds ``part``."""
    return _Holds(column, sa.literal(part, sa.LargeBinary))


class _Holds(sa.sql.functions.GenericFunction[bool]):
    """``instr`` of SQLite, ``position`` of PostgreSQL."""

    type = sa.Boolean()
    inherit_cache = True
    name = "holds"


@compiles(_Holds, "sqlite")
def _holds_sqlite(element: _Holds, compiler: Any, **options: Any) -> str:
    column, part = (compiler.process(clause, **options) for clause in element.clauses)
    return f"instr({column}, {part}) > 0"


@compiles(_Holds, "postgresql")
def _holds_postgresql(element: _Holds, compiler: Any, **options: Any) -> str:
    column, part = (compiler.process(clause, **options) for clause in element.clauses)
    return f"position({part}::bytea IN {column}) > 0"
