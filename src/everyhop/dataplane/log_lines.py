# SPDX-License-Identifier: Apache-2.0
"""Lines of a sidecar's access log into records.

The line is Envoy's, but much in it was chosen by a caller: method, path, host.  So each field has a type and
a bound, and a decision id counts only when Envoy itself has set it (it has once a route was found: ours are
written before that, and whatever a caller sent under that name is gone by then).  Every line gives exactly
one record, also one that cannot be read: the numbers have no gaps.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from everyhop.anomaly.model import SubjectKind
from everyhop.auditlog.model import MAX_NAME, MAX_PATH, Kind, Point, Record, Scalar, clip
from everyhop.auditlog.preparing import prepared
from everyhop.auditlog.trace import trace_of
from everyhop.core.decision import Reason
from everyhop.dataplane import _names as names
from everyhop.dataplane.asked_log import ASKED, asked_record
from everyhop.dataplane.gap_lines import GAP_LINE, gap_line_record
from everyhop.dataplane.local_replies import (
    AMBIGUOUS_DETAILS,
    BLOCKED,
    CHECK_FAILED,
    CHECK_REFUSED,
    CHECK_UNAVAILABLE,
    REFUSED_BY,
    TOKEN_UNAVAILABLE,
)
from everyhop.policy.access import TCP

MAX_LINE_BYTES: Final = 64 * 1024
_NAMESPACE: Final = uuid.UUID("6f0d1a0e-2f5b-5c55-9d3a-0a1f3c1b7e52")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_VERDICT: Final = re.compile(
    r"([0-9a-f]{16})\|([a-z-]{1,40})(?:\+[a-zA-Z]{1,4})?\|([\x21-\x7e]{1,300})", re.ASCII
)
_CODE: Final = re.compile(r"[A-Z][A-Z_]{1,40}", re.ASCII)
_HASHED: Final = re.compile(r"([0-9a-f]{64})\|([\x20-\x7e]{0,100})", re.ASCII)
_WHY: Final = re.compile(
    r"([a-z-]{1,40})\|([\x21-\x7b\x7d\x7e]{1,300})\|(?:(allow|deny)\|([a-z-]{1,40})\|([\x21-\x7b\x7d\x7e]{1,300})|\|\|)\|"
    r"(.{0,1000})",
    re.ASCII | re.DOTALL,
)
_ALLOWING: Final = frozenset({Reason.ALLOWED, Reason.PROBE, Reason.SHADOWED, Reason.APPLICATION_DECIDES})
_TUNNEL_OPEN: Final = frozenset({"DownstreamTunnelSuccessfullyEstablished", "TcpUpstreamConnected"})
_TUNNEL_STATUS: Final = {"CONNECT": 200}
_SWITCHING: Final = 101
_PROXY_AUTHENTICATION: Final = 407
_UNAVAILABLE: Final = 503

DECLARED: Final = "declared"  # egress: the policy knows this destination for this caller
UNDECLARED: Final = "undeclared-destination"
NO_PROXY_SECRET: Final = "no-proxy-secret"  # noqa: S105  # a reason
UNTRUSTED_SERVER: Final = "untrusted-server"  # the other side did not show exactly the declared identity
AMBIGUOUS_HOST: Final = "ambiguous-host"
MALFORMED: Final = "malformed-request"
TIMEOUT: Final = "timeout"
UNREADABLE: Final = "unreadable-line"
CLOSED: Final = "connection-closed"
UNTRUSTED_CLIENT: Final = "untrusted-client"  # no certificate, or none that is believed: the handshake failed


class LogLine(msgspec.Struct, frozen=True, kw_only=True, rename={"received": "in", "sent": "out"}):
    """One line as Envoy writes it; see :mod:`everyhop.dataplane.access_log`."""

    kind: str
    time: datetime
    type: str | None = None
    caller: str | None = None
    target: str | None = None
    host: str | None = None
    verdict: str | None = None
    operation: str | None = None
    route: str | None = None
    id: str | None = None
    method: str | None = None
    path: str | None = None
    status: int | None = None
    detail: str | None = None
    user: str | None = None
    key: str | None = None
    code: str | None = None
    why: str | None = None
    trace: str | None = None
    failure: str | None = None
    flags: str | None = None
    ms: float | None = None
    received: int | None = None
    sent: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What a line says was decided."""

    allowed: bool
    reason: str
    target: str | None
    rule: str | None = None
    snapshot: str | None = None
    operation: str | None = None
    detail: dict[str, Scalar] = field(default_factory=dict)


_decoder: Final = msgspec.json.Decoder(LogLine)


