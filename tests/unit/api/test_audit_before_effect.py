# SPDX-License-Identifier: Apache-2.0
"""A database that is locked, full or gone: nothing that must be recorded happens, and everybody is answered in time."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from tests.support.control_plane import POLICY, ControlUnderTest, TextSource

from everyhop.api.server_app import AdminDoor, AgentDoor
from everyhop.core.errors import Unavailable
from everyhop.x509.csr import build_csr
from everyhop.x509.keys import generate_private_key

ORDERS = "spiffe://shop.example/service/orders"
STOREFRONT = "spiffe://shop.example/service/storefront"
SLOW_MACHINE = 3.0  # seconds beyond what is promised, for a machine that does other things


@pytest.fixture
async def under_test(tmp_path) -> AsyncIterator[ControlUnderTest]:
    made = ControlUnderTest(tmp_path)
    await made.control.start(TextSource())
    yield made
    made.close()


def client(app) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://server", timeout=30)


@pytest.fixture
async def doors(under_test) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    async with (
        client(AgentDoor(under_test.control).app()) as agent,
        client(AdminDoor(under_test.control).app()) as admin,
    ):
        yield {"agent": agent, "admin": admin}


@contextlib.contextmanager
def locked(tmp_path) -> Iterator[None]:
    """Hold the write lock as another process does."""
    with contextlib.closing(sqlite3.connect(tmp_path / "everyhop.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def csr() -> str:
    return base64.b64encode(build_csr(generate_private_key())).decode()


OTHER = POLICY.replace("services:\n", "services:\n  more: {workload: [{run: true}]}\n")
MINT = {"agent": "a", "items": [{"spiffe_id": STOREFRONT, "target": "orders", "x5t": "A" * 43}]}
RECORD = {
    "id": "d",
    "seq": 1,
    "producer": "i",
    "time": "2026-06-01T12:00:00Z",
    "kind": "decision",
    "point": "ingress",
}
CALLS = {
    "an X509-SVID": (
        "agent",
        "/v1/sign-x509",
        lambda: {"agent": "a", "items": [{"spiffe_id": ORDERS, "csr": csr()}]},
    ),
    "a JWT-SVID": (
        "agent",
        "/v1/sign-jwt",
        lambda: {"agent": "a", "spiffe_id": ORDERS, "audience": ["x"]},
    ),
    "a token": ("agent", "/v1/tokens/mint", lambda: MINT),
    "records": ("agent", "/v1/records", lambda: {"agent": "a", "records": [RECORD]}),
    "a policy": (
        "admin",
        "/v1/policy",
        lambda: {"files": {"p.yaml": OTHER}, "source": "p.yaml", "apply": True},
    ),
    "an authority": ("admin", "/v1/rotate", lambda: {"kind": "x509", "timeout": 0.1}),
}


@pytest.mark.parametrize("name", CALLS)
async def test_nothing_is_handed_out_while_the_database_is_locked(tmp_path, under_test, doors, name):
    door, path, message = CALLS[name]
    count, snapshot = under_test.storage.records.count(), under_test.control.snapshot.hash
    loop = asyncio.get_running_loop()
    with locked(tmp_path):
        began = loop.time()
        answer = await doors[door].post(path, json=message())
        assert loop.time() - began < 2 + SLOW_MACHINE
        assert answer.status_code == 503, answer.text
        assert answer.headers["retry-after"] == "1"
        for secret in ("chain", "token", "stored"):
            assert f'"{secret}":' not in answer.text
        # Who only reads is answered all the same.
        assert (await doors["admin"].get("/v1/records")).status_code == 200
        assert (await doors["admin"].get("/v1/status")).status_code == 200
    assert under_test.storage.records.count() == count
    assert under_test.control.snapshot.hash == snapshot
    assert under_test.feed.truth.snapshot_hash == snapshot
    answer = await doors[door].post(path, json=message())
    assert answer.status_code == 200, answer.text


async def test_many_who_wait_for_a_lock_are_all_answered_in_time(tmp_path, under_test, doors):
    del under_test
    loop = asyncio.get_running_loop()
    with locked(tmp_path):
        began = loop.time()
        answers = await asyncio.gather(
            *(doors["agent"].post("/v1/tokens/mint", json=MINT) for _ in range(40))
        )
        assert loop.time() - began < 2 + SLOW_MACHINE
    assert {answer.status_code for answer in answers} == {503}


@pytest.mark.long  # it waits for the time-outs of every door
async def test_a_database_that_does_not_answer_at_all_stops_no_door(under_test, doors, monkeypatch):
    """As a PostgreSQL that is stopped: the threads do not come back."""
    gate = threading.Event()
    loop = asyncio.get_running_loop()

    def hangs(**_):
        gate.wait(60)
        raise Unavailable("gone")

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as effects:
        patch.setattr(under_test.storage.database, "writing", hangs)
        object.__setattr__(under_test.control._p, "effects", effects)
        began = loop.time()
        body = {"agent": "a", "items": [{"spiffe_id": ORDERS, "csr": csr()}]}
        calls = [doors["agent"].post("/v1/sign-x509", json=body) for _ in range(10)]
        answers = await asyncio.gather(*calls)
        assert loop.time() - began < 2 + SLOW_MACHINE
        assert {answer.status_code for answer in answers} == {503}
        assert (await doors["admin"].get("/v1/records")).status_code == 200
        gate.set()


async def test_a_policy_that_could_not_be_recorded_is_not_in_force(tmp_path, under_test):
    before = under_test.control.snapshot.hash
    with locked(tmp_path), pytest.raises(Unavailable):
        await under_test.control.apply_policy({"p": OTHER.encode()}, source="p")
    assert under_test.feed.truth.snapshot_hash == under_test.policy().snapshot.hash == before
    applied = await under_test.control.apply_policy({"p": OTHER.encode()}, source="p")
    assert under_test.feed.truth.snapshot_hash == applied.hash != before
