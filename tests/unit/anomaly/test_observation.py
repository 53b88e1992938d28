# SPDX-License-Identifier: Apache-2.0
"""Whom a record is held against: nobody whose name somebody else could have written there."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st

from everyhop.anomaly import Outcome, Subject, observe
from everyhop.anomaly.observation import address_of
from everyhop.auditlog import Kind, Point, Record
from everyhop.core.decision import Reason
from everyhop.tokens.codes import TokenCode

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
ORDERS = "spiffe://shop.example/service/orders"
KEY = {"user": "alice", "api_key": "k1"}


def record(**fields):
    base = {
        "id": "r1",
        "seq": 1,
        "producer": "p",
        "time": NOON,
        "kind": Kind.DECISION,
        "point": Point.INGRESS,
        "caller": ORDERS,
        "target": "payments",
        "decision": "deny",
        "reason": "no-rule",
    }
    return Record(**{**base, **fields})


def held_against(**fields):
    seen = observe(record(**fields))
    return [] if seen is None else [str(subject) for subject in seen.subjects]


def edge(**fields):
    detail = {"host": "203.0.113.7", **fields.pop("detail", {})}
    return {"point": Point.EDGE, "caller": "outside", "detail": detail, **fields}


@pytest.mark.parametrize(
    "kind", [Kind.FINDING, Kind.RESPONSE, Kind.LOG, Kind.LIFECYCLE, Kind.POLICY, Kind.KEY]
)
def test_what_is_no_act_of_anybody_is_not_seen(kind):
    assert observe(record(kind=kind)) is None


@pytest.mark.parametrize("point", list(Point))
def test_a_call_refused_for_a_block_never_lengthens_it(point):
    assert observe(record(point=point, reason=Reason.BLOCKED.value, status=429, detail=KEY)) is None


def test_too_many_requests_for_another_reason_are_held_against_nobody():
    assert held_against(reason="rate", status=429) == []


@pytest.mark.parametrize("point", [Point.SDK, Point.CONTROL])
def test_a_word_and_a_question_are_held_against_nobody(point):
    assert held_against(point=point, detail=KEY | {"host": "203.0.113.7"}) == []


@pytest.mark.parametrize(
    "reason", [code for code in TokenCode if "INSUFF" not in code and "USER" not in code]
)
def test_a_failed_authentication_counts_against_the_address_and_no_claimed_name(reason):
    asked = edge(reason=reason.value, status=401, detail=KEY)
    assert held_against(**asked) == ["address:203.0.113.7"]
    assert observe(record(**asked)).outcome is Outcome.FAILED


def test_a_failed_token_of_a_service_counts_against_the_certificate_that_it_showed():
    assert held_against(reason="BINDING_MISMATCH", detail=KEY) == [f"identity:{ORDERS}"]


def test_who_lacks_the_secret_of_a_workload_is_not_the_workload():
    seen = observe(record(point=Point.EGRESS, reason="no-proxy-secret", status=407))
    assert (seen.subjects, seen.outcome) == ((), Outcome.FAILED)


def test_a_handshake_that_failed_locks_nobody_out_of_the_mesh():
    seen = observe(record(reason="untrusted-client", caller=None, detail={"host": "10.0.0.7:4711"}))
    assert (seen.subjects, seen.address, seen.outcome) == ((), "10.0.0.7", Outcome.FAILED)


@pytest.mark.parametrize(
    ("reason", "detail"),
    [
        (Reason.USER_NOT_PERMITTED, KEY),
        (Reason.USER_REQUIRED, {}),
        ("USER_REQUIRED", {}),
        (Reason.CONDITION_FALSE, KEY),
    ],
)
def test_a_service_is_not_locked_out_by_the_users_it_calls_for(reason, detail):
    expected = ["user:alice", "api-key:k1"] if detail else []
    assert held_against(reason=str(reason), detail=detail) == expected


def test_a_condition_that_failed_without_a_user_is_the_callers():
    assert held_against(reason="condition-false") == [f"identity:{ORDERS}"]


@pytest.mark.parametrize("reason", ["untrusted-server", "CHECK_UNAVAILABLE", "TOKEN_UNAVAILABLE", "timeout"])
def test_faults_are_held_against_nobody(reason):
    seen = observe(record(reason=reason, detail=KEY))
    assert (seen.subjects, seen.outcome) == ((), Outcome.FAULT)


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        ("no-rule", Outcome.DENIED),
        ("denied-by-rule", Outcome.DENIED),
        ("INSUFFICIENT_SCOPE", Outcome.DENIED),
        ("something-new", Outcome.DENIED),
        ("unknown-operation", Outcome.UNDECLARED),
        ("undeclared-destination", Outcome.UNDECLARED),
        ("wrong-protocol", Outcome.UNDECLARED),
        ("ambiguous-path", Outcome.AMBIGUOUS),
        ("malformed-request", Outcome.AMBIGUOUS),
    ],
)
def test_every_refusal_has_its_outcome(reason, outcome):
    assert observe(record(reason=reason)).outcome is outcome


def test_a_call_counts_once_where_it_arrives():
    assert observe(record(point=Point.EGRESS, decision="allow", reason="declared")) is None
    assert held_against(decision="allow", reason="allowed", detail=KEY) == [
        f"identity:{ORDERS}", "user:alice", "api-key:k1"
    ]  # fmt: skip


def test_the_host_of_a_destination_is_no_address_of_a_caller():
    seen = observe(
        record(point=Point.EGRESS, reason="undeclared-destination", detail={"host": "10.0.0.9:80"})
    )
    assert (seen.address, [str(s) for s in seen.subjects]) == (None, [f"identity:{ORDERS}"])


def token(**fields):
    detail = fields.pop("detail", {})
    return {"kind": Kind.TOKEN, "point": Point.CONTROL, "operation": "exchange", "detail": detail, **fields}


def test_what_an_edge_presents_for_strangers_is_not_held_against_it():
    detail = {"error": "invalid_request", "code": "TOKEN_INVALID", "source": "203.0.113.7"}
    asked = token(detail=detail)
    assert held_against(**asked) == []
    assert observe(record(**asked)).outcome is Outcome.FAILED


def test_a_token_that_a_service_may_not_have_counts_against_it():
    assert held_against(**token(detail={"error": "invalid_target"})) == [f"identity:{ORDERS}"]


def test_a_stranger_at_the_token_endpoint_counts_by_address():
    asked = token(caller=None, detail={"error": "invalid_client", "source": "203.0.113.7"})
    assert held_against(**asked) == ["address:203.0.113.7"]
    assert held_against(**asked | {"detail": {"error": "invalid_client", "source": ""}}) == []


def test_what_an_operator_does_with_a_key_is_no_use_of_it():
    assert held_against(**token(decision=None, caller="uid:0", operation="create-api-key", detail=KEY)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:80", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2:3:4:5:6]:443", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("orders.example:80", None),
        ("p-3f2a", None),
        ("", None),
        (None, None),
        ("1" * 600, None),
    ],
)
def test_addresses_are_counted_as_they_are_blocked(text, expected):
    assert address_of(text) == expected
    if expected is not None:
        assert Subject.parse(f"address:{expected}").value == expected


_TEXT = (
    st.none()
    | st.text(max_size=30)
    | st.sampled_from([*Reason, *TokenCode, ORDERS, "203.0.113.7", "outside"])
)


@given(
    kind=st.sampled_from(list(Kind)),
    point=st.sampled_from(list(Point)),
    decision=st.sampled_from([None, "allow", "deny"]),
    caller=_TEXT,
    reason=_TEXT,
    status=st.none() | st.integers(0, 999),
    detail=st.dictionaries(
        st.sampled_from(["user", "api_key", "host", "source", "code", "error", "jti"]),
        _TEXT | st.integers() | st.booleans(),
    ),
)
def test_any_record_is_read_and_no_unproven_name_is_held_responsible(
    kind, point, decision, caller, reason, status, detail
):
    seen = observe(
        record(
            kind=kind,
            point=point,
            decision=decision,
            caller=caller,
            reason=reason,
            status=status,
            detail=detail,
        )
    )
    if seen is None:
        return
    kinds = [subject.kind.value for subject in seen.subjects]
    assert len(set(seen.subjects)) == len(kinds)
    if seen.outcome is Outcome.FAILED:
        assert not {"user", "api-key"} & set(kinds)
    if point in {Point.SDK, Point.CONTROL} and kind is Kind.DECISION:
        assert kinds == []
    if "identity" in kinds:
        assert caller.startswith("spiffe://")
        assert point is not Point.EDGE
