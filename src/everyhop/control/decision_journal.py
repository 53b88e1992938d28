# SPDX-License-Identifier: Apache-2.0
"""Records of decisions that this process makes itself: durable before the answer, many requests to one commit.

The store sees one commit at a time however many ask (:mod:`everyhop.core.turns`), and nobody is answered before his own
records are safe.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from everyhop.auditlog.gaps import Gap, GapReason, gap_record
from everyhop.core.errors import Unavailable
from everyhop.core.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from everyhop.auditlog import AppendResult, Record
    from everyhop.core.clock import Entropy

    Draft = Callable[[int, str], Record]
    """Makes a record, given its number and its producer."""

MAX_WAITING: Final = 10_000
_NAME_BYTES: Final = 8


class Records(Protocol):
    """The store of records."""

    def append(self, records: Sequence[Record], /) -> AppendResult:
        """Append in one transaction; durable when it returns."""


def _now() -> datetime:
    return datetime.now(UTC)


class DecisionJournal:
    """Writes records under a producer of this process alone.  Blocking; safe to share between threads."""

    def __init__(
        self, store: Records, *, entropy: Entropy, prefix: str, now: Callable[[], datetime] = _now
    ) -> None:
        self._now = now
        self._store = store
        self._entropy = entropy
        self._prefix = prefix
        self._turns: Turns[Draft, None] = Turns(
            self._write_waiting, at_most=MAX_WAITING, max_waiting=MAX_WAITING
        )
        self._lost = 0
        self._begin()

    def write(self, drafts: Sequence[Draft]) -> None:
        """Make records durable; raises Unavailable when too many wait, or what the store raises."""
        if not drafts:
            return
        self._turns.submit(drafts)

    def _write_waiting(self, batches: Sequence[Sequence[Draft]]) -> list[None]:
        try:
            drafts = [*self._told_lost(), *(draft for batch in batches for draft in batch)]
            records = [draft(number, self._producer) for number, draft in enumerate(drafts, self._next)]
            result = self._store.append(records)
            self._next += len(records)
            self._lost = 0
            if result.conflicts:
                raise Unavailable(f"{len(result.conflicts)} records met others in their place")
        except Exception as error:
            # A commit may have happened though it seemed to fail: its numbers are never used again.
            self._lost += sum(map(len, batches))
            self._begin()
            raise Unavailable("the decision could not be recorded") from error
        return [None] * len(batches)

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
