# SPDX-License-Identifier: Apache-2.0
"""The recorded calls against another chapter ``detect``: what it would have found, and whom it would have blocked."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from everyhop.anomaly.engine import Engine
from everyhop.anomaly.window import MemoryWindows
from everyhop.auditlog import Kind, Order, RecordFilter
from everyhop.auditlog.query import MAX_PAGE
from everyhop.core.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from datetime import datetime

    from everyhop.anomaly.engine import Judged
    from everyhop.anomaly.ports import Detector
    from everyhop.auditlog import Page, Record
    from everyhop.policy.model import Snapshot

MAX_SHOWN: Final = 1000


@dataclass(slots=True)
class _Sum:
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    blocked: set[str] = field(default_factory=set)
    shown: list[dict[str, Any]] = field(default_factory=list)

    def take(self, judged: Judged, at: datetime) -> None:
        finding = judged.finding
        self.counts[finding.detector, judged.answer.value] += 1
        if judged.mode is not None:
            self.blocked.add(str(finding.subject))
        if len(self.shown) < MAX_SHOWN:
            self.shown.append(
                {
                    "time": rfc3339(at),
                    "detector": finding.detector,
                    "subject": str(finding.subject),
                    "answer": judged.answer.value,
                    "title": finding.title,
                    "evidence": list(finding.evidence[-1:]),
                }
            )


async def replay_detection(
    query: Callable[..., Awaitable[Page]],
    candidate: Snapshot,
    detectors: Sequence[Detector],
    since: datetime,
) -> AsyncIterator[dict[str, Any]]:
    """Yield progress after each page, the oldest records first, and in the end the result.

    Every record is looked at as at its own time.  Blocks that were made then are not followed: what they stopped was
    refused and does not count, so a milder candidate may look quieter than it would have been.
    """
    engine, total, cursor, seen = Engine(candidate, MemoryWindows(), detectors), _Sum(), 0, 0
    while True:
        page = await query(RecordFilter(since=since), order=Order.OLDEST, cursor=cursor, limit=MAX_PAGE)
        seen += len(page.records)
        await asyncio.to_thread(_take, engine, page.records, total)
        yield {"records": seen}
        if not page.more or page.last is None:
            break
        cursor = page.last
    yield {
        "result": {
            "records": seen,
            "counts": [
                {"detector": detector, "answer": answer, "count": count}
                for (detector, answer), count in sorted(total.counts.items())
            ],
            "blocked": sorted(total.blocked)[:MAX_SHOWN],
            "findings": total.shown,
            "left_out": sum(total.counts.values()) - len(total.shown),
        }
    }


def _take(engine: Engine, records: Sequence[Record], total: _Sum) -> None:
    for record in records:
        if record.kind is not Kind.RESPONSE:
            now = record.time.timestamp()
            for judged in engine.take([(0, record)], wall=record.time, now=now):
                total.take(judged, record.time)
