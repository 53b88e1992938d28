# SPDX-License-Identifier: Apache-2.0
"""The audit log in SQL.

A record is stored as the line that the codec writes, beside the few columns that questions are asked by: fast to
append, and what is read back is what was written, to the byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from everyhop.auditlog.append import AppendResult, append_event, check_batch
from everyhop.auditlog.codec import decode_record
from everyhop.auditlog.model import Event, Kind, Record
from everyhop.auditlog.query import MAX_PAGE, Order, Page, RecordFilter
from everyhop.core.clock import Entropy
from everyhop.core.errors import InputError, NotFound
from everyhop.core.turns import Turns
from everyhop.storage.append import SqlRecordWriter, last_seq
from everyhop.storage.database import LONG_WAIT_SECONDS, Database
from everyhop.storage.dialect import holds
from everyhop.storage.record_conditions import conditions_of, place_of
from everyhop.storage.retention import prune_event, prune_tiles
from everyhop.storage.schema import from_micros, records

__all__ = ["SqlRecordStore", "SqlRecordWriter", "last_seq"]

MAX_GROUP: Final = 512  # records in one transaction, unless a single batch has more
_MAX_OF_DECISION: Final = 16


class SqlRecordStore:
    """The ``RecordStore`` port on a database.  ``producer`` names this server in the audit log."""

    def __init__(self, database: Database, *, entropy: Entropy, producer: str = "server") -> None:
        self._database = database
        self._entropy = entropy
        self._producer = producer
        self._turns: Turns[Record, AppendResult] = Turns(self._insert, at_most=MAX_GROUP)

    def append(self, batch: Sequence[Record]) -> AppendResult:
        """Append in one transaction, perhaps together with others' batches; durable when it returns."""
        check_batch(batch)
        if not batch:
            return AppendResult(stored=0, duplicates=0)
        return self._turns.submit(batch)

    def _insert(self, batches: Sequence[Sequence[Record]]) -> list[AppendResult]:
        with self._database.writing() as connection:
            return SqlRecordWriter(connection).insert_each(batches)

    def note(self, event: Event) -> Record:
        """Append an event of this process."""
        with self._database.writing() as connection:
            return append_event(
                SqlRecordWriter(connection), event, producer=self._producer, entropy=self._entropy
            )

    def get(self, record_id: str) -> Record:
        """Return a record by its id.  Raises NotFound."""
        with self._database.reading() as connection:
            line = connection.execute(sa.select(records.c.line).where(records.c.id == record_id)).scalar()
        if line is None:
            raise NotFound(f"there is no record {record_id[:80]}", hint="it may be older than what is kept")
        return decode_record(line)

    def of_decision(self, decision_id: str) -> list[Record]:
        """Return the records of one decision, the one with this very id first, at most 16."""
        # "/" is the character after ".": a range of the index and no pattern.
        within = sa.and_(records.c.id > f"{decision_id}.", records.c.id < f"{decision_id}/")
        statement = (
            sa.select(records.c.line)
            .where(sa.or_(records.c.id == decision_id, within))
            .order_by(records.c.id != decision_id, records.c.n)
            .limit(_MAX_OF_DECISION)
        )
        with self._database.reading() as connection:
            return [decode_record(line) for line in connection.execute(statement).scalars()]

    def query(
        self,
        wanted: RecordFilter,
        *,
        order: Order = Order.NEWEST,
        cursor: int | None = None,
        limit: int = 100,
    ) -> Page:
        """Return one page."""
        if not 0 < limit <= MAX_PAGE:
            raise InputError(f"a page has 1 to {MAX_PAGE} records")
        is_newest = order is Order.NEWEST
        found: list[tuple[int, Record]] = []
        while True:
            rows = self._rows(wanted, is_newest=is_newest, cursor=cursor, limit=limit + 1)
            for n, line in rows:
                record = decode_record(line)
                if not wanted.looks_within or wanted.matches(record):
                    found.append((n, record))
            # A line can hold the words that were looked for elsewhere than meant: then the page is filled up.
            if len(found) > limit or len(rows) <= limit:
                break
            cursor = rows[-1][0]
        kept = found[:limit]
        return Page(
            records=tuple(record for _, record in kept),
            positions=tuple(n for n, _ in kept),
            first=kept[0][0] if kept else None,
            last=kept[-1][0] if kept else None,
            more=len(found) > limit,
        )

    def _rows(
        self, wanted: RecordFilter, *, is_newest: bool, cursor: int | None, limit: int
    ) -> Sequence[tuple[int, bytes]]:
        statement = sa.select(records.c.n, records.c.line).where(*conditions_of(wanted))
        if cursor is not None:
            statement = statement.where(records.c.n < cursor if is_newest else records.c.n > cursor)
        place = place_of(wanted)
        statement = statement.order_by(place.desc() if is_newest else place).limit(limit)
        with self._database.reading() as connection:
            return [(row.n, row.line) for row in connection.execute(statement)]

    def scan(self, wanted: RecordFilter, *, holding: bytes | None = None) -> Iterator[Sequence[Record]]:
        """Yield pages of records, oldest first; each page is a short transaction of its own, so nobody waits."""
        conditions = conditions_of(wanted)
        if holding is not None:
            conditions.append(holds(records.c.line, holding))
        position = 0
        while True:
            statement = (
                sa.select(records.c.n, records.c.line)
                .where(*conditions, records.c.n > position)
                .order_by(records.c.n)
                .limit(MAX_PAGE)
            )
            with self._database.reading() as connection:
                rows = connection.execute(statement).all()
            if not rows:
                return
            position = rows[-1].n
            yield [decode_record(row.line) for row in rows]

    def first_time(self, kind: Kind) -> datetime | None:
        """Return the time of the oldest record of a kind."""
        statement = (
            sa.select(records.c.time).where(records.c.kind == kind.value).order_by(records.c.time).limit(1)
        )
        with self._database.reading() as connection:
            found = connection.execute(statement).scalar()
        return None if found is None else from_micros(found)

    def last_seq(self, producer: str) -> int:
        """Return the highest number ever stored of ``producer``, 0 when there is none."""
        with self._database.reading() as connection:
            return last_seq(connection, producer)

    def count(self) -> int:
        """Return how many records are held."""
        with self._database.reading() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(records)).scalar_one())

    def prune(
        self,
        *,
        now: datetime,
        before: datetime | None = None,
        keep_rows: int | None = None,
        limit: int = 10_000,
    ) -> int:
        """Delete whole tiles of the oldest records that are too old or too many, and record it."""
        with self._database.writing(wait=LONG_WAIT_SECONDS) as connection:
            pruned = prune_tiles(connection, before=before, keep_rows=keep_rows, limit=limit)
            if pruned is None:
                return 0
            event = prune_event(pruned, at=now, before=before)
            append_event(SqlRecordWriter(connection), event, producer=self._producer, entropy=self._entropy)
        return pruned.last - pruned.first + 1
