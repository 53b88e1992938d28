# SPDX-License-Identifier: Apache-2.0
"""One writer at a time, who takes along whoever waits: many callers to one commit, and nobody waits for ever."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from everyhop.core.errors import Unavailable
from everyhop.storage.database import WRITE_WAIT_SECONDS

T = TypeVar("T")


class _Batch(Generic[T]):
    """What one caller brings, and what became of it."""

    __slots__ = ("error", "is_done", "items")

    def __init__(self, items: Sequence[T]) -> None:
        self.items = items
        self.is_done = False
        self.error: Exception | None = None


class Turns(Generic[T]):
    """Writes what several threads bring, in their order, several batches at once.  Safe to share between threads."""

    def __init__(self, write: Callable[[Sequence[T]], object], *, at_most: int, max_waiting: int) -> None:
        """``write`` makes items durable or raises; a call gets at most ``at_most`` of them, or one larger batch."""
        self._write = write
        self._at_most = at_most
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._waiting: deque[_Batch[T]] = deque()
        self._count = 0

    def submit(self, items: Sequence[T]) -> None:
        """Return when all of ``items`` are durable.

        Raises Unavailable within about two seconds when they are not, or when nobody knows (a commit may have happened
        whose confirmation did not arrive): nothing may be done then that had to be recorded first.
        """
        if not items:
            return
        end = time.monotonic() + WRITE_WAIT_SECONDS
        batch = _Batch(items)
        with self._lock:
            if self._count + len(items) > self._max_waiting:
                raise Unavailable("too many records wait to be written")
            self._waiting.append(batch)
            self._count += len(items)
        if not self._turn.acquire(timeout=WRITE_WAIT_SECONDS):
            self._withdraw(batch)
            raise Unavailable("the database does not answer: others wait for it")
        try:
            while not batch.is_done:
                if time.monotonic() > end:
                    self._withdraw(batch)
                    raise Unavailable("the database does not answer in time")
                self._commit(self._take())
        finally:
            self._turn.release()
        if batch.error is not None:
            # Of its own for each: several threads raise it.
            raise Unavailable("the record could not be written") from batch.error

    def _take(self) -> list[_Batch[T]]:
        taken: list[_Batch[T]] = []
        count = 0
        with self._lock:
            while self._waiting and (not taken or count + len(self._waiting[0].items) <= self._at_most):
                taken.append(self._waiting.popleft())
                count += len(taken[-1].items)
            self._count -= count
        return taken

    def _withdraw(self, batch: _Batch[T]) -> None:
        with self._lock:
            if batch in self._waiting:
                self._waiting.remove(batch)
                self._count -= len(batch.items)

    def _commit(self, group: Sequence[_Batch[T]]) -> None:
        error: Exception | None = None
        try:
            self._write([item for batch in group for item in batch.items])
        except Exception as failure:  # noqa: BLE001  # it is raised to everybody whose records these were
            error = failure
        for batch in group:
            batch.error = error
            batch.is_done = True
