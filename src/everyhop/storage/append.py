# SPDX-License-Identifier: Apache-2.0
"""The one way into the log: what is there already is left out, the rest is numbered, stored and sealed.

All of it happens under the lock that a write transaction holds, so numbers have no gaps and become visible in their
order.  Whether a record is there already is looked up before it gets a number, because a client that saw an error may
well have been recorded, and sends the same again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from enum import Enum, auto

import sqlalchemy as sa

from everyhop.auditlog.append import AppendResult
from everyhop.auditlog.model import Record
from everyhop.core.errors import Unavailable
from everyhop.storage.database import disguise_of, note_recorded
from everyhop.storage.dialect import Range, find_stored, insert_records
from everyhop.storage.record_rows import Row, row_of
from everyhop.storage.retention import join_ranges
from everyhop.storage.schema import log_pruned, records
from everyhop.storage.sealing import LogHead


class Outcome(Enum):
    """What became of one record."""

    STORED = auto()
    DUPLICATE = auto()
    CONFLICT = auto()


class SqlRecordWriter:
    """The ``RecordWriter`` port on an open write transaction; it puts pseudonyms for persons unless told otherwise."""

    def __init__(self, connection: sa.Connection, *, disguise: bool = True) -> None:
        self._connection = connection
        self._disguise = disguise_of(connection) if disguise else None

    def insert(self, batch: Sequence[Record]) -> AppendResult:
        """Insert what is not there yet.  Raises InputError when a record is too large, before anything is stored."""
        (result,) = self.insert_each([batch])
        return result

    def insert_each(self, batches: Sequence[Sequence[Record]]) -> list[AppendResult]:
        """Insert several batches at once, and say of each what became of it."""
        together: Sequence[Record] = [record for batch in batches for record in batch]
        if self._disguise is not None:
            together = self._disguise(self._connection, together)
        rows = [row_of(record) for record in together]
        told = iter(zip(rows, self.insert_rows(rows), strict=True))
        return [_result_of([next(told) for _ in batch]) for batch in batches]

    def insert_rows(self, rows: Sequence[Row]) -> list[Outcome]:
        """Insert the rows that are not there yet, and say of each what became of it.

        A record is the same when id, place (producer, seq) and line are the same.  Under the id or in the place of
        another one it is a conflict, and so is one whose line differs from what was stored first.  In a place that
        was pruned, nothing is left to compare it with: it counts as delivered before.
        """
        if not rows:
            return []
        outcomes = self._sort_out(rows)
        fresh = [row for row, outcome in zip(rows, outcomes, strict=True) if outcome is Outcome.STORED]
        if fresh:
            head = LogHead(self._connection)
            first = head.size + 1
            try:
                insert_records(self._connection, first, fresh)
            except sa.exc.IntegrityError as error:
                raise Unavailable(
                    f"the log holds records behind its head ({head.size}): it was altered", retry=False
                ) from error
            head.grow([row.leaf for row in fresh])
            note_recorded(self._connection, fresh)
        return outcomes

    def next_seq(self, producer: str) -> int:
        """Return the number after the highest of ``producer``."""
        return last_seq(self._connection, producer) + 1

    def _sort_out(self, rows: Sequence[Row]) -> list[Outcome]:
        places = {(row.producer, row.seq) for row in rows}
        ranges = _ranges(places)
        stored, gone = find_stored(self._connection, [row.id for row in rows], ranges)
        pruned = Pruned(gone)
        if not stored and not pruned and len(places) == len({row.id for row in rows}) == len(rows):
            return [Outcome.STORED] * len(rows)
        ids = {record_id: (producer, seq, leaf) for record_id, producer, seq, leaf in stored}
        taken = {(producer, seq) for _, producer, seq, _ in stored}
        return [_outcome(row, ids, taken, pruned) for row in rows]


class Pruned:
    """The numbers of some producers whose records are gone."""

    def __init__(self, ranges: Iterable[Range]) -> None:
        self._ranges: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for producer, first, last in sorted(ranges):
            self._ranges[producer].append((first, last))

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def covers(self, producer: str, seq: int) -> bool:
        """Tell whether the record of this number is gone."""
        ranges = self._ranges.get(producer, ())
        at = bisect_right(ranges, seq, key=lambda found: found[0]) - 1
        return at >= 0 and seq <= ranges[at][1]


def last_seq(connection: sa.Connection, producer: str) -> int:
    """Return the highest number ever stored of ``producer``, 0 when there is none."""
    kept = sa.select(sa.func.max(records.c.seq)).where(records.c.producer == producer)
    gone = sa.select(sa.func.max(log_pruned.c.last)).where(log_pruned.c.producer == producer)
    row = connection.execute(sa.select(kept.scalar_subquery(), gone.scalar_subquery())).one()
    return max(row[0] or 0, row[1] or 0)


def _result_of(told: Sequence[tuple[Row, Outcome]]) -> AppendResult:
    """Sum up what became of a batch."""
    outcomes = [outcome for _, outcome in told]
    return AppendResult(
        stored=outcomes.count(Outcome.STORED),
        duplicates=outcomes.count(Outcome.DUPLICATE),
        conflicts=tuple(row.id for row, outcome in told if outcome is Outcome.CONFLICT),
    )


def _outcome(
    row: Row, ids: dict[str, tuple[str, int, bytes]], taken: set[tuple[str, int]], pruned: Pruned
) -> Outcome:
    """Say what becomes of one row, and remember it for those behind it in the same batch."""
    same = (row.producer, row.seq, row.leaf)
    held = ids.get(row.id)
    if held is not None:
        return Outcome.DUPLICATE if held == same else Outcome.CONFLICT
    if (row.producer, row.seq) in taken:
        return Outcome.CONFLICT
    if pruned.covers(row.producer, row.seq):
        return Outcome.DUPLICATE
    ids[row.id] = same
    taken.add((row.producer, row.seq))
    return Outcome.STORED


def _ranges(places: set[tuple[str, int]]) -> list[Range]:
    """Return ranges that hold these places and no others; a batch is one as a rule."""
    first, last = min(places), max(places)
    if first[0] == last[0] and last[1] - first[1] + 1 == len(places):
        return [(first[0], first[1], last[1])]
    return list(join_ranges((producer, seq, seq) for producer, seq in places))
