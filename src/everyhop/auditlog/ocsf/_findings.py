# SPDX-License-Identifier: Apache-2.0
"""Findings of detectors as Detection Finding (2004)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from everyhop.auditlog.ocsf import _common as common
from everyhop.auditlog.ocsf.classes import DetectionFinding
from everyhop.auditlog.ocsf.objects import Analytic, Evidence, FindingInfo, RelatedEvent, given
from everyhop.auditlog.ocsf.values import (
    Action,
    AnalyticType,
    Disposition,
    FindingId,
    FindingStatus,
    Severity,
)
from everyhop.core.clock import parse_rfc3339

if TYPE_CHECKING:
    from everyhop.auditlog.model import Record

_SEVERITIES: Final = {
    "info": Severity.INFORMATIONAL,
    "informational": Severity.INFORMATIONAL,
    "low": Severity.LOW,
    "medium": Severity.MEDIUM,
    "high": Severity.HIGH,
    "critical": Severity.CRITICAL,
}
_MAX_EVIDENCE: Final = 100


def detection_finding(record: Record, place: common.Place) -> DetectionFinding:
    """Return the event of a finding; ``detail.evidence`` holds ids of records, with spaces between them."""
    detector = record.operation or common.UNKNOWN
    title = common.text_of(record, "title") or detector
    told = (common.text_of(record, "evidence") or "").replace(",", " ").split()
    subject = record.caller or common.UNKNOWN
    severity = _SEVERITIES.get((common.text_of(record, "severity") or "").lower(), Severity.MEDIUM)
    action, disposition = _control(record)
    return DetectionFinding(
        **common.base(
            record,
            place,
            class_uid=DetectionFinding.class_uid,
            activity=FindingId.CREATE,
            severity=severity,
            message=f"{title}: {subject}",
            profiles=("security_control",),
        ),
        activity_id=FindingId.CREATE,
        status_id=FindingStatus.NEW,
        is_alert=True,
        action_id=action,
        disposition_id=disposition,
        finding_info=FindingInfo(
            uid=record.id,
            title=title,
            desc=given(common.text_of(record, "suggestion")),
            analytic=Analytic(name=detector, uid=detector, type_id=AnalyticType.BEHAVIORAL),
            created_time=common.millis(record.time),
            first_seen_time=given(_moment(record, "first")),
            last_seen_time=given(_moment(record, "last")),
            related_events=tuple(RelatedEvent(uid=uid) for uid in told[:_MAX_EVIDENCE]) or UNSET,
            related_events_count=len(told) or UNSET,
        ),
        evidences=(
            Evidence(
                data={"subject": subject, **record.detail},
                user=common.user_of(subject.partition(":")[2] or subject),
            ),
        ),
        unmapped=common.left_over(record, without=tuple(record.detail)),
    )


def _control(record: Record) -> tuple[Action, Disposition]:
    match record.reason:
        case "blocked":
            return Action.DENIED, Disposition.BLOCKED
        case "quarantined":
            return Action.DENIED, Disposition.QUARANTINED
        case _:
            return Action.OBSERVED, Disposition.ALERT


def _moment(record: Record, name: str) -> int | None:
    """Return a moment of ``detail`` in milliseconds; None where it is none."""
    text = common.text_of(record, name)
    try:
        return None if text is None else common.millis(parse_rfc3339(text))
    except (ValueError, OverflowError):
        return None
