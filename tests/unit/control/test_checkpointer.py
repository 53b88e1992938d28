# SPDX-License-Identifier: Apache-2.0
"""Signing while this server leads: each place is told in its own time, and a refusal is said and not repeated."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

from tests.support.identity import NOW

from everyhop.auditlog.checkpoints import StoredCheckpoint
from everyhop.control import checkpointer as module
from everyhop.control.checkpointer import LogSealing
from everyhop.core.errors import Conflict, Unavailable


class Leading:
    is_leading = True

    async def run(self, work):
        await work()


class Steps:
    """A log that grows by one at each look, or raises."""

    def __init__(self):
        self.size = 0
        self.error = None
        self.looks = asyncio.Event()

    def thin(self):
        return 0

    def step(self):
        if self.error is not None:
            raise self.error
        self.size += 1
        return StoredCheckpoint(
            origin="o", size=self.size, root=bytes(32), signed_at=NOW, note=f"o\n{self.size}\n"
        )


class Place:
    def __init__(self, name):
        self.name = name
        self.got = []
        self.fail = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.came = asyncio.Event()

    async def ship(self, checkpoint):
        await self.gate.wait()
        if self.fail:
            self.fail -= 1
            self.came.set()
            raise Unavailable("it is away")
        self.got.append(checkpoint.size)
        self.came.set()


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # of objects that know nothing of each other
            await asyncio.sleep(0.005)


def run(scenario, *places):
    async def main():
        steps = Steps()
        made = [place() for place in places]
        with ThreadPoolExecutor(1) as pool:
            sealing = LogSealing(steps, leader=Leading(), pool=pool, shippers=made, interval=0.005)
            task = asyncio.ensure_future(sealing.run())
            try:
                await scenario(SimpleNamespace(steps=steps, places=made, sealing=sealing, task=task))
            finally:
                task.cancel()
                await asyncio.wait([task])

    asyncio.run(main())


def test_a_refusal_to_sign_is_said_and_ends_when_its_reason_does(caplog):
    async def scenario(s):
        await until(lambda: s.steps.size > 1)
        s.steps.error = Conflict("not signed: it was altered")
        await until(lambda: s.sealing.status()["problem"])
        assert s.sealing.status()["problem"] == "not signed: it was altered"
        await asyncio.sleep(0.05)
        s.steps.error = None
        await until(lambda: not s.sealing.status()["problem"])

    run(scenario)
    assert caplog.text.count("is not signed") == 1


def test_a_slow_place_gets_the_newest_and_keeps_nobody_waiting():
    async def scenario(s):
        slow, quick = s.places
        slow.gate.clear()
        await until(lambda: len(quick.got) > 5)
        slow.gate.set()
        await until(lambda: len(slow.got) >= 2)
        assert slow.got[1] > slow.got[0] + 1
        assert quick.got == sorted(quick.got)

    run(scenario, lambda: Place("slow"), lambda: Place("quick"))


def test_a_place_that_fails_is_tried_again_with_the_newest(monkeypatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)

    async def scenario(s):
        (place,) = s.places
        place.fail = 2
        await until(lambda: s.sealing.status()["shipped"]["p"]["problem"] == "it is away")
        await until(lambda: place.got)
        await until(lambda: s.sealing.status()["shipped"]["p"]["size"])
        assert s.sealing.status()["shipped"]["p"]["problem"] is None

    run(scenario, lambda: Place("p"))


def test_the_head_is_signed_once_more_at_the_end():
    async def scenario(s):
        await until(lambda: s.steps.size > 1)
        before = s.steps.size
        s.task.cancel()
        await asyncio.wait([s.task])
        assert s.steps.size > before
        assert s.sealing.status()["size"] == s.steps.size
        assert s.sealing.status()["signing"] is True

    run(scenario)
