# SPDX-License-Identifier: Apache-2.0
"""The feed: pushed at once, and rotation waits for every connected agent."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from everyhop.control.feed import Feed, Truth
from everyhop.control.messages import AgentReport


class FakeClock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


def _truth(sequence: int) -> Truth:
    return Truth(
        snapshot=b"s",
        snapshot_hash="h",
        bundle=b"b",
        bundle_sequence=sequence,
        authority="a",
        tokens=b"t",
        token_sequence=1,
    )


def _report(agent: str, sequence: int) -> AgentReport:
    return AgentReport(agent=agent, snapshot="h", bundle_sequence=sequence)


async def test_a_waiter_wakes_at_the_change() -> None:
    feed = Feed(FakeClock())
    feed.publish(_truth(1))
    known = feed.truth
    waiting = asyncio.create_task(feed.wait_beyond(known, 30))
    await asyncio.sleep(0)
    feed.publish(_truth(2))
    assert await asyncio.wait_for(waiting, 1) == _truth(2)


async def test_a_change_between_two_waits_is_not_missed() -> None:
    feed = Feed(FakeClock())
    feed.publish(_truth(1))
    known = feed.truth
    feed.publish(_truth(2))
    assert await feed.wait_beyond(known, 30) == _truth(2)


async def test_without_a_change_the_known_truth_comes_back_as_heartbeat() -> None:
    feed = Feed(FakeClock())
    feed.publish(_truth(1))
    known = feed.truth
    feed.publish(_truth(1))
    assert await feed.wait_beyond(known, 0.01) is known


async def test_a_connected_agent_that_has_not_reported_holds_rotation_up() -> None:
    feed = Feed(FakeClock())
    feed.connected("one")
    feed.connected("two")
    feed.report(_report("one", 5))
    assert await feed.wait_applied(lambda r: r.bundle_sequence >= 5, 0.01) == ["two"]
    waiting = asyncio.create_task(feed.wait_applied(lambda r: r.bundle_sequence >= 5, 5))
    await asyncio.sleep(0)
    feed.report(_report("two", 4))
    await asyncio.sleep(0)
    assert not waiting.done()
    feed.report(_report("two", 5))
    assert await asyncio.wait_for(waiting, 1) == []


async def test_an_agent_that_left_holds_nothing_up_and_is_forgotten() -> None:
    clock = FakeClock()
    feed = Feed(clock)
    feed.connected("one")
    feed.connected("one")
    feed.disconnected("one")
    assert feed.lagging(lambda _: True) == ["one"]
    feed.report(_report("one", 1))
    feed.disconnected("one")
    assert feed.lagging(lambda _: False) == []
    assert [r.agent for r in feed.reports()] == ["one"]
    clock.time += timedelta(minutes=1)
    assert feed.reports() == []


async def test_rotation_waits_for_the_face_as_well() -> None:
    feed, held = Feed(FakeClock()), {"face": 1}
    feed.add_verifier("face", lambda: held["face"])
    feed.publish(_truth(2))
    feed.connected("agent")
    assert feed.acknowledged_bundle() is None
    feed.report(_report("agent", 2))
    assert feed.acknowledged_bundle() == 1
    assert await feed.wait_bundle(2, 0.05) == ["face"]
    waiting = asyncio.create_task(feed.wait_bundle(2, 5))
    await asyncio.sleep(0.03)
    held["face"] = 2
    assert await asyncio.wait_for(waiting, 1) == []
    assert feed.acknowledged_bundle() == 2


async def test_a_face_that_is_not_there_is_not_waited_for() -> None:
    feed = Feed(FakeClock())
    feed.add_verifier("face", lambda: None)
    feed.publish(_truth(2))
    assert feed.acknowledged_bundle() == 2
    assert await feed.wait_bundle(2, 0.05) == []
    feed.connected("agent")
    assert await feed.wait_bundle(2, 0.05) == ["agent"]
