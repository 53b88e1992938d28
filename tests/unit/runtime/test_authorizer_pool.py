# SPDX-License-Identifier: Apache-2.0
"""The worker processes for foreign proxies: real children, fed and ended by the agent's side."""

import asyncio
import os
import signal
import tempfile
from pathlib import Path

import msgspec
import pytest
from tests.support.envoy_pair import wait_for
from tests.support.raw_grpc import RawGrpc
from tests.support.workloads import AuthorityForTests, FixedEntropy, RealClock

from everyhop.control.asking import AskingProxy
from everyhop.control.messages import Update
from everyhop.core.errors import Conflict, InputError, Unavailable
from everyhop.dataplane.log_lines import record_of
from everyhop.policy import encode_snapshot, parse_policy
from everyhop.runtime import authorizer_channel
from everyhop.runtime.authorizer_channel import WorkerPlan, frame, read_frame
from everyhop.runtime.authorizer_pool import AuthorizerPool
from everyhop.runtime.layout import StateLayout
from everyhop.runtime.settings import Settings
from everyhop.spiffe.bundle import encode_bundle
from everyhop.wire.ext_authz import CHECK, CheckRequest, CheckResponse

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {}
  orders: {operations: {list: GET /orders}}
allow: [{from: storefront, to: orders, operations: [list]}]
"""
PROXY = AskingProxy(uid=os.getuid(), services=("orders",))


def truth(policy=POLICY):
    snapshot = parse_policy({"p": policy.encode()})
    bundle = AuthorityForTests(RealClock()).bundle()
    return Update(snapshot=msgspec.Raw(encode_snapshot(snapshot)), bundle=msgspec.Raw(encode_bundle(bundle)))


def check(layout):
    request = CheckRequest()
    request.attributes.source.principal = "spiffe://shop.example/service/storefront"
    request.attributes.request.http.method = b"GET"
    request.attributes.request.http.path = b"/orders"
    with RawGrpc(layout.authorizer_socket) as client:
        outcome = client.ask(CHECK, request.SerializeToString())
    return CheckResponse.FromString(outcome[0][1]) if outcome[0][0] == "message" else None


async def until(condition, *, seconds=40):
    """Return the first true value of a condition, looked at from a thread so that the pool goes on."""
    return await asyncio.to_thread(wait_for, condition, seconds=seconds)


async def answer(layout, code):
    """Ask until the status is ``code``: a truth is taken over a moment after it is passed on."""
    await until(lambda: (found := check(layout)) is not None and found.status.code == code)


def running(pids):
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.fixture
def layout():
    with tempfile.TemporaryDirectory(prefix="eh-", dir="/tmp") as directory:
        made = StateLayout(Path(directory))
        made.create()
        yield made


@pytest.fixture
async def pool(layout):
    made = AuthorizerPool(layout, Settings(authorizers=(PROXY,)), FixedEntropy())
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    await asyncio.wait([task])
    made.close()


async def test_nobody_takes_a_socket_that_is_in_use(layout, pool):
    with pytest.raises(Conflict):
        AuthorizerPool(layout, Settings(authorizers=(PROXY,)), FixedEntropy())


async def test_a_truth_that_is_none_ends_the_worker_and_nothing_is_answered(layout, pool, caplog):
    pool.take(Update(snapshot=msgspec.Raw(b'{"no": "snapshot"}')))
    await until(lambda: "ended; it is started anew" in caplog.text)
    pool.take(truth())
    await answer(layout, 0)


async def test_answers_follow_the_truth_and_are_recorded(layout, pool):
    pool.take(Update())  # a heartbeat is none
    assert pool.pids == {}
    pool.take(truth())
    await answer(layout, 0)
    pool.take(
        truth(
            POLICY.replace("operations: [list]}", "operations: []}").replace(
                "allow: [{from: storefront, to: orders, operations: []}]", ""
            )
        )
    )
    await answer(layout, 7)
    (name,) = pool.spools
    lines = (layout.spool / name / "access.log").read_bytes().splitlines()
    reasons = [record_of(line, instance=name, seq=n).reason for n, line in enumerate(lines, 1)]
    assert {"allowed", "no-rule"} <= set(reasons)


async def test_a_worker_that_was_killed_comes_back_with_the_whole_truth(layout, pool):
    pool.take(truth())
    await answer(layout, 0)
    ((name, pid),) = pool.pids.items()
    os.kill(pid, signal.SIGKILL)
    await until(lambda: pool.pids.get(name) not in {pid, None})
    await answer(layout, 0)


async def test_a_worker_that_cannot_be_started_does_not_end_the_agent(layout, pool, monkeypatch, caplog):
    start = asyncio.create_subprocess_exec

    async def refused(*arguments, **options):
        monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
        raise OSError("no process left")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refused)
    pool.take(truth())
    await answer(layout, 0)
    assert "ended; it is started anew" in caplog.text


async def test_workers_end_with_the_pool(layout):
    made = AuthorizerPool(layout, Settings(authorizers=(PROXY,), authorizer_workers=2), FixedEntropy())
    task = asyncio.create_task(made.run())
    made.take(truth())
    pids = await until(lambda: list(made.pids.values()) if len(made.pids) == 2 else None)
    assert len(made.spools) == 2
    task.cancel()
    await asyncio.wait([task])
    made.close()
    assert not running(pids)
    assert not layout.authorizer_socket.exists()


async def read(data, kind, *, ended=True):
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    if ended:
        reader.feed_eof()
    return await read_frame(reader, kind)


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0\x05{}"])
async def test_a_channel_that_ends(data):
    with pytest.raises(Unavailable):
        await read(data, Update)


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\x02[]", b'\0\0\0\x0b{"other":1}'])
async def test_frames_that_are_none(data):
    with pytest.raises(InputError):
        await read(data, Update)


def test_a_frame_has_a_limit(monkeypatch):
    monkeypatch.setattr(authorizer_channel, "MAX_FRAME_BYTES", 10)
    with pytest.raises(InputError):
        frame(Update(authority="x" * 20))


async def test_a_plan_and_an_update_arrive_as_they_were():
    plan = WorkerPlan(parent=1, grpc_fd=3, http_fd=4, spool="/s", proxies=[PROXY])
    assert await read(frame(plan), WorkerPlan) == plan
    sent = truth()
    assert bytes((await read(frame(sent), Update)).snapshot) == bytes(sent.snapshot)
