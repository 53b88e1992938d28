# SPDX-License-Identifier: Apache-2.0
"""Blocks by order: what may not be blocked, what is recorded, when it ends, and that agents are told at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.support.control_plane import ControlUnderTest, TextSource

from everyhop.anomaly.blocks_codec import decode_blocks
from everyhop.anomaly.model import BlockMode, Subject
from everyhop.auditlog import Event, Kind, RecordFilter
from everyhop.control.feed import Feed
from everyhop.control.messages import AgentReport, BlockWish, UnblockWish
from everyhop.control.responding import BlocksInForce
from everyhop.control.response_orders import named
from everyhop.control.service import ControlPlane
from everyhop.core.errors import Conflict, InputError, NotFound

ORDERS = "spiffe://shop.example/service/orders"


@pytest.fixture
async def plane(tmp_path):
    made = ControlUnderTest(tmp_path)
    await made.control.start(TextSource())
    yield made
    made.close()


def block(plane, text=f"identity:{ORDERS}", *, seconds=60.0, **more):
    until = None if seconds is None else plane.clock.now() + timedelta(seconds=seconds)
    more = {"reason": "test", "by": "uid:1"} | more
    return plane.control.responder.block(Subject.parse(text), until=until, **more)


def records(plane):
    return plane.storage.records.query(RecordFilter(kind=Kind.RESPONSE), limit=100).records[::-1]


# -- what may not be blocked


@pytest.mark.parametrize(
    "text",
    [
        "address:0.0.0.0",
        "address:::",
        "address:224.0.0.1",
        "address:255.255.255.255",
        "identity:spiffe://shop.example/everyhop/server",
    ],
)
async def test_nobody_blocks_everything_or_the_server_itself(plane, text):
    with pytest.raises(Conflict):
        await block(plane, text)
    assert not plane.control.responder.blocks.by_subject
    assert not records(plane)


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("identity:spiffe://other.example/service/orders", {}),
        ("identity:spiffe://SHOP.example/service/orders", {}),
        ("identity:spiffe://shop.example/service/../orders", {}),
        (f"identity:{ORDERS}", {"reason": ""}),
        (f"identity:{ORDERS}", {"reason": " "}),
        (f"identity:{ORDERS}", {"reason": "a\nforged: line"}),
        (f"identity:{ORDERS}", {"reason": "\u202edesrever"}),
        (f"identity:{ORDERS}", {"reason": "x" * 501}),
        (f"identity:{ORDERS}", {"seconds": 0.0}),
        ("user:mallory", {"mode": BlockMode.QUARANTINE}),
        ("address:203.0.113.7", {"mode": BlockMode.QUARANTINE}),
    ],
)
async def test_nonsense_is_refused(plane, text, more):
    with pytest.raises(InputError):
        await block(plane, text, **more)
    assert not records(plane)


async def test_what_the_policy_exempts_is_blocked_by_force_alone(tmp_path):
    made = ControlUnderTest(tmp_path, exempt=lambda: frozenset({Subject.parse(f"identity:{ORDERS}")}))
    await made.control.start(TextSource())
    with pytest.raises(Conflict):
        await block(made, finding="f" * 24)
    await block(made, force=True)
    assert len(made.control.responder.blocks.by_subject) == 1
    made.close()


async def test_a_name_that_the_policy_does_not_declare(plane):
    with pytest.raises(NotFound) as refused:
        named("ordres", plane.control.snapshot)
    assert refused.value.hint == "did you mean orders?"
    for text in ("host:a", "address:nowhere", "identity:orders", "user:"):
        with pytest.raises(InputError):
            named(text, plane.control.snapshot)


# -- what is blocked


async def test_a_block_is_recorded_and_told_before_it_returns(plane):
    before = plane.feed.truth
    held = await block(plane, seconds=3600)
    truth = plane.feed.truth
    assert truth.block_sequence == 1
    assert list(decode_blocks(truth.blocks).by_subject) == [held.subject]
    assert (truth.snapshot, truth.tokens, truth.bundle) == (before.snapshot, before.tokens, before.bundle)
    (record,) = records(plane)
    assert (record.operation, record.reason, record.caller, record.target) == (
        "block",
        "commanded",
        "uid:1",
        "orders",
    )
    assert record.detail["block"] == f"identity:{ORDERS}"
    assert record.detail["why"] == "test"
    assert record.detail["until"] == "2026-06-01T13:00:00.000000Z"


async def test_the_record_of_a_user_names_the_user_in_one_place(plane, caplog):
    await block(plane, "user:mallory@shop.example", finding="0a" * 12, by="detector:rate")
    (record,) = records(plane)
    assert record.reason == "detected"
    assert str(record.detail["user"]).startswith("~user.")  # a pseudonym, as of everybody in the log
    assert not [k for k, v in record.detail.items() if "mallory" in str(v)]
    assert "mallory" not in caplog.text
    assert record.detail["finding"] == "0a" * 12


async def test_a_quarantine_takes_back_the_tokens(plane):
    await block(plane, mode=BlockMode.QUARANTINE)
    assert ORDERS in plane.works.service.truth().revocations.to_members()["subs"]
    assert records(plane)[0].operation == "quarantine"


async def test_a_block_ends_by_time_and_its_end_is_recorded(plane):
    await block(plane, seconds=60)
    plane.clock.move(seconds=59)
    await plane.control.responder.tick()
    assert plane.feed.truth.block_sequence == 1
    plane.clock.move(seconds=1)
    await plane.control.responder.tick()
    assert plane.feed.truth.block_sequence == 2
    assert not decode_blocks(plane.feed.truth.blocks).by_subject
    assert [(r.operation, r.reason, r.caller) for r in records(plane)] == [
        ("block", "commanded", "uid:1"),
        ("unblock", "expired", "server"),
    ]


async def test_what_another_server_has_changed_is_told_too(plane):
    await block(plane)

    def told(held):
        return Event(kind=Kind.RESPONSE, action="unblock", time=plane.clock.now(), caller=held.by)

    plane.storage.blocks.lift(Subject.parse(f"identity:{ORDERS}"), told)
    assert plane.feed.truth.block_sequence == 1
    await plane.control.responder.tick()
    assert plane.feed.truth.block_sequence == 2


async def test_blocks_are_there_after_a_restart_of_the_server(plane):
    await block(plane)
    feed = Feed(plane.clock)
    again = ControlPlane(replace(plane.control._p, blocks_in_force=BlocksInForce(), feed=feed))
    await again.start(TextSource())
    assert list(decode_blocks(feed.truth.blocks).by_subject) == [Subject.parse(f"identity:{ORDERS}")]


async def test_racing_orders_end_in_what_was_ordered_last(plane):
    subject = Subject.parse(f"identity:{ORDERS}")
    for _ in range(5):
        await asyncio.gather(
            *(block(plane) for _ in range(4)),
            *(plane.control.responder.unblock(subject, reason="r", by="b") for _ in range(2)),
            return_exceptions=True,
        )
    stored = plane.storage.blocks.load()
    assert plane.control.responder.blocks == stored
    assert plane.feed.truth.block_sequence == stored.sequence == len(records(plane))


# -- orders wait for agents


async def test_an_order_names_the_agents_that_have_not_confirmed(plane):
    plane.feed.connected("near")
    plane.feed.connected("far")

    async def confirm():
        plane.feed.report(AgentReport(agent="near", snapshot=None, bundle_sequence=0, block_sequence=1))

    asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(confirm()))
    answer = await plane.control.orders.block(
        BlockWish(subject="orders", reason="test", wait_seconds=0.05), by="uid:1"
    )
    assert answer.lagging == ["far"]
    assert answer.block.service == "orders"
    assert answer.called_by == ["storefront"]


async def test_an_order_returns_when_all_have_confirmed(plane):
    plane.feed.connected("near")
    waiting = asyncio.create_task(
        plane.control.orders.block(BlockWish(subject="storefront", reason="test", seconds=60), by="uid:1")
    )
    await plane.feed.wait_beyond(plane.feed.truth, 5)
    plane.feed.report(AgentReport(agent="near", snapshot=None, bundle_sequence=0, block_sequence=1))
    answer = await asyncio.wait_for(waiting, 2)
    assert (answer.lagging, answer.calls, answer.sequence) == ([], ["orders"], 1)
    assert [view.subject for view in plane.control.orders.blocks()] == [
        "identity:spiffe://shop.example/service/storefront"
    ]
    plane.feed.report(AgentReport(agent="near", snapshot=None, bundle_sequence=0, block_sequence=2))
    lifted = await plane.control.orders.unblock(UnblockWish(subject="storefront", reason="over"), by="uid:1")
    assert lifted.lagging == []
    assert plane.control.orders.blocks() == []
