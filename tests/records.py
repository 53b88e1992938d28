# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies for records of the audit log: everything that can exist, and what really occurs.

``records()`` gives both, of every kind; all of them survive the codec.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import strategies as st

from everyhop.auditlog import Kind, Point, Record

OPERATIONS = (
    *("apply", "reject", "propose", "approve", "refuse", "create", "activate", "remove", "rotate"),
    *("issue-x509-svid", "issue-jwt-svid", "mint", "exchange", "oauth", "revoke", "create-api-key"),
    *("gap", "may-have-lost", "read", "export", "forget", "block", "unblock", "quarantine", "rate-anomaly"),
    *("list", "charge", "tcp"),
)
REASONS = (
    *("allowed", "shadowed", "blocked", "no-rule", "untrusted-client", "connection-closed", "quarantined"),
    *("unreadable-line", "condition-error", "alert", "user-required"),
)
CALLERS = (
    *("spiffe://shop.example/service/orders", "spiffe://", "outside", "admin", "unix:1000"),
    *("~user.abcdefghijklmnopqrstuvwxyz", "user:alice", "identity:spiffe://a/b", "", "/"),
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "PROPFIND", "get", "x" * 64)
HOSTS = (
    *("203.0.113.7", "203.0.113.7:443", "[2001:db8::1]:80", "2001:db8::1", "fe80::1%eth0", "orders:80", ":"),
    *("~address.abcdefghijklmnopqrstuvwxyz", "[", "999.1.1.1", "::ffff:1.2.3.4"),
)
DETAILS = (
    *("user", "host", "decision", "subject", "block", "roles", "jti", "expires_at", "would", "would_rule"),
    *("evidence", "severity", "title", "first", "last", "suggestion", "api_key", "source", "reason"),
    *("authority", "authority_kind", "facts", "detail", "count"),
)
VALUES = (
    *("allow", "deny", "high", "nonsense", "2026-01-31T09:00:00Z", "9999-12-31T23:59:59-23:59", "a b,c"),
    *("viewer clerk", " ", "~user.abcdefghijklmnopqrstuvwxyz", "spiffe://shop.example/service/orders"),
)

_texts = st.text(st.characters(codec="utf-8"), max_size=40)
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    _texts,
    st.sampled_from(VALUES),
)
_zones = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_FIRST = datetime.min + timedelta(days=1)  # noqa: DTZ901  # the strategy puts a zone on it
_LAST = datetime.max - timedelta(days=1)  # noqa: DTZ901  # likewise
_moments = st.one_of(
    st.datetimes(_FIRST, _LAST, timezones=_zones),
    st.just(datetime(2026, 7, 1, 12, tzinfo=UTC)),
)


def _some(values: tuple[str, ...]) -> st.SearchStrategy[str | None]:
    return st.one_of(st.none(), st.sampled_from(values), _texts)


def records(kind: Kind | None = None) -> st.SearchStrategy[Record]:
    """Records of one kind, or of all."""
    names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
    return st.builds(
        Record,
        id=names,
        seq=st.integers(1, 2**63 - 1),
        producer=names,
        time=_moments,
        kind=st.sampled_from(Kind) if kind is None else st.just(kind),
        point=st.sampled_from(Point),
        caller=_some(CALLERS),
        target=_some(("orders", "payments")),
        operation=_some(OPERATIONS),
        method=st.one_of(st.none(), st.sampled_from(METHODS), names),
        path=_some(("/orders/7", "/", "/a?b")),
        decision=st.sampled_from((None, "allow", "deny")),
        rule=_some(("allow[0]", "deny[3]")),
        reason=_some(REASONS),
        snapshot=st.one_of(st.none(), st.just("ab" * 32), names),
        status=st.one_of(st.none(), st.integers(0, 999)),
        latency_ms=st.one_of(st.none(), st.floats(0, allow_infinity=False, allow_nan=False)),
        instance=_some(("orders-1",)),
        trace=st.one_of(st.none(), st.from_regex(r"[0-9a-f]{32}-[0-9a-f]{16}", fullmatch=True)),
        detail=st.dictionaries(st.one_of(st.sampled_from(DETAILS), names), _scalars, max_size=8),
    )
