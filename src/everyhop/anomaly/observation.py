# SPDX-License-Identifier: Apache-2.0
"""What detectors see of a record: who did what, how it ended, and whom it may be held against.

A record names people and services for many reasons; only some of them prove who acted.  ``subjects`` holds those whose
doing this provably was, so nothing that a stranger can say fills another's counter: a failed authentication counts
against the address that it came from, never against the name that was claimed; a workload's own word (``sdk``) and a
question (``control``) count against nobody; what a user may not do counts against the user and not against the service
that called for it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Protocol

import msgspec

from everyhop.anomaly.model import MAX_VALUE, Subject, SubjectKind
from everyhop.core.decision import Reason
from everyhop.core.errors import InputError

Scalar = str | int | float | bool | None


class Outcome(StrEnum):
    """How a call ended.  Every refusal is exactly one of them."""

    ALLOWED = "allowed"
    DENIED = "denied"  # known, and not permitted
    FAILED = (
        "failed"  # an authentication that failed: a credential that is not believed, or none where one is due
    )
    UNDECLARED = "undeclared"  # no such operation or destination is declared
    AMBIGUOUS = "ambiguous"  # more than one reading, or none: HTTP status 400
    FAULT = "fault"  # ours, or the other side's: not to be held against anybody


class Recorded(Protocol):
    """What is read of a record (:class:`everyhop.auditlog.Record` has it)."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def time(self) -> datetime: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def point(self) -> str: ...  # noqa: D102
    @property
    def caller(self) -> str | None: ...  # noqa: D102
    @property
    def target(self) -> str | None: ...  # noqa: D102
    @property
    def operation(self) -> str | None: ...  # noqa: D102
    @property
    def method(self) -> str | None: ...  # noqa: D102
    @property
    def path(self) -> str | None: ...  # noqa: D102
    @property
    def decision(self) -> str | None: ...  # noqa: D102
    @property
    def rule(self) -> str | None: ...  # noqa: D102
    @property
    def reason(self) -> str | None: ...  # noqa: D102
    @property
    def snapshot(self) -> str | None: ...  # noqa: D102
    @property
    def status(self) -> int | None: ...  # noqa: D102
    @property
    def instance(self) -> str | None: ...  # noqa: D102
    @property
    def detail(self) -> Mapping[str, Scalar]: ...  # noqa: D102


_NOTHING: Final[Mapping[str, Scalar]] = MappingProxyType({})


class Observation(
    msgspec.Struct, frozen=True, kw_only=True
):  # made for every record: a dataclass takes ten times as long
    """One record as detectors see it.

    ``kind`` and ``point`` are those of the record; ``time`` is its own time (aware), which may lie well behind the clock.
    ``subjects`` are those it is held against, each at most once; ``caller``, ``user``, ``api_key`` and ``address`` are what
    the record says, proven or not.  ``address`` is a plain address or the /64 of an IPv6 one; ``jti`` the token's name
    where known.  ``detail`` is the rest of the record, for detectors that know more of it.
    """

    record: str
    time: datetime
    kind: str
    point: str
    outcome: Outcome
    subjects: tuple[Subject, ...] = ()
    caller: str | None = None
    target: str | None = None
    operation: str | None = None
    method: str | None = None
    path: str | None = None
    reason: str | None = None
    rule: str | None = None
    snapshot: str | None = None
    instance: str | None = None
    user: str | None = None
    api_key: str | None = None
    address: str | None = None
    jti: str | None = None
    detail: Mapping[str, Scalar] = _NOTHING

    @property
    def is_call(self) -> bool:
        """Tell whether an enforcement point saw a call, other than a question or somebody's word."""
        return self.kind == _DECISION and self.point in _CALLS


_DECISION: Final = "decision"
_TOKEN: Final = "token"  # noqa: S105  # a kind of record
_SEEN: Final = frozenset({_DECISION, _TOKEN, "identity", "application"})
_INGRESS: Final = "ingress"
_EGRESS: Final = "egress"
_EDGE: Final = "edge"
_CALLS: Final = frozenset({_INGRESS, _EGRESS, _EDGE})
_TOO_MANY: Final = 429
_BLOCKED: Final = Reason.BLOCKED.value

# The codes of records, as producers write them (dataplane.log_lines, tokens.codes, control.external_decisions).
_UNDECLARED: Final = frozenset(
    {Reason.UNKNOWN_OPERATION, Reason.UNKNOWN_SERVICE, Reason.WRONG_PROTOCOL, "undeclared-destination"}
)
_AMBIGUOUS: Final = frozenset(
    {Reason.AMBIGUOUS_PATH, "ambiguous-host", "malformed-request", "malformed-question"}
)
_NO_SECRET: Final = "no-proxy-secret"  # noqa: S105  # a reason
_FAILED: Final = frozenset(
    {
        *(
            "untrusted-client",
            _NO_SECRET,
            "MISSING_TOKEN",
            "TOKEN_MALFORMED",
            "TOKEN_INVALID",
            "TOKEN_EXPIRED",
        ),
        *("UNKNOWN_KEY_ID", "UNAUTHORIZED_ISSUER", "AUDIENCE_MISMATCH", "BINDING_MISMATCH", "TOKEN_REPLAYED"),
        "TOKEN_REVOKED",
    }
)
_FAULTS: Final = frozenset(
    {
        *("timeout", "overloaded", "check-failed", "ext_authz_denied", "untrusted-server", "unreadable-line"),
        *("CHECK_UNAVAILABLE", "TOKEN_UNAVAILABLE"),
    }
)
_OF_THE_USER: Final = frozenset({Reason.USER_NOT_PERMITTED, Reason.USER_REQUIRED, "USER_REQUIRED"})
_CONDITIONS: Final = frozenset({Reason.CONDITION_FALSE, Reason.CONDITION_ERROR})
_OF_THE_ASKER: Final = frozenset(
    {"access_denied", "invalid_target", "invalid_scope", "unauthorized_client", "unsupported_grant_type"}
)


