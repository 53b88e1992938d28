# SPDX-License-Identifier: Apache-2.0
"""A limit to how long a conversation over a socket may take, whatever the other side does.

PostgreSQL ends what takes too long by itself, as long as it is alive.  When it is frozen, or its machine is gone, nobody
answers and the driver waits for ever; then the socket is shut down under it, and the driver sees a broken connection.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Iterator


class Watchdog:
    """Shuts down sockets that are in use for too long.  One thread for all of them, started with the first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: dict[object, tuple[float, socket.socket]] = {}
        self._wakes_at = math.inf
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def limit(self, descriptor: int, seconds: float) -> Iterator[None]:
        """Shut the socket down when the block takes longer; an infinite limit is none."""
        if seconds == math.inf:
            yield
            return
        # A duplicate: the driver may close its own in between, and the number be somebody else's by then.
        with socket.socket(fileno=os.dup(descriptor)) as own:
            key = object()
            self._add(key, time.monotonic() + seconds, own)
            try:
                yield
            finally:
                with self._changed:
                    self._watched.pop(key, None)

    def _add(self, key: object, end: float, own: socket.socket) -> None:
        with self._changed:
            self._watched[key] = (end, own)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="database-watchdog", daemon=True)
                self._thread.start()
            if end < self._wakes_at:
                self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for key in [key for key, (end, _) in self._watched.items() if end <= now]:
                    _, own = self._watched.pop(key)
                    with contextlib.suppress(OSError):  # it is closed already
                        own.shutdown(socket.SHUT_RDWR)
                self._wakes_at = min((end for end, _ in self._watched.values()), default=math.inf)
                self._changed.wait(None if self._wakes_at == math.inf else self._wakes_at - now)
