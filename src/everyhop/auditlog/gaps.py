# SPDX-License-Identifier: Apache-2.0
"""Gap records: what a producer says of records that it has lost, or may have.

One stands at the number of the last record that it replaces, so ``from`` to ``to`` are accounted for.  Where nobody
knows how many are lost, it replaces none: ``from`` and ``to`` are its own number, and ``count`` is absent.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from everyhop.auditlog.model import Kind, Point, Record

if TYPE_CHECKING:
    from everyhop.auditlog.model import Scalar

GAP: Final = "gap"


class GapReason(StrEnum):
    """Why records may be missing."""

    OVERFLOW = "spool-overflow"  # the server was away for longer than the bound of the spool allows
    RATE = "rate"  # an application told more decisions than are taken from it
    PROXY_KILLED = "proxy-killed"  # an Envoy ended with lines in its memory
    DISK_FULL = "disk-full"  # lines could not be written
    CURSOR_DAMAGED = "cursor-damaged"  # how far the spool was sent is not known: some may be there twice
    TRUNCATED = "spool-truncated"  # somebody has cut the spool
    COMMIT_FAILED = "commit-failed"  # the database did not take decisions that nobody was told


@dataclass(frozen=True, slots=True)
class Gap:
    """Numbers ``first`` to ``last`` of a producer are accounted for; ``count`` of None is unknown."""

    first: int
    last: int
    count: int | None
    reason: str


def gap_record(
    gap: Gap, *, producer: str, record_id: str, now: datetime, target: str | None = None
) -> Record:
    """Return the record that tells of a gap, at its last number."""
    detail: dict[str, Scalar] = {"from": gap.first, "to": gap.last}
    if gap.count is not None:
        detail["count"] = gap.count
    return Record(
        id=record_id,
        seq=gap.last,
        producer=producer,
        time=now,
        kind=Kind.LOG,
        point=Point.CONTROL,
        target=target,
        operation=GAP,
        reason=gap.reason,
        detail=detail,
    )


def gap_of(record: Record) -> Gap | None:
    """Return what a gap record says; None for any other, and for one that does not stand where it says."""
    if record.kind is not Kind.LOG or record.operation != GAP or record.reason is None:
        return None
    first, last, count = (record.detail.get(name) for name in ("from", "to", "count"))
    if type(first) is not int or type(last) is not int or not 0 < first <= last == record.seq:
        return None
    if count is not None and (type(count) is not int or count < 0):
        return None
    return Gap(first, last, count, record.reason)