def observe(record: Recorded) -> Observation | None:
    """Return what detectors see of a record; None for one that is no act of anybody outside.

    That is: findings, responses, what the log says of itself, lives of keys, policies and processes, and calls refused for a
    block (reason ``blocked``), which must not lengthen it.  Total: never raises, whatever the texts of a record hold.
    """
    if record.kind not in _SEEN or record.reason == _BLOCKED:
        return None
    if record.point == _EGRESS and record.decision == "allow":
        return None  # what became of it, the other side's record says
    detail = record.detail
    outcome = _outcome(record)
    user, api_key = _text(detail.get("user")), _text(detail.get("api_key"))
    address = None
    if record.point != _EGRESS:  # there, ``host`` is the name of the destination
        address = address_of(_text(detail.get("host")) or _text(detail.get("source")))
    return Observation(
        record=record.id,
        time=record.time,
        kind=str(record.kind),
        point=str(record.point),
        outcome=outcome,
        subjects=_subjects(record, outcome, user, api_key, address),
        caller=record.caller,
        target=record.target,
        operation=record.operation,
        method=record.method,
        path=record.path,
        reason=record.reason,
        rule=record.rule,
        snapshot=record.snapshot,
        instance=record.instance,
        user=user,
        api_key=api_key,
        address=address,
        jti=_text(detail.get("jti")),
        detail=detail,
    )


def _outcome(record: Recorded) -> Outcome:
    if record.decision != "deny":
        return Outcome.ALLOWED
    reason = record.reason or ""
    if record.kind == _TOKEN:
        return _token_outcome(record)
    if reason in _UNDECLARED:
        return Outcome.UNDECLARED
    if reason in _FAILED:
        return Outcome.FAILED
    if reason in _AMBIGUOUS:
        return Outcome.AMBIGUOUS
    return Outcome.FAULT if reason in _FAULTS or record.status == _TOO_MANY else Outcome.DENIED


def _token_outcome(record: Recorded) -> Outcome:
    """Judge a token that was not issued: the code of what was presented, else the word of OAuth."""
    error = record.detail.get("error")
    if record.detail.get("code") in _FAILED or error == "invalid_client":
        return Outcome.FAILED
    return Outcome.FAULT if error in {"temporarily_unavailable", "server_error"} else Outcome.DENIED


def _subjects(
    record: Recorded, outcome: Outcome, user: str | None, api_key: str | None, address: str | None
) -> tuple[Subject, ...]:
    """Return whom a record is held against."""
    if outcome is Outcome.FAULT:
        return ()
    if record.kind == _TOKEN:
        return _subjects_of_token(record, outcome, address)
    if record.kind != _DECISION or record.point not in _CALLS or record.reason == _NO_SECRET:
        return ()  # nobody is proven: who lacks a workload's secret is not the workload
    found: list[Subject | None] = []
    is_proven = outcome is not Outcome.FAILED
    if record.point == _EDGE:
        found.append(_subject(SubjectKind.ADDRESS, address))
    elif not _is_the_users(record, user):
        found.append(
            _subject(SubjectKind.IDENTITY, record.caller)
        )  # shown by its certificate, whatever failed later
    if is_proven:
        found += [_subject(SubjectKind.USER, user), _subject(SubjectKind.API_KEY, api_key)]
    return tuple(subject for subject in found if subject is not None)


def _is_the_users(record: Recorded, user: str | None) -> bool:
    """Tell whether a refusal was about the user of a call: a service must not be locked out by those it calls for."""
    return record.reason in _OF_THE_USER or (user is not None and record.reason in _CONDITIONS)


def _subjects_of_token(record: Recorded, outcome: Outcome, address: str | None) -> tuple[Subject, ...]:
    """Return whom a request for a token is held against.

    A caller is named there only when it has proven itself.  But what it presents may be somebody else's (an edge exchanges
    what strangers send), so only what it asked for in its own right counts against it.
    """
    if outcome is Outcome.ALLOWED or record.detail.get("code") is not None:
        return ()
    if record.caller is None:
        subject = _subject(SubjectKind.ADDRESS, address) if outcome is Outcome.FAILED else None
    else:
        is_own = record.detail.get("error") in _OF_THE_ASKER
        subject = _subject(SubjectKind.IDENTITY, record.caller) if is_own else None
    return () if subject is None else (subject,)


def _text(value: Scalar) -> str | None:
    return value if isinstance(value, str) and value else None


@lru_cache(maxsize=16_384)
def _subject(kind: SubjectKind, value: str | None) -> Subject | None:
    """Return a subject, or None for what can be none."""
    if not value or len(value) > MAX_VALUE:
        return None
    try:
        return Subject.of(kind, value)
    except InputError:
        return None


@lru_cache(maxsize=16_384)
def address_of(text: str | None) -> str | None:
    """Return the form under which an address is counted, from an address with or without a port; None for none."""
    if not text or len(text) > MAX_VALUE:
        return None
    for candidate in (text, text.rpartition(":")[0].strip("[]")):
        try:
            ipaddress.ip_address(candidate.partition("%")[0])
        except ValueError:
            continue
        subject = _subject(SubjectKind.ADDRESS, candidate)
        return None if subject is None else subject.value
    return None
