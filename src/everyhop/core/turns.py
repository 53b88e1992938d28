# SPDX-License-Identifier: Apache-2.0
"""One writer at a time, who takes along whoever waits: many callers to one commit, and nobody waits for ever.

A commit costs the same for one record as for five hundred.  Whoever comes while another one commits waits for his turn, and then
takes along everybody who came meanwhile; nobody waits for company that may not come.  Nobody is answered before what he brought is
written, and an error that one batch causes is that batch's alone.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from everyhop.core.errors import Unavailable

T = TypeVar("T")
R = TypeVar("R")

WAIT_SECONDS: Final = 2.0
"""How long a caller waits for his turn: what has to be recorded before it is done fails closed after that."""


class Batch(Generic[T, R]):
    """What one caller brings, and what became of it."""

    __slots__ = ("called", "error", "items", "result")

    def __init__(self, items: Sequence[T]) -> None:
        self.items = items
        self.called = threading.Event()  # it is done, or its caller's turn to lead
        self.result: list[R] = []  # one, once it is written
        self.error: Exception | None = None

    @property
    def is_done(self) -> bool:
        """Tell whether it is written, or cannot be."""
        return bool(self.result) or self.error is not None


class Turns(Generic[T, R]):
    """Writes what several threads bring, in their order, several batches at once.  Safe to share between threads.

    One caller leads: he writes for all who wait.  When he is done he calls the first of those who came meanwhile to
    lead.  (A lock that all of them wait for would let in whoever comes next, and he would write for himself alone.)
    """

    def __init__(
        self,
        write: Callable[[Sequence[Sequence[T]]], Sequence[R]],
        *,
        at_most: int,
        max_waiting: int | None = None,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        """``write`` makes batches durable at once and answers for each, or raises.

        A call gets at most ``at_most`` items in all, or one larger batch; no more than ``max_waiting`` of them wait.
        """
        self._write = write
        self._at_most = at_most
        self._max_waiting = max_waiting
        self._wait_seconds = wait_seconds
        self._lock = threading.Lock()
        self._waiting: deque[Batch[T, R]] = deque()
        self._count = 0
        self._is_led = False

    def submit(self, items: Sequence[T]) -> R:
        """Return what ``write`` answers for ``items``, which are durable then.

        Raises Unavailable when too many wait, and when it is not this caller's turn within two seconds; what ``write``
        raises.  After Unavailable of ``write`` nobody knows (a commit may have happened whose confirmation did not
        arrive): nothing may be done then that had to be recorded first.
        """
        batch = Batch[T, R](items)
        with self._lock:
            if self._max_waiting is not None and self._count + len(items) > self._max_waiting:
                raise Unavailable("too many records wait to be written")
            self._waiting.append(batch)
            self._count += len(items)
            must_wait, self._is_led = self._is_led, True
        if must_wait and not batch.called.wait(self._wait_seconds) and self._withdraw(batch):
            raise Unavailable("the database does not answer: others wait for it as well")
        if not batch.is_done:
            self._lead(batch)
        if isinstance(batch.error, Unavailable):
            # Of its own for each: several threads raise it.
            raise Unavailable(batch.error.message, hint=batch.error.hint, retry=batch.error.retry) from (
                batch.error.__cause__ or batch.error
            )
        if batch.error is not None:
            raise batch.error
        return batch.result[0]

    def _withdraw(self, batch: Batch[T, R]) -> bool:
        """Give up waiting; False when the call came at the last moment."""
        with self._lock:
            if batch.called.is_set():
                return False
            if batch in self._waiting:
                self._waiting.remove(batch)
                self._count -= len(batch.items)
            return True

    def _lead(self, batch: Batch[T, R]) -> None:
        """Write for everybody until the own batch is done, and pass the lead on."""
        try:
            while not batch.is_done:
                self._commit(self._take())
        finally:
            with self._lock:
                self._is_led = bool(self._waiting)
                if self._waiting:
                    self._waiting[0].called.set()

    def _take(self) -> list[Batch[T, R]]:
        """Take those who wait, in their order, as many as belong into one write."""
        taken: list[Batch[T, R]] = []
        count = 0
        with self._lock:
            while self._waiting and (not taken or count + len(self._waiting[0].items) <= self._at_most):
                taken.append(self._waiting.popleft())
                count += len(taken[-1].items)
            self._count -= count
        return taken

    def _commit(self, group: Sequence[Batch[T, R]]) -> None:
        try:
            results = self._write([batch.items for batch in group])
        except Exception as error:  # noqa: BLE001  # it is raised to whoever caused it
            if len(group) > 1 and not isinstance(error, Unavailable):
                for batch in group:
                    self._commit([batch])
                return
            for batch in group:
                batch.error = error
                batch.called.set()
            return
        for batch, result in zip(group, results, strict=True):
            batch.result.append(result)
            batch.called.set()
