# SPDX-License-Identifier: Apache-2.0
"""What the records that really occur become; that anything becomes something valid is in tests/property/test_ocsf.py."""

import json
from datetime import UTC, datetime

import pytest

from everyhop.auditlog import Kind, Point, Record
from everyhop.auditlog.ocsf import encode_event, event_of, leaf_hash_of

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
ORDERS = "spiffe://shop.example/service/orders"


def record(**fields):
    base = {"id": "r1", "seq": 7, "producer": "p", "time": NOW, "kind": Kind.DECISION, "point": Point.INGRESS}
    return Record(**{**base, **fields})


def event(place=None, **fields):
    return json.loads(encode_event(event_of(record(**fields), **(place or {}))))


@pytest.mark.parametrize(
    ("fields", "class_uid", "activity_id"),
    [
        ({"decision": "allow", "method": "GET"}, 6003, 2),
        ({"decision": "deny", "method": "POST"}, 6003, 1),
        ({"decision": "deny", "method": "PROPFIND"}, 6003, 99),
        ({"decision": "allow", "operation": "tcp"}, 6003, 99),
        ({"decision": "deny", "reason": "untrusted-client"}, 3002, 1),
        ({"kind": Kind.IDENTITY, "operation": "issue-x509-svid", "decision": "allow"}, 3002, 3),
        ({"kind": Kind.TOKEN, "operation": "mint", "decision": "allow"}, 3002, 4),
        (
            {"kind": Kind.TOKEN, "operation": "exchange", "decision": "deny", "detail": {"roles": "a"}},
            3002,
            4,
        ),
        (
            {"kind": Kind.TOKEN, "operation": "exchange", "decision": "allow", "detail": {"roles": "a b"}},
            3003,
            1,
        ),
        (
            {"kind": Kind.TOKEN, "operation": "exchange", "decision": "allow", "detail": {"roles": " "}},
            3002,
            4,
        ),
        ({"kind": Kind.TOKEN, "operation": "revoke"}, 3004, 11),
        ({"kind": Kind.TOKEN, "operation": "create-api-key", "detail": {"api_key": "k"}}, 3004, 1),
        ({"kind": Kind.TOKEN, "operation": "disable-api-key", "detail": {"api_key": "k"}}, 3004, 9),
        ({"kind": Kind.KEY, "operation": "activate"}, 3004, 10),
        ({"kind": Kind.KEY, "operation": "something-new"}, 3004, 99),
        ({"kind": Kind.POLICY, "operation": "apply", "snapshot": "ab"}, 3004, 3),
        ({"kind": Kind.LIFECYCLE, "reason": "connection-closed"}, 6003, 99),
        ({"kind": Kind.LIFECYCLE, "reason": "unreadable-line"}, 3004, 99),
        ({"kind": Kind.LOG, "operation": "read"}, 6003, 2),
        ({"kind": Kind.LOG, "operation": "gap"}, 3004, 99),
        ({"kind": Kind.LOG, "operation": "forget"}, 3004, 4),
        ({"kind": Kind.RESPONSE, "operation": "block"}, 3004, 12),
        ({"kind": Kind.RESPONSE, "operation": "unblock"}, 3004, 13),
        ({"kind": Kind.FINDING, "operation": "rate-anomaly"}, 2004, 1),
        ({"kind": Kind.APPLICATION, "operation": "refund", "method": "DELETE"}, 6003, 4),
    ],
)
def test_class_and_activity(fields, class_uid, activity_id):
    found = event(**fields)
    assert (found["class_uid"], found["activity_id"]) == (class_uid, activity_id)
    assert found["type_uid"] == class_uid * 100 + activity_id
    assert found["category_uid"] == class_uid // 1000
    assert ("activity_name" in found) == (activity_id == 99)


def test_a_refused_call():
    found = event(
        {"index": 41, "origin": "shop.example/log/1"},
        id="d1",
        caller=ORDERS,
        target="payments",
        operation="charge",
        method="POST",
        path="/v1/charges",
        decision="deny",
        rule="deny[0]",
        reason="denied",
        snapshot="ab" * 32,
        status=403,
        latency_ms=1.6,
        instance="payments-1",
        trace="1" * 32 + "-" + "2" * 16,
        detail={"user": "~user.x"},
    )
    assert found["actor"] == {"user": {"uid": ORDERS, "type_id": 4}}
    assert found["src_endpoint"] == {"uid": ORDERS, "svc_name": "orders"}
    assert found["dst_endpoint"] == {"svc_name": "payments", "instance_uid": "payments-1"}
    assert (found["action_id"], found["disposition_id"], found["status_id"]) == (2, 2, 2)
    assert found["authorizations"] == [
        {"decision": "deny", "policy": {"uid": "ab" * 32, "name": "deny[0]", "is_applied": True}}
    ]
    assert found["http_response"] == {"code": 403, "latency": 2}
    start = 1782907200000
    assert found["trace"] == {
        "uid": "1" * 32,
        "span": {"uid": "2" * 16, "start_time": start, "end_time": start + 2},
    }
    metadata = found["metadata"]
    assert (metadata["uid"], metadata["correlation_uid"]) == ("d1", "d1")
    assert (metadata["sequence"], metadata["log_name"]) == (41, "shop.example/log/1")
    assert metadata["profiles"] == ["security_control", "trace"]
    assert found["observables"] == [{"name": "unmapped.detail.user", "type_id": 4, "value": "~user.x"}]


