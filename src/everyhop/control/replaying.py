# SPDX-License-Identifier: Apache-2.0
"""The recorded decisions against a candidate: page after page of the audit log, so that memory does not grow with it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from everyhop.auditlog import Kind, Order, RecordFilter
from everyhop.auditlog.model import Point
from everyhop.auditlog.query import MAX_PAGE
from everyhop.authz import Engine
from everyhop.authz.replay import Recorded, Replay, Tally
from everyhop.core.clock import rfc3339
from everyhop.policy.access import TCP
from everyhop.policy.model import OUTSIDE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from everyhop.auditlog import Page, Record
    from everyhop.policy.model import Snapshot

_POINTS: Final = frozenset({Point.INGRESS, Point.EDGE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Which decisions: those since a moment (aware), the last so many, or both; all of them without."""

    since: datetime | None = None
    last: int | None = None


async def replay(
    query: Callable[..., Awaitable[Page]], in_force: Snapshot, candidate: Snapshot, span: Span
) -> AsyncIterator[dict[str, Any]]:
    """Yield progress after each page, the newest records first, and in the end the result.

    ``query`` is ``ControlPlane.query_records``.  Judging happens on a thread of its own, a page at a time.
    """
    judge = await asyncio.to_thread(lambda: Replay(Engine(in_force), Engine(candidate)))
    tally, cursor, seen = Tally(), None, 0
    wanted = RecordFilter(kind=Kind.DECISION, since=span.since)
    while span.last is None or seen < span.last:
        limit = MAX_PAGE if span.last is None else min(MAX_PAGE, span.last - seen)
        page = await query(wanted, order=Order.NEWEST, cursor=cursor, limit=limit)
        seen += len(page.records)
        await asyncio.to_thread(_judge, judge, page.records, tally)
        yield {"records": seen}
        cursor = page.last
        if not page.more or cursor is None:
            break
    yield {"result": describe(tally, seen)}


def _judge(judge: Replay, records: tuple[Record, ...], tally: Tally) -> None:
    for record in records:
        if record.point not in _POINTS:
            continue  # what a caller's own sidecar saw of a call is no decision about it
        recorded = recorded_of(record)
        if recorded is None:
            tally.unreadable += 1
        else:
            tally.add(recorded, judge.judge(recorded))


def recorded_of(record: Record) -> Recorded | None:
    """Return a record as the decision that it tells of, or None where it does not say who called what."""
    caller = OUTSIDE if record.point is Point.EDGE else record.caller
    is_tcp = record.operation == TCP and record.method is None
    if not caller or not record.target or record.decision is None or record.reason is None:
        return None
    if not is_tcp and not (record.method and record.path):
        return None
    return Recorded(
        id=record.id,
        time=record.time,
        caller=caller,
        target=record.target,
        method=None if is_tcp else record.method,
        path=None if is_tcp else record.path,
        operation=record.operation,
        is_allowed=record.decision == "allow",
        reason=record.reason,
        snapshot=record.snapshot,
    )


def describe(tally: Tally, records: int) -> dict[str, Any]:
    """Return a tally as plain values: edges that flip first, the busiest first."""
    order = {"gained": 0, "lost": 1, "unknown": 2}
    edges = sorted(tally.edges.items(), key=lambda item: (order[item[0][0]], -item[1].count, item[0]))
    return {
        "records": records,
        "flips": tally.flips,
        "counts": {outcome.value: count for outcome, count in tally.counts.items()},
        "unreadable": tally.unreadable,
        "others": tally.others,
        "edges": [
            {
                "outcome": key[0],
                "caller": key[1],
                "service": key[2],
                "operation": key[3],
                "reason": key[4],
                "count": edge.count,
                "example": edge.example,
                "first": rfc3339(edge.first),
                "last": rfc3339(edge.last),
            }
            for key, edge in edges
        ],
    }
