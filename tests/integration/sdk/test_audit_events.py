# SPDX-License-Identifier: Apache-2.0
"""Audit events over a real socket: the SDK, the agent's method, the guide's Flask application."""

import asyncio
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from tests.support.agent_under_test import AgentUnderTest
from tests.support.raw_grpc import RawGrpc

from everyhop.auditlog import Kind
from everyhop.core.errors import Unavailable
from everyhop.dataplane.spool import Delivery
from everyhop.integrations._outlet import Outlet
from everyhop.integrations.audit import Audit
from everyhop.sdk import connect
from everyhop.sdk.events import AuditEvent
from everyhop.sdk.model import Refusal
from everyhop.testing.agent import FakeAgent
from everyhop.wire.audit import MAX_EVENTS, RECORD, Event, Metadatum, RecordRequest, RecordResponse

PAGE = Path(__file__).parents[3] / "docs" / "guides" / "audit-middleware.md"
INVALID_ARGUMENT, PERMISSION_DENIED = 3, 7
POLICY = """
version: 1
trust_domain: shop.example
services:
  storefront: {workload: [{run: true}]}
  orders:
    workload: [{run: true}]
    operations: {read: "GET /orders/{id}"}
allow:
  - {from: storefront, to: orders, operations: [read]}
"""


@pytest.fixture
def fake():
    with FakeAgent(POLICY, "orders") as agent:
        yield agent


@pytest.fixture
def workload(fake):
    with connect(fake.socket, timeout=10) as opened:
        yield opened


@pytest.fixture
def agent():
    directory = Path(tempfile.mkdtemp(prefix="eh-", dir="/tmp"))
    with AgentUnderTest(directory) as found:
        found.apply({"orders": "[{run: true}]", "payments": "[{run: true}]"})
        yield found
    shutil.rmtree(directory)


def event(n=1, **more):
    return AuditEvent.now(f"action.{n}", **more)


async def until(holds):
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  # the agent is in another thread
            await asyncio.sleep(0.01)


# -- the agent's method


def ask(agent, request, **options):
    with RawGrpc(agent.socket) as client:
        message = request if isinstance(request, bytes) else request.SerializeToString()
        return client.ask(RECORD, message, **options)


def forwarded(agent):
    found = []

    async def send(records, _previous):
        found.extend(records)
        return Delivery(held=records[-1].seq)

    async def all_of_them():
        for spool in agent.decisions.spools:
            await spool.forward(send)

    agent.call(all_of_them)
    return found


@pytest.mark.parametrize("bad_id", ["", "a b", "x" * 65, "é", "a\n"])
def test_ids_that_are_refused(agent, bad_id):
    agent.launch("i1", "orders")
    request = RecordRequest(events=[Event(id="fine"), Event(id=bad_id)])
    assert ask(agent, request)[0][:2] == ("status", INVALID_ARGUMENT)
    assert forwarded(agent) == []


def test_batches_that_are_refused(agent):
    one = RecordRequest(events=[Event(id="e")])
    assert ask(agent, one)[0][:2] == ("status", PERMISSION_DENIED)  # who is no workload
    agent.launch("i1", "orders")
    too_many = RecordRequest(events=[Event(id="e")] * (MAX_EVENTS + 1))
    assert ask(agent, too_many)[0][:2] == ("status", INVALID_ARGUMENT)
    assert ask(agent, one, metadata=())[0][:2] == ("status", INVALID_ARGUMENT)
    other = RecordRequest(events=[Event(id="e")], spiffe_id="spiffe://shop.example/service/payments")
    assert ask(agent, other)[0][:2] == ("status", PERMISSION_DENIED)
    assert forwarded(agent) == []


# -- the SDK


def test_events_arrive_with_their_types(fake, workload):
    made = event(resource=("order", 7), metadata={"b": True, "i": -3, "f": 0.5, "t": "é"}, status=200)
    workload.note_event(made)
    asyncio.run(until(lambda: fake.events))
    (told,) = fake.events
    assert (told.id, told.action, told.outcome, told.status) == (made.id, "action.1", "success", 200)
    assert told.duration == -1.0
    assert [(m.name, m.WhichOneof("value")) for m in told.metadata] == [
        ("b", "flag"),
        ("i", "whole"),
        ("f", "number"),
        ("t", "text"),
    ]
    assert told.metadata[1] == Metadatum(name="i", whole=-3)


def test_a_demand_is_done_when_the_agent_has_it(fake, workload):
    workload.submit_event(event()).result(10)
    assert len(fake.events) == 1
    fake.takes_events = False
    with pytest.raises(Unavailable, match="no room"):
        workload.submit_event(event()).result(10)


def test_an_agent_that_is_gone_refuses_what_must_be_recorded(fake, workload):
    audit = Audit(Outlet(workload), deadline_seconds=0.5)
    audit.record("x", required=True)
    fake.stop()
    with pytest.raises(Refusal) as caught:
        audit.record("x", required=True)
    assert caught.value.status == 503
    audit.record("later")  # waits, and breaks nothing
    fake.start()
    asyncio.run(until(lambda: [e.action for e in fake.events] == ["x", "later"]))
    assert workload.lost_events == 0


# -- the agent, its spool


def test_a_durable_event_is_in_the_spool_when_the_answer_comes(agent):
    agent.launch("i1", "orders")
    request = RecordRequest(events=[Event(id="e1", action="a", outcome="success")], durable=True, dropped=3)
    message, status = ask(agent, request)
    assert RecordResponse.FromString(message[1]) == RecordResponse(taken=1)
    assert status[:2] == ("status", 0)
    found = forwarded(agent)
    assert found[0].kind is Kind.APPLICATION
    assert found[0].id.startswith("e1.")
    assert (found[0].operation, found[0].target, found[0].seq) == ("a", "orders", 1)
    assert found[1].detail["count"] == 3  # what was lost before is told


# -- the guide


def test_the_flask_application_of_the_guide(fake, workload, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    space = {"__name__": "guide"}
    exec(blocks[1], space)
    client = space["site"].test_client()
    from everyhop.integrations import _own_audit
    from everyhop.integrations.audit import WsgiAuditMiddleware

    monkeypatch.setattr(_own_audit.own_audit, "_outlet", Outlet(workload))
    space["site"].wsgi_app = WsgiAuditMiddleware(space["site"].wsgi_app)
    assert client.get("/orders/7").get_json() == {"number": "7"}
    assert b"Forbidden" in client.get("/orders/9").data
    asyncio.run(until(lambda: len(fake.events) == 2))
    assert [(e.route, e.outcome, e.resource_id) for e in fake.events] == [
        ("/orders/<number>", "success", "7"),
        ("/orders/<number>", "denied", "9"),
    ]


def test_the_single_actions_of_the_guide(fake, workload, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    from everyhop.integrations import _own_audit

    monkeypatch.setattr(_own_audit.own_audit, "_outlet", Outlet(workload))
    space = {"__name__": "guide"}
    exec(blocks[2], space)
    assert space["count_stock"]() == 12
    asyncio.run(space["void"](7))
    asyncio.run(until(lambda: len(fake.events) == 3))
    found = {(e.action, e.outcome) for e in fake.events}
    assert found == {("stock.count", "success"), ("invoice.void", "attempt"), ("invoice.void", "success")}
