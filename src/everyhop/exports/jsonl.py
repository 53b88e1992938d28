# SPDX-License-Identifier: Apache-2.0
"""Lines in a file: whole ones only, on the disk before they count, put aside by size and age.

The file is opened 0600 and locked for as long as this process writes.  A half line at its end, left by a process that
was killed or a disk that was full, is cut when it is opened; the record comes again, whole, because it was
never confirmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import stat
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import Unavailable
from everyhop.exports.model import Told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from everyhop.core.clock import Clock
    from everyhop.exports.model import Item, JsonlSettings

REOPENED: Final = "file-gone"
CUT: Final = "half-line-cut"
_BLOCK: Final = 64 * 1024


class LineFile:
    """Appends lines durably.  Blocking; used by one thread at a time."""

    def __init__(self, settings: JsonlSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._descriptor: int | None = None
        self._told: list[Told] = []

    def append(self, lines: Sequence[bytes]) -> None:
        """Write lines, which hold no line ends, and wait until they are on the disk.

        Raises Unavailable where the path is not a file of ours alone, or another process writes it, and OSError for
        a disk that does not take them; then nothing of them stays in the file.
        """
        descriptor = self._ready()
        size = os.fstat(descriptor).st_size
        data = b"".join(line + b"\n" for line in lines)
        try:
            _write(descriptor, data)
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
        # Whoever moved the file away while it was written has the lines; one that was deleted took them along.
        if os.fstat(descriptor).st_nlink == 0:
            raise Unavailable(f"{self._settings.path} was deleted while it was written")

    def close(self) -> None:
        """Close the file and give up its lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def told(self) -> list[Told]:
        """Return, once, what happened to the file."""
        told, self._told = self._told, []
        return told

    def _ready(self) -> int:
        """Return the descriptor of the file that has the name now, put aside first where its time is over."""
        descriptor = self._descriptor
        if descriptor is not None and not self._is_named(descriptor):
            self._told.append(Told(reason=REOPENED, detail={"path": str(self._settings.path)}))
            self.close()
            descriptor = None
        if descriptor is None:
            descriptor = self._open()
        if self._is_over(descriptor):
            self._put_aside()
            self.close()
            descriptor = self._open()
        return descriptor

    def _is_named(self, descriptor: int) -> bool:
        ours = os.fstat(descriptor)
        try:
            named = self._settings.path.lstat()
        except FileNotFoundError:
            return False
        return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)

    def _open(self) -> int:
        path = self._settings.path
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o600)
        try:
            _check(descriptor, path)
            cut = _cut_half_line(descriptor)
            _sync_directory(path.parent)
        except BaseException:
            os.close(descriptor)
            raise
        if cut:
            self._told.append(Told(reason=CUT, detail={"path": str(path), "bytes": cut}))
        self._descriptor = descriptor
        return descriptor

    def _is_over(self, descriptor: int) -> bool:
        status = os.fstat(descriptor)
        if not status.st_size:
            return False
        period = self._settings.period.total_seconds()
        is_older = int(status.st_mtime // period) < int(self._clock.now().timestamp() // period)
        return is_older or status.st_size >= self._settings.max_bytes

    def _put_aside(self) -> None:
        path = self._settings.path
        moment = _stamp(self._clock.now())
        number = 0
        while (target := path.with_name(f"{path.name}.{moment}-{number:03}")).exists():
            number += 1
        path.rename(target)
        _sync_directory(path.parent)
        if self._settings.keep:
            aside = sorted(p for p in path.parent.iterdir() if _is_aside(p.name, path.name))
            for old in aside[: -self._settings.keep]:
                old.unlink(missing_ok=True)


class JsonlSink:
    """The ``Sink`` port on a file, with a thread of its own: a disk that hangs holds up this export only."""

    def __init__(self, settings: JsonlSettings, render: Callable[[Item], bytes], clock: Clock) -> None:
        self._name = settings.name
        self._render = render
        self._file = LineFile(settings, clock)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"export-{settings.name}")
        self._last: Future[None] | None = None
        self._done = 0

    async def send(self, items: Sequence[Item]) -> int:
        """Append lines durably."""
        await self._in_turn(lambda: self._file.append([self._render(item) for item in items]))
        self._done = items[-1].index
        return self._done

    async def settle(self) -> int:
        """Return the last index: what was written is on the disk."""
        return self._done

    async def close(self) -> int:
        """Close the file, unless the disk hangs."""
        done, self._done = self._done, 0
        with contextlib.suppress(OSError, TimeoutError, Unavailable):
            async with asyncio.timeout(1):
                await self._in_turn(self._file.close)
        return done

    def told(self) -> list[Told]:
        """Return, once, what happened to the file."""
        return self._file.told()

    async def _in_turn(self, call: Callable[[], None]) -> None:
        """Run a call in the thread unless it still hangs in an earlier one: what waited there would only pile up."""
        if self._last is not None and not self._last.done():
            raise Unavailable("the disk does not answer")
        self._last = self._pool.submit(call)
        await asyncio.wrap_future(self._last)


def _check(descriptor: int, path: Path) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        raise Unavailable(f"{path} is not a file of this user")
    if status.st_mode & 0o077:
        raise Unavailable(f"others may open {path}", hint=f"chmod 600 {path}")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise Unavailable(f"another process writes {path}") from error


def _cut_half_line(descriptor: int) -> int:
    """Cut what stands behind the last line end; return how many bytes that were."""
    size = end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - _BLOCK)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)
        os.fsync(descriptor)
    return size - end


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.write(descriptor, view)
        if not written:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        view = view[written:]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y%m%dT%H%M%SZ")


def _is_aside(name: str, current: str) -> bool:
    rest = name.removeprefix(f"{current}.")
    moment, dash, number = rest.partition("-")
    return bool(rest != name and dash and number.isdigit() and moment.endswith("Z") and moment[:8].isdigit())
