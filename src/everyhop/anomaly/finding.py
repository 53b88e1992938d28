# SPDX-License-Identifier: Apache-2.0
"""What a detector found, as it is written into the log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from everyhop.core.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable

    from everyhop.anomaly.model import Subject

MAX_EVIDENCE: Final = 16
"""Records that a finding names: the first ones, the last ones, and some between."""

MAX_TEXT: Final = 500
_MAX_ID: Final = 100
_CUT: Final = "…"
_ITS: Final = "SUBJECT"

Scalar = str | int | float | bool | None


class Severity(StrEnum):
    """How bad it is, in the words of OCSF (``severity_id`` 1 to 5)."""

    INFORMATIONAL = "informational"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def number(self) -> int:
        """Return OCSF's ``severity_id``."""
        return list(Severity).index(self) + 1


class Action(StrEnum):
    """What a detector asks for; whether it is done, the engine decides (:class:`Answer`)."""

    ALERT = "alert"
    BLOCK = "block"
    QUARANTINE = "quarantine"


class Answer(StrEnum):
    """What was done about a finding: the ``reason`` of its record."""

    ALERT = "alert"  # nothing but this record
    BLOCKED = "blocked"
    QUARANTINED = "quarantined"
    OBSERVED = "observed"  # it would have been blocked; the policy says to watch only
    EXEMPT = "exempt"  # it would have been blocked; the policy says never to
    HELD_BACK = "held-back"  # too many subjects at once would have been blocked: the breaker is open
    FAILED = "failed"  # blocking it failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found.

    ``detector`` is a stable code (``rate``, ``new-edge``); ``title`` one sentence for a person.  ``evidence`` are ids of records,
    ``count`` how many there were of them.  ``observed``, ``threshold`` and ``baseline`` say by what measure; ``unit`` of what.
    ``first`` and ``last`` are the times of the evidence (aware).  ``action`` is what the detector asks for, ``block_for`` for how
    long.  ``suggestion`` is a command or a line of policy that a person may want next.
    """

    detector: str
    severity: Severity
    subject: Subject
    title: str
    evidence: tuple[str, ...]
    first: datetime
    last: datetime
    observed: float
    threshold: float | None = None
    baseline: float | None = None
    unit: str = ""
    count: int = 0
    suggestion: str = ""
    action: Action = Action.ALERT
    block_for: timedelta | None = None
    target: str | None = None
    operation: str | None = None

    def to_record_detail(self) -> dict[str, Scalar]:
        """Return the ``detail`` of its record: bounded scalars, what says nothing left out.

        ``evidence`` is a text of ids with spaces between; ``severity`` and ``severity_id`` are OCSF's words and numbers;
        ``is_alert`` is True for all but informational findings.
        """
        evidence = [item[:_MAX_ID] for item in some_of(self.evidence)]
        # What is personal has its own members in a record, where a pseudonym can take its place.
        title, suggestion = (text.replace(self.subject.value, _ITS) for text in (self.title, self.suggestion))
        shown: dict[str, Scalar] = {
            "title": _cut(title),
            "severity": self.severity.value,
            "severity_id": self.severity.number,
            "is_alert": self.severity is not Severity.INFORMATIONAL,
            "subject": str(self.subject),
            "subject_kind": self.subject.kind.value,
            "action": self.action.value,
            "observed": self.observed,
            "threshold": self.threshold,
            "baseline": self.baseline,
            "unit": _cut(self.unit) or None,
            "count": self.count or len(self.evidence),
            "evidence": " ".join(evidence) or None,
            "first": rfc3339(self.first),
            "last": rfc3339(self.last),
            "suggestion": _cut(suggestion) or None,
            "block_seconds": None if self.block_for is None else int(self.block_for.total_seconds()),
        }
        return {name: value for name, value in shown.items() if value is not None}


def some_of(ids: Iterable[str], limit: int = MAX_EVIDENCE) -> tuple[str, ...]:
    """Return at most ``limit`` ids (an even number): the first half from the beginning, the rest from the end."""
    every = tuple(ids)
    if len(every) <= limit:
        return every
    return (*every[: limit // 2], *every[-(limit - limit // 2) :])


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + _CUT
