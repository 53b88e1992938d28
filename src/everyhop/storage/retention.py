# SPDX-License-Identifier: Apache-2.0
"""What goes of the log when it is too old or too many: records, by whole tiles, never the tree over them.

With the tiles kept, every later checkpoint can still be proven against every earlier one, and every record that is kept
against all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from everyhop.auditlog.model import Event, Kind
from everyhop.storage.dialect import Range
from everyhop.storage.schema import log_checkpoints, log_pruned, records, to_micros
from everyhop.storage.sealing import TILE, read_head


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedRecords:
    """The records that went, by their places in the log, both inclusive."""

    first: int
    last: int


def prune_tiles(
    connection: sa.Connection, *, before: datetime | None, keep_rows: int | None, limit: int
) -> PrunedRecords | None:
    """Delete the oldest tiles' records, as many as are too old or too many, at most ``limit``; None when none are."""
    first = connection.execute(sa.select(sa.func.min(records.c.n))).scalar()
    if first is None:
        return None
    size = read_head(connection).size
    end = (first - 1) // TILE * TILE  # records up to this place are gone or go
    furthest = min(size, end + limit)
    moment = None if before is None else to_micros(before)
    vouched = 0 if moment is None else _signed_before(connection, moment)
    while (behind := end + TILE) <= furthest and (
        (keep_rows is not None and behind <= size - keep_rows)
        or behind <= vouched
        or (moment is not None and _newest(connection, end, behind) < moment)
    ):
        end = behind
    if end < first:
        return None
    doomed = sa.and_(records.c.n >= first, records.c.n <= end)
    _remember(connection, doomed)
    connection.execute(sa.delete(records).where(doomed))
    return PrunedRecords(first=first, last=end)


def prune_event(pruned: PrunedRecords, *, at: datetime, before: datetime | None) -> Event:
    """Say what went, for the log itself."""
    return Event(
        kind=Kind.LOG,
        action="prune",
        time=at,
        detail={
            "from": pruned.first,
            "to": pruned.last,
            "before": None if before is None else before.isoformat(),
        },
    )


def _signed_before(connection: sa.Connection, moment: int) -> int:
    """Return how many records are vouched for as older than ``moment`` by a signed checkpoint."""
    statement = sa.select(sa.func.max(log_checkpoints.c.size)).where(log_checkpoints.c.signed_at < moment)
    return connection.execute(statement).scalar() or 0


def _newest(connection: sa.Connection, start: int, behind: int) -> int:
    statement = sa.select(sa.func.max(records.c.time)).where(records.c.n > start, records.c.n <= behind)
    return connection.execute(statement).scalar() or _NEVER


_NEVER: Final = 2**63 - 1


def _remember(connection: sa.Connection, doomed: sa.ColumnElement[bool]) -> None:
    """Note the numbers of the records that go, joined with those that went before."""
    places = connection.execute(sa.select(records.c.producer, records.c.seq).where(doomed)).all()
    gone = sorted((row.producer, row.seq, row.seq) for row in places)
    producers = sorted({producer for producer, _, _ in gone})
    for start in range(0, len(producers), TILE):
        some = producers[start : start + TILE]
        held = log_pruned.c.producer.in_(some)
        known = connection.execute(sa.select(log_pruned).where(held)).all()
        old = [(row.producer, row.first, row.last) for row in known]
        new = [place for place in gone if some[0] <= place[0] <= some[-1]]
        joined = [
            {"producer": producer, "first": first, "last": last}
            for producer, first, last in join_ranges([*old, *new])
        ]
        connection.execute(sa.delete(log_pruned).where(held))
        connection.execute(sa.insert(log_pruned), joined)


def join_ranges(ranges: Iterable[Range]) -> Iterator[Range]:
    """Join ranges of one producer that follow each other or overlap; sorted."""
    current: Range | None = None
    for producer, first, last in sorted(ranges):
        if current is not None and current[0] == producer and first <= current[2] + 1:
            current = (producer, current[1], max(last, current[2]))
            continue
        if current is not None:
            yield current
        current = (producer, first, last)
    if current is not None:
        yield current
