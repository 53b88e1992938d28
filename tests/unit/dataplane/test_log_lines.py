# SPDX-License-Identifier: Apache-2.0
import json
import uuid

import msgspec
import pytest
from hypothesis import example, given, strategies as st

from everyhop.auditlog.codec import decode_record, encode_record
from everyhop.auditlog.model import Kind, Point
from everyhop.dataplane.log_lines import MAX_LINE_BYTES, derived_id, record_of

HASH = "ab" * 32
ID = "f7625afc-be1f-4dc6-9ef3-e2d49ec20828"
CALLER = "spiffe://shop.example/service/storefront"

IN = {
    "kind": "in",
    "time": "2026-11-22T00:07:03.124262Z",
    "type": "DownstreamEnd",
    "route": f"{HASH}|orders",
    "caller": CALLER,
    "target": "orders",
    "verdict": f"{HASH[:16]}|allowed|allow[0]",
    "operation": "list",
    "id": ID,
    "method": "GET",
    "path": "/orders",
    "status": 200,
    "detail": "via_upstream",
    "flags": "-",
    "ms": 3,
    "in": 0,
    "out": 462,
}
OUT = {
    "kind": "out",
    "time": "2026-11-22T00:07:03.124262Z",
    "type": "DownstreamEnd",
    "caller": CALLER,
    "host": "orders",
    "route": f"{HASH}|orders",
    "failure": None,
    "id": ID,
    "method": "GET",
    "path": "/orders",
    "status": 200,
    "detail": "via_upstream",
    "flags": "-",
    "ms": 1,
    "in": 0,
    "out": 3,
}
TCP = {
    "kind": "tcp-out",
    "time": IN["time"],
    "type": "TcpUpstreamConnected",
    "caller": CALLER,
    "target": "ledger",
    "failure": None,
    "detail": None,
    "ms": 1,
    "flags": "-",
    "in": 0,
    "out": 0,
}


def line(base=IN, **changed):
    return json.dumps({**base, **changed}).encode()


def record(base=IN, **changed):
    return record_of(line(base, **changed), instance="i1", seq=7)


def test_a_user_is_told_where_the_line_is_ours():
    assert record(user="alice").detail["user"] == "alice"
    assert len(record(user="a" * 1000).detail["user"]) == 256
    assert "user" not in record(user="root", route=None, verdict=None).detail
    assert "user" not in record().detail


def test_requests_at_the_edge():
    found = record(kind="edge", caller="outside", host="192.0.2.1", user="key:1")
    assert (found.point, found.decision, found.caller) == (Point.EDGE, "allow", "outside")
    assert (found.detail["user"], found.detail["host"]) == ("key:1", "192.0.2.1")
    found = record({"kind": "edge-tls", "time": IN["time"], "target": "orders", "failure": "TLS_error"})
    assert (found.point, found.decision, found.reason) == (Point.EDGE, "deny", "untrusted-client")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"status": 503, "detail": "direct_response"}, "TOKEN_UNAVAILABLE"),
        ({"status": 503, "detail": "ext_authz_error"}, "TOKEN_UNAVAILABLE"),
        ({"status": 503, "detail": "ext_authz_denied", "code": "UNAVAILABLE"}, "UNAVAILABLE"),
        ({"status": 403, "detail": "direct_response"}, "wrong-protocol"),
    ],
)
def test_calls_that_got_no_token(changed, reason):
    found = record(OUT, **changed)
    assert (found.decision, found.reason, found.target) == ("deny", reason, "orders")


def test_an_allowed_request():
    found = record()
    assert (found.id, found.seq, found.producer) == (ID, 7, "i1")
    assert (found.kind, found.point) == (Kind.DECISION, Point.INGRESS)
    assert (found.decision, found.reason, found.rule) == ("allow", "allowed", "allow[0]")
    assert (found.caller, found.target, found.operation) == (CALLER, "orders", "list")
    assert (found.method, found.path, found.status, found.latency_ms) == ("GET", "/orders", 200, 3)
    assert found.snapshot == HASH


