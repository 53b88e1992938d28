# SPDX-License-Identifier: Apache-2.0
"""Decisions on their way to the agent: never in the way of a request, bounded, told when lost, flushed at the end."""

import asyncio
import contextlib

import pytest

from everyhop.core.errors import AccessDenied, Unavailable
from everyhop.sdk import Guard, Refusal, connect
from everyhop.sdk.loops import HereRunner
from everyhop.sdk.model import Decided, Peer, Request
from everyhop.sdk.reporting import BATCH, MAX_ALLOWED_WAITING, MAX_WAITING, Reporter
from everyhop.testing import FakeAgent

STOREFRONT = Peer(spiffe_id="spiffe://shop.example/service/storefront", x5t="A" * 43)
POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {}
  orders: {operations: {list: GET /orders}}
allow:
  - {from: storefront, to: orders, operations: [list]}
"""


def decided(number=0, *, allowed=False, via_sidecar=False):
    return Decided(
        allowed=allowed,
        decision_id=f"d-{number}",
        method="GET",
        path="/",
        status=403,
        code="ACCESS_DENIED",
        reason="no-rule",
        caller=None,
        operation=None,
        user=None,
        rule=None,
        snapshot="",
        via_sidecar=via_sidecar,
    )


async def send(client, batch, *, dropped, spiffe_id):
    return await client.report(batch, dropped=dropped, spiffe_id=spiffe_id)


class Client:
    """An agent's door; ``errors`` are raised first."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.batches = []
        self.dropped = 0
        self.arrived = asyncio.Event()

    async def report(self, decisions, *, dropped=0, spiffe_id=""):
        if self.errors:
            raise self.errors.pop(0)
        self.batches.append([one.decision_id for _, one in decisions])
        self.dropped += dropped
        self.arrived.set()
        return 0


@contextlib.asynccontextmanager
async def running(reporter, client):
    task = asyncio.create_task(reporter.run(client))
    await asyncio.sleep(0)
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def make(**options):
    return Reporter(HereRunner(), send, gather_seconds=0, **options)


async def test_what_a_sidecar_has_recorded_is_not_told_again():
    reporter, client = make(), Client()
    async with running(reporter, client):
        reporter.put(decided(1, allowed=True, via_sidecar=True))
        reporter.put(decided(2, allowed=False, via_sidecar=True))
        reporter.put(decided(3, allowed=True))
        await client.arrived.wait()
    assert client.batches == [["d-2", "d-3"]]


async def test_a_queue_that_is_full_drops_allowed_calls_first_and_says_how_many(caplog):
    reporter, client = make(), Client()
    for number in range(MAX_WAITING + 10):
        reporter.put(decided(number, allowed=number % 2 == 0))
    waiting = len(reporter._waiting)
    assert MAX_ALLOWED_WAITING < waiting <= MAX_WAITING
    assert "were dropped" in caplog.text
    async with running(reporter, client):
        await client.arrived.wait()
    assert client.dropped == reporter.lost == MAX_WAITING + 10 - waiting
    assert sum(map(len, client.batches)) == waiting
    assert max(map(len, client.batches)) == BATCH


async def test_an_agent_that_is_away_gets_everything_later():
    reporter, client = make(), Client(Unavailable("away"), Unavailable("away"))
    async with running(reporter, client):
        for number in range(3):
            reporter.put(decided(number))
        await client.arrived.wait()
    assert client.batches == [["d-0", "d-1", "d-2"]]
    assert reporter.lost == 0


async def test_a_batch_that_is_refused_is_not_sent_for_ever(caplog):
    reporter, client = make(), Client(AccessDenied("no identity"))
    async with running(reporter, client):
        reporter.put(decided(1))
        while client.errors:  # noqa: ASYNC110  # the client has nothing to wait for then
            await asyncio.sleep(0)
        reporter.put(decided(2))
        await client.arrived.wait()
    assert client.batches == [["d-2"]]
    assert reporter.lost == 1
    assert "refuses the record" in caplog.text


async def test_an_agent_that_does_not_offer_it_ends_it(caplog):
    reporter, client = make(), Client(Unavailable("UNIMPLEMENTED", retry=False))
    reporter.put(decided(1))
    await reporter.run(client)
    reporter.put(decided(2))
    assert (client.batches, len(reporter._waiting)) == ([], 0)
    assert "in the log of this process only" in caplog.text


async def test_the_end_hands_on_what_waits():
    reporter, client = Reporter(HereRunner(), send, gather_seconds=60), Client()
    async with running(reporter, client):
        reporter.put(decided(1))
        await asyncio.sleep(0)
    assert client.batches == [["d-1"]]


async def test_the_end_does_not_wait_for_an_agent_that_is_away(caplog):
    reporter, client = Reporter(HereRunner(), send, gather_seconds=60), Client(*[Unavailable("away")] * 5)
    async with running(reporter, client):
        reporter.put(decided(1))
        await asyncio.sleep(0)
    assert "1 decisions were not handed to the agent" in caplog.text


async def test_what_comes_after_the_end_is_not_kept():
    reporter, client = make(), Client()
    async with running(reporter, client):
        pass
    reporter.put(decided(1))
    assert len(reporter._waiting) == 0


async def test_a_child_reports_its_own_and_not_its_parents(monkeypatch):
    reporter, client = make(), Client()
    reporter.put(decided(1))
    async with running(reporter, Client(*[Unavailable("away")] * 50)):
        pass
    monkeypatch.setattr("everyhop.sdk.reporting.os.getpid", lambda: -1)
    async with running(reporter, client):  # the feed begins before anything is put
        reporter.put(decided(2))
        await client.arrived.wait()
    assert client.batches == [["d-2"]]


def test_a_guard_of_a_workload_tells_its_agent():
    with FakeAgent(POLICY, "orders") as agent:
        with connect(agent.socket) as workload:
            guard = Guard(workload, decisions=lambda one: None)
            guard.check(Request(method="GET", raw_path=b"/orders", headers=[], peer=STOREFRONT))
            with pytest.raises(Refusal) as caught:
                guard.check(Request(method="GET", raw_path=b"/admin\n\x1b", headers=[], peer=STOREFRONT))
        told = {one.id: one for one in agent.decisions}  # closing has flushed
    assert len(told) == 2
    refused = told[caught.value.decision_id]
    assert (refused.allowed, refused.code, refused.reason) == (False, "AMBIGUOUS_PATH", "ambiguous-path")
    assert (refused.path, refused.caller) == (r"/admin\n\x1b", STOREFRONT.spiffe_id)
