# SPDX-License-Identifier: Apache-2.0
"""Identities and tokens as Authentication (3002) and Authorize Session (3003)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from everyhop.auditlog.model import Kind
from everyhop.auditlog.ocsf import _common as common
from everyhop.auditlog.ocsf.classes import Authentication, AuthorizeSession
from everyhop.auditlog.ocsf.objects import Session, User, given
from everyhop.auditlog.ocsf.values import (
    Action,
    AuthenticationId,
    AuthorizeSessionId,
    AuthProtocol,
    Disposition,
    Severity,
    UserType,
)

if TYPE_CHECKING:
    from everyhop.auditlog.model import Record

UNTRUSTED_CLIENT: Final = "untrusted-client"
"""The reason of a handshake that failed; the same word as in ``dataplane.log_lines``."""

_ISSUES: Final = {
    "issue-x509-svid": (AuthenticationId.AUTHENTICATION_TICKET, "X509-SVID"),
    "issue-jwt-svid": (AuthenticationId.AUTHENTICATION_TICKET, "JWT-SVID"),
    "mint": (AuthenticationId.SERVICE_TICKET_REQUEST, "OAuth 2.0"),
    "exchange": (AuthenticationId.SERVICE_TICKET_REQUEST, "OAuth 2.0 Token Exchange"),
    "oauth": (AuthenticationId.SERVICE_TICKET_REQUEST, "OAuth 2.0"),
}


def is_handshake(record: Record) -> bool:
    """Tell whether a decision is about a peer that showed no identity that is believed."""
    return record.kind is Kind.DECISION and record.reason == UNTRUSTED_CLIENT


def carries_roles(record: Record) -> bool:
    """Tell whether a token with a user's roles was issued."""
    is_issue = record.kind is Kind.TOKEN and record.decision == "allow"
    return is_issue and bool((common.text_of(record, "roles") or "").split())


def authentication(record: Record, place: common.Place) -> Authentication:
    """Return the event of an SVID or token, issued or refused, or of a handshake that failed."""
    if is_handshake(record):
        activity, protocol = AuthenticationId.LOGON, "mutual TLS"
    else:
        activity, protocol = _ISSUES.get(record.operation or "", (AuthenticationId.OTHER, "SPIFFE"))
    is_oauth = protocol.startswith("OAuth")
    is_denied = record.decision == "deny"
    who = record.caller or common.UNKNOWN
    whom = f" for {record.target}" if record.target else ""
    why = f": {record.reason}" if record.reason else ""
    refused = "refused" if is_denied else "done"
    return Authentication(
        **common.base(
            record,
            place,
            class_uid=Authentication.class_uid,
            activity=activity,
            severity=Severity.LOW if is_denied else Severity.INFORMATIONAL,
            message=f"{record.operation or protocol} of {who}{whom} {refused}{why}",
            correlation=record.id if record.kind is Kind.DECISION else None,
            profiles=("security_control",),
        ),
        activity_id=activity,
        activity_name=UNSET
        if activity is not AuthenticationId.OTHER
        else record.operation or record.kind.value,
        user=_subject(record),
        actor=common.actor_of(record),
        auth_protocol_id=AuthProtocol.OAUTH_2_0 if is_oauth else AuthProtocol.OTHER,
        auth_protocol=protocol,
        service=common.THE_SERVER,
        src_endpoint=common.source_of(record),
        dst_endpoint=given(common.destination_of(record)),
        session=given(_session(record)),
        status_id=common.status_of(record),
        action_id=Action.DENIED if is_denied else Action.ALLOWED,
        disposition_id=Disposition.UNAUTHORIZED if is_denied else Disposition.ALLOWED,
        unmapped=common.left_over(record, "target"),
    )


def authorize_session(record: Record, place: common.Place) -> AuthorizeSession:
    """Return the event of a token that carries roles: that is where a person gets them."""
    roles = tuple((common.text_of(record, "roles") or "").split())
    activity = AuthorizeSessionId.ASSIGN_PRIVILEGES
    user = _subject(record)
    return AuthorizeSession(
        **common.base(
            record,
            place,
            class_uid=AuthorizeSession.class_uid,
            activity=activity,
            severity=Severity.INFORMATIONAL,
            message=f"roles of {user.uid} in a token for {record.caller or common.UNKNOWN}: {' '.join(roles)}",
            profiles=("security_control",),
        ),
        activity_id=activity,
        user=user,
        privileges=roles,
        actor=common.actor_of(record),
        src_endpoint=common.source_of(record),
        dst_endpoint=given(common.destination_of(record)),
        session=given(_session(record)),
        status_id=common.status_of(record),
        action_id=Action.ALLOWED,
        disposition_id=Disposition.ALLOWED,
        unmapped=common.left_over(record, "target", without=("roles",)),
    )


def _subject(record: Record) -> User:
    """Return whom the identity or token is for."""
    subject = common.text_of(record, "subject")
    if subject is not None and record.kind is Kind.TOKEN:
        found = common.user_of(subject)
        return found if found.type_id is not UserType.UNKNOWN else User(uid=subject, type_id=UserType.USER)
    return common.user_of(record.caller or common.UNKNOWN)


def _session(record: Record) -> Session | None:
    jti, end = common.text_of(record, "jti"), common.whole_of(record, "expires_at")
    if jti is None and end is None:
        return None
    return Session(uid=given(jti), expiration_time=UNSET if end is None else end * 1000)
