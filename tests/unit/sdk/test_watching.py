# SPDX-License-Identifier: Apache-2.0
"""Watchers: hours of outage, malformed updates, withdrawal, fatal refusal."""

import asyncio
import contextlib
import threading

import pytest

from everyhop.core.errors import AccessDenied, InputError, SvidError, Unavailable
from everyhop.sdk.held import Held
from everyhop.sdk.watching import Backoff, Watcher


class Stop(BaseException):
    pass


class World:
    """A script of what each connection does: a list of messages and how it ends."""

    def __init__(self, *connections):
        self.script = list(connections)
        self.opened = 0
        self.slept = []
        self.held = Held("thing")
        self.seen = []
        self.held.on_update(self.seen.append)
        self.watcher = Watcher(
            self.held, self.open, self.read, backoff=Backoff(fraction=lambda: 0.0), sleep=self.sleep
        )

    async def open(self):
        self.opened += 1
        if not self.script:
            raise Stop
        for message in self.script.pop(0):
            if isinstance(message, BaseException):
                raise message
            yield message

    def read(self, message):
        if message == "bad":
            raise InputError("malformed")
        if message == "untrusted":
            raise SvidError("a foreign chain")
        if message == "bug":
            raise RuntimeError("ours")
        return message

    async def sleep(self, seconds):
        self.slept.append(seconds)

    async def run(self):
        with contextlib.suppress(Stop):
            await self.watcher.run()


def test_backoff_grows_to_its_bound_and_never_overflows():
    backoff = Backoff(fraction=lambda: 0.0)
    waits = [backoff.next() for _ in range(100_000)]
    assert waits[:4] == [0.05, 0.1, 0.2, 0.4]
    assert max(waits) == waits[-1] == 2.0
    backoff.reset()
    assert backoff.next() == 0.05
    assert Backoff(fraction=lambda: 1.0).next() == 0.025


async def test_hours_of_outage_keep_what_is_held():
    world = World(["a"], *([Unavailable("down")] for _ in range(5000)), ["b"])
    await world.run()
    assert world.held.get() == "b"
    assert world.seen == ["a", "b"]
    assert world.opened == 5003
    assert sum(world.slept) > 2 * 3600


async def test_malformed_updates_are_refused_and_the_old_value_stays():
    world = World(["a", "bad", "untrusted"], ["bad"], ["bad", "b", "bad"])
    await world.run()
    assert world.seen == ["a", "b"]
    assert world.watcher.refused == 5
    assert world.held.get() == "b"


async def test_an_agent_that_sends_only_nonsense_is_not_hammered():
    world = World(*(["bad"] for _ in range(20)))
    await world.run()
    assert world.slept[-1] == 2.0
    with pytest.raises(Unavailable):
        world.held.get()


async def test_withdrawal_drops_the_value_and_watching_goes_on():
    world = World(["a", AccessDenied("withdrawn")], [AccessDenied("still")], [AccessDenied("still")], ["c"])
    await world.run()
    assert world.seen == ["a", None, "c"]
    assert world.held.get() == "c"


async def test_after_a_withdrawal_it_says_so_also_when_the_agent_dies():
    world = World(["a", AccessDenied("withdrawn")])
    await world.run()
    with pytest.raises(AccessDenied, match="withdrawn"):
        world.held.get()


async def test_invalid_argument_is_fatal_and_keeps_the_value():
    world = World(["a", InputError("your request is wrong")], ["never"])
    await world.run()
    assert world.opened == 1
    assert world.held.get() == "a"
    nothing = World([InputError("your request is wrong")])
    await nothing.run()
    with pytest.raises(InputError, match="wrong"):
        nothing.held.wait(10)  # at once: nothing will come


async def test_a_bug_does_not_end_the_watch():
    world = World(["a", "bug"], ["b"])
    await world.run()
    assert world.held.get() == "b"


async def test_a_stream_that_ends_is_opened_again():
    world = World(["a"], [], ["b"])
    await world.run()
    assert world.seen == ["a", "b"]


# -- the holder


def test_waiting_ends_with_a_value_or_says_why_not():
    held = Held("thing")
    with pytest.raises(Unavailable, match="no thing yet"):
        held.wait(0.01)
    threading.Timer(0.02, held.put, ("a",)).start()
    assert held.wait(10) == "a"


async def test_async_waiting():
    held = Held("thing")
    with pytest.raises(Unavailable):
        await held.wait_async(0.01)
    asyncio.get_running_loop().call_later(0.02, held.put, "a")
    assert await held.wait_async(10) == "a"
    assert not held._listeners


def test_a_listener_that_fails_stops_nobody(caplog):
    held = Held("thing")
    seen = []
    held.on_update(lambda _: 1 / 0)
    stop = held.on_update(seen.append)
    held.put("a")
    stop()
    held.put("b")
    assert seen == ["a"]
    assert "a listener for the thing failed" in caplog.text


def test_raised_errors_are_copies():
    held = Held("thing")
    errors = []
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            held.get()
        errors.append(caught.value)
    assert errors[0] is not errors[1]
