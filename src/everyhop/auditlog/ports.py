# SPDX-License-Identifier: Apache-2.0
"""What the audit log needs from a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Protocol

from everyhop.auditlog.append import AppendResult
from everyhop.auditlog.model import Event, Kind, Record
from everyhop.auditlog.query import Order, Page, RecordFilter


class RecordWriter(Protocol):
    """An open transaction on the log."""

    def insert(self, records: Sequence[Record]) -> AppendResult:
        """Insert what is not there yet, by ``id`` and by (``producer``, ``seq``)."""

    def next_seq(self, producer: str) -> int:
        """Return the number after the highest of ``producer``, 1 for the first."""


class RecordStore(Protocol):
    """A log as its readers and the agents' batches see it; every call is a transaction of its own."""

    def append(self, records: Sequence[Record]) -> AppendResult:
        """Append through :func:`everyhop.auditlog.append.append_records`; durable when it returns."""

    def note(self, event: Event) -> Record:
        """Append an event of this process through :func:`everyhop.auditlog.append.append_event`."""

    def get(self, record_id: str) -> Record:
        """Return a record by its id.  Raises NotFound."""

    def of_decision(self, decision_id: str) -> list[Record]:
        """Return the records of one decision, at most 16.

        These are the one with this id, and behind it, the oldest first, those whose id goes on with a dot: what
        applications said of the same call.
        """

    def query(
        self,
        wanted: RecordFilter,
        *,
        order: Order = Order.NEWEST,
        cursor: int | None = None,
        limit: int = 100,
    ) -> Page:
        """Return one page of the records that match, going on behind ``cursor``; at most 1,000 of them."""

    def scan(self, wanted: RecordFilter, *, holding: bytes | None = None) -> Iterator[Sequence[Record]]:
        """Yield all records that match, oldest first, in pages; ``holding`` is a text that their line must hold."""

    def first_time(self, kind: Kind) -> datetime | None:
        """Return the time of the oldest record of a kind that is kept."""

    def last_seq(self, producer: str) -> int:
        """Return the highest number stored of ``producer``, 0 when there is none."""

    def count(self) -> int:
        """Return how many records are held."""

    def prune(
        self, *, before: datetime | None = None, keep_rows: int | None = None, limit: int = 10_000
    ) -> int:
        """Delete at most ``limit`` of the oldest records that are too old or too many; return how many went."""