@pytest.mark.parametrize(
    ("changed", "decision", "reason"),
    [
        ({"verdict": f"{HASH[:16]}|probe|services.orders.probes[0]"}, "allow", "probe"),
        ({"verdict": f"{HASH[:16]}|no-rule|-"}, "deny", "no-rule"),
        ({"verdict": f"{HASH[:16]}|no-rule|-", "operation": "?list"}, "deny", "unknown-caller"),
        ({"verdict": f"{HASH[:16]}|unknown-operation|-", "operation": "?-"}, "deny", "unknown-operation"),
        ({"verdict": f"{HASH[:16]}|ambiguous-path|-", "operation": "?-"}, "deny", "ambiguous-path"),
        ({"verdict": f"{HASH[:16]}|denied-by-rule|deny[1]"}, "deny", "denied-by-rule"),
        ({"verdict": f"{HASH[:16]}|ambiguous-path|-"}, "deny", "ambiguous-path"),
        ({"verdict": f"{HASH[:16]}|anything-else|-"}, "deny", "anything-else"),
        ({"detail": "direct_response", "status": 400}, "deny", "ambiguous-host"),
        ({"verdict": f"{HASH[:16]}|allowed+sU|allow[0]"}, "allow", "allowed"),
        ({"detail": "ext_authz_denied", "status": 401, "code": "TOKEN_EXPIRED"}, "deny", "TOKEN_EXPIRED"),
        ({"detail": "ext_authz_denied", "status": 401, "code": "a\nb"}, "deny", "ext_authz_denied"),
        ({"detail": "ext_authz_denied", "status": 401}, "deny", "ext_authz_denied"),
        ({"detail": "ext_authz_error", "status": 503}, "deny", "CHECK_UNAVAILABLE"),
        ({"verdict": f"{HASH[:16]}|no-rule|-", "detail": "ext_authz_denied"}, "deny", "no-rule"),
        ({"verdict": f"{HASH[:16]}|allowed+|allow[0]"}, "deny", "malformed-request"),
        ({"verdict": None, "detail": "upgrade_failed"}, "deny", "unknown-operation"),
        ({"verdict": None, "detail": "absolute_path_rejected"}, "deny", "ambiguous-path"),
        ({"verdict": None, "detail": "path_normalization_failed"}, "deny", "ambiguous-path"),
        ({"verdict": None, "detail": "http1.codec_error"}, "deny", "malformed-request"),
        ({"verdict": None, "detail": "request_header_timeout"}, "deny", "timeout"),
        ({"verdict": None, "detail": None, "route": None}, "deny", "malformed-request"),
        ({"verdict": "allowed"}, "deny", "malformed-request"),
        ({"verdict": "ALLOW|allowed|x"}, "deny", "malformed-request"),
        ({"verdict": f"{HASH[:15]}|allowed|allow[0]"}, "deny", "malformed-request"),
        ({"verdict": f"{HASH[:16]}|allowed|allow[0]\n"}, "deny", "malformed-request"),
        ({"verdict": f"{HASH[:16]}|allowed"}, "deny", "malformed-request"),
    ],
)
def test_what_was_decided_and_why(changed, decision, reason):
    found = record(**changed)
    assert (found.kind, found.decision, found.reason) == (Kind.DECISION, decision, reason)


def test_the_whole_hash_only_where_it_belongs_to_the_verdict():
    """Filter and routes are replaced one after the other; for a moment they may be of two policies."""
    assert record(route="cd" * 32 + "|orders").snapshot == HASH[:16]
    assert record(route=None).snapshot == HASH[:16]


def test_the_mark_of_a_stranger_is_no_part_of_the_name():
    found = record(verdict=f"{HASH[:16]}|no-rule|-", operation="?list")
    assert (found.operation, found.reason) == ("list", "unknown-caller")
    assert record(verdict=f"{HASH[:16]}|unknown-operation|-", operation="?-").operation is None


@pytest.mark.parametrize(
    "changed",
    [
        {
            "route": None,
            "verdict": None,
        },  # refused before our header was set: whatever stands there is the caller's
        {"id": None},
        {"id": ""},
        {"id": ID.upper()},
        {"id": ID + "x"},
        {"id": "0" * 36},
        {"id": "../../etc"},
    ],
)
def test_an_id_that_is_not_ours_is_replaced(changed):
    assert record(**changed).id == derived_id("i1", 7) != ID


def test_an_id_counts_once_the_policy_was_asked_also_without_a_route():
    assert record(route=None).id == ID


def test_derived_ids_are_the_same_each_time_and_differ_by_line():
    assert record(id=None) == record(id=None)
    ids = {derived_id(i, n) for i in ("a", "b") for n in range(50)}
    assert len(ids) == 100
    assert all(uuid.UUID(i).version == 5 for i in ids)


