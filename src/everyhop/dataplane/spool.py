# SPDX-License-Identifier: Apache-2.0
"""A sidecar's access log as a durable, numbered queue: the file is the spool.

A cursor beside the log says how far the server has it.  It moves only after the server has confirmed, so a
crash anywhere sends some records again, under the same ids and numbers, and loses none.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from everyhop.dataplane.log_lines import record_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from everyhop.auditlog.model import Record

log = logging.getLogger(__name__)

LOG: Final = "access.log"
ROTATED: Final = "access.log.1"
CURSOR: Final = "cursor.json"
MAX_BATCH: Final = 500
MAX_FILE_BYTES: Final = 32 * 1024 * 1024
_CHUNK: Final = 1024 * 1024


class _Cursor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far: the file by its inode, the byte behind the last confirmed line, the number of the next line."""

    inode: int = 0
    offset: int = 0
    seq: int = 1


class Parse(Protocol):
    """Makes the record of a line."""

    def __call__(self, line: bytes, *, instance: str, seq: int) -> Record:
        """Return the record; never raises on any bytes."""


class SpoolReader:
    """Reads one instance's log from its cursor on.  Bounded in memory; one reader per directory."""

    def __init__(
        self,
        directory: Path,
        *,
        instance: str,
        reopen: Callable[[], None] | None = None,
        max_file_bytes: int = MAX_FILE_BYTES,
        parse: Parse = record_of,
    ) -> None:
        """Pick up where the last reader stopped.

        ``reopen`` asks Envoy to open its log anew (SIGUSR1); without it, the file is never rotated.  ``parse`` makes
        a record of a line, whatever is in it.
        """
        self._directory = directory
        self._instance = instance
        self._reopen = reopen
        self._max_file_bytes = max_file_bytes
        self._parse = parse
        self._cursor = self._load()
        self._counted: tuple[int, int, int] = (
            0,
            0,
            0,
        )  # inode, scanned up to, lines from the cursor to there

    async def forward(self, send: Callable[[list[Record]], Awaitable[object]]) -> int:
        """Send every complete line there is, at most 500 at a time; return how many were confirmed.

        What ``send`` raises passes through; the cursor then stands where it stood before that batch.
        """
        moved = 0
        while True:
            path, chunk = self._next_chunk()
            lines, size = _split(chunk)
            if not lines:
                if path is not None and self._leave(path):
                    continue
                break
            records = [
                self._parse(line, instance=self._instance, seq=self._cursor.seq + index)
                for index, line in enumerate(lines)
            ]
            await send(records)
            self._advance(size, len(lines))
            moved += len(lines)
        self._rotate()
        return moved

    def pending(self) -> int:
        """Return how many complete lines the server does not have yet."""
        path = self._file()
        total = 0 if path is None else self._count(path)
        if path is not None and path.name == ROTATED:
            total += _count_lines(self._directory / LOG, 0)[0]
        return total

    def _next_chunk(self) -> tuple[Path | None, bytes]:
        path = self._file()
        if path is None:
            return None, b""
        try:
            with path.open("rb") as opened:
                opened.seek(self._cursor.offset)
                return path, opened.read(_CHUNK)
        except FileNotFoundError:
            return None, b""

    def _file(self) -> Path | None:
        """Return the file that the cursor is in; the oldest one when it is in none of them (any more)."""
        found = []
        for name in (ROTATED, LOG):
            try:
                status = (self._directory / name).stat()
            except FileNotFoundError:
                continue
            if status.st_ino == self._cursor.inode:
                if status.st_size < self._cursor.offset:
                    log.warning("the spool of %s was cut short; reading it from its start", self._instance)
                    self._cursor = _Cursor(status.st_ino, 0, self._cursor.seq)
                return self._directory / name
            found.append((self._directory / name, status.st_ino))
        if not found:
            return None
        path, inode = found[0]
        self._cursor = _Cursor(inode, 0, self._cursor.seq)
        return path

    def _leave(self, path: Path) -> bool:
        """Go on to the next file when this one is finished: Envoy writes another, and all lines here are confirmed."""
        if path.name != ROTATED:
            return False
        try:
            following = (self._directory / LOG).stat()
        except FileNotFoundError:
            return False
        if path.stat().st_size > self._cursor.offset and self._next_chunk()[1].count(b"\n"):
            return False  # written just before Envoy changed over
        self._cursor = _Cursor(following.st_ino, 0, self._cursor.seq)
        self._store()
        path.unlink()
        return True

    def _rotate(self) -> None:
        """Put a long log aside; Envoy goes on in a new one."""
        current, aside = self._directory / LOG, self._directory / ROTATED
        if self._reopen is None or aside.exists():
            return
        try:
            if current.stat().st_size <= self._max_file_bytes:
                return
        except FileNotFoundError:
            return
        current.rename(aside)
        self._reopen()

    def _advance(self, size: int, lines: int) -> None:
        inode, scanned, counted = self._counted
        self._cursor = _Cursor(self._cursor.inode, self._cursor.offset + size, self._cursor.seq + lines)
        self._counted = (inode, max(scanned, self._cursor.offset), max(0, counted - lines))
        self._store()

    def _count(self, path: Path) -> int:
        """Count lines behind the cursor, looking only at what was added since the last count."""
        inode, scanned, counted = self._counted
        if inode != self._cursor.inode or scanned < self._cursor.offset:
            scanned, counted = self._cursor.offset, 0
        more, end = _count_lines(path, scanned)
        self._counted = (self._cursor.inode, end, counted + more)
        return counted + more

    def _load(self) -> _Cursor:
        try:
            return msgspec.json.decode((self._directory / CURSOR).read_bytes(), type=_Cursor)
        except FileNotFoundError:
            return _Cursor()
        except msgspec.MsgspecError:
            log.warning("the cursor of %s cannot be read; its records are sent again", self._instance)
            return _Cursor()

    def _store(self) -> None:
        scratch = self._directory / f".{CURSOR}"
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(msgspec.json.encode(self._cursor))
        scratch.replace(self._directory / CURSOR)


def _split(chunk: bytes) -> tuple[list[bytes], int]:
    """Return at most 500 complete lines and their size with newlines.

    The last line may be half written and is left for later; but a chunk that is one line and not even
    complete is taken as it is, or it would be in the way for ever.
    """
    lines = (
        chunk.split(b"\n", MAX_BATCH)[:MAX_BATCH]
        if chunk.count(b"\n") >= MAX_BATCH
        else chunk.split(b"\n")[:-1]
    )
    if not lines and len(chunk) >= _CHUNK:
        return [chunk], len(chunk)
    return lines, sum(len(line) + 1 for line in lines)


def _count_lines(path: Path, start: int) -> tuple[int, int]:
    """Return the number of newlines behind ``start``, and where the counting ended."""
    count, position = 0, start
    try:
        with path.open("rb") as opened:
            opened.seek(start)
            while chunk := opened.read(_CHUNK):
                count += chunk.count(b"\n")
                position += len(chunk)
    except FileNotFoundError:
        pass
    return count, position
