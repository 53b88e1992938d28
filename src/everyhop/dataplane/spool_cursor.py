# SPDX-License-Identifier: Apache-2.0
"""How far a spool was sent, kept beside it: two generations, so that a torn write costs nothing.

An older cursor only sends again what the server has; it says so, and the cursor moves on.
"""

from __future__ import annotations

import logging
import os
from datetime import datetime  # msgspec resolves annotations at run time
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

CURSOR: Final = "cursor.json"
BEFORE: Final = "cursor.before.json"
_SCRATCH: Final = ".cursor.json"


class PendingGap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers that were lost, and that the server is still to be told of."""

    first: int
    last: int
    count: int | None
    reason: str
    time: datetime


class Cursor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How far: the file by its number, the byte behind the last confirmed line, the number of the next line.

    ``inode`` tells whether the file is still the same; ``previous`` is the digest (hex) of the last confirmed seal;
    ``name`` follows the producer's name where numbering had to begin anew.
    """

    segment: int = 1
    inode: int = 0
    offset: int = 0
    seq: int = 1
    previous: str = ""
    name: str = ""
    gaps: tuple[PendingGap, ...] = ()


class _OldCursor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What releases before 0.5 wrote: there were two files at most, told apart by their inode."""

    inode: int
    offset: int
    seq: int


class DamagedError(Exception):
    """No generation of a cursor can be read; ``mark`` differs from one damage to the next."""

    def __init__(self, mark: str) -> None:
        super().__init__(mark)
        self.mark = mark


def load_cursor(directory: Path, older: Path) -> Cursor:
    """Return the newest cursor that can be read, a new one where there is none; raises DamagedError.

    ``older`` is the file before the current one as an older release named it.
    """
    paths = (directory / CURSOR, directory / BEFORE)
    for path in paths:
        try:
            return _parse(path.read_bytes(), older)
        except FileNotFoundError:
            continue
        except msgspec.MsgspecError:
            log.warning("%s cannot be read", path)
    for path in paths:
        if path.exists():
            status = path.stat()
            raise DamagedError(f"{status.st_mtime_ns ^ (status.st_ino << 20):x}"[-12:])
    return Cursor()


def store_cursor(directory: Path, cursor: Cursor, *, durable: bool = False) -> None:
    """Write a cursor so that it, or the one before it, can be read after any crash.  Raises OSError."""
    scratch, path = directory / _SCRATCH, directory / CURSOR
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(msgspec.json.encode(cursor))
        if durable:
            opened.flush()
            os.fdatasync(opened.fileno())
    if path.exists():
        path.replace(directory / BEFORE)
    scratch.replace(path)


def _parse(data: bytes, older: Path) -> Cursor:
    try:
        return msgspec.json.decode(data, type=Cursor)
    except msgspec.ValidationError:
        old = msgspec.json.decode(data, type=_OldCursor)
        is_older = older.exists() and older.stat().st_ino == old.inode
        segment = 1 if is_older or not older.exists() else 2
        return Cursor(segment=segment, inode=old.inode, offset=old.offset, seq=old.seq)
