# SPDX-License-Identifier: Apache-2.0
"""The server's doors: what is refused, with which status, and what an agent is told."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

from control_plane import POLICY, ControlUnderTest, TextSource

from everyhop.api.server_app import AdminDoor, AgentDoor
from everyhop.control.messages import AgentReport, Update
from everyhop.core.errors import Conflict, InputError, PolicyError, TrustError, Unavailable
from everyhop.spiffe.ids import SpiffeId, TrustDomain
from everyhop.x509.csr import build_csr
from everyhop.x509.keys import generate_private_key

ORDERS = "spiffe://shop.example/service/orders"


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


def _csr() -> str:
    return base64.b64encode(build_csr(generate_private_key())).decode()


# -- refused


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"agent": 1, "items": []}',
        b'{"agent": "a", "items": [], "extra": 1}',
        b"\xff",
        b"null",
    ],
)
async def test_a_malformed_message_is_refused(agent: httpx.AsyncClient, body: bytes) -> None:
    answer = await agent.post("/v1/sign-x509", content=body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "INVALID_INPUT"


async def test_a_message_beyond_its_limit_is_refused(agent: httpx.AsyncClient) -> None:
    assert (await agent.post("/v1/sign-jwt", content=b" " * 70_000)).status_code == 400


@pytest.mark.parametrize(
    ("spiffe_id", "words"),
    [
        ("spiffe://shop.example/service/nobody", "no identity of the policy"),
        ("spiffe://other.example/service/orders", "no identity of the policy"),
        ("spiffe://shop.example", "no identity of the policy"),
        ("orders", "no identity of the policy"),
    ],
)
async def test_identities_that_the_policy_does_not_know_are_not_signed(
    agent: httpx.AsyncClient, spiffe_id: str, words: str
) -> None:
    message = {"agent": "a", "items": [{"spiffe_id": spiffe_id, "csr": _csr()}]}
    result = (await agent.post("/v1/sign-x509", json=message)).json()["results"][0]
    assert words in result["error"]
    assert not result.get("chain")
    answer = await agent.post("/v1/sign-jwt", json={"agent": "a", "spiffe_id": spiffe_id, "audience": ["x"]})
    assert answer.status_code == 403


async def test_one_bad_request_of_a_batch_harms_no_other(agent: httpx.AsyncClient) -> None:
    items = [{"spiffe_id": ORDERS, "csr": "AAAA"}, {"spiffe_id": ORDERS, "csr": _csr()}]
    results = (await agent.post("/v1/sign-x509", json={"agent": "a", "items": items})).json()["results"]
    assert results[0]["error"]
    assert len(results[1]["chain"]) == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/records?limit=x", 400),
        ("/v1/records?limit=1001", 400),
        ("/v1/records?after=-1", 400),
        ("/v1/records?after=99999999999999999999", 400),
        ("/v1/records?since=yesterday", 400),
        ("/v1/records?kind=gossip", 400),
        ("/v1/records/none", 404),
        ("/v1/snapshot?hash=00", 404),
        ("/v1/nothing", 404),
    ],
)
async def test_bad_questions(admin: httpx.AsyncClient, path: str, status: int) -> None:
    answer = await admin.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_wrong_method(admin: httpx.AsyncClient) -> None:
    assert (await admin.post("/v1/status")).status_code == 405


async def test_a_bad_policy_changes_nothing(admin: httpx.AsyncClient, under_test: ControlUnderTest) -> None:
    before = under_test.control.snapshot.hash
    message = {
        "files": {"p.yaml": POLICY.replace("to: orders", "to: ordres")},
        "source": "p.yaml",
        "apply": True,
    }
    answer = await admin.post("/v1/policy", json=message)
    assert answer.status_code == 422
    assert "orders" in str(answer.json()["problems"][0]["suggestion"])
    assert under_test.control.snapshot.hash == before
    assert (await admin.get("/v1/status")).json()["rejected_policy"]["problems"]


async def test_a_policy_whose_tests_fail_is_refused(admin: httpx.AsyncClient) -> None:
    text = POLICY.replace("expect: allow", "expect: deny")
    answer = await admin.post(
        "/v1/policy", json={"files": {"p.yaml": text}, "source": "p.yaml", "apply": True}
    )
    assert answer.status_code == 422


async def test_another_trust_domain_is_a_conflict(admin: httpx.AsyncClient) -> None:
    text = POLICY.replace("shop.example", "other.example")
    answer = await admin.post(
        "/v1/policy", json={"files": {"p.yaml": text}, "source": "p.yaml", "apply": True}
    )
    assert answer.status_code == 409


async def test_checking_applies_nothing(admin: httpx.AsyncClient, under_test: ControlUnderTest) -> None:
    before = under_test.control.snapshot.hash
    text = POLICY.replace("[list]", "all")
    answer = await admin.post("/v1/policy", json={"files": {"p.yaml": text}, "source": "p.yaml"})
    assert answer.json()["applied"] is False
    assert answer.json()["snapshot"] != before
    assert under_test.control.snapshot.hash == before


async def test_rotation_waits_for_an_agent_that_lags(
    admin: httpx.AsyncClient, under_test: ControlUnderTest
) -> None:
    under_test.feed.connected("slow")
    answer = await admin.post("/v1/rotate", json={"kind": "x509", "timeout": 0.05})
    assert answer.status_code == 503
    assert "slow" in answer.json()["detail"]
    states = [
        a["state"] for a in (await admin.get("/v1/authorities")).json()["authorities"] if a["kind"] == "x509"
    ]
    assert sorted(states) == ["active", "prepared"]
    truth = under_test.feed.truth
    assert truth is not None
    under_test.feed.report(AgentReport(agent="slow", snapshot="s", bundle_sequence=truth.bundle_sequence))
    answer = await admin.post("/v1/rotate", json={"kind": "x509", "timeout": 1})
    assert sorted(a["state"] for a in answer.json()["authorities"] if a["kind"] == "x509") == [
        "active",
        "old",
    ]


async def test_no_key_leaves_by_any_door(admin: httpx.AsyncClient) -> None:
    for path in ("/v1/authorities", "/v1/bundle", "/v1/status", "/v1/records"):
        text = (await admin.get(path)).text
        assert "wrapped" not in text
        assert '"d"' not in text


async def test_a_fault_of_ours_shows_nothing(
    admin: httpx.AsyncClient, under_test: ControlUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> dict[str, object]:
        raise RuntimeError("secret details")

    monkeypatch.setattr(under_test.control, "status", broken)
    answer = await admin.get("/v1/status")
    assert answer.status_code == 500
    assert "secret details" not in answer.text


# -- allowed


async def _first_lines(door: AgentDoor, count: int) -> list[Update]:
    """Read the stream of updates as a server would, line by line."""
    sent: list[bytes] = []
    enough = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and message["body"]:
            sent.append(message["body"])
            if len(sent) >= count:
                enough.set()

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/updates/a",
        "raw_path": b"/v1/updates/a",
        "query_string": b"",
        "headers": [],
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "server": ("agent", 80),
        "client": None,
    }
    task = asyncio.create_task(door.app()(scope, receive, send))
    await asyncio.wait_for(enough.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return [msgspec.json.decode(line, type=Update) for line in sent]


async def test_an_agent_is_told_everything_first(under_test: ControlUnderTest) -> None:
    first = (await _first_lines(AgentDoor(under_test.control), 1))[0]
    assert b'"orders"' in bytes(first.snapshot)
    assert b"spiffe_sequence" in bytes(first.bundle)
    assert first.authority
    assert under_test.feed.lagging(lambda _: False) == []


async def test_records_are_stored_once(agent: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    record = {
        "id": "d-1",
        "seq": 1,
        "producer": "i1",
        "time": "2026-06-01T12:00:00Z",
        "kind": "decision",
        "point": "ingress",
        "caller": "spiffe://shop.example/service/storefront",
        "target": "orders",
        "method": "POST",
        "path": "/orders",
        "decision": "deny",
        "reason": "unknown-operation",
        "snapshot": (await admin.get("/v1/status")).json()["snapshot"],
        "status": 403,
    }
    for stored, duplicates in ((1, 0), (0, 1)):
        answer = (await agent.post("/v1/records", json={"agent": "a", "records": [record]})).json()
        assert (answer["stored"], answer["duplicates"]) == (stored, duplicates)
    page = (
        await admin.get("/v1/records", params={"kind": "decision", "decision": "deny", "service": "orders"})
    ).json()
    assert [r["id"] for r in page["records"]] == ["d-1"]
    assert (await admin.get("/v1/records", params={"after": page["cursor"], "kind": "decision"})).json()[
        "records"
    ] == []
    explained = (await admin.get("/v1/records/d-1")).json()
    assert "GET" in explained["text"]
    assert (await admin.get("/v1/records", params={"limit": 0})).json()["records"] == []


async def test_why_tells_what_the_application_said_and_last_what_others_say(
    agent: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    snapshot = (await admin.get("/v1/status")).json()["snapshot"]
    base = {
        "time": "2026-06-01T12:00:00Z",
        "kind": "decision",
        "point": "sdk",
        "caller": "spiffe://shop.example/service/storefront",
        "target": "orders",
        "method": "GET",
        "path": "/orders",
        "decision": "deny",
        "snapshot": snapshot,
    }
    foreign = {**base, "id": "d-7.ff-1", "seq": 1, "producer": "f", "target": "storefront"}
    sidecar = {**base, "id": "d-7", "seq": 1, "producer": "i", "point": "ingress", "decision": "allow"}
    said = {**base, "id": "d-7.aa-1", "seq": 1, "producer": "o", "detail": {"code": "X", "detail": "closed"}}
    records = [foreign, sidecar, said]
    answer = (await agent.post("/v1/records", json={"agent": "a", "records": records})).json()
    assert answer["stored"] == 3
    told = (await admin.get("/v1/records/d-7")).json()
    assert told["record"]["id"] == "d-7.aa-1"
    assert [one["id"] for one in told["also"]] == ["d-7", "d-7.ff-1"]
    assert "the application of orders refused it [X]" in told["text"]
    assert "it says: closed" in told["text"]


async def test_an_application_that_names_no_snapshot_of_ours_is_shown_without_explanation(
    agent: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    record = {
        "id": "d-8.aa-1",
        "seq": 1,
        "producer": "o",
        "time": "2026-06-01T12:00:00Z",
        "kind": "decision",
        "point": "sdk",
        "caller": "root",
        "target": "orders",
        "decision": "deny",
        "snapshot": "0" * 64,
    }
    await agent.post("/v1/records", json={"agent": "a", "records": [record]})
    told = await admin.get("/v1/records/d-8")
    assert (told.status_code, told.json()["explanation"]) == (200, None)
    ours = {**record, "id": "d-9", "seq": 2, "point": "ingress"}
    await agent.post("/v1/records", json={"agent": "a", "records": [ours]})
    assert (await admin.get("/v1/records/d-9")).status_code == 404


async def test_reports_become_status(
    agent: httpx.AsyncClient, admin: httpx.AsyncClient, under_test: ControlUnderTest
) -> None:
    instance = {
        "id": "i1",
        "service": "orders",
        "pid": 7,
        "ingress": "127.0.0.1:1",
        "state": "ready",
        "svid_expires_at": "2026-06-01T13:00:00Z",
    }
    gone = {**instance, "service": "gone"}
    report = {"agent": "a", "snapshot": "s", "bundle_sequence": 1, "instances": [instance, gone]}
    assert (await agent.post("/v1/report", json=report)).status_code == 200
    status = (await admin.get("/v1/status")).json()
    assert status["services"]["orders"]["instances"][0]["svid_expires_at"] == "2026-06-01T13:00:00.000000Z"
    assert status["agents"][0]["id"] == "a"
    under_test.clock.time += timedelta(minutes=5)
    assert (await admin.get("/v1/status")).json()["agents"] == []


async def test_an_svid_and_a_jwt(agent: httpx.AsyncClient, under_test: ControlUnderTest) -> None:
    message = {"agent": "a", "items": [{"spiffe_id": ORDERS, "csr": _csr()}]}
    result = (await agent.post("/v1/sign-x509", json=message)).json()["results"][0]
    assert result["authority"] == under_test.feed.truth.authority if under_test.feed.truth else False
    token = (
        await agent.post("/v1/sign-jwt", json={"agent": "a", "spiffe_id": ORDERS, "audience": ["x"]})
    ).json()
    assert token["token"].count(".") == 2


async def test_another_key_encryption_key_does_not_open_the_keys(tmp_path: Path) -> None:
    first = ControlUnderTest(tmp_path)
    await first.control.start(TextSource())
    first.close()
    with pytest.raises(TrustError):
        ControlUnderTest(tmp_path)


async def test_a_refused_source_at_start_keeps_the_last_snapshot(under_test: ControlUnderTest) -> None:
    before = under_test.control.snapshot.hash
    await under_test.control.start(TextSource("version: 2"))
    assert under_test.control.snapshot.hash == before
    assert under_test.control.rejected is not None

    class Unreadable(TextSource):
        def read(self) -> Any:
            raise InputError("no such file")

    await under_test.control.start(Unreadable())
    assert under_test.control.snapshot.hash == before
    assert under_test.control.rejected is not None


@pytest.mark.parametrize(
    ("text", "error"),
    [("version: 2", PolicyError), (POLICY.replace("expect: allow", "expect: deny"), PolicyError)],
)
async def test_without_any_snapshot_a_refusal_is_raised(
    tmp_path: Path, text: str, error: type[Exception]
) -> None:
    made = ControlUnderTest(tmp_path)
    try:
        with pytest.raises(Unavailable):
            _ = made.control.snapshot
        with pytest.raises(error):
            await made.control.start(TextSource(text))
    finally:
        made.close()


async def test_the_schedule_rotates_when_it_is_time(
    under_test: ControlUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everyhop.control.service.SCHEDULE_INTERVAL", 0.01)
    before = under_test.feed.truth
    assert before is not None
    under_test.clock.move(hours=13)
    task = asyncio.create_task(under_test.control.run_schedule())
    for _ in range(200):
        await asyncio.sleep(0.01)
        if under_test.feed.truth != before:
            break
    assert under_test.feed.truth is not None
    assert under_test.feed.truth.bundle_sequence > before.bundle_sequence
    assert under_test.feed.truth.authority == before.authority
    under_test.clock.move(hours=8)
    for _ in range(200):
        await asyncio.sleep(0.01)
        if under_test.feed.truth.authority != before.authority:
            break
    assert under_test.feed.truth.authority != before.authority
    task.cancel()
    issued = await under_test.control.sign_jwt("a", ORDERS, ("x",))
    assert issued.token
    assert SpiffeId.parse(ORDERS).trust_domain == TrustDomain.parse("shop.example")
    with pytest.raises(Conflict):
        await under_test.control.check_policy({"p": POLICY.replace("shop.", "s.").encode()})
