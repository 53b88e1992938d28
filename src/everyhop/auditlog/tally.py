# SPDX-License-Identifier: Apache-2.0
"""Decisions added up: who did what, how often, from when to when, with one example each.

Bounded whatever is in the log: callers choose paths, so calls of no declared operation are told apart up to a limit for each
pair of caller and target, and groups up to a limit altogether; what is beyond is counted and not told apart.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from everyhop.auditlog.model import Kind, Moment, Point, Record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

MAX_GROUPS: Final = 5000
MAX_CALLS: Final = 20
"""Calls of no declared operation that are told apart, for each caller and target."""

_MAX_CALL_TEXT: Final = 300
_WOULD: Final = ("would", "would_reason", "would_rule")


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Decisions that are alike.

    ``call`` is ``METHOD /path`` (the path without its query) where there is no ``operation`` to name, and None also for
    those beyond the limit; ``user`` tells that the calls were made for users; ``example`` is the id of the newest.
    """

    point: str
    caller: str | None
    target: str | None
    operation: str | None
    call: str | None
    decision: str
    reason: str | None
    rule: str | None
    would: str | None
    would_reason: str | None
    would_rule: str | None
    user: bool
    count: int
    first: Moment
    last: Moment
    example: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a tally found; ``left_out`` counts decisions in groups beyond the limit.

    ``records_from`` is the time of the oldest decision that is kept at all, ``policy_from`` when the policy in force came
    into force; None where there is none.
    """

    since: Moment
    groups: list[Group]
    counted: int
    left_out: int
    records_from: Moment | None = None
    policy_from: Moment | None = None
    snapshot: str | None = None


@dataclass(slots=True)
class _Sum:
    first: datetime
    last: datetime
    example: str
    count: int = 0


_Key = tuple[
    str, str | None, str | None, str | None, str | None, str, str | None, str | None, str, str, str, bool
]


@dataclass(slots=True)
class Tally:
    """Adds decisions up.  Egress says nothing here that ingress does not, except what never arrives."""

    only_shadow: bool = False
    counted: int = 0
    left_out: int = 0
    _sums: dict[_Key, _Sum] = field(default_factory=dict)
    _calls: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)

    def take(self, records: Iterable[Record]) -> None:
        """Add records."""
        for record in records:
            if record.kind is Kind.DECISION and record.decision is not None:
                self._take(record)

    def groups(self) -> list[Group]:
        """Return the groups, those with the most decisions first."""
        ordered = sorted(self._sums.items(), key=lambda item: (-item[1].count, str(item[0])))
        return [_group(key, found) for key, found in ordered]

    def _take(self, record: Record) -> None:
        detail = record.detail
        would = reason = rule = ""
        if "would" in detail:  # seldom
            would, reason, rule = (str(detail.get(name) or "") for name in _WOULD)
        if self.only_shadow and not would:
            return
        if record.point is Point.EGRESS and record.decision == "allow":
            return  # the callee's record says what became of it
        if record.point is Point.CONTROL:
            return  # a question that was asked over AuthZEN, and no call
        if record.point is Point.SDK and record.decision == "deny":
            return  # a workload's own word, by which it could have a door of its suggested to anybody
        self.counted += 1
        key = (
            record.point.value,
            record.caller,
            record.target,
            record.operation,
            None if record.operation else _call(record),
            str(record.decision),
            record.reason,
            record.rule,
            would,
            reason,
            rule,
            "user" in detail,
        )
        found = self._sums.get(key)
        if found is None:
            found = self._new(key, record)
        if found is None:
            self.left_out += 1
            return
        found.count += 1
        found.first = min(found.first, record.time)
        if record.time >= found.last:
            found.last, found.example = record.time, record.id

    def _new(self, key: _Key, record: Record) -> _Sum | None:
        """Return a new group, or the one for all further calls, or None beyond the limit."""
        if key[4] is not None:
            pair = key[1], key[2]
            if self._calls[pair] >= MAX_CALLS:
                key = (*key[:4], None, *key[5:])
            else:
                self._calls[pair] += 1
        if key not in self._sums:
            if len(self._sums) >= MAX_GROUPS:
                return None
            self._sums[key] = _Sum(record.time, record.time, record.id)
        return self._sums[key]


def _call(record: Record) -> str | None:
    if record.method is None or record.path is None:
        return None
    return f"{record.method} {record.path.partition('?')[0]}"[:_MAX_CALL_TEXT]


def _group(key: _Key, found: _Sum) -> Group:
    return Group(
        point=key[0],
        caller=key[1],
        target=key[2],
        operation=key[3],
        call=key[4],
        decision=key[5],
        reason=key[6],
        rule=key[7],
        would=key[8] or None,
        would_reason=key[9] or None,
        would_rule=key[10] or None,
        user=key[11],
        count=found.count,
        first=found.first,
        last=found.last,
        example=found.example,
    )