@pytest.mark.parametrize(
    ("changed", "decision", "reason", "target"),
    [
        ({}, "allow", "declared", "orders"),
        (
            {"status": 403},
            "allow",
            "declared",
            "orders",
        ),  # the other side refused it, which is its own record
        ({"status": 407}, "allow", "declared", "orders"),  # so did an application that is a proxy
        (
            {"route": f"{HASH}|", "status": 403, "detail": "direct_response", "host": "evil"},
            "deny",
            "undeclared-destination",
            "evil",
        ),
        ({"status": 407, "detail": "invalid_credential_for_basic_auth"}, "deny", "no-proxy-secret", "orders"),
        (
            {
                "failure": "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify cert failed"
            },
            "deny",
            "untrusted-server",
            "orders",
        ),
        ({"failure": "TLS_error: connection reset", "status": 503}, "allow", "declared", "orders"),
        ({"status": 403, "detail": "direct_response"}, "deny", "wrong-protocol", "orders"),
        (
            {"route": None, "detail": "http1.codec_error", "status": 400},
            "deny",
            "malformed-request",
            "orders",
        ),
    ],
)
def test_egress(changed, decision, reason, target):
    found = record(OUT, **changed)
    assert (found.point, found.decision, found.reason, found.target) == (
        Point.EGRESS,
        decision,
        reason,
        target,
    )


@pytest.mark.parametrize(
    ("base", "changed", "kind"),
    [
        (IN, {"status": 101, "type": "DownstreamTunnelSuccessfullyEstablished"}, Kind.DECISION),
        (IN, {"status": 101}, Kind.LIFECYCLE),
        (IN, {"method": "CONNECT", "path": None, "operation": "tcp"}, Kind.LIFECYCLE),
        (IN, {"method": "CONNECT", "path": None, "status": 403}, Kind.DECISION),
        (OUT, {"method": "CONNECT", "path": None, "status": 503}, Kind.DECISION),
        (TCP, {}, Kind.DECISION),
        (TCP, {"type": "TcpConnectionEnd"}, Kind.LIFECYCLE),
        (TCP, {"type": "TcpConnectionEnd", "in": 5}, Kind.LIFECYCLE),
        (TCP, {"type": "TcpConnectionEnd", "flags": "UF"}, Kind.DECISION),
    ],
)
def test_what_stays_open_is_decided_once_and_closed_once(base, changed, kind):
    found = record(base, **changed)
    assert found.kind is kind
    if kind is Kind.LIFECYCLE:
        assert found.decision is None
        assert found.reason == "connection-closed"
        assert found.id == derived_id("i1", 7)  # the decision itself has the id already
        assert found.detail.get("decision") == (ID if base is not TCP else None)


def test_tcp_has_no_method_and_no_path():
    found = record(
        method="CONNECT", path="/x", operation="tcp", type="DownstreamTunnelSuccessfullyEstablished"
    )
    assert (found.method, found.path) == (None, None)


def test_a_failed_handshake():
    found = record(
        {"kind": "tls", "time": IN["time"]}, target="orders", failure="PEER_DID_NOT_RETURN_A_CERTIFICATE"
    )
    assert (found.decision, found.point, found.target) == ("deny", Point.INGRESS, "orders")
    assert "CERTIFICATE" in found.detail["failure"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"kind": "in"}',
        b"{" * 10_000,
        b"[" * 10_000,
        b"\xff\xfe",
        line(time="yesterday"),
        line(time="2026-11-22T00:07:03"),
        line(status="200"),
        line(ms={}),
        line(path=1),
        line()[:-1],
        line() + b"x",
        b" " * (MAX_LINE_BYTES + 1),
    ],
)
def test_a_line_that_cannot_be_read_is_still_a_record(raw):
    found = record_of(raw, instance="i1", seq=7)
    assert (found.reason, found.seq, found.id) == ("unreadable-line", 7, derived_id("i1", 7))
    assert decode_record(encode_record(found)) == found


def test_a_caller_cannot_write_a_line_of_its_own():
    found = record(path='/x"}\n{"kind":"in","verdict":"allowed', method="G\nET")
    assert found.path.startswith('/x"}\n')
    assert encode_record(found).count(b"\n") == 0


def test_long_texts_are_cut():
    found = record(path="/" + "x" * 20_000, method="M" * 500, caller="c" * 5000, detail="d" * 5000)
    assert decode_record(encode_record(found)) == found
    assert len(found.path) <= 8192


_TEXT = (
    st.none()
    | st.text(max_size=30)
    | st.sampled_from((ID, HASH, f"{HASH}|x", IN["verdict"], "tls", "in", "out"))
)