def record_of(line: bytes, *, instance: str, seq: int) -> Record:
    """Return the record of one line (without its newline); never raises on any bytes.

    ``seq`` is the number of the line in all that this instance ever wrote.
    """
    try:
        if len(line) > MAX_LINE_BYTES:
            raise ValueError("too long")
        parsed = _decoder.decode(line)
        if parsed.time.tzinfo is None:
            raise ValueError("a time without a zone")
        if parsed.kind == ASKED:  # ours: Envoy writes its kinds as constants
            return prepared(asked_record(line, instance=instance, seq=seq))
        if parsed.kind == GAP_LINE:
            return gap_line_record(line, instance=instance, seq=seq)
        return prepared(_record(parsed, instance, seq))
    except (ValueError, msgspec.MsgspecError, RecursionError):
        unread = Record(
            id=derived_id(instance, seq),
            seq=seq,
            producer=instance,
            time=datetime.now(UTC),
            kind=Kind.LIFECYCLE,
            point=Point.INGRESS,
            reason=UNREADABLE,
            instance=instance,
            detail={"bytes": len(line), "start": clip(repr(line[:200]), 400)},
        )
        return prepared(unread)


def derived_id(instance: str, seq: int) -> str:
    """Return the id of a record that has none of its own: the same for the same line, always."""
    return str(uuid.uuid5(_NAMESPACE, f"{instance}/{seq}"))


def _record(line: LogLine, instance: str, seq: int) -> Record:
    outcome = _OUTCOMES.get(line.kind, _egress)(line)
    is_end = _ends_tunnel(line)
    is_tcp = line.kind == "tcp-out" or outcome.operation == TCP or line.method == "CONNECT"
    has_own = (line.route or line.verdict) and not is_end  # from here on the id is Envoy's
    own = line.id if has_own and line.id and _UUID.fullmatch(line.id) else None
    common: dict[str, Any] = {
        "id": own or derived_id(instance, seq),
        "seq": seq,
        "producer": instance,
        "time": line.time,
        "point": _POINTS.get(line.kind, Point.EGRESS),
        "caller": _text(line.caller),
        "target": _text(outcome.target),
        "operation": _text(outcome.operation),
        "snapshot": outcome.snapshot,
        "status": line.status if line.status is not None and 0 <= line.status <= 999 else None,  # noqa: PLR2004
        "latency_ms": line.ms if line.ms is not None and line.ms >= 0 else None,
        "instance": instance,
        "trace": trace_of(line.trace),
        "detail": _detail(line) | outcome.detail,
    }
    if own and line.user:
        common["detail"]["user"] = clip(line.user, 256)
    if own and line.key:
        common["detail"]["api_key"] = clip(line.key, MAX_NAME)
    if not is_tcp:
        common["method"] = clip(line.method, MAX_NAME) if line.method else None
        common["path"] = None if line.path is None else clip(line.path, MAX_PATH)
    if is_end:
        if line.id and _UUID.fullmatch(line.id):
            common["detail"]["decision"] = line.id
        return Record(kind=Kind.LIFECYCLE, reason=CLOSED, **common)
    return Record(
        kind=Kind.DECISION,
        decision="allow" if outcome.allowed else "deny",
        rule=outcome.rule,
        reason=outcome.reason,
        **common,
    )


def _ingress(line: LogLine) -> _Outcome:
    route = _HASHED.fullmatch(line.route or "")
    match = _VERDICT.fullmatch(line.verdict or "")
    if match is None:
        snapshot = route[1] if route else None
        return _Outcome(allowed=False, reason=_early_reason(line), target=line.target, snapshot=snapshot)
    short, reason, rule = match.groups()
    if reason == Reason.BLOCKED:
        return _blocked(
            line, snapshot=route[1] if route is not None and route[1].startswith(short) else short
        )
    operation = line.operation or names.NOTHING
    if operation.startswith(names.STRANGER):
        operation = operation.removeprefix(names.STRANGER)
        if reason == Reason.NO_RULE:
            reason = Reason.UNKNOWN_CALLER
    allowed = reason in _ALLOWING
    if allowed and line.detail == "direct_response":
        allowed, reason = False, AMBIGUOUS_HOST
    elif allowed and line.detail == CHECK_REFUSED:
        allowed, reason = False, line.code if _CODE.fullmatch(line.code or "") else CHECK_REFUSED
    elif allowed and line.detail == CHECK_FAILED:
        allowed, reason = False, CHECK_UNAVAILABLE
    decided = _WHY.fullmatch(line.why or "")
    snapshot = route[1] if route is not None and route[1].startswith(short) else short
    found = None if operation == names.NOTHING else operation
    detail: dict[str, Scalar] = {}
    if decided is not None and line.detail not in {"direct_response", CHECK_FAILED}:
        # The policy's filter knew what may decide; the agent knew the facts, and what they decided.
        reason, rule = decided[1], decided[2]
        if reason == Reason.BLOCKED:
            return replace(_blocked(line, snapshot=snapshot, who=decided[6]), operation=found)
        shown = {
            "would": decided[3],
            "would_reason": decided[4],
            "would_rule": decided[5],
            "facts": decided[6],
        }
        detail = {key: value for key, value in shown.items() if value and value != names.NOTHING}
    return _Outcome(
        allowed=allowed,
        reason=str(reason),
        target=line.target,
        detail=detail,
        rule=None if rule == names.NOTHING else rule,
        snapshot=snapshot,
        operation=found,
    )


