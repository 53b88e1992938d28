# SPDX-License-Identifier: Apache-2.0
"""A record as a row: its line, the hash of the line, and the columns that questions are asked by."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from everyhop.auditlog.codec import MAX_LINE_BYTES, encode_record
from everyhop.auditlog.model import Record
from everyhop.core.errors import InputError
from everyhop.storage.schema import to_micros
from everyhop.tlog.merkle import leaf_hash


class Row(NamedTuple):
    """The columns of ``records`` behind ``n``, in their order; ``leaf`` is the hash of ``line``."""

    id: str
    producer: str
    seq: int
    time: int
    kind: str
    caller: str | None
    target: str | None
    decision: str | None
    rule: str | None
    subject: str | None
    leaf: bytes
    line: bytes


_NUL: Final = b"\\u0000"  # as JSON writes it
COLUMNS: Final = ("n", *Row._fields)


def row_of(record: Record) -> Row:
    """Return a record as it is stored.

    Raises InputError when its line has more bytes than a leaf may have, or when its id or producer holds a NUL.
    """
    line = encode_record(record)
    if len(line) > MAX_LINE_BYTES:
        raise InputError(
            f"the record {record.id[:80]} has {len(line)} bytes, at most {MAX_LINE_BYTES} are kept"
        )
    row = Row._make((*_columns(record), leaf_hash(line), line))
    return _without_nul(row) if _NUL in line else row


def columns_of(record: Record) -> tuple[Any, ...]:
    """Return what a record is found by, in the order of the columns from ``id`` to ``subject``."""
    return tuple(findable(value) if isinstance(value, str) else value for value in _columns(record))


def _columns(record: Record) -> tuple[Any, ...]:
    user = record.detail.get("user")
    return (
        record.id,
        record.producer,
        record.seq,
        to_micros(record.time),
        str(record.kind),
        record.caller,
        record.target,
        record.decision,
        record.rule,
        user if isinstance(user, str) else None,
    )


def _without_nul(row: Row) -> Row:
    if "\0" in row.id or "\0" in row.producer:
        raise InputError("the id and the producer of a record hold no NUL")
    return row._replace(
        caller=findable(row.caller),
        target=findable(row.target),
        rule=findable(row.rule),
        subject=findable(row.subject),
    )


def findable(text: str | None) -> str | None:
    """Return a text as it stands in columns: PostgreSQL keeps no NUL in texts, so none is asked for."""
    return text if text is None or "\0" not in text else text.replace("\0", "\ufffd")
