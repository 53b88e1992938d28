# SPDX-License-Identifier: Apache-2.0
"""The owner's door to the log: search and paging, the live stream, reads that are recorded, forgetting."""

from __future__ import annotations

import asyncio
import contextlib
import json

import httpx
import pytest
from tests.support.control_plane import ControlUnderTest, TextSource, hand_over

from everyhop.api.server_app import AdminDoor, AgentDoor
from everyhop.auditlog import Kind, Order, Point, Record, RecordFilter
from everyhop.auditlog.personal import is_pseudonym

ORDERS = "spiffe://shop.example/service/orders"


@pytest.fixture
async def under_test(tmp_path):
    made = ControlUnderTest(tmp_path)
    await made.control.start(TextSource())
    yield made
    made.close()


def client_of(app):
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://server")


@pytest.fixture
async def admin(under_test):
    async with client_of(AdminDoor(under_test.control).app()) as client:
        yield client


@pytest.fixture
async def agent(under_test):
    async with client_of(AgentDoor(under_test.control).app()) as client:
        yield client


def record(under_test, n, **fields):
    base = {
        "id": f"d-{n}",
        "seq": n,
        "producer": "i1",
        "time": under_test.clock.now(),
        "kind": Kind.DECISION,
        "point": Point.INGRESS,
        "caller": ORDERS,
        "decision": "deny" if n % 2 else "allow",
        "detail": {"user": "alice"},
    }
    return Record(**{**base, **fields})


def ids(answer):
    assert answer.status_code == 200, answer.text
    return [found["id"] for found in answer.json()["records"]]


def reads(under_test):
    page = under_test.storage.records.query(RecordFilter(kind=Kind.LOG), order=Order.OLDEST, limit=100)
    return [found for found in page.records if found.operation == "read"]


@pytest.mark.parametrize(
    "query",
    [
        "point=nowhere",
        "point=edge&point=sdk",
        "kind=decision,gossip",
        "address=orders",
        "user=",
        "caller=" + "x" * 3000,
        "before=1&after=1",
        "before=-1",
        "since=15m",
    ],
)
async def test_what_cannot_be_meant_is_refused(admin, query):
    paths = ["/v1/records"]
    if not query.startswith("before"):  # a stream only goes on
        paths.append("/v1/records/stream")
    for path in paths:
        answer = await admin.get(f"{path}?{query}")
        assert answer.status_code == 400, answer.text


async def test_paging_back_and_on_sees_everything_once(admin, under_test):
    await hand_over(under_test.control, [record(under_test, n) for n in range(1, 26)])
    seen, before = [], None
    while True:
        query = {"kind": "decision", "limit": 10} | ({"before": before} if before else {})
        page = (await admin.get("/v1/records", params=query)).json()
        seen = [r["id"] for r in page["records"]] + seen
        assert page["positions"] == sorted(page["positions"])
        before = page["before"]
        if not page["more"]:
            break
    assert seen == [f"d-{n}" for n in range(1, 26)]
    onward = await admin.get(
        "/v1/records", params={"kind": "decision", "after": page["positions"][4], "limit": 3}
    )
    assert ids(onward) == ["d-6", "d-7", "d-8"]


async def test_persons_are_shown_by_name_and_stored_by_pseudonym(admin, under_test):
    await hand_over(
        under_test.control, [record(under_test, 1), record(under_test, 2, detail={"user": "bob"})]
    )
    found = (await admin.get("/v1/records", params={"user": "alice", "kind": "decision"})).json()["records"]
    assert [(r["id"], r["detail"]["user"]) for r in found] == [("d-1", "alice")]
    stored = (
        await admin.get("/v1/records", params={"user": "alice", "kind": "decision", "pseudonyms": 1})
    ).json()["records"]
    name = stored[0]["detail"]["user"]
    assert is_pseudonym(name)
    assert ids(await admin.get("/v1/records", params={"user": name, "kind": "decision"})) == ["d-1"]
    why = (await admin.get("/v1/records/d-1")).json()
    assert why["record"]["detail"]["user"] == "alice"