def test_shadow_is_observed_and_says_what_would_have_been():
    found = event(
        decision="allow", reason="shadowed", snapshot="ab", detail={"would": "deny", "would_rule": "deny[1]"}
    )
    assert (found["action_id"], found["disposition_id"]) == (3, 17)
    assert [(a["decision"], a["policy"]["is_applied"]) for a in found["authorizations"]] == [
        ("allow", False),
        ("deny", False),
    ]


def test_an_allowed_call_is_not_observed():
    found = event(decision="allow", reason="allowed", detail={"would": "deny"})
    assert (found["action_id"], found["disposition_id"], found["status_id"]) == (1, 1, 1)


def test_records_of_one_call_share_the_decision():
    assert (
        event(point=Point.SDK, id="d1.ab-1", detail={"decision": "d1"})["metadata"]["correlation_uid"] == "d1"
    )


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("203.0.113.7", {"ip": "203.0.113.7", "name": "outside"}),
        ("203.0.113.7:4711", {"ip": "203.0.113.7", "name": "outside"}),
        ("[2001:db8::1]:80", {"ip": "2001:db8::1", "name": "outside"}),
        ("~address.abc", {"name": "outside", "uid": "~address.abc"}),
        ("fe80::1%eth0", {"name": "outside", "uid": "fe80::1%eth0"}),
        ("1" * 200, {"name": "outside", "uid": "1" * 200}),
    ],
)
def test_where_an_outside_client_is(host, source):
    assert (
        event(point=Point.EDGE, caller="outside", decision="deny", detail={"host": host})["src_endpoint"]
        == source
    )


def test_at_the_edge_the_person_acts():
    found = event(point=Point.EDGE, caller="outside", decision="allow", detail={"user": "~user.x"})
    assert found["actor"] == {"user": {"uid": "~user.x", "type_id": 1}}
    assert "observables" not in found


def test_a_finding():
    found = event(
        kind=Kind.FINDING,
        operation="denied-burst",
        reason="blocked",
        caller="user:~user.x",
        detail={
            "title": "Many refusals",
            "severity": "high",
            "evidence": "d1 d2",
            "first": "2026-07-01T11:55:00Z",
            "last": "never",
            "observed": 100,
        },
    )
    info = found["finding_info"]
    assert (found["severity_id"], found["disposition_id"], found["is_alert"]) == (4, 2, True)
    assert info["related_events"] == [{"uid": "d1"}, {"uid": "d2"}]
    assert info["first_seen_time"] == 1782907200000 - 300_000
    assert "last_seen_time" not in info
    assert found["evidences"][0]["user"] == {"uid": "~user.x", "type_id": 1}
    assert found["evidences"][0]["data"]["observed"] == 100


@pytest.mark.parametrize(
    ("detail", "uid", "user"),
    [
        ({"block": "user", "user": "~user.x"}, "user:~user.x", {"uid": "~user.x", "type_id": 1}),
        ({"block": f"identity:{ORDERS}"}, f"identity:{ORDERS}", {"uid": ORDERS, "type_id": 4}),
    ],
)
def test_who_is_blocked(detail, uid, user):
    entity = event(kind=Kind.RESPONSE, operation="block", detail=detail)["entity"]
    assert (entity["uid"], entity["user"]) == (uid, user)


def test_an_attestation_is_of_the_stored_line():
    line = b'{"id":"r1"}'
    leaf = leaf_hash_of(line)
    found = event({"index": 0, "origin": "o", "leaf": leaf}, decision="allow")
    assert leaf.hex() == "bb4df1e11e253e5a5e855017027935ba4380d02a9db996601e5b3beb8297d5c1"
    (attestation,) = found["attestation_list"]
    assert attestation["fingerprint"]["value"] == leaf.hex()
    assert (attestation["uid"], attestation["chain_uid"]) == ("0", "o")
    assert "record_integrity" in found["metadata"]["profiles"]
    assert found["metadata"]["version"] == "1.9.0-dev"
    assert "attestation_list" not in event(decision="allow")


@pytest.mark.parametrize("hostile", ["a\nb", "\x1b[31m", "\u202egpj", "\x00", "\u2028", "\x7f", "\U000e0001"])
def test_what_a_caller_writes_cannot_begin_a_line_or_turn_one_round(hostile):
    line = encode_event(event_of(record(path=hostile, caller=hostile, detail={"host": hostile})))
    assert line.decode().isprintable()
    assert json.loads(line)["http_request"]["url"]["path"] == hostile
