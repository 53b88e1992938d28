# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of executables, remembered by what identifies their content."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import OrderedDict
from threading import Lock
from typing import Final, TypeAlias

from everyhop.core.errors import InputError

MAX_EXECUTABLE_BYTES: Final = 512 * 1024 * 1024
MAX_REMEMBERED: Final = 1024
_CHUNK: Final = 1024 * 1024

_Key: TypeAlias = tuple[int, int, int, int, int]


class ExecutableDigests:
    """Digests of open files; safe to use from several threads.

    A digest is remembered by device, inode, size, mtime and ctime.  A program cannot set its ctime, so a
    changed file is read again; the kernel also refuses to write to an executable while it runs (ETXTBSY).
    """

    def __init__(
        self, *, max_bytes: int = MAX_EXECUTABLE_BYTES, max_remembered: int = MAX_REMEMBERED
    ) -> None:
        self._max_bytes = max_bytes
        self._max_remembered = max_remembered
        self._known: OrderedDict[_Key, str] = OrderedDict()
        self._lock = Lock()

    def of(self, descriptor: int) -> str:
        """Return the digest of an open file in 64 hex digits.

        Raises InputError when it is no regular file, is larger than the limit, or changed while it was read.
        """
        key = _key(descriptor)
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known
        if key[2] > self._max_bytes:
            raise InputError(f"the executable has more than {self._max_bytes} bytes")
        digest = self._read(descriptor)
        if _key(descriptor) != key:
            raise InputError("the executable changed while it was read")
        with self._lock:
            self._known[key] = digest
            while len(self._known) > self._max_remembered:
                self._known.popitem(last=False)
        return digest

    def _read(self, descriptor: int) -> str:
        digest = hashlib.sha256()
        offset = 0
        while chunk := os.pread(descriptor, _CHUNK, offset):
            digest.update(chunk)
            offset += len(chunk)
            if offset > self._max_bytes:
                raise InputError(f"the executable has more than {self._max_bytes} bytes")
        return digest.hexdigest()


def _key(descriptor: int) -> _Key:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise InputError("the executable is not a regular file")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
