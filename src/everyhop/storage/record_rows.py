# SPDX-License-Identifier: Apache-2.0
"""A record as a row: its line, the hash of the line, and the columns that questions are asked by."""

from __future__ import annotations

from typing import Final, NamedTuple

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
    if "\0" in record.id or "\0" in record.producer:
        raise InputError("the id and the producer of a record hold no NUL")
    return Row(
        record.id,
        record.producer,
        record.seq,
        to_micros(record.time),
        record.kind.value,
        findable(record.caller),
        findable(record.target),
        record.decision,
        findable(record.rule),
        findable(subject_of(record)),
        leaf_hash(line),
        line,
    )


def findable(text: str | None) -> str | None:
    """Return a text as it stands in columns: PostgreSQL keeps no NUL in texts, so none is asked for."""
    return text if text is None else text.replace("\0", "\ufffd")


def subject_of(record: Record) -> str | None:
    """Return the user that a record is about, as it stands there, or None."""
    return user if isinstance(user := record.detail.get("user"), str) else None
