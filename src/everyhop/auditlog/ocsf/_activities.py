# SPDX-License-Identifier: Apache-2.0
"""Decisions, owners' reads and application events as API Activity (6003)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from everyhop.auditlog.model import Kind, Point
from everyhop.auditlog.ocsf import _common as common
from everyhop.auditlog.ocsf.classes import ApiActivity
from everyhop.auditlog.ocsf.objects import (
    Api,
    ApiRequest,
    ApiResponse,
    Authorization,
    HttpRequest,
    HttpResponse,
    Policy,
    Service,
    Span,
    Trace,
    Url,
    given,
)
from everyhop.auditlog.ocsf.values import (
    HTTP_METHODS,
    Action,
    ApiActivityId,
    Disposition,
    Severity,
    Status,
)
from everyhop.auditlog.trace import parted
from everyhop.core.decision import Reason

if TYPE_CHECKING:
    from everyhop.auditlog.model import Record

_BY_METHOD: Final = {
    "GET": ApiActivityId.READ,
    "HEAD": ApiActivityId.READ,
    "POST": ApiActivityId.CREATE,
    "PUT": ApiActivityId.UPDATE,
    "PATCH": ApiActivityId.UPDATE,
    "DELETE": ApiActivityId.DELETE,
}
_BY_OUTCOME: Final = {"success": Status.SUCCESS, "failure": Status.FAILURE, "denied": Status.FAILURE}
_SHADOW: Final = ("would", "would_reason", "would_rule")
_MAX_LATENCY: Final = 2**53


def api_activity(record: Record, place: common.Place) -> ApiActivity:
    """Return the event of a call, a connection, a question, or what somebody did."""
    activity, name = _activity(record)
    decision_id = _decision_id(record)
    observed = record.reason == Reason.SHADOWED
    is_decided = record.decision is not None
    profiles = (*(("security_control",) if is_decided else ()), *(("trace",) if record.trace else ()))
    action, disposition = _outcome(record, observed=observed)
    response = _response(record)
    return ApiActivity(
        **common.base(
            record,
            place,
            class_uid=ApiActivity.class_uid,
            activity=activity,
            severity=_severity(record),
            message=_message(record),
            correlation=decision_id,
            profiles=profiles,
        ),
        activity_id=activity,
        activity_name=given(name),
        actor=common.actor_of(record),
        api=Api(
            operation=record.operation or record.method or "connect",
            service=UNSET if record.target is None else Service(name=record.target),
            request=UNSET if decision_id is None else ApiRequest(uid=decision_id),
            response=UNSET if response is None else response,
        ),
        src_endpoint=common.source_of(record),
        dst_endpoint=given(common.destination_of(record)),
        http_request=given(_http_request(record, decision_id)),
        http_response=UNSET
        if record.status is None
        else HttpResponse(code=record.status, latency=given(_latency(record))),
        trace=given(_trace(record)),
        status_id=_status(record),
        action_id=given(action),
        disposition_id=given(disposition),
        authorizations=_authorizations(record, observed=observed) or UNSET,
        observables=common.observables_of(record),
        unmapped=common.left_over(
            record,
            *(("method",) if record.method in HTTP_METHODS else ()),
            *(("rule", "snapshot") if is_decided else ()),
            *("target", "path", "operation", "status", "trace"),
            without=_SHADOW if is_decided else (),
        ),
    )


def _activity(record: Record) -> tuple[ApiActivityId, str | None]:
    if record.kind is Kind.LOG:
        return ApiActivityId.READ, None
    found = _BY_METHOD.get(record.method or "")
    if found is not None:
        return found, None
    return ApiActivityId.OTHER, record.method or record.operation or record.reason or "connect"


def _status(record: Record) -> Status:
    if record.kind is Kind.APPLICATION:  # what the application says came of it
        return _BY_OUTCOME.get(str(record.detail.get("outcome")), Status.UNKNOWN)
    return common.status_of(record)


def _decision_id(record: Record) -> str | None:
    """Return the id by which all records of a call are found: what the caller was shown."""
    if (said := common.text_of(record, "decision")) is not None:
        return said
    return record.id if record.kind is Kind.DECISION else None


def _outcome(record: Record, *, observed: bool) -> tuple[Action | None, Disposition | None]:
    if observed:
        return Action.OBSERVED, Disposition.LOGGED
    if record.decision == "allow":
        return Action.ALLOWED, Disposition.ALLOWED
    if record.decision == "deny":
        is_ours = record.reason == Reason.CONDITION_ERROR
        return Action.DENIED, Disposition.ERROR if is_ours else Disposition.BLOCKED
    return None, None


def _severity(record: Record) -> Severity:
    if record.decision != "deny":
        return Severity.INFORMATIONAL
    return Severity.MEDIUM if record.reason == Reason.BLOCKED else Severity.LOW


def _authorizations(record: Record, *, observed: bool) -> tuple[Authorization, ...]:
    """Return what the policy in force decided, and behind it what one that is only watched would have."""
    if record.decision is None:
        return ()
    found = [_authorization(record.decision, record.rule, record.snapshot, is_applied=not observed)]
    would = common.text_of(record, "would")
    if would is not None:
        found.append(
            _authorization(would, common.text_of(record, "would_rule"), record.snapshot, is_applied=False)
        )
    return tuple(found)


def _authorization(
    decision: str, rule: str | None, snapshot: str | None, *, is_applied: bool
) -> Authorization:
    if rule is None and snapshot is None:
        return Authorization(decision=decision)
    policy = Policy(uid=given(snapshot), name=given(rule), is_applied=is_applied)
    return Authorization(decision=decision, policy=policy)


def _response(record: Record) -> ApiResponse | None:
    error = record.reason if record.decision == "deny" else None
    if record.status is None and error is None:
        return None
    return ApiResponse(code=given(record.status), error=given(error))


def _http_request(record: Record, decision_id: str | None) -> HttpRequest | None:
    if record.method is None and record.path is None:
        return None
    return HttpRequest(
        http_method=given(record.method if record.method in HTTP_METHODS else None),
        url=UNSET if not record.path else Url(path=record.path),
        uid=given(decision_id),
    )


def _latency(record: Record) -> int | None:
    value = record.latency_ms
    return round(value) if value is not None and 0 <= value < _MAX_LATENCY else None


def _trace(record: Record) -> Trace | None:
    ids = None if record.trace is None else parted(record.trace)
    if ids is None:
        return None
    start = common.millis(record.time)
    return Trace(
        uid=ids[0], span=Span(uid=ids[1], start_time=start, end_time=start + (_latency(record) or 0))
    )


def _message(record: Record) -> str:
    who = (record.caller or common.UNKNOWN).rpartition("/")[2] or common.UNKNOWN
    what = (
        record.operation or " ".join(part for part in (record.method, record.path) if part) or "a connection"
    )
    whom = f" of {record.target}" if record.target else ""
    why = f" ({record.reason})" if record.reason else ""
    verb = record.decision or ("asked about" if record.point is Point.CONTROL else record.kind.value)
    return f"{verb}: {who}, {what}{whom}{why}"
