# SPDX-License-Identifier: Apache-2.0
"""What another user of this machine can do: tried for real when the demo runs as root, else told by the modes."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from everyhop.demo.model import Seen
from everyhop.demo.raw import describe_error, dial

if TYPE_CHECKING:
    from collections.abc import Callable

NOBODY: Final = 65534
_ANSWER_BYTES: Final = 4096


def can_change_user() -> bool:
    """Tell whether this process may become another user."""
    return os.geteuid() == 0


def as_nobody(act: Callable[[], str]) -> str:
    """Run ``act`` in a child process of the user nobody, without groups, and return its answer."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            answer = act()
        except BaseException as error:  # noqa: BLE001  # nothing may escape into the parent's code
            answer = f"the child failed: {error!r}"
        os.write(writing, answer.encode()[:_ANSWER_BYTES])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        answer = stream.read().decode("utf-8", "replace")
    os.waitpid(child, 0)
    return answer


def try_socket(path: Path) -> Seen:
    """Let another user connect to a Unix socket."""

    def act() -> str:
        try:
            dial(str(path)).close()
        except OSError as error:
            return describe_error(error)
        return "connected"

    return _attempt(act, path, stat.S_IWOTH, opened="connected")


def try_file(path: Path) -> Seen:
    """Let another user read a file."""

    def act() -> str:
        try:
            path.read_bytes()
        except OSError as error:
            return describe_error(error)
        return "read"

    return _attempt(act, path, stat.S_IROTH, opened="read")


def _attempt(act: Callable[[], str], path: Path, bit: int, *, opened: str) -> Seen:
    if can_change_user():
        return Seen(text=as_nobody(act), note="tried as nobody")
    return Seen(text="EACCES" if _forbidden(path, bit) else opened, note="told by its modes: not root here")


def _forbidden(path: Path, bit: int) -> bool:
    """Tell whether modes keep others out: of the file itself, or of a directory on the way."""
    if not path.stat().st_mode & bit:
        return True
    return any(not parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)
