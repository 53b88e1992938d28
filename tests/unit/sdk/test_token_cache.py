# SPDX-License-Identifier: Apache-2.0
"""The token cache: one call for everybody, renewal before the end, the held token while the agent is away."""

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from everyhop.core.errors import AccessDenied, Unavailable
from everyhop.core.secret import Secret
from everyhop.sdk.clients import Issued
from everyhop.sdk.token_cache import TokenCache, refresh_at

START = datetime(2026, 3, 1, tzinfo=UTC)


class World:
    """Calls are answered when the test says so, or at once."""

    def __init__(self, *, life=300, at_once=True):
        self.moment = START
        self.life = timedelta(seconds=life)
        self.calls = []
        self.at_once = at_once
        self.error = None
        self.cache = TokenCache(self.fetch, clock=self, fraction=lambda: 0.0, max_tokens=8)

    def now(self):
        return self.moment

    def advance(self, seconds):
        self.moment += timedelta(seconds=seconds)

    def fetch(self, key):
        future = Future()
        self.calls.append((key, future))
        if self.at_once:
            self.answer(-1)
        return future

    def answer(self, index):
        future = self.calls[index][1]
        if self.error is not None:
            future.set_exception(self.error)
        else:
            token = Issued(token=Secret(f"t{len(self.calls)}".encode()), expires_at=self.moment + self.life)
            future.set_result(token)


@pytest.mark.parametrize(
    ("life", "after"),
    [(300, 240), (200, 160), (100, 70), (150, 120), (60, 30), (20, 10), (61, 31)],
)
def test_when_to_renew(life, after):
    assert refresh_at(START, START + timedelta(seconds=life), 0.0) == START + timedelta(seconds=after)


def test_jitter_is_earlier_and_never_later():
    end = START + timedelta(seconds=300)
    assert refresh_at(START, end, 1.0) == START + timedelta(seconds=216)


def test_a_refusal_is_remembered_shortly():
    world = World()
    world.error = AccessDenied("no")
    for _ in range(5):
        with pytest.raises(AccessDenied):
            world.cache.get("k")
    assert len(world.calls) == 1
    world.advance(5)
    world.error = None
    assert world.cache.get("k") == "t2"


def test_a_refusal_ends_a_held_token():
    world = World()
    assert world.cache.get("k") == "t1"
    world.advance(250)
    world.error = AccessDenied("withdrawn")
    world.cache.get("k")
    with pytest.raises(AccessDenied):
        world.cache.get("k")


def test_unavailable_without_a_held_token_raises_and_is_not_remembered():
    world = World()
    world.error = Unavailable("down")
    for _ in range(3):
        with pytest.raises(Unavailable):
            world.cache.get("k")
    assert len(world.calls) == 3
    world.error = None
    assert world.cache.get("k") == "t4"


def test_the_held_token_serves_while_the_agent_is_away_and_not_a_second_longer():
    world = World()
    assert world.cache.get("k") == "t1"
    world.error = Unavailable("down")
    world.advance(240)
    for _ in range(100):
        assert world.cache.get("k") == "t1"
    assert len(world.calls) == 2  # it is tried again after two seconds, not for every call
    world.advance(2)
    assert world.cache.get("k") == "t1"
    assert len(world.calls) == 3
    world.advance(57)
    with pytest.raises(Unavailable):
        world.cache.get("k")


def test_renewal_happens_behind_the_scenes_once():
    world = World()
    assert world.cache.get("k") == "t1"
    world.advance(239)
    assert world.cache.get("k") == "t1"
    assert len(world.calls) == 1
    world.at_once = False
    world.advance(1)
    assert [world.cache.get("k") for _ in range(50)] == ["t1"] * 50
    assert len(world.calls) == 2
    world.answer(-1)
    assert world.cache.get("k") == "t2"


def test_keys_do_not_mix_and_the_cache_is_bounded():
    world = World()
    assert len({world.cache.get(f"k{i}") for i in range(40)}) == 40
    assert len(world.cache) == 8
    world.cache.forget(lambda key: key != "k39")
    assert len(world.cache) == 1


def test_a_token_that_was_called_invalid_is_forgotten():
    world = World()
    assert [world.cache.get(key) for key in "ab"] == ["t1", "t2"]
    world.cache.discard("t1")
    world.cache.discard("unknown")
    assert [world.cache.get(key) for key in "ab"] == ["t3", "t2"]


def test_two_hundred_threads_make_one_call():
    world = World(at_once=False)
    barrier = threading.Barrier(200)

    def ask():
        barrier.wait(30)
        return world.cache.get("k")

    with ThreadPoolExecutor(200) as pool:
        waiting = [pool.submit(ask) for _ in range(200)]
        while not world.calls:
            pass
        world.answer(0)
        assert {one.result(30) for one in waiting} == {"t1"}
    assert len(world.calls) == 1


async def test_two_hundred_tasks_make_one_call_and_a_cancelled_one_stops_nobody():
    world = World(at_once=False)
    tasks = [asyncio.create_task(world.cache.aget("k")) for _ in range(200)]
    await asyncio.sleep(0)
    for task in tasks[:50]:
        task.cancel()
    await asyncio.sleep(0)
    world.answer(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[50:] == ["t1"] * 150
    assert all(isinstance(one, asyncio.CancelledError) for one in results[:50])
    assert len(world.calls) == 1


async def test_threads_and_tasks_share_a_call_and_its_failure():
    world = World(at_once=False)
    world.error = Unavailable("down")
    thread = asyncio.create_task(asyncio.to_thread(world.cache.get, "k"))
    task = asyncio.create_task(world.cache.aget("k"))
    await asyncio.sleep(0.05)
    world.answer(0)
    results = await asyncio.gather(thread, task, return_exceptions=True)
    assert [type(one) for one in results] == [Unavailable, Unavailable]


def test_a_token_is_not_shown():
    issued = Issued(token=Secret(b"s3cret"), expires_at=START)
    assert "s3cret" not in repr(issued)