@given(
    st.dictionaries(
        st.sampled_from(sorted(IN)), _TEXT | st.integers() | st.floats() | st.booleans(), max_size=8
    ),
    st.sampled_from(("in", "out", "tcp-out", "tls", "?")),
)
@example({"ms": float("nan")}, "in")
@example({"status": 10**30}, "in")
@example({"status": -5, "ms": -1}, "in")
def test_no_line_breaks_the_reader_or_the_record(changed, kind):
    raw = msgspec.json.encode({**IN, "kind": kind, **changed})
    found = record_of(raw, instance="i1", seq=1)
    assert decode_record(encode_record(found)).id == found.id
    assert found.kind in {Kind.DECISION, Kind.LIFECYCLE}


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(raw):
    found = record_of(raw, instance="i1", seq=1)
    assert found.decision != "allow"


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ),
        ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", None),
        ("-", None),
        (None, None),
    ],
)
def test_the_trace_of_a_call(header, trace):
    line = msgspec.json.encode({"kind": "in", "time": "2026-07-01T12:00:00.000000Z", "trace": header})
    assert record_of(line, instance="i", seq=1).trace == trace


def test_what_a_caller_sends_as_a_secret_is_in_no_record():
    secret = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
    line = {"kind": "in", "time": "2026-07-01T12:00:00.000000Z", "path": f"/reset/{secret}?password=hunter2"}
    found = record_of(msgspec.json.encode(line | {"host": f"Bearer {secret}"}), instance="i", seq=1)
    assert secret not in repr(found)
    assert "hunter2" not in repr(found)
    unreadable = record_of(f"{{broken Bearer {secret}".encode(), instance="i", seq=1)
    assert secret not in repr(unreadable)


# -- the blocked

END = "1795889837"
BLOCKED_IN = {"verdict": f"{HASH[:16]}|blocked|identity|{END}", "status": 429, "operation": None}
BY_RBAC = f"rbac_access_denied_matched_policy[{HASH[:16]}|blocked|identity|{END}]"


def told(base=IN, **changed):
    record = record_of(line(base, **changed), instance="i", seq=1)
    return record.decision, record.reason, record.rule, record.detail.get("block"), record.detail.get("user")


def test_envoy_refused_a_blocked_caller():
    assert told(**BLOCKED_IN) == ("deny", "blocked", None, f"identity:{CALLER}", None)
    assert record_of(line(**BLOCKED_IN), instance="i", seq=1).snapshot == HASH


def test_envoy_refused_a_blocked_address_at_the_edge():
    edge = {**IN, "kind": "edge", "caller": "outside", "host": "203.0.113.7"}
    verdict = f"{HASH[:16]}|blocked|address|{END}"
    assert told(edge, verdict=verdict, status=429) == ("deny", "blocked", None, "address:203.0.113.7", None)


def test_the_agent_refused_a_blocked_user_or_key():
    asked = {"detail": "ext_authz_denied", "code": "BLOCKED", "status": 429}
    who = "blocked|-||||user zo%C3%AB%20%7C%20deny"
    assert told(**asked, why=who) == ("deny", "blocked", None, "user", "zoë | deny")
    record = record_of(line(**asked, why="blocked|-||||api-key k7Qm2xPa"), instance="i", seq=1)
    assert (record.detail["block"], record.detail["api_key"]) == ("api-key:k7Qm2xPa", "k7Qm2xPa")
    assert record.operation == "list"


def test_an_egress_refused_its_own_blocked_workload():
    assert told(OUT, detail=BY_RBAC, status=429) == ("deny", "blocked", None, f"identity:{CALLER}", None)
    asked = {"detail": "ext_authz_denied", "code": "BLOCKED", "status": 429}
    assert told(OUT, **asked)[:2] == ("deny", "blocked")


@pytest.mark.parametrize(
    "changed",
    [
        {"path": "/|blocked|1]"},
        {"detail": "upstream_reset{x|blocked|1]}", "status": 503},
        {"operation": "blocked"},
        {"verdict": f"{HASH[:16]}|allowed|blocked|identity|{END}"},
    ],
)
def test_nobody_makes_himself_blocked_by_a_text(changed):
    assert told(**changed)[1] != "blocked"
    assert told(OUT, **{k: v for k, v in changed.items() if k != "verdict"})[1] != "blocked"


def test_the_public_part_of_a_key_is_recorded_at_the_edge():
    edge = {**IN, "kind": "edge", "caller": "outside", "host": "203.0.113.7", "key": "k7Qm2xPa"}
    assert record_of(line(edge), instance="i", seq=1).detail["api_key"] == "k7Qm2xPa"
