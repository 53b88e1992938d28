# SPDX-License-Identifier: Apache-2.0
"""Files that only their owner can read: made whole or not at all, read only when nobody else could have a hand in them."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = 0o022


def create_private(path: Path, content: bytes) -> bool:
    """Write a file beside its place and link it there, mode 0600; return False when there is one already.

    Raises SettingsError when the directory is not ours alone or cannot be written.
    """
    check_directory(path.parent)
    try:
        draft = _draft(path, content)
        try:
            os.link(draft, path, follow_symlinks=False)
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise SettingsError(f"cannot create the file {path}: {error.strerror}") from error
    return True


def replace_private(path: Path, content: bytes) -> None:
    """Put a file of this content in the place of another, mode 0600; on the disk when it returns.

    Raises SettingsError as :func:`create_private` does; then the old file is still there.
    """
    check_directory(path.parent)
    try:
        draft = _draft(path, content)
        try:
            draft.replace(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise SettingsError(f"cannot write the file {path}: {error.strerror}") from error


def read_private(path: Path, *, max_bytes: int) -> bytes:
    """Read a file of ours, at most one byte more than ``max_bytes``.

    Raises SettingsError when it is missing, a symbolic link, not ours, open to others, or in a directory where others
    could replace it.
    """
    check_directory(path.parent)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise SettingsError(f"cannot open the key file {path}: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise SettingsError(f"the key file {path} is not a file of this user")
        if status.st_mode & _OTHERS:
            raise SettingsError(f"others may open the key file {path}", hint=f"chmod 600 {path}")
        return os.read(descriptor, max_bytes + 1)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes out while the block runs; ``path`` is a file that is made for it, mode 0600."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def check_directory(directory: Path) -> None:
    """Refuse a directory in which another user could put a file of the same name; raises SettingsError."""
    try:
        status = directory.stat()
    except OSError as error:
        raise SettingsError(f"cannot use the directory {directory}: {error.strerror}") from error
    if status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX:
        raise SettingsError(f"others may write to the directory {directory}", hint=f"chmod 700 {directory}")


def sync_directory(directory: Path) -> None:
    """Wait until the names in a directory are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _draft(path: Path, content: bytes) -> Path:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return draft
