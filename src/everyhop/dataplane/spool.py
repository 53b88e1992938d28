# SPDX-License-Identifier: Apache-2.0
"""A sidecar's access log as a durable, numbered and bounded queue: the files are the spool.

``access.log`` is written to; ``access.log.N`` were put aside, the oldest with the lowest N.  A cursor beside them says
how far the server has them.  It moves only after the server has confirmed, so a crash anywhere sends some records
again, and the server says how far it holds them.  Beyond the bound the oldest file that was not sent goes, and one
gap record takes the place of its lines.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from everyhop.auditlog.codec import MAX_LINE_BYTES, encode_record
from everyhop.auditlog.gaps import Gap, GapReason, gap_record
from everyhop.core.errors import Unavailable
from everyhop.dataplane.log_lines import record_of
from everyhop.dataplane.spool_cursor import Cursor, DamagedError, PendingGap, load_cursor, store_cursor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from everyhop.auditlog.model import Record

    Send = Callable[[list[Record], bytes], Awaitable["Delivery"]]
    """Takes records of one producer and the digest of its seal before."""

log = logging.getLogger(__name__)

LOG: Final = "access.log"
MAX_BATCH: Final = 500
MAX_FILE_BYTES: Final = 32 * 1024 * 1024
DEFAULT_LIMIT: Final = 256 * 1024 * 1024
FILES_PER_SPOOL: Final = 8
"""The bound is kept by whole files: at least so many make a full spool."""
_CHUNK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What the server says: it holds all numbers up to ``held``; ``head`` is the digest of the last seal.

    ``conflicts`` are ids that other records have: nothing of the batch was stored, and it is to come with others.
    """

    held: int
    head: bytes = b""
    conflicts: tuple[str, ...] = ()


class Parse(Protocol):
    """Makes the record of a line."""

    def __call__(self, line: bytes, *, instance: str, seq: int) -> Record:
        """Return the record; never raises on any bytes."""


def _now() -> datetime:
    return datetime.now(UTC)


