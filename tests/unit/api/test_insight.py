# SPDX-License-Identifier: Apache-2.0
"""The owner's door: why a decision was as it was, and decisions added up."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.control_plane import hand_over

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

from control_plane import ControlUnderTest, TextSource

from everyhop.api.server_app import AdminDoor
from everyhop.auditlog import Kind, Point, Record

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {}
  orders: {operations: {list: GET /orders, tag: PUT /tags}}
allow:
  - {from: storefront, to: orders, operations: [list]}
  - {from: storefront, to: orders, operations: [tag], when: "request.query.x == 'y'"}
"""
STOREFRONT = "spiffe://shop.example/service/storefront"


@pytest.fixture
async def under_test(tmp_path: Path) -> AsyncIterator[ControlUnderTest]:
    made = ControlUnderTest(tmp_path)
    await made.control.start(TextSource(POLICY))
    yield made
    made.close()


@pytest.fixture
async def admin(under_test: ControlUnderTest) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=AdminDoor(under_test.control).app(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        yield client


def made(under_test: ControlUnderTest, seq: int = 1, **fields: Any) -> Record:
    base = {
        "id": f"r{seq}",
        "seq": seq,
        "producer": "p",
        "time": under_test.clock.now(),
        "kind": Kind.DECISION,
        "point": Point.INGRESS,
        "caller": STOREFRONT,
        "target": "orders",
        "operation": "tag",
        "method": "PUT",
        "path": "/tags",
        "decision": "deny",
        "reason": "condition-false",
        "snapshot": under_test.control.snapshot.hash,
        "detail": {"facts": "false request.query['x'] == 'y'  (request.query['x'] = 'n')"},
    }
    return Record(**{**base, **fields})


@pytest.mark.parametrize("query", ["", "since=", "since=yesterday", "since=2026-01-01T00:00:00"])
async def test_a_tally_needs_a_time(admin: httpx.AsyncClient, query: str) -> None:
    assert (await admin.get(f"/v1/tally?{query}")).status_code == 400


async def test_a_decision_that_facts_made_is_told_as_recorded(
    admin: httpx.AsyncClient, under_test: ControlUnderTest
) -> None:
    await hand_over(under_test.control, [made(under_test)])
    answer = (await admin.get("/v1/records/r1")).json()
    assert answer["basis"] == "recorded"
    assert answer["recorded"]["facts"] == ["false request.query['x'] == 'y'  (request.query['x'] = 'n')"]
    assert answer["explanation"]["reason"] == "condition-false"
    assert answer["explanation"]["nearest"]["id"] == "allow[1]"
    assert "seen then: false request.query['x']" in answer["text"]


async def test_an_older_record_is_told_by_the_policy_of_then(
    admin: httpx.AsyncClient, under_test: ControlUnderTest
) -> None:
    await hand_over(
        under_test.control,
        [
            made(under_test),
            made(under_test, 2, operation="list", method="GET", path="/orders", decision="allow", reason="allowed",
                 rule="allow[0]", detail={}),
        ]
    )  # fmt: skip
    changed = (
        POLICY[: POLICY.index("allow:")]
        + "allow:\n  - {from: any, to: orders, operations: [list], id: other}\n"
    )
    await under_test.control.apply_policy({"p.yaml": changed.encode()}, source="p.yaml")
    assert (await admin.get("/v1/records/r1")).json()["explanation"]["nearest"]["id"] == "allow[1]"
    answer = (await admin.get("/v1/records/r2")).json()
    assert (answer["basis"], answer["explanation"]["cited"]["id"]) == ("derived", "allow[0]")


async def test_a_refused_credential_where_facts_would_have_decided(
    admin: httpx.AsyncClient, under_test: ControlUnderTest
) -> None:
    await hand_over(under_test.control, [made(under_test, reason="TOKEN_EXPIRED", detail={})])
    answer = (await admin.get("/v1/records/r1")).json()
    assert answer["explanation"] is None
    assert answer["credential"]["code"] == "TOKEN_EXPIRED"
    assert "without that, facts of the call would have decided" in answer["text"]


async def test_decisions_add_up_since_a_time(admin: httpx.AsyncClient, under_test: ControlUnderTest) -> None:
    would = {"would": "deny", "would_reason": "no-rule"}
    await hand_over(
        under_test.control, [made(under_test, n, detail=would if n == 3 else {}) for n in (1, 2, 3)]
    )
    under_test.clock.move(hours=1)
    await hand_over(under_test.control, [made(under_test, 4, reason="no-rule")])
    since = under_test.clock.now() - timedelta(hours=2)
    answer = (await admin.get("/v1/tally", params={"since": since.isoformat()})).json()
    assert sorted((g["reason"], g["would"], g["count"]) for g in answer["groups"] if g["would"] is None) == [
        ("condition-false", None, 2),
        ("no-rule", None, 1),
    ]
    assert (answer["counted"], answer["left_out"]) == (4, 0)
    assert answer["records_from"] > answer["since"]
    shadow = (await admin.get("/v1/tally", params={"since": since.isoformat(), "shadow": "1"})).json()
    assert [(g["would_reason"], g["example"]) for g in shadow["groups"]] == [("no-rule", "r3")]
    late = (await admin.get("/v1/tally", params={"since": under_test.clock.now().isoformat()})).json()
    assert late["counted"] == 1


async def test_an_old_leftover_is_no_window(admin: httpx.AsyncClient, under_test: ControlUnderTest) -> None:
    await hand_over(under_test.control, [made(under_test)])
    under_test.clock.move(days=90)
    await hand_over(under_test.control, [made(under_test, 2)])
    since = under_test.clock.now() - timedelta(days=60)
    answer = (await admin.get("/v1/tally", params={"since": since.isoformat()})).json()
    assert answer["records_from"][:10] == (under_test.clock.now() - timedelta(days=30)).isoformat()[:10]