async def test_a_read_is_recorded_once_for_all_its_pages(admin, under_test):
    await hand_over(under_test.control, [record(under_test, n) for n in range(1, 6)])
    page = (await admin.get("/v1/records", params={"limit": 2, "user": "alice"})).json()
    await admin.get("/v1/records", params={"limit": 2, "user": "alice", "before": page["before"]})
    await admin.get("/v1/records", params={"limit": 2, "user": "alice", "after": page["cursor"]})
    (read,) = reads(under_test)
    assert (read.caller, read.decision) == ("unknown", "allow")
    assert is_pseudonym(read.detail["user"])
    await admin.get("/v1/records/d-1")
    assert reads(under_test)[1].detail == {"id": "d-1"}


async def test_an_agent_asks_for_pseudonyms(agent, under_test):
    persons = [{"kind": "user", "value": "alice"}, {"kind": "address", "value": "203.0.113.7"}] * 2
    answer = (await agent.post("/v1/pseudonyms", json={"agent": "a", "persons": persons})).json()[
        "pseudonyms"
    ]
    assert answer[:2] == answer[2:]
    assert all(is_pseudonym(name) for name in answer)
    for bad in (
        {"kind": "cat", "value": "x"},
        {"kind": "user", "value": ""},
        {"kind": "user", "value": "x" * 600},
    ):
        assert (await agent.post("/v1/pseudonyms", json={"agent": "a", "persons": [bad]})).status_code == 400
    many = [{"kind": "user", "value": str(n)} for n in range(501)]
    assert (await agent.post("/v1/pseudonyms", json={"agent": "a", "persons": many})).status_code == 400


async def test_forgetting(admin, agent, under_test):
    await hand_over(under_test.control, [record(under_test, 1)])
    wish = {"person": "user:alice", "reason": "request 17"}
    for bad in (
        {"person": "alice", "reason": "r"},
        {"person": "user:alice", "reason": ""},
        {"person": "user:"},
    ):
        assert (await admin.post("/v1/log/forget", json=bad)).status_code == 400
    name = (await admin.post("/v1/log/forget", json=wish)).json()["forgotten"]
    assert (await admin.post("/v1/log/forget", json=wish)).status_code == 404
    shown = (await admin.get("/v1/records", params={"id": "d-1"})).json()["records"]
    assert shown[0]["detail"]["user"] == name
    late = json.loads(
        json.dumps({"agent": "a", "records": [_plain(record(under_test, 2, detail={"user": name}))]})
    )
    assert (await agent.post("/v1/records", json=late)).status_code == 409  # a node that has not heard of it
    assert ids(await admin.get("/v1/records", params={"id": "d-2"})) == []


def _plain(found):
    import msgspec

    return json.loads(msgspec.json.encode(found))


class TestFollowing:
    async def test_what_comes_is_told_once_and_in_order(self, under_test):
        control = under_test.control
        await hand_over(control, [record(under_test, 1)])
        position = await control.log.newest_position()
        told = []
        stream = control.log.follow(RecordFilter(denied=True), position, heartbeat_seconds=0.05)
        task = asyncio.create_task(_collect(stream, told))
        for n in range(2, 8):
            await hand_over(control, [record(under_test, n)])
        await _until(lambda: [r.id for _, found in told for _, r in found] == ["d-3", "d-5", "d-7"])
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert told[-1][0] == position + 6  # also over what does not match
        assert {r.detail["user"] for _, found in told for _, r in found} == {"alice"}

    async def test_a_reader_that_comes_back_goes_on_where_it_stopped(self, under_test):
        control = under_test.control
        await hand_over(control, [record(under_test, n) for n in range(1, 21)])
        seen, position = [], 0
        for _ in range(40):  # cut off after every single answer
            stream = control.log.follow(RecordFilter(kind=Kind.DECISION), position, heartbeat_seconds=0)
            position, found = await anext(stream)
            await stream.aclose()
            seen += [r.id for _, r in found]
        assert seen == [f"d-{n}" for n in range(1, 21)]

    async def test_silence_is_told(self, under_test):
        stream = under_test.control.log.follow(RecordFilter(user="nobody"), 10**9, heartbeat_seconds=0.01)
        assert await anext(stream) == (10**9, [])
        assert await anext(stream) == (10**9, [])
        await stream.aclose()


async def _collect(stream, told):
    async for at, found in stream:
        told.append((at, found))


async def _until(is_so):
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110  # there is no event for what a list holds
            await asyncio.sleep(0.01)
