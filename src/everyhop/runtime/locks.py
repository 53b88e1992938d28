# SPDX-License-Identifier: Apache-2.0
"""One ``up`` for one state directory: a lock that the kernel drops when its holder dies."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from everyhop.core.errors import Conflict

if TYPE_CHECKING:
    from pathlib import Path


class StateLock:
    """An exclusive ``flock`` on a file that names the holder's pid."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock at once, or raise Conflict naming the holder."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise Conflict(
                f"a trust domain is already up on {self._path.parent} (pid {holder})",
                hint="stop it first, or use another --state directory",
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Give the lock up; the file stays."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
