# SPDX-License-Identifier: Apache-2.0
"""Work under a lease: one server at a time, stopped before the lease ends, begun again when it fails."""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from everyhop.control.leader import Leader
from everyhop.core.errors import Unavailable

TTL = timedelta(milliseconds=250)


class Clock:
    def now(self):
        return datetime.now(UTC)


class MemoryLeases:
    """The port, with a switch that makes the database unreachable."""

    def __init__(self):
        self.held = {}
        self.is_down = False

    def take(self, name, holder, *, now, ttl):
        if self.is_down:
            raise Unavailable("the database does not answer")
        who, until = self.held.get(name, (holder, now))
        if who != holder and until > now:
            return False
        self.held[name] = (holder, now + ttl)
        return True

    def release(self, name, holder):
        if self.is_down:
            raise Unavailable("the database does not answer")
        if self.held.get(name, ("",))[0] == holder:
            del self.held[name]

    def holder(self, name, *, now):
        who, until = self.held.get(name, (None, now))
        return who if until > now else None


class Work:
    """Counts who works now."""

    def __init__(self):
        self.now = 0
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.most = 0

    async def __call__(self):
        self.now += 1
        self.most = max(self.most, self.now)
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.now -= 1
            self.ended.set()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as opened:
        yield opened


def leader(leases, holder, pool):
    return Leader(leases, "exports", holder, clock=Clock(), pool=pool, ttl=TTL)


@contextlib.asynccontextmanager
async def running(one, work):
    task = asyncio.create_task(one.run(work))
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_no_work_without_the_lease(pool):
    leases, work = MemoryLeases(), Work()
    leases.held["exports"] = ("other", datetime.now(UTC) + timedelta(hours=1))
    async with running(leader(leases, "a", pool), work):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(work.begun.wait(), 0.2)
    assert leases.held["exports"][0] == "other"


async def test_work_stops_when_the_lease_is_lost(pool):
    leases, work = MemoryLeases(), Work()
    one = leader(leases, "a", pool)
    async with running(one, work):
        await asyncio.wait_for(work.begun.wait(), 5)
        assert one.is_leading
        leases.held["exports"] = ("other", datetime.now(UTC) + timedelta(hours=1))
        await asyncio.wait_for(work.ended.wait(), 5)
        assert work.now == 0


async def test_work_stops_before_the_end_when_the_database_is_gone(pool):
    leases, work = MemoryLeases(), Work()
    async with running(leader(leases, "a", pool), work):
        await asyncio.wait_for(work.begun.wait(), 5)
        leases.is_down = True
        until = leases.held["exports"][1]
        await asyncio.wait_for(work.ended.wait(), 5)
        assert datetime.now(UTC) < until
        leases.is_down = False
        work.begun.clear()
        await asyncio.wait_for(work.begun.wait(), 5)


async def test_another_takes_over_and_never_both(pool):
    leases, work = MemoryLeases(), Work()
    async with running(leader(leases, "b", pool), work):
        async with running(leader(leases, "a", pool), work):
            await asyncio.wait_for(work.begun.wait(), 5)
            await asyncio.sleep(TTL.total_seconds() * 2)
            assert work.most == 1
            first = leases.held["exports"][0]
        work.begun.clear()
        if first == "a":
            await asyncio.wait_for(work.begun.wait(), 5)
        assert leases.held["exports"][0] == "b"
    assert work.most == 1
    assert "exports" not in leases.held


async def test_work_that_fails_is_begun_again(pool):
    leases = MemoryLeases()
    begun = []
    enough = asyncio.Event()

    async def fails():
        begun.append(1)
        if len(begun) == 3:
            enough.set()
        raise ValueError("broken")

    async with running(leader(leases, "a", pool), fails):
        await asyncio.wait_for(enough.wait(), 5)


async def test_a_stopped_server_releases_even_when_the_database_is_gone(pool):
    leases, work = MemoryLeases(), Work()
    async with running(leader(leases, "a", pool), work) as task:
        await asyncio.wait_for(work.begun.wait(), 5)
        leases.is_down = True
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert work.now == 0
