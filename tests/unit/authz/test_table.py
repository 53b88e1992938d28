# SPDX-License-Identifier: Apache-2.0
"""The table that compilers read."""

from __future__ import annotations

import pytest

from everyhop.authz import Verdict, reachable_targets, service_table
from everyhop.core.decision import Effect, Reason
from everyhop.core.errors import NotFound
from everyhop.policy import parse_policy
from everyhop.policy.access import AccessIndex

DOMAIN = "spiffe://shop.example/service/"


def test_there_is_no_table_of_an_unknown_service(snapshot):
    with pytest.raises(NotFound, match="no service 'nobody'"):
        service_table(snapshot, "nobody")
    with pytest.raises(KeyError):
        service_table(snapshot, "orders").verdicts("nothing")


def test_every_declared_service_has_a_verdict_at_every_door(snapshot):
    table = service_table(snapshot, "payments", index=AccessIndex(snapshot))
    everyone = {str(service.spiffe_id) for service in snapshot.services.values()}
    assert [(e.operation.name, e.is_probe) for e in table.entries] == [
        ("charge", False),
        ("refund", False),
        ("probes[0]", True),
    ]
    assert all(set(entry.verdicts) == everyone for entry in table.entries)
    assert table.verdicts("charge")[DOMAIN + "orders"] == Verdict(
        effect=Effect.ALLOW, reason=Reason.ALLOWED, rule="allow[1]"
    )
    assert table.verdicts("charge")[DOMAIN + "storefront"].reason is Reason.NO_RULE
    assert table.verdicts("refund")[DOMAIN + "orders"].rule == "deny[0]"
    assert table.verdicts("probes[0]")[DOMAIN + "ledger"].reason is Reason.PROBE
    assert table.verdicts("probes[0]")[DOMAIN + "lone"].reason is Reason.DENIED_BY_RULE
    assert table.tcp_verdicts is None


def test_a_tcp_service_has_one_door(snapshot):
    table = service_table(snapshot, "ledger")
    assert table.entries == ()
    assert table.operations == ()
    assert table.literal_index == {}
    assert table.tcp_verdicts[DOMAIN + "orders"].rule == "books"
    assert table.tcp_verdicts[DOMAIN + "storefront"].effect is Effect.DENY


def test_the_literal_index_holds_templates_that_match_too():
    text = b"""\
version: 1
trust_domain: a
services:
  s:
    operations:
      one: GET /a/b
      two: "GET /a/{x}"
      three: "POST /a/{x}"
      four: "PUT /{x...}"
      five: "POST /{x}/b"
      six: DELETE /@me
"""
    table = service_table(parse_policy({"p": text}), "s")
    index = {path: {m: o.name for m, o in methods.items()} for path, methods in table.literal_index.items()}
    assert index == {
        "/@me": {"DELETE": "six", "PUT": "four"},
        "/a/b": {"GET": "one", "POST": "three", "PUT": "four"},
    }
    assert [o.name for o in table.templates] == ["two", "three", "five", "four"]
    assert table.guarded == {"@"}


def test_what_a_caller_can_reach(snapshot):
    assert reachable_targets(snapshot, "storefront") == ["orders", "payments"]
    assert reachable_targets(snapshot, DOMAIN + "orders") == ["ledger", "orders", "payments"]
    assert reachable_targets(snapshot, "lone") == []
    assert reachable_targets(snapshot, "spiffe://evil/service/orders") == []
    assert reachable_targets(snapshot, "orders", index=AccessIndex(snapshot)) == [
        "ledger",
        "orders",
        "payments",
    ]


def test_a_table_for_few_callers_is_the_same_for_those(snapshot):
    whole = service_table(snapshot, "orders")
    few = service_table(snapshot, "orders", callers=("storefront", "outside", "nobody"))
    assert [entry.operation for entry in few.entries] == [entry.operation for entry in whole.entries]
    for entry, other in zip(few.entries, whole.entries, strict=True):
        assert set(entry.verdicts) == {DOMAIN + "storefront"}
        assert entry.verdicts[DOMAIN + "storefront"] == other.verdicts[DOMAIN + "storefront"]
        assert entry.outside == other.outside
    assert few.literal_index == whole.literal_index
