# SPDX-License-Identifier: Apache-2.0
"""Questions to the audit log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from everyhop.auditlog.model import Kind, Record

MAX_PAGE: Final = 1000


class Order(StrEnum):
    """Which end to begin at."""

    NEWEST = "newest"
    OLDEST = "oldest"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFilter:
    """What to look for; a field that is None does not narrow.

    ``service`` is the target; ``since`` is inclusive, ``until`` exclusive, both aware.  ``decision`` is ``allow`` or
    ``deny``; ``denied`` is the short way to say the latter.
    """

    service: str | None = None
    caller: str | None = None
    decision: str | None = None
    rule: str | None = None
    kind: Kind | None = None
    since: datetime | None = None
    until: datetime | None = None
    denied: bool = False
    user: str | None = None
    address: str | None = None

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
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Records in the order asked for.

    ``first`` and ``last`` are the positions of the outermost ones (None on an empty page).  To read on, pass ``last``
    as the cursor; to follow a log that grows, pass the newest position with ``Order.OLDEST`` (0 is before everything).
    ``more`` tells whether there was at least one further record.
    """

    records: tuple[Record, ...]
    first: int | None
    last: int | None
    more: bool
