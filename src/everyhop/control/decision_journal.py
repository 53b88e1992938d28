# SPDX-License-Identifier: Apache-2.0
"""Records of decisions that this process makes itself: durable before the answer, many requests to one commit.

Whoever writes while another one commits waits for his turn, and then takes along everybody who came meanwhile.  So the
store sees one commit at a time however many ask, and nobody is answered before his own records are safe.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from everyhop.auditlog.gaps import Gap, GapReason, gap_record
from everyhop.core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from everyhop.auditlog import AppendResult, Record
    from everyhop.core.clock import Entropy

    Draft = Callable[[int, str], Record]
    """Makes a record, given its number and its producer."""

MAX_WAITING: Final = 10_000
WAIT_SECONDS: Final = 2.0
_NAME_BYTES: Final = 8


class Records(Protocol):
    """The store of records."""

    def append(self, records: Sequence[Record], /) -> AppendResult:
        """Append in one transaction; durable when it returns."""


def _now() -> datetime:
    return datetime.now(UTC)


class _Batch:
    """The records of one request, and what became of them."""

    __slots__ = ("drafts", "error", "is_done")

    def __init__(self, drafts: Sequence[Draft]) -> None:
        self.drafts = drafts
        self.is_done = False
        self.error: Exception | None = None


class DecisionJournal:
    """Writes records under a producer of this process alone.  Blocking; safe to share between threads."""

    def __init__(
        self, store: Records, *, entropy: Entropy, prefix: str, now: Callable[[], datetime] = _now
    ) -> None:
        self._now = now
        self._store = store
        self._entropy = entropy
        self._prefix = prefix
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._waiting: list[_Batch] = []
        self._count = 0
        self._lost = 0
        self._begin()

    def write(self, drafts: Sequence[Draft]) -> None:
        """Make records durable; raises Unavailable when too many wait, or what the store raises."""
        if not drafts:
            return
        batch = _Batch(drafts)
        with self._lock:
            if self._count + len(drafts) > MAX_WAITING:
                raise Unavailable("too many decisions wait to be recorded")
            self._waiting.append(batch)
            self._count += len(drafts)
        if not self._turn.acquire(timeout=WAIT_SECONDS):
            self._withdraw(batch)
            raise Unavailable("the decision could not be recorded: others wait for the database")
        try:
            if not batch.is_done:
                self._write_waiting()
        finally:
            self._turn.release()
        if batch.error is not None:
            raise Unavailable("the decision could not be recorded") from batch.error

    def _withdraw(self, batch: _Batch) -> None:
        with self._lock:
            if batch in self._waiting:
                self._waiting.remove(batch)
                self._count -= len(batch.drafts)

    def _write_waiting(self) -> None:
        with self._lock:
            batches, self._waiting, self._count = self._waiting, [], 0
        error: Exception | None = None
        try:
            drafts = [*self._told_lost(), *(draft for batch in batches for draft in batch.drafts)]
            records = [draft(number, self._producer) for number, draft in enumerate(drafts, self._next)]
            result = self._store.append(records)
            self._next += len(records)
            self._lost = 0
            if result.conflicts:
                raise Unavailable(f"{len(result.conflicts)} records met others in their place")
        except Exception as failure:  # noqa: BLE001  # it is raised to everybody whose records these were
            error = failure
            # A commit may have happened though it seemed to fail: its numbers are never used again.
            self._lost += sum(len(batch.drafts) for batch in batches)
            self._begin()
        for batch in batches:
            batch.error = error
            batch.is_done = True

    def _told_lost(self) -> list[Draft]:
        """Return what says that decisions may be missing which were made and told nobody."""
        if not self._lost:
            return []
        lost, now = self._lost, self._now()

        def gap(number: int, producer: str) -> Record:
            told = Gap(number, number, lost, GapReason.COMMIT_FAILED.value)
            return gap_record(told, producer=producer, record_id=f"gap.{producer}-{number}", now=now)

        return [gap]

    def _begin(self) -> None:
        self._producer = f"{self._prefix}-{self._entropy.token_bytes(_NAME_BYTES).hex()}"
        self._next = 1