def _blocked(line: LogLine, *, snapshot: str | None, who: str = "") -> _Outcome:
    """Return what is said of a call whose caller, user, key or address is blocked; ``who`` is the agent's word for it.

    Without one it was Envoy, which knows the identity of a peer, and at an edge its address.
    """
    kind, _, value = who.partition(" ")
    if not who:
        is_edge = line.kind == "edge"
        kind, value = (
            (SubjectKind.ADDRESS, line.host or "") if is_edge else (SubjectKind.IDENTITY, line.caller or "")
        )
    else:
        value = unquote(value)
    detail: dict[str, Scalar] = {"block": clip(f"{kind}:{value}")}
    if kind == SubjectKind.USER:
        detail = {"block": kind, "user": clip(value, 256)}
    if kind == SubjectKind.API_KEY:
        detail["api_key"] = clip(value, MAX_NAME)
    return _Outcome(
        allowed=False, reason=Reason.BLOCKED.value, target=line.target, snapshot=snapshot, detail=detail
    )


def _handshake(line: LogLine) -> _Outcome:
    return _Outcome(allowed=False, reason=UNTRUSTED_CLIENT, target=line.target)


_OUTCOMES: Final = {"in": _ingress, "edge": _ingress, "tls": _handshake, "edge-tls": _handshake}
_POINTS: Final = {"in": Point.INGRESS, "tls": Point.INGRESS, "edge": Point.EDGE, "edge-tls": Point.EDGE}


def _early_reason(line: LogLine) -> str:
    """Return why a request was refused before the policy was asked."""
    detail = line.detail or ""
    if detail in AMBIGUOUS_DETAILS:
        return Reason.AMBIGUOUS_PATH.value
    if detail == "upgrade_failed":
        return Reason.UNKNOWN_OPERATION.value
    return TIMEOUT if "timeout" in detail else MALFORMED


def _egress(line: LogLine) -> _Outcome:
    route = _HASHED.fullmatch(line.route or "")
    snapshot, target = (route[1], route[2]) if route else (None, line.target or "")
    untrusted = "CERTIFICATE_VERIFY_FAILED" in (line.failure or "")
    if _is_blocked_here(line) or (line.detail == CHECK_REFUSED and line.code == BLOCKED):
        return replace(_blocked(line, snapshot=snapshot), target=target or line.host or None)
    if line.status == _PROXY_AUTHENTICATION and line.detail != "via_upstream":
        reason = NO_PROXY_SECRET
    elif untrusted:
        reason = UNTRUSTED_SERVER
    elif route is None and line.kind != "tcp-out":
        reason = _early_reason(line)
    elif not target:
        reason = UNDECLARED
    elif line.detail == CHECK_REFUSED:
        reason = line.code if line.code and _CODE.fullmatch(line.code) else CHECK_REFUSED
    elif line.detail == CHECK_FAILED or (line.status == _UNAVAILABLE and line.detail == "direct_response"):
        reason = TOKEN_UNAVAILABLE
    elif line.detail in {"direct_response", "upgrade_failed"}:
        reason = Reason.WRONG_PROTOCOL.value
    else:
        reason = DECLARED
    return _Outcome(
        allowed=reason == DECLARED, reason=reason, target=target or line.host or None, snapshot=snapshot
    )


def _is_blocked_here(line: LogLine) -> bool:
    """Tell whether this egress refused its own workload because that is blocked."""
    detail = line.detail or ""
    return detail.startswith(REFUSED_BY) and f"|{Reason.BLOCKED.value}|" in detail


def _ends_tunnel(line: LogLine) -> bool:
    """Tell whether this is the second line of what stayed open: its decision was recorded when it opened."""
    if line.kind in {"tls", "edge-tls"}:
        return False
    if line.type in _TUNNEL_OPEN:
        return False
    if line.kind == "tcp-out":
        return bool(line.received or line.sent) or line.flags in {"-", None}
    return line.status == _SWITCHING or _TUNNEL_STATUS.get(line.method or "") == line.status


def _detail(line: LogLine) -> dict[str, Scalar]:
    shown: dict[str, Scalar] = {
        "detail": line.detail,
        "flags": line.flags if line.flags != "-" else None,
        "failure": line.failure,
        "host": line.host,
        "bytes_received": line.received,
        "bytes_sent": line.sent,
    }
    return {key: clip(v, 512) if isinstance(v, str) else v for key, v in shown.items() if v is not None}


def _text(value: str | None) -> str | None:
    return None if value is None else clip(value)
