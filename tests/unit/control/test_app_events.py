# SPDX-License-Identifier: Apache-2.0
"""Events of applications at the agent: who speaks is attested, and nothing that it says is believed to have a form."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st

from everyhop.auditlog import Kind, Point, encode_record
from everyhop.auditlog.codec import decode_record
from everyhop.control.app_events import EventClaim, event_record_of

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def made(**fields):
    base = {"id": "e1", "time": 0, "action": "invoice.void", "outcome": "success"}
    return event_record_of(EventClaim(**(base | fields)), "orders", 7, moment=NOW, trace=None)


def test_what_has_no_form_is_left_out():
    record = made(
        outcome="allowed",
        method="get",
        status=1000,
        duration=float("nan"),
        snapshot="x",
        decision="a b",
        metadata={"a b": 1, "n": float("inf")},
    )
    assert record.detail == {"outcome": "failure", "pid": 7, "metadata_left_out": 2}
    assert (record.method, record.status, record.latency_ms, record.snapshot) == (None, None, None, None)


@pytest.mark.parametrize("text", ["a\nb", "a\x00b", "a\u202eb", "a\u2028b"])
def test_no_text_begins_a_line(text):
    record = made(action=text, resource_id=text, user=text, caller=text, route=text, metadata={"x": text})
    shown = [record.operation, record.caller, record.path, *record.detail.values()]
    assert all(value.isprintable() for value in shown if isinstance(value, str))


def test_secrets_do_not_reach_the_log():
    record = made(
        resource_id="Bearer abcdef0123456789abcdef",
        metadata={"password": "hunter2", "note": "eyJhbGciOi.eyJzdWIi.c2ln"},
    )
    line = encode_record(record)
    for secret in (b"abcdef0123456789", b"hunter2", b"eyJzdWIi"):
        assert secret not in line


def test_everything():
    record = made(
        resource_type="invoice",
        resource_id="I-7",
        caller="spiffe://shop.example/service/web",
        user="u_1",
        method="POST",
        route="/invoices/{id}",
        status=200,
        duration=2.5,
        snapshot="a" * 64,
        decision="d-1",
        outcome="denied",
        metadata={"amount": 12, "why": "late"},
    )
    assert (record.kind, record.point, record.target) == (Kind.APPLICATION, Point.SDK, "orders")
    assert (record.operation, record.path, record.decision) == ("invoice.void", "/invoices/{id}", "deny")
    assert record.latency_ms == 2.5
    assert record.detail == {
        "outcome": "denied",
        "resource_type": "invoice",
        "resource_id": "I-7",
        "user": "u_1",
        "decision": "d-1",
        "pid": 7,
        "meta.amount": 12,
        "meta.why": "late",
    }


@given(
    action=st.text(max_size=300),
    caller=st.text(max_size=60),
    route=st.text(max_size=60),
    metadata=st.dictionaries(
        st.text(max_size=10), st.one_of(st.text(max_size=400), st.integers(), st.floats())
    ),
)
def test_any_claim_becomes_a_record_that_can_be_read(action, caller, route, metadata):
    record = made(action=action, caller=caller, route=route, metadata=metadata)
    assert decode_record(encode_record(record)) == record
