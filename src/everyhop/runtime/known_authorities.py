# SPDX-License-Identifier: Apache-2.0
"""Every X.509 authority that ever was in the bundle, in a file beside the log's key.

Seals are checked under the authority of their time, which the bundle may not hold any more.  The database is no place
to learn it from: whoever writes there could put one of his own beside the seals that he made.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from everyhop.x509.certificates import certificates_from_pem, certificates_to_pem

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class KnownAuthorities:
    """The file; blocking, safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """``path`` is made with mode 0600 when it is missing, its directory with 0700."""
        self._path = path
        self._lock = threading.Lock()
        self._known = frozenset(read_authorities(path))

    def add(self, authorities: Iterable[bytes]) -> None:
        """Remember certificates (DER); durable when it returns.  Raises OSError."""
        with self._lock:
            new = [der for der in authorities if der not in self._known]
            if not new:
                return
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._path, flags, 0o600)
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(certificates_to_pem(new))
                opened.flush()
                os.fsync(opened.fileno())
            self._known |= set(new)


def read_authorities(path: Path) -> tuple[bytes, ...]:
    """Return the certificates (DER), oldest first; none when there is no file.  Raises InputError.

    More than 64 are read in parts, so the file may grow for as long as there are authorities.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return ()
    end = b"-----END CERTIFICATE-----"
    found: list[bytes] = []
    for part in text.split(end)[:-1]:
        found.extend(certificates_from_pem(part.lstrip() + end + b"\n"))
    return tuple(found)
