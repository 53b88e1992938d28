# SPDX-License-Identifier: Apache-2.0
"""The workload against a Workload API on a real socket: outage, malformed updates, withdrawal, rotation, forks."""

import asyncio
import gc
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.forked import result, start
from tests.support.trust_domain import wait_until

from everyhop.core.errors import AccessDenied, InputError, SettingsError, Unavailable
from everyhop.sdk import (
    AsyncWorkloadApiClient,
    BundleSource,
    JwtSource,
    WorkloadApiClient,
    X509Source,
    aconnect,
    connect,
)
from everyhop.testing import Authority, FakeAgent
from everyhop.wire import tokens as t, workload_pb2 as w

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {workload: [{run: true}]}
  orders: {workload: [{run: true}], operations: {list: GET /orders}}
  payments:
    workload: [{run: true}]
    operations:
      charge: {route: POST /v1/charges, token: operation}
      pay: {route: POST /v1/pay, token: required}
      refund: {route: POST /v1/refund, token: required, once: true}
      free: GET /v1/free
allow:
  - {from: storefront, to: orders, operations: all}
  - {from: orders, to: payments, operations: all}
"""
ORDERS = "spiffe://shop.example/service/orders"


@pytest.fixture
def agent():
    with FakeAgent(POLICY, "orders") as found:
        yield found


def sdk_threads():
    return [one for one in threading.enumerate() if one.name == "everyhop-sdk"]


# -- refusals


def test_no_agent_is_a_clear_error(tmp_path):
    with pytest.raises(Unavailable, match="nobody listens"):
        connect(f"unix://{tmp_path}/none.sock", timeout=0.3)
    with pytest.raises(SettingsError):
        connect("tcp://127.0.0.1:1")
    assert not sdk_threads()


def test_without_identity_it_says_so(agent):
    agent.withdraw()
    with pytest.raises(AccessDenied, match="no identity"):
        connect(agent.socket, timeout=0.3)
    with WorkloadApiClient(agent.socket) as client:
        for call in (client.fetch_x509, client.fetch_x509_bundles, client.fetch_context):
            with pytest.raises(AccessDenied):
                call()
        with pytest.raises(AccessDenied):
            client.mint("payments")


def test_an_agent_that_accepts_and_never_answers(tmp_path):
    import socket

    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        with (
            WorkloadApiClient(f"unix://{tmp_path}/s", call_seconds=0.3) as client,
            pytest.raises(Unavailable),
        ):
            client.fetch_x509()
        with pytest.raises(Unavailable):
            connect(f"unix://{tmp_path}/s", timeout=0.3)
    assert not sdk_threads()


def malformed(agent):
    identity, other = agent.identity, Authority("other.example").issue("orders")
    good = {
        "spiffe_id": ORDERS,
        "x509_svid": identity.chain[0],
        "x509_svid_key": identity.key.reveal(),
        "bundle": identity.bundle.x509_der,
    }
    foreign = {
        "spiffe_id": str(other.spiffe_id),
        "x509_svid": other.chain[0],
        "x509_svid_key": other.key.reveal(),
        "bundle": other.bundle.x509_der,
    }
    return [
        w.X509SVIDResponse(),
        w.X509SVIDResponse(svids=[w.X509SVID(**{**good, "x509_svid": b"nonsense"})]),
        w.X509SVIDResponse(svids=[w.X509SVID(**{**good, "x509_svid_key": other.key.reveal()})]),
        w.X509SVIDResponse(svids=[w.X509SVID(**{**good, "bundle": b""})]),
        w.X509SVIDResponse(svids=[w.X509SVID(**foreign)]),
        t.ContextUpdate(),
        t.ContextUpdate(document=b"{}"),
        t.ContextUpdate(document=agent.context.replace(b'"kty":"EC"', b'"kty":"oct"')),
        t.ContextUpdate(document=agent.context.replace(b"shop.example", b"evil.example")),
    ]


def test_malformed_updates_change_nothing(agent, caplog):
    with connect(agent.socket) as workload:
        identity, context = workload.x509.svid, workload.context
        messages = malformed(agent)
        for count, message in enumerate(messages, 1):
            agent.send(message)
            wait_until(lambda n=count: caplog.text.count("is refused") >= n, what=str(message)[:200])
            assert workload.x509.thumbprint == identity.x5t
            assert workload.context == context
        agent.send(None)
        new = agent.rotate()
        wait_until(lambda: workload.x509.thumbprint == new.x5t)
    assert identity.key.reveal().hex() not in caplog.text


def test_withdrawal_and_return(agent):
    seen = []
    with connect(agent.socket) as workload:
        workload.x509.on_update(seen.append)
        token = workload.tokens.token("payments", "charge")
        agent.withdraw()
        wait_until(lambda: seen == [None])
        wait_until(lambda: _raises(AccessDenied, lambda: workload.context))
        for gone in (lambda: workload.x509.svid, lambda: workload.tokens.token("payments", "charge")):
            with pytest.raises(AccessDenied):
                gone()
        agent.grant()
        wait_until(lambda: len(seen) == 2)
        workload.wait_ready()
        assert workload.tokens.token("payments", "charge") != token


def _raises(kind, function):
    try:
        function()
    except kind:
        return True
    return False


# -- the good life


def test_identity_context_and_tokens(agent):
    with connect(agent.socket) as workload:
        assert (workload.service, str(workload.spiffe_id)) == ("orders", ORDERS)
        assert str(workload.trust_domain) == "shop.example"
        tokens = workload.tokens
        assert tokens.token("payments", "charge") == tokens.token("payments", "charge")
        assert tokens.token("payments", "pay") == tokens.token("payments")
        assert tokens.token("payments", "refund") != tokens.token("payments", "refund")
        assert tokens.for_call("payments", "GET", "/v1/free") is None
        assert tokens.for_call("payments", "POST", b"/v1/charges?x") == tokens.token("payments", "charge")
        for call in (
            ("payments", "GET", "/v1/nothing"),
            ("storefront", "GET", "/"),
            ("payments", "POST", "/v1//pay"),
        ):
            with pytest.raises(AccessDenied):
                tokens.for_call(*call)
        assert agent.calls["Mint"] == 4
        token = tokens.token("payments", "charge")
        tokens.refused(token)
        assert tokens.token("payments", "charge") != token
        assert tokens.exchange("a.b.c") == tokens.exchange("a.b.c") != tokens.exchange("a.b.d")
        assert agent.calls["Exchange"] == 2


def test_a_rotation_changes_tokens_and_forgets_the_old_ones(agent):
    with connect(agent.socket) as workload:
        first, old = workload.tokens.token("payments"), workload.x509.thumbprint
        agent.rotate(authority=True)
        wait_until(lambda: workload.x509.thumbprint != old)
        second = workload.tokens.token("payments")
        assert first != second
        assert workload.tokens.token("payments", x5t=old) == first  # its connections may live on for a while
        new = agent.rotate()
        wait_until(lambda: workload.x509.thumbprint == new.x5t)
        assert workload.tokens.token("payments", x5t=old) != first


def test_the_agent_away(agent):
    with connect(agent.socket) as workload:
        token = workload.tokens.token("payments")
        identity, context = workload.x509.svid, workload.context
        agent.stop()
        time.sleep(0.3)
        assert workload.x509.svid is identity
        assert workload.context is context
        assert workload.tokens.token("payments") == token
        with pytest.raises(Unavailable):
            workload.tokens.token("payments", "charge")
        with pytest.raises(Unavailable):
            workload.tokens.token("payments", "refund")
        agent.start()
        new = agent.rotate()
        wait_until(lambda: workload.x509.thumbprint == new.x5t)
        assert workload.tokens.token("payments", "charge")


def test_refresh_storm_of_threads_is_one_call(agent):
    with connect(agent.socket) as workload, ThreadPoolExecutor(200) as pool:
        barrier = threading.Barrier(200)

        def ask(_):
            barrier.wait(30)
            return workload.tokens.token("payments", "charge")

        assert len(set(pool.map(ask, range(200)))) == 1
        assert agent.calls["Mint"] == 1


async def test_refresh_storm_of_tasks_is_one_call(agent):
    async with await aconnect(agent.socket) as workload:
        asked = await asyncio.gather(*(workload.tokens.atoken("payments", "charge") for _ in range(200)))
        assert len(set(asked)) == 1
        assert agent.calls["Mint"] == 1
        assert await asyncio.to_thread(workload.tokens.token, "payments", "charge") == asked[0]
        assert await workload.tokens.afor_call("payments", "GET", "/v1/free") is None
        assert await workload.tokens.atoken("payments", "refund") != await workload.tokens.atoken(
            "payments", "refund"
        )
        assert await workload.tokens.aexchange("a.b.c")
        assert await workload.jwt.afetch("x")
        with pytest.raises(RuntimeError, match="async variant"):
            workload.tokens.token("payments")
        with pytest.raises(RuntimeError, match="async variant"):
            workload.close()
    assert not sdk_threads()


def test_a_refused_target_is_remembered_shortly(agent):
    agent.refused.add("payments")
    with connect(agent.socket) as workload:
        for _ in range(10):
            with pytest.raises(AccessDenied):
                workload.tokens.token("payments")
        assert agent.calls["Mint"] == 1


def test_a_new_policy_arrives(agent):
    seen = []
    with connect(agent.socket) as workload:
        workload.on_context(seen.append)
        agent.change(POLICY.replace("list: GET /orders", "read: GET /orders"))
        wait_until(lambda: [one.name for one in workload.context.operations] == ["read"])
        assert seen


def test_sources_by_themselves(agent):
    with (
        X509Source(agent.socket) as x509,
        BundleSource(agent.socket) as bundles,
        JwtSource(agent.socket) as jwt,
    ):
        assert str(x509.wait_ready().spiffe_id) == ORDERS
        bundles.wait_ready()
        domain = x509.svid.spiffe_id.trust_domain
        assert bundles.x509(domain).x509_authorities == x509.bundle_for(domain).x509_authorities
        token = jwt.fetch("payments")
        jwt.wait_ready()
        assert str(jwt.validate(token, "payments").spiffe_id) == ORDERS
        other = Authority("other.example")
        for bad in (
            lambda: jwt.validate(token, "ledger"),
            lambda: jwt.validate(other.jwt_svid("orders", "payments"), "payments"),
            lambda: bundles.jwt(other.trust_domain),
            lambda: x509.bundle_for(other.trust_domain),
            jwt.fetch,
        ):
            with pytest.raises(Exception, match=r"audience|trust"):
                bad()
        assert jwt.fetch("payments") == token
        assert agent.calls["FetchJWTSVID"] == 1
    assert not sdk_threads()


def test_an_identity_that_is_not_there_is_not_taken(agent):
    from everyhop.spiffe.ids import SpiffeId

    other = SpiffeId.parse("spiffe://shop.example/service/x")
    with X509Source(agent.socket, spiffe_id=other) as source, pytest.raises(Unavailable):
        source.wait_ready(0.3)


def test_the_client_for_threads(agent):
    with WorkloadApiClient(agent.socket) as client:
        assert str(client.fetch_x509().default.spiffe_id) == ORDERS
        assert client.fetch_x509_bundles()
        assert client.fetch_jwt_bundles()
        (svid,) = client.fetch_jwt_svids(["payments"])
        token = svid.token.reveal().decode()
        assert str(client.validate_jwt_svid(token, "payments").spiffe_id) == ORDERS
        assert client.validate_jwt_svid(token, "payments").claims["sub"] == ORDERS
        with pytest.raises(InputError):
            client.validate_jwt_svid(token, "ledger")
        for audience in ([], "payments"):
            with pytest.raises(InputError):
                client.fetch_jwt_svids(audience)
        assert client.fetch_context().service == "orders"
        assert client.mint("payments", operation="charge").token
    assert not sdk_threads()


async def test_the_client_for_asyncio(agent):
    async with AsyncWorkloadApiClient(agent.socket) as client:
        assert str((await client.fetch_x509()).default.spiffe_id) == ORDERS
        async for update in client.stream_x509():
            if update.default.x5t == agent.identity.x5t:
                break
        assert (await client.fetch_context()).service == "orders"


# -- processes


def test_after_a_fork_the_child_goes_on_by_itself(agent):
    with connect(agent.socket) as workload:
        held = workload.tokens.token("payments")

        def child():
            assert workload.tokens.token("payments") == held
            assert workload.tokens.token("payments", "charge")
            before = workload.x509.thumbprint
            wait_until(lambda: workload.x509.thumbprint != before, seconds=10)
            workload.close()
            assert not sdk_threads()

        rotate = threading.Timer(1.0, agent.rotate)
        started = start(child)  # before there is another thread that could hold a lock
        rotate.start()
        result(started)
        rotate.join()
        new = agent.rotate()
        wait_until(lambda: workload.x509.thumbprint == new.x5t)
        assert workload.tokens.token("payments")


def test_opening_and_closing_leaves_nothing(agent):
    def descriptors():
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    with connect(agent.socket):
        pass
    before = descriptors()
    for _ in range(20):
        with connect(agent.socket) as workload:
            workload.tokens.token("payments")
    assert not sdk_threads()
    wait_until(lambda: descriptors() <= before, seconds=5)


def test_two_workloads_share_one_thread(agent):
    with connect(agent.socket) as first, connect(agent.socket) as second:
        assert len(sdk_threads()) == 1
        first.close()
        assert second.tokens.token("payments")
        with pytest.raises(Unavailable, match="closed"):
            first.tokens.token("payments", "charge")
    assert not sdk_threads()


def test_the_interpreter_exits_quietly_with_a_workload_open(agent):
    import subprocess
    import sys

    program = "from everyhop.sdk import connect\nw = connect()\nprint(w.tokens.token('payments')[:3])\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "SPIFFE_ENDPOINT_SOCKET": agent.socket},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "eyJ\n", "")
