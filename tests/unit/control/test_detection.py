# SPDX-License-Identifier: Apache-2.0
"""Detection over a real log: durable first, once each, over restarts, failures and several servers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from tests.support.detecting import NOON, identity, of_address, of_user, record, snapshot_with
from tests.support.identity import FakeClock

from everyhop.anomaly import Block, Blocks, Subject
from everyhop.anomaly.window import MemoryWindows
from everyhop.auditlog import Event, Kind, RecordFilter
from everyhop.auditlog.ocsf import encode_event, event_of
from everyhop.auditlog.ocsf.values import Disposition
from everyhop.control.detection import CONSUMER, Detection, DetectionPorts
from everyhop.control.pseudonymity import Pseudonymity
from everyhop.core.errors import Conflict, NotFound, Unavailable
from everyhop.providers.keystores import FileKeyStore
from everyhop.storage import open_storage

ORDERS = Subject.parse(f"identity:{identity('orders')}")


class Time:
    def __init__(self):
        self.seconds = 0.0

    def now(self):
        return NOON + timedelta(seconds=self.seconds)

    def monotonic(self):
        return self.seconds


class Blocker:
    """A responder that records what it does, as the real one does, or fails."""

    def __init__(self, storage, time):
        self.storage, self.time = storage, time
        self.held = {}
        self.error = None
        self.asked = []

    @property
    def blocks(self):
        return Blocks.build(self.held.values(), sequence=len(self.held))

    async def block(self, subject, *, mode, until, reason, by, finding=None):
        self.asked.append(str(subject))
        if self.error is not None:
            raise self.error
        block = Block(
            subject=subject,
            mode=mode,
            since=self.time.now(),
            until=until,
            reason=reason,
            by=by,
            finding=finding,
        )
        self.held[subject] = block
        detail = {"block": str(subject), "until": until.isoformat(), "finding": finding}
        self.storage.records.note(
            Event(kind=Kind.RESPONSE, action="block", time=self.time.now(), detail=detail)
        )
        return block

    async def unblock(self, subject, *, reason, by):
        raise NotFound("not here")


class World:
    """A database and servers on it."""

    def __init__(self, storage, pool):
        self.storage, self.pool = storage, pool
        self.time = Time()
        self.blocker = Blocker(storage, self.time)
        self.snapshot = snapshot_with()
        self.numbers = itertools.count(1)
        self.detectors = ()
        self.states = None

    def server(self, name="one", **options):
        base = {
            "lines": self.storage.log_lines,
            "store": self.storage.detection,
            "consumers": self.storage.consumers,
            "leases": self.storage.leases,
            "snapshot": lambda: self.snapshot,
            "windows": MemoryWindows(),
            "clock": self.time,
            "monotonic": self.time.monotonic,
            "pool": self.pool,
            "holder": name,
            "responder": self.blocker,
        }
        return Detection(DetectionPorts(**{**base, **options}))

    def calls(self, n, make=record, *arguments, **fields):
        made = []
        for _ in range(n):
            number = next(self.numbers)
            one = make(*arguments, at=fields.get("at", self.time.now()))
            made.append(
                type(one)(
                    **{
                        **{f: getattr(one, f) for f in one.__struct_fields__},
                        "id": f"c{number}",
                        "seq": number,
                    }
                )
            )
        self.storage.records.append(made)

    def found(self):
        page = self.storage.records.query(RecordFilter(kind=Kind.FINDING), limit=1000)
        return [(one.operation, one.reason, one.caller) for one in reversed(page.records)]


@pytest.fixture
def world(tmp_path):
    with (
        contextlib.closing(open_storage(tmp_path / "everyhop.db")) as storage,
        ThreadPoolExecutor(1) as pool,
    ):
        yield World(storage, pool)


async def settled(detection):
    """Take up the work and look at everything that is there."""
    await detection._call(detection._begin)
    for orphan in detection._orphans:
        await detection._block(*orphan)
    await caught_up(detection)


async def caught_up(detection):
    head = None
    while head != detection._position:
        await detection._once()
        head = await detection._call(detection._p.lines.head)


async def test_what_is_recorded_is_found_and_blocked(world):
    one = world.server()
    await settled(one)
    world.calls(500)
    await caught_up(one)
    assert world.found() == [
        ("rate-anomaly", "alert", str(ORDERS)),
        ("rate-anomaly", "blocked", str(ORDERS)),
    ]
    (block,) = world.blocker.held.values()
    page = world.storage.records.query(RecordFilter(kind=Kind.FINDING), limit=1)
    finding = page.records[0]
    assert (block.finding, block.by, block.until) == (finding.id, "detection", NOON + timedelta(hours=1))
    detail = finding.detail
    assert detail["evidence"].split()[0] == "c1"
    assert detail["evidence"].split()[-1] == "c500"
    assert detail["is_alert"] is True
    assert (detail["count"], detail["threshold"], detail["block_seconds"]) == (500, 500, 3600)
    assert (finding.target, finding.snapshot) == ("store", world.snapshot.hash)
    world.calls(600)  # what was under way
    await caught_up(one)
    assert len(world.found()) == 2
    assert len(world.blocker.asked) == 1


async def test_the_past_before_the_first_start_is_let_be(world):
    world.calls(600)
    one = world.server()
    await settled(one)
    assert world.found() == []
    assert world.storage.consumers.position(CONSUMER) == 600


async def test_a_restart_forgets_nothing_and_tells_nothing_twice(world):
    one = world.server()
    await settled(one)
    world.calls(450)
    await caught_up(one)
    two = world.server()
    await settled(two)
    assert len(world.found()) == 1
    world.calls(49)
    await caught_up(two)
    assert world.blocker.asked == []
    world.calls(1)
    await caught_up(two)
    assert [answer for _, answer, _ in world.found()] == ["alert", "blocked"]


async def test_what_came_while_nobody_looked_is_found_afterwards(world):
    await settled(world.server())
    world.calls(500)
    await settled(world.server())
    assert [answer for _, answer, _ in world.found()] == ["alert", "blocked"]


async def test_an_hour_that_nobody_looked_blocks_nobody(world):
    await settled(world.server())
    for minute in range(60):
        world.calls(50, at=NOON + timedelta(minutes=minute))
    world.time.seconds = 3600 + 400
    await settled(world.server())
    assert world.found() == []


async def test_a_block_that_was_promised_is_asked_for_again(world):
    one = world.server()
    await settled(one)
    world.calls(500)
    await one._call(one._step)  # the findings are durable; then the process ends
    assert world.blocker.asked == []
    await settled(world.server())
    assert world.blocker.asked == [str(ORDERS)]
    await settled(world.server())
    assert world.blocker.asked == [str(ORDERS)]
    assert len(world.found()) == 2


async def test_a_restart_within_a_block_neither_counts_nor_lengthens_it(world):
    one = world.server()
    await settled(one)
    world.calls(500)
    await caught_up(one)
    world.time.seconds = 1800
    two = world.server()
    await settled(two)
    world.calls(600)
    await caught_up(two)
    assert (await two.look(ORDERS)).blocked_for == pytest.approx(1800, abs=1)
    world.time.seconds = 3601
    world.calls(99)
    await caught_up(two)
    assert len(world.found()) == 2
    assert (await two.look(ORDERS)).n == 99


async def test_a_database_that_is_away_loses_no_finding(world):
    class Away:
        is_away = True

        def __getattr__(self, name):
            def call(*arguments, **options):
                if self.is_away:
                    raise Unavailable("away")
                return getattr(world.storage.detection, name)(*arguments, **options)

            return call

    away = Away()
    one = world.server(store=away)
    await settled(one)
    world.calls(500)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await one._call(one._step)
    away.is_away = False
    await caught_up(one)
    assert [answer for _, answer, _ in world.found()] == ["alert", "blocked"]
    assert len(world.blocker.asked) == 1


async def test_a_block_that_fails_is_told_and_tried_again(world):
    world.blocker.error = Unavailable("away")
    one = world.server()
    await settled(one)
    world.calls(500)
    await caught_up(one)
    world.blocker.error = None
    world.time.seconds = 1
    world.calls(500)
    await caught_up(one)
    assert [answer for _, answer, _ in world.found()] == ["alert", "blocked", "failed", "alert", "blocked"]
    assert len(world.blocker.held) == 1


async def test_one_that_may_not_be_blocked_is_told_of_once(world):
    world.blocker.error = Conflict("the server's own")
    one = world.server()
    await settled(one)
    world.calls(1200)
    await caught_up(one)
    await caught_up(one)
    assert [answer for _, answer, _ in world.found()] == ["alert", "blocked", "failed"]
    assert len(world.blocker.asked) == 1


async def test_two_servers_tell_each_thing_once(world):
    one, two = world.server("one"), world.server("two")
    await settled(one)
    await settled(two)
    world.calls(500)
    await caught_up(one)
    await caught_up(two)  # as if the lease had changed hands in the middle
    assert len(world.found()) == 2
    assert len(world.blocker.asked) == 1


async def test_another_policy_holds_from_the_next_record_on(world):
    one = world.server()
    await settled(one)
    world.calls(99)
    await caught_up(one)
    world.snapshot = snapshot_with("{services: {alert: 120}, mode: observe}")
    world.calls(401)
    await caught_up(one)
    assert [answer for _, answer, _ in world.found()] == ["alert", "observed"]
    assert world.blocker.asked == []


async def test_an_outage_of_shared_counters_is_one_record_and_its_end_another(world):
    one = world.server()
    await settled(one)
    one.degraded(True)
    await caught_up(one)
    one.degraded(False)
    await caught_up(one)
    page = world.storage.records.query(RecordFilter(kind=Kind.LIFECYCLE), limit=100)
    assert [r.operation for r in reversed(page.records)] == ["detection-degraded", "detection-restored"]


async def test_a_record_of_a_later_release_is_passed_over(world):
    class Strange:
        def head(self):
            return 1

        def read(self, after, *, limit, max_bytes):
            return [(1, b'{"kind":"dream"}')] if after < 1 else []

    world.storage.consumers.move(CONSUMER, 0, at=NOON)
    world.storage.consumers.say(CONSUMER, "", at=NOON)
    one = world.server(lines=Strange())
    await settled(one)
    assert one._position == 1


class Learner:
    name = "learner"

    def __init__(self):
        self.seen = []

    def observe(self, observation, now):
        self.seen.append(observation.record)
        return []

    def state(self):
        return {"seen": str(len(self.seen)).encode()}

    def restore(self, state):
        self.seen = [""] * int(state.get("seen", b"0"))


class States(dict):
    def load(self, name):
        return self.get(name, {})

    def save(self, states, at):
        self.update(states)
        return len(states)


async def test_detectors_remember_over_a_restart_and_see_no_record_twice(world):
    states, first, second = States(), Learner(), Learner()
    one = world.server(detectors=lambda _: (first,), states=states)
    await settled(one)
    world.calls(5)
    world.time.seconds = 31  # the cursor moves, and what was learned is saved
    await caught_up(one)
    two = world.server(detectors=lambda _: (second,), states=states)
    await settled(two)
    world.calls(2)
    await caught_up(two)
    assert (len(first.seen), len(second.seen)) == (5, 7)


async def test_it_works_under_a_lease_and_wakes_at_once(world):
    world.time.monotonic = asyncio.get_running_loop().time
    one = world.server()
    task = asyncio.create_task(one.run())
    try:
        async with asyncio.timeout(10):
            while not (await one.status())["leading"]:  # noqa: ASYNC110  # what the product shows, and no more
                await asyncio.sleep(0.01)
            world.calls(500, of_address, "203.0.113.7")
            one.wake()
            while not world.blocker.held:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.005)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert [str(subject) for subject in world.blocker.held] == ["address:203.0.113.7"]
    status = await one.status()
    assert (status["findings"], status["leading"], status["degraded"]) == (2, False, False)


async def test_whoever_is_blocked_is_a_pseudonym_in_what_is_sealed(tmp_path):
    (tmp_path / "keys").mkdir(mode=0o700)
    keys = FileKeyStore(tmp_path / "keys" / "kek")
    with (
        contextlib.closing(open_storage(tmp_path / "log.db", keys=keys, clock=FakeClock())) as storage,
        ThreadPoolExecutor(1) as pool,
    ):
        world = World(storage, pool)
        one = world.server(reveal=Pseudonymity(storage.pseudonyms).reveal)
        await settled(one)
        world.calls(500, of_address, "203.0.113.77")
        world.calls(500, of_user, "alice@shop.example")
        await caught_up(one)
        assert sorted(world.blocker.asked) == ["address:203.0.113.77", "user:alice@shop.example"]
        again = world.server(reveal=Pseudonymity(storage.pseudonyms).reveal)
        await settled(again)
        assert len(world.blocker.asked) == 2
        lines = b"".join(line for _, line in storage.log_lines.read(1000, limit=100, max_bytes=10**6))
        assert lines.count(b'"kind":"finding"') == 4
        assert b"203.0.113.77" not in lines
        assert b"alice" not in lines
        assert b"~address." in lines
        assert b"~user." in lines


async def test_a_siem_reads_a_detection_finding_with_its_evidence(world):
    one = world.server()
    await settled(one)
    world.calls(500)
    await caught_up(one)
    record_of_block = world.storage.records.query(RecordFilter(kind=Kind.FINDING), limit=1).records[0]
    event = json.loads(encode_event(event_of(record_of_block)))
    assert (event["class_uid"], event["is_alert"], event["severity_id"]) == (2004, True, 4)
    info = event["finding_info"]
    assert info["analytic"]["uid"] == "rate-anomaly"
    evidence = [related["uid"] for related in info["related_events"]]
    assert (evidence[0], evidence[-1], len(evidence)) == ("c1", "c500", 8)
    assert info["first_seen_time"] <= info["last_seen_time"]
    assert event["disposition_id"] == Disposition.BLOCKED
