# SPDX-License-Identifier: Apache-2.0
"""Plan, replay and approvals over HTTP: what is refused, and what is answered."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

from control_plane import POLICY, ControlUnderTest, TextSource

from everyhop.api.http import http_server, serve_until_stopped, uid_of_request
from everyhop.api.policy_admin import ApprovalDoor
from everyhop.api.server_app import AdminDoor
from everyhop.auditlog.model import Kind, Point, Record
from everyhop.control.proposals import ChangeRules
from everyhop.policy import parse_policy
from everyhop.wire.peers import uid_of

WIDER = POLICY.replace(
    "from: storefront, to: orders, operations", "from: [storefront, orders], to: orders, operations"
)
CLOSED = POLICY.partition("allow:")[0]
CALLER = "spiffe://shop.example/service/storefront"


@pytest.fixture
async def under_test(tmp_path: Path) -> AsyncIterator[ControlUnderTest]:
    made = ControlUnderTest(tmp_path, ChangeRules(two_person=True))
    await made.control.start(TextSource())
    yield made
    made.close()


def client_of(app: Any, uid: int | None = 1000) -> httpx.AsyncClient:
    client = ("127.0.0.1", 1) if uid is None else (f"uid:{uid}", 0)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, client=client)
    return httpx.AsyncClient(transport=transport, base_url="http://admin")


@pytest.fixture
async def admin(under_test: ControlUnderTest) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(AdminDoor(under_test.control).app()) as client:
        yield client


def files(text: str) -> dict[str, str]:
    return {"shop.yaml": text}


def hash_of(text: str) -> str:
    return parse_policy({"shop.yaml": text.encode()}).hash


def record(number: int, **changes: Any) -> Record:
    values: dict[str, Any] = {
        "id": f"r{number}",
        "seq": number,
        "producer": "orders-1",
        "time": changes.pop("time"),
        "kind": Kind.DECISION,
        "point": Point.INGRESS,
        "caller": CALLER,
        "target": "orders",
        "operation": "list",
        "method": "GET",
        "path": "/orders",
        "decision": "allow",
        "reason": "allowed",
        "snapshot": hash_of(POLICY)[:16],
    }
    return Record(**(values | changes))


# -- refused


@pytest.mark.parametrize("path", ["plan", "replay", "approve", "refuse"])
@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"files": 1}', b'{"hash": "x"}', b'{"files": {}, "extra": 1}', b"\xff"]
)
async def test_a_malformed_message_is_refused(admin: httpx.AsyncClient, path: str, body: bytes) -> None:
    assert (await admin.post(f"/v1/policy/{path}", content=body)).status_code == 400


@pytest.mark.parametrize(
    "wish",
    [{"last": 0}, {"last": -1}, {"last": 10**10}, {"since": "yesterday"}, {"since": "2026-01-01T00:00:00"}],
)
async def test_a_replay_of_garbage_is_refused(admin: httpx.AsyncClient, wish: dict[str, Any]) -> None:
    answer = await admin.post("/v1/policy/replay", json={"files": files(WIDER), **wish})
    assert answer.status_code == 400


async def test_a_text_that_is_wrong_is_neither_planned_nor_replayed(admin: httpx.AsyncClient) -> None:
    for bad in ("version: 1", POLICY.replace("expect: allow", "expect: deny")):
        for path in ("plan", "replay"):
            answer = await admin.post(f"/v1/policy/{path}", json={"files": files(bad)})
            assert answer.status_code == 422
            assert answer.json()["problems"]


async def test_a_wider_policy_without_confirmation_is_a_conflict(admin: httpx.AsyncClient) -> None:
    answer = await admin.post("/v1/policy", json={"files": files(WIDER), "source": "s", "apply": True})
    assert answer.status_code == 409
    assert "nobody confirmed" in answer.json()["detail"]


async def test_approvers_reach_nothing_but_approvals(under_test: ControlUnderTest) -> None:
    async with client_of(ApprovalDoor(under_test.control).app()) as client:
        for path in ("/v1/status", "/v1/records", "/v1/policy/plan", "/v1/snapshot", "/v1/tokens/revoke"):
            assert (await client.post(path, json={})).status_code == 404
        assert (
            await client.post("/v1/policy", json={"files": files(WIDER), "apply": True})
        ).status_code == 404
        assert (await client.get("/v1/policy/pending")).json() == {"pending": None}


# -- answered


async def test_a_plan(admin: httpx.AsyncClient) -> None:
    answer = (await admin.post("/v1/policy/plan", json={"files": files(WIDER)})).json()
    assert (answer["plan"]["wider"], answer["plan"]["after"]) == (True, hash_of(WIDER))
    assert answer["lines"][0]["line"].startswith("access WIDENS")
    assert answer["rules"] == {"confirm_wider": False, "two_person": True}


async def test_two_people_over_two_doors(under_test: ControlUnderTest, admin: httpx.AsyncClient) -> None:
    wish = {"files": files(WIDER), "source": "s", "apply": True, "accept": hash_of(WIDER)}
    answer = await admin.post("/v1/policy", json=wish)
    assert (answer.status_code, answer.json()["pending"]) == (202, hash_of(WIDER))
    assert under_test.control.snapshot.hash == hash_of(POLICY)
    door = ApprovalDoor(under_test.control).app()
    for uid in (1000, None):
        async with client_of(door, uid) as same:
            assert (await same.post("/v1/policy/approve", json={"hash": hash_of(WIDER)})).status_code == 403
    async with client_of(door, 1001) as other:
        shown = (await other.get("/v1/policy/pending")).json()["pending"]
        assert shown["plan"]["counts"]["gained"] == 1
        assert (await other.post("/v1/policy/approve", json={"hash": "0" * 64})).status_code == 409
        assert (await other.post("/v1/policy/approve", json={"hash": shown["snapshot"]})).status_code == 200
    assert under_test.control.snapshot.hash == hash_of(WIDER)


async def test_a_replay_goes_through_all_pages(
    under_test: ControlUnderTest, admin: httpx.AsyncClient
) -> None:
    now = under_test.clock.now()
    kinds = (
        {},
        {"point": Point.EGRESS, "reason": "declared"},
        {"reason": "TOKEN_EXPIRED", "decision": "deny"},
        {"caller": None},
        {"path": None},
    )
    batch = [record(n, time=now - timedelta(seconds=n), **kinds[n % len(kinds)]) for n in range(1, 2501)]
    under_test.storage.records.append(batch)
    answer = await admin.post("/v1/policy/replay", json={"files": files(CLOSED)})
    steps = [json.loads(line) for line in answer.text.splitlines()]
    assert [step["records"] for step in steps[:-1]] == [1000, 2000, 2500]
    result = steps[-1]["result"]
    assert (result["records"], result["flips"], result["unreadable"]) == (2500, 500, 1000)
    assert result["counts"]["foreign"] == 500
    (edge,) = result["edges"]
    assert (edge["outcome"], edge["operation"], edge["count"]) == ("lost", "list", 500)
    for wish, seen in (({"last": 7}, 7), ({"since": (now - timedelta(seconds=10)).isoformat()}, 10)):
        answer = await admin.post("/v1/policy/replay", json={"files": files(CLOSED), **wish})
        assert json.loads(answer.text.splitlines()[-1])["result"]["records"] == seen


# -- who is there


async def test_the_kernel_says_who_connected_and_others_are_cut_off(tmp_path: Path) -> None:
    from starlette.routing import Route

    from everyhop.api.http import make_app, reply
    from everyhop.core.errors import AttestationError
    from everyhop.wire.sockets import UnixListener

    async def who(request: Any) -> Any:
        return reply({"uid": uid_of_request(request)})

    def refuse(uid: int) -> None:
        raise AttestationError(f"not {uid}")

    import asyncio

    for admit, expected in ((lambda uid: None, os.getuid()), (refuse, None)):
        listener = UnixListener.bind(tmp_path / "s", mode=0o600)
        server = http_server(make_app([Route("/", who)]), admit_uid=admit)
        serving = asyncio.create_task(serve_until_stopped(server, listener.sock))
        transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "s"))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            if expected is None:
                with pytest.raises(httpx.TransportError):
                    await client.get("/")
            else:
                assert (await client.get("/", headers={"x-forwarded-for": "uid:7"})).json() == {
                    "uid": expected
                }
        server.stop()
        await serving
        listener.close()


def test_a_uid_is_of_the_process_that_connected() -> None:
    one, two = socket.socketpair(socket.AF_UNIX)
    with one, two:
        found: list[int] = []
        worker = threading.Thread(target=lambda: found.append(uid_of(one)))
        worker.start()
        worker.join()
        assert found == [os.geteuid()]
