# SPDX-License-Identifier: Apache-2.0
"""Refused credentials on their way to the server: digests only, each once, bounded, and none lost while it is away."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from tests.support.identity import FakeClock

from everyhop.anomaly.canary import digest_of
from everyhop.control import refused_credentials as module
from everyhop.control.refused_credentials import MAX_BATCH, MAX_SEEN, MAX_WAITING, RefusedCredentials
from everyhop.control.shown_credentials import Shown
from everyhop.core.errors import Unavailable

SHOWN = Shown(
    where="ingress", caller="spiffe://shop.example/service/orders", target="payments", decision="d-1"
)


class Server:
    def __init__(self, failures=0):
        self.items, self.batches, self.failures = [], [], failures
        self.told = asyncio.Event()

    async def refused(self, items):
        if self.failures:
            self.failures -= 1
            raise Unavailable("away")
        self.items += items
        self.batches.append(len(items))
        self.told.set()


async def sent(reporter, server):
    task = asyncio.create_task(reporter.run())
    async with asyncio.timeout(5):
        while reporter._waiting:
            server.told.clear()
            await server.told.wait()
    task.cancel()
    await asyncio.wait([task])


async def test_only_a_digest_leaves(monkeypatch):
    server = Server()
    reporter = RefusedCredentials(server, FakeClock())
    reporter.note(["a secret text"], SHOWN)
    await sent(reporter, server)
    (item,) = server.items
    assert item.digest == digest_of("a secret text").hex()
    assert (item.where, item.caller, item.target, item.decision) == (
        "ingress",
        SHOWN.caller,
        "payments",
        "d-1",
    )
    assert "a secret text" not in repr(server.items)


async def test_the_same_of_the_same_caller_is_told_once_in_ten_seconds():
    server, clock = Server(), FakeClock()
    reporter = RefusedCredentials(server, clock)
    for _ in range(50):
        reporter.note(["x"], SHOWN)
    reporter.note(["x"], Shown(where="ingress", caller="spiffe://shop.example/service/other"))
    clock.advance(timedelta(seconds=10))
    reporter.note(["x"], SHOWN)
    await sent(reporter, server)
    assert len(server.items) == 3


async def test_what_a_server_that_is_away_did_not_take_is_sent_again(monkeypatch):
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.001)
    server = Server(failures=3)
    reporter = RefusedCredentials(server, FakeClock())
    reporter.note(["x"], SHOWN)
    await sent(reporter, server)
    assert len(server.items) == 1


async def test_a_flood_is_bounded_in_memory_and_in_batches(caplog):
    server = Server()
    reporter = RefusedCredentials(server, FakeClock())
    reporter.note([f"{n}" for n in range(MAX_SEEN + 10)], SHOWN)
    assert len(reporter._waiting) == MAX_WAITING
    assert len(reporter._seen) == MAX_SEEN
    with caplog.at_level("WARNING"):
        await sent(reporter, server)
    assert max(server.batches) == MAX_BATCH
    assert len(server.items) == MAX_WAITING
    assert "were not looked at" in caplog.text


@pytest.mark.parametrize("texts", [[], ["x" * 100_000]], ids=["none", "long"])
async def test_texts_of_any_length(texts):
    server = Server()
    reporter = RefusedCredentials(server, FakeClock())
    reporter.note(texts, SHOWN)
    if texts:
        await sent(reporter, server)
    assert len(server.items) == len(texts)
