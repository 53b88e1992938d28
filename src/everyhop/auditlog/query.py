# SPDX-License-Identifier: Apache-2.0
"""Questions to the audit log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from everyhop.auditlog.addresses import canonical_address
from everyhop.auditlog.model import Kind, Point, Record

MAX_PAGE: Final = 1000


class Order(StrEnum):
    """Which end to begin at."""

    NEWEST = "newest"
    OLDEST = "oldest"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFilter:
    """What to look for; a field that is None, or empty, does not narrow.

    ``service`` is the target; ``since`` is inclusive, ``until`` exclusive, both aware.  ``decision`` is ``allow`` or
    ``deny``; ``denied`` is the short way to say the latter.  ``user`` and ``address`` are as records hold them: pseudonyms,
    where those are on.  ``id_prefix`` is the beginning of a record's id, ``api_key`` the public part of one.
    """

    service: str | None = None
    caller: str | None = None
    decision: str | None = None
    rule: str | None = None
    kind: Kind | None = None
    since: datetime | None = None
    until: datetime | None = None
    denied: bool = False
    kinds: frozenset[Kind] = frozenset()
    user: str | None = None
    operation: str | None = None
    reason: str | None = None
    point: Point | None = None
    api_key: str | None = None
    address: str | None = None
    id_prefix: str | None = None

    def matches(self, record: Record) -> bool:
        """Tell whether a record is looked for; stores give the same answer with their own means."""
        wanted_decision = "deny" if self.denied else self.decision
        return (
            (self.service is None or record.target == self.service)
            and (self.caller is None or record.caller == self.caller)
            and (wanted_decision is None or record.decision == wanted_decision)
            and (self.rule is None or record.rule == self.rule)
            and (self.kind is None or record.kind is self.kind)
            and (self.since is None or record.time >= self.since)
            and (self.until is None or record.time < self.until)
            and (not self.kinds or record.kind in self.kinds)
            and (self.user is None or record.detail.get("user") == self.user)
            and (self.id_prefix is None or record.id.startswith(self.id_prefix))
            and self._matches_within(record)
        )

    @property
    def looks_within(self) -> bool:
        """Tell whether it asks for something that has no column of its own."""
        return bool(self.operation or self.reason or self.point or self.api_key or self.address)

    def _matches_within(self, record: Record) -> bool:
        return (
            (self.operation is None or record.operation == self.operation)
            and (self.reason is None or record.reason == self.reason)
            and (self.point is None or record.point is self.point)
            and (self.api_key is None or record.detail.get("api_key") == self.api_key)
            and (self.address is None or _has_address(record, self.address))
        )


def _has_address(record: Record, address: str) -> bool:
    for name in ("host", "source"):
        found = record.detail.get(name)
        if isinstance(found, str) and (found == address or canonical_address(found) == address):
            return True
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Records in the order asked for.

    ``first`` and ``last`` are the positions of the outermost ones (None on an empty page).  To read on, pass ``last``
    as the cursor; to follow a log that grows, pass the newest position with ``Order.OLDEST`` (0 is before everything).
    ``more`` tells whether there was at least one further record, ``positions`` where each one stands.
    """

    records: tuple[Record, ...]
    first: int | None
    last: int | None
    more: bool
    positions: tuple[int, ...] = ()
