# SPDX-License-Identifier: Apache-2.0
"""Unix sockets that appear complete: with their mode, listening, and never in place of a living one."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path
from typing import Final, Self, final

from everyhop.core.errors import Conflict, InputError, Unavailable
from everyhop.core.limits import MAX_SOCKET_PATH_BYTES

_PROBE_SECONDS: Final = 1.0


@final
class UnixListener:
    """A listening Unix socket and the name under which it can be reached."""

    __slots__ = ("_inode", "path", "sock")
    sock: socket.socket
    path: Path

    def __init__(self, listening: socket.socket, path: Path, inode: tuple[int, int]) -> None:
        self.sock = listening
        self.path = path
        self._inode = inode

    @classmethod
    def bind(cls, path: Path, *, mode: int, backlog: int = 256) -> Self:
        """Listen at ``path`` with exactly ``mode``, whatever the umask.

        The socket is made inside a fresh 0700 directory beside it and moved to its name once it listens, so
        nobody can reach it earlier or with other permissions.  A socket left behind is replaced.

        Raises InputError when the path is longer than 107 bytes, Conflict when somebody listens there or when
        the name belongs to something that is no socket, Unavailable when the directory refuses.
        """
        path = path.absolute()
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            raise InputError(
                f"the path of a Unix socket has at most {MAX_SOCKET_PATH_BYTES} bytes: {path}",
                hint="use a shorter state directory",
            )
        _require_free(path)
        listening = socket.socket(
            socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        try:
            _place(listening, path, mode=mode, backlog=backlog)
            found = path.stat()
        except OSError as error:
            listening.close()
            raise Unavailable(f"cannot listen at {path}: {error.strerror}", retry=False) from error
        except BaseException:
            listening.close()
            raise
        return cls(listening, path, (found.st_dev, found.st_ino))

    def close(self) -> None:
        """Stop listening and remove the name, unless it belongs to another socket by now."""
        self.sock.close()
        with contextlib.suppress(FileNotFoundError):
            found = self.path.lstat()
            if (found.st_dev, found.st_ino) == self._inode:
                self.path.unlink()


def _place(listening: socket.socket, path: Path, *, mode: int, backlog: int) -> None:
    """Bind in a private directory, set the mode, listen, and move the socket to its name."""
    private = Path(tempfile.mkdtemp(prefix=".", dir=path.parent))
    try:
        directory = os.open(private, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Through the descriptor, because the private path may be longer than an address can be.
            listening.bind(f"/proc/self/fd/{directory}/s")
        finally:
            os.close(directory)
        (private / "s").chmod(mode)
        listening.listen(backlog)
        (private / "s").replace(path)
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _require_free(path: Path) -> None:
    """Refuse a name that is in use; a socket on which nobody listens is free."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Conflict(f"{path} exists and is not a socket", hint="move it away")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(os.fspath(path))
        except OSError as error:
            if error.errno in {errno.ECONNREFUSED, errno.ENOENT}:
                return
            # Full backlog, no permission, time-out: somebody may well be there.
    raise Conflict(f"another process listens at {path}", hint="is everyhop running already?")
