# SPDX-License-Identifier: Apache-2.0
"""Records as JSON lines: one object a line, UTF-8, newline at the end.

JSON escapes control characters, so no path or header that a caller chooses can begin a line of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from everyhop.auditlog.model import Record
from everyhop.core.errors import InputError

MAX_LINE_BYTES: Final = (
    65_535  # a line is an entry of the log: two bytes for its length (c2sp.org/tlog-tiles)
)
MAX_BATCH_BYTES: Final = 16 * 1024 * 1024
MAX_BATCH_RECORDS: Final = 20_000

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Record)


def encode_record(record: Record) -> bytes:
    """Return one line without its newline; members that say nothing are left out."""
    return _encoder.encode(record)


def encode_records(records: Iterable[Record]) -> bytes:
    """Return JSON lines."""
    return _encoder.encode_lines(records)


def decode_record(line: bytes) -> Record:
    """Read one line of at most 65,535 bytes.  Raises InputError for anything but a record."""
    if len(line) > MAX_LINE_BYTES:
        raise InputError(f"a record has at most {MAX_LINE_BYTES} bytes")
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"not a record: {error}") from error


def decode_records(lines: bytes) -> list[Record]:
    """Read JSON lines, at most 16 MiB and 20,000 records.  Raises InputError for all of them if one is no record."""
    if len(lines) > MAX_BATCH_BYTES:
        raise InputError(f"a batch of records has at most {MAX_BATCH_BYTES} bytes")
    parts = [line for line in lines.split(b"\n") if line]
    if len(parts) > MAX_BATCH_RECORDS:
        raise InputError(f"a batch has at most {MAX_BATCH_RECORDS} records")
    return [decode_record(line) for line in parts]