class SpoolReader:
    """Reads one instance's log from its cursor on.  Bounded in memory; one reader per directory."""

    def __init__(
        self,
        directory: Path,
        *,
        instance: str,
        reopen: Callable[[], None] | None = None,
        limit: int = DEFAULT_LIMIT,
        max_file_bytes: int = MAX_FILE_BYTES,
        parse: Parse = record_of,
        now: Callable[[], datetime] = _now,
    ) -> None:
        """Pick up where the last reader stopped.

        ``reopen`` asks Envoy to open its log anew (SIGUSR1); without it, the file is never rotated and nothing is
        given up.  ``limit`` is in bytes.  ``parse`` makes a record of a line, whatever is in it.
        """
        self._directory = directory
        self._instance = instance
        self._reopen = reopen
        self._limit = limit
        self._max_file_bytes = min(max_file_bytes, max(1, limit // FILES_PER_SPOOL))
        self._parse = parse
        self._now = now
        self._is_sending = False
        self._tried: set[int] = set()
        self._reopened = 0
        self._is_unstored = False
        self._counts: dict[
            int, tuple[int, int]
        ] = {}  # of each file: scanned up to, lines to send until there
        self._synced: dict[int, int] = {}
        try:
            self._cursor = load_cursor(directory, directory / f"{LOG}.1")
        except DamagedError as damaged:
            self._begin_anew(damaged.mark)
        # A gap that an earlier process may have told must not grow: the server may hold it as it was.
        self._tried.update(gap.last for gap in self._cursor.gaps)

    @property
    def producer(self) -> str:
        """Return the name under which the records are numbered."""
        return self._instance + self._cursor.name

    async def forward(self, send: Send) -> int:
        """Send every complete line there is, at most 500 at a time; return how many were confirmed.

        What ``send`` raises passes through; the cursor then stands where it stood before that batch.
        """
        moved = 0
        while True:
            if self._cursor.gaps:
                await self._tell(self._cursor.gaps[0], send)
                continue
            path, chunk = self._next_chunk()
            lines, size = _split(chunk)
            if not lines:
                if path is not None and self._leave(path):
                    continue
                break
            moved += await self._send_lines(lines, size, send)
        self.tend()
        return moved

    def pending(self) -> int:
        """Return how many records the server does not have yet."""
        files = self._files()
        return len(self._cursor.gaps) + sum(self._count(index, path) for index, path in files)

    def tend(self) -> None:
        """Put a long file aside, and give up the oldest beyond the bound; call it also while the server is away."""
        if self._is_unstored:
            self._store()
        self._rotate()
        if self._reopen is not None and not self._is_sending:
            while self._size() > self._limit and self._drop_oldest():
                continue

    def sync(self) -> int:
        """Put on the disk what was not sent; return how many files that took.  Blocking; may run in any thread."""
        done = 0
        cursor = self._cursor
        for index, path in self._files():
            with suppress(FileNotFoundError):
                size = path.stat().st_size
                sent = cursor.offset if index == cursor.segment else 0
                if size <= max(sent, self._synced.get(index, 0)):
                    continue
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fdatasync(descriptor)
                finally:
                    os.close(descriptor)
                self._synced[index] = size
                done += 1
        return done

    # -- sending

    async def _send_lines(self, lines: list[bytes], size: int, send: Send) -> int:
        first, last = self._cursor.seq, self._cursor.seq + len(lines) - 1
        records = [
            self._named(self._parse(line, instance=self._instance, seq=first + index))
            for index, line in enumerate(lines)
        ]
        delivery = await self._deliver(records, send)
        if delivery.held < first:
            raise Unavailable(f"the server holds {self.producer} up to {delivery.held} only")
        confirmed = min(delivery.held, last) - first + 1
        if confirmed < len(lines):
            size = sum(len(line) + 1 for line in lines[:confirmed])
        self._advance(size, confirmed, delivery.head)
        return confirmed

    async def _tell(self, gap: PendingGap, send: Send) -> None:
        told = Gap(gap.first, gap.last, gap.count, gap.reason)
        record = gap_record(
            told, producer=self.producer, record_id=f"gap.{self.producer}-{gap.last}", now=gap.time
        )
        self._tried.add(gap.last)
        delivery = await self._deliver([record], send, is_exact=False)
        if gap.first <= delivery.held < gap.last and gap.count is not None:
            # A batch had arrived, late: of what was given up, less is lost.
            arrived = delivery.held - gap.first + 1
            smaller = msgspec.structs.replace(gap, first=delivery.held + 1, count=gap.count - arrived)
            self._move(gaps=(smaller, *self._cursor.gaps[1:]), previous=delivery.head.hex())
            return
        if delivery.held < gap.first and delivery.head != bytes.fromhex(self._cursor.previous):
            self._move(previous=delivery.head.hex())
            return
        if delivery.held < gap.last:
            raise Unavailable(f"the server holds {self.producer} up to {delivery.held} only")
        self._move(gaps=self._cursor.gaps[1:], previous=delivery.head.hex())

    async def _deliver(self, records: list[Record], send: Send, *, is_exact: bool = True) -> Delivery:
        """Send a batch; one whose ids others have goes again under ids that nobody can have.

        So does, where it is exact, one that goes on from another seal than the server has.
        """
        previous = bytes.fromhex(self._cursor.previous)
        self._is_sending = True
        try:
            delivery = await send(records, previous)
            is_other = delivery.held < records[0].seq and delivery.head != previous
            if is_exact and is_other and not delivery.conflicts:
                previous = delivery.head
                delivery = await send(records, previous)
            if delivery.conflicts:
                taken = frozenset(delivery.conflicts)
                log.warning("ids of %s are taken; their records get others", self.producer)
                again = [_renamed(r, f"{self.producer}-{r.seq}") if r.id in taken else r for r in records]
                delivery = await send(again, previous)
        finally:
            self._is_sending = False
        return delivery

    def _named(self, record: Record) -> Record:
        """Give a record of numbering begun anew a producer and an id that no earlier one has.

        One that is longer than the log takes says so in its place: it must not keep back those behind it.
        """
        if len(encode_record(record)) > MAX_LINE_BYTES:
            record = msgspec.structs.replace(
                record, path=None, detail={"too_long": True}, method=None, operation=None, rule=None
            )
        if not self._cursor.name:
            return record
        renamed = _renamed(record, self._cursor.name[1:])
        return msgspec.structs.replace(renamed, producer=self.producer)

    # -- files

    def _files(self) -> list[tuple[int, Path]]:
        """Return the files from the cursor on, oldest first, with their numbers; remove those before it."""
        aside = []
        with suppress(FileNotFoundError):
            for path in self._directory.iterdir():
                stem, _, number = path.name.rpartition(".")
                if stem == LOG and number.isdecimal():
                    aside.append(int(number))
        current = self._directory / LOG
        found = [(number, self._directory / f"{LOG}.{number}") for number in sorted(aside)]
        if current.exists():
            found.append((max([self._cursor.segment, *(n + 1 for n in aside)]), current))
        for index, path in found:
            if index < self._cursor.segment:
                path.unlink(missing_ok=True)  # all of it was confirmed or given up
        return [one for one in found if one[0] >= self._cursor.segment]

    def _current(self) -> Path | None:
        """Return the file that the cursor is in; where that is gone or was cut, say so and go on with what is there."""
        files = self._files()
        if not files:
            return None
        index, path = files[0]
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        is_same = self._cursor.inode in {0, status.st_ino} and status.st_size >= self._cursor.offset
        if index != self._cursor.segment or not is_same:
            log.warning("the spool of %s was cut short; reading it from its start", self._instance)
            self._skip_to(index, GapReason.TRUNCATED)
        if self._cursor.inode == 0:
            self._cursor = msgspec.structs.replace(self._cursor, inode=status.st_ino)
        return path

    def _next_chunk(self) -> tuple[Path | None, bytes]:
        path = self._current()
        if path is None or self._cursor.gaps:
            return path, b""
        try:
            with path.open("rb") as opened:
                opened.seek(self._cursor.offset)
                return path, opened.read(_CHUNK)
        except FileNotFoundError:
            return None, b""

    def _leave(self, path: Path) -> bool:
        """Go on to the next file when this one is finished: Envoy writes another, and all lines here are confirmed."""
        if self._cursor.gaps:
            return True  # found just now, to be told first
        files = self._files()
        if len(files) < 2 or files[0][1] != path:  # noqa: PLR2004  # this one and the next
            return False
        with path.open("rb") as opened:
            opened.seek(self._cursor.offset)
            if b"\n" in opened.read(_CHUNK):
                return False  # written just before Envoy changed over
        self._move(segment=files[1][0], offset=0, inode=0, durable=True)
        path.unlink()
        return True

    def _rotate(self) -> None:
        """Put a long log aside; Envoy goes on in a new one."""
        if self._reopen is None:
            return
        files = self._files()
        if not files:
            return
        index, path = files[-1]
        if path.name == LOG:
            with suppress(FileNotFoundError):
                if path.stat().st_size > self._max_file_bytes:
                    path.rename(self._directory / f"{LOG}.{index}")
                    self._reopened = index
                    self._reopen()
        elif self._reopened != index:  # the agent ended between the two steps
            self._reopened = index
            self._reopen()

    def _size(self) -> int:
        total = -self._cursor.offset
        for _, path in self._files():
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def _drop_oldest(self) -> bool:
        """Give up the lines of the oldest file; tell whether there was one that is not written to any more."""
        files = self._files()
        if len(files) < 2 or files[0][0] != self._cursor.segment:  # noqa: PLR2004  # this one and the next
            return False
        (index, path), (following, _) = files[:2]
        count = self._count(index, path)
        gaps = self._cursor.gaps
        if count:
            gaps = self._with_lost(self._cursor.seq, count)
            log.error("the spool of %s is full: %d records are given up", self._instance, count)
        self._move(
            segment=following, offset=0, inode=0, seq=self._cursor.seq + count, gaps=gaps, durable=True
        )
        path.unlink()
        return True

    def _with_lost(self, first: int, count: int) -> tuple[PendingGap, ...]:
        """Return the gaps with one more; what goes on where the last one ends is one with it, unless it may be told."""
        gaps = self._cursor.gaps
        last = gaps[-1] if gaps else None
        reason = GapReason.OVERFLOW.value
        if (
            last is not None
            and last.reason == reason
            and last.last + 1 == first
            and last.last not in self._tried
        ):
            grown = PendingGap(last.first, first + count - 1, (last.count or 0) + count, reason, self._now())
            return (*gaps[:-1], grown)
        return (*gaps, PendingGap(first, first + count - 1, count, reason, self._now()))

    def _skip_to(self, segment: int, reason: GapReason) -> None:
        """Go on at the start of a file, and tell that nobody knows what was before it."""
        seq = self._cursor.seq
        gap = PendingGap(seq, seq, None, reason.value, self._now())
        self._move(segment=segment, offset=0, inode=0, seq=seq + 1, gaps=(*self._cursor.gaps, gap))

    def _begin_anew(self, mark: str) -> None:
        """Number from 1 under another name: which numbers the lines have had is not known."""
        log.error("the cursor of %s cannot be read; its records are numbered anew", self._instance)
        self._cursor = Cursor(name=f"~{mark}")
        files = self._files()
        self._skip_to(files[0][0] if files else 1, GapReason.CURSOR_DAMAGED)

    # -- the cursor

    def _advance(self, size: int, lines: int, head: bytes) -> None:
        cursor = self._cursor
        offset = cursor.offset + size
        scanned, counted = self._counts.get(cursor.segment, (0, 0))
        self._counts[cursor.segment] = (max(scanned, offset), max(0, counted - lines))
        self._move(offset=offset, seq=cursor.seq + lines, previous=head.hex())

    def _move(self, *, durable: bool = False, **changes: object) -> None:
        self._cursor = msgspec.structs.replace(self._cursor, **changes)
        self._counts = {n: known for n, known in self._counts.items() if n >= self._cursor.segment}
        self._synced = {n: size for n, size in self._synced.items() if n >= self._cursor.segment}
        self._store(durable=durable)

    def _store(self, *, durable: bool = False) -> None:
        """Write the cursor; a full disk must not stop the forwarding, and costs a repeated delivery at worst."""
        try:
            store_cursor(self._directory, self._cursor, durable=durable)
            self._is_unstored = False
        except OSError as error:
            if not self._is_unstored:
                log.warning("the cursor of %s cannot be written: %s", self._instance, error)
            self._is_unstored = True

    def _count(self, index: int, path: Path) -> int:
        """Count the lines of a file that are to be sent, looking only at what was added since the last count."""
        start = self._cursor.offset if index == self._cursor.segment else 0
        scanned, counted = self._counts.get(index, (start, 0))
        if scanned < start:
            scanned, counted = start, 0
        more, end = _count_lines(path, scanned)
        self._counts[index] = (end, counted + more)
        return counted + more


def _renamed(record: Record, suffix: str) -> Record:
    """Return a record under an id that goes on with a dot, as those of one decision do."""
    return msgspec.structs.replace(record, id=f"{record.id[: 126 - len(suffix)]}.{suffix}")


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
