# SPDX-License-Identifier: Apache-2.0
"""Canaries at the server's doors: what the owner may ask, and what agents send."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

from control_plane import ControlUnderTest, TextSource

from everyhop.anomaly.canary import digest_of
from everyhop.api.server_app import AdminDoor, AgentDoor

CALLER = "spiffe://shop.example/service/storefront"


@pytest.fixture
async def under_test(tmp_path: Path) -> AsyncIterator[ControlUnderTest]:
    made = ControlUnderTest(tmp_path)
    await made.control.start(TextSource())
    yield made
    made.close()


@pytest.fixture
async def admin(under_test: ControlUnderTest) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=AdminDoor(under_test.control).app(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        yield client


@pytest.fixture
async def agent(under_test: ControlUnderTest) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=AgentDoor(under_test.control).app(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        yield client


@pytest.mark.parametrize(
    ("wish", "status"),
    [
        ({"kind": "key", "name": "x"}, 400),
        ({"kind": "secret", "name": "x", "response": "shoot"}, 400),
        ({"kind": "secret"}, 400),
        ({"kind": "secret", "name": "x", "more": 1}, 400),
        ({"kind": "secret", "name": ""}, 400),
        ({"kind": "api-key", "name": "x"}, 400),  # the policy opens nothing to the outside
        ({"kind": "service", "name": "orders"}, 409),
    ],
)
async def test_what_cannot_be_a_canary(
    admin: httpx.AsyncClient, wish: dict[str, object], status: int
) -> None:
    answer = await admin.post("/v1/canaries", json=wish)
    assert answer.status_code == status
    assert (await admin.get("/v1/canaries")).json() == {"canaries": []}


async def test_an_unknown_one_cannot_be_ended(admin: httpx.AsyncClient) -> None:
    assert (await admin.post("/v1/canaries/nothing/end")).status_code == 404


@pytest.mark.parametrize(
    "item",
    [
        {"digest": "x", "where": "ingress"},
        {"digest": "A" * 64, "where": "ingress"},
        {"digest": "a" * 64},
        {"digest": "a" * 64, "where": "ingress", "text": "secret"},
    ],
)
async def test_agents_send_digests_and_nothing_else(agent: httpx.AsyncClient, item: dict[str, str]) -> None:
    assert (
        await agent.post("/v1/credentials/refused", json={"agent": "a", "items": [item]})
    ).status_code == 400


async def test_a_secret_from_its_making_to_its_use(
    admin: httpx.AsyncClient, agent: httpx.AsyncClient, under_test: ControlUnderTest
) -> None:
    made = await admin.post("/v1/canaries", json={"kind": "secret", "name": "env", "response": "quarantine"})
    assert made.status_code == 201
    text, canary = made.json()["text"], made.json()["canary"]
    assert canary["state"] == "active"
    listed = (await admin.get("/v1/canaries")).json()
    assert listed == {"canaries": [canary]}
    assert text not in str(listed)
    items = [
        {"digest": digest_of(shown).hex(), "where": "ingress", "caller": CALLER, "decision": "d-1"}
        for shown in ("something else", text)
    ]
    answer = await agent.post("/v1/credentials/refused", json={"agent": "a", "items": items})
    assert answer.json() == {}  # it is not told which one it was
    records = (await admin.get("/v1/records", params={"kind": "token"})).json()["records"]
    (used,) = [record for record in records if record["operation"] == "canary-used"]
    assert (used["caller"], used["detail"]["canary"]) == (CALLER, canary["id"])
    ended = await admin.post(f"/v1/canaries/{canary['id']}/end")
    assert ended.json()["state"] == "ended"


async def test_a_service_from_the_list(admin: httpx.AsyncClient) -> None:
    made = (await admin.post("/v1/canaries", json={"kind": "service", "name": "vault"})).json()
    assert (made["text"], made["is_declared"]) == (None, False)
