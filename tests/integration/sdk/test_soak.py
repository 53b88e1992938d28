# SPDX-License-Identifier: Apache-2.0
"""A minute of calls with the agent killed and started over and over, rotations and policy changes: no failure, no leak."""

import gc
import random
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
from tests.support.tls_pair import Pair
from tests.support.trust_domain import wait_until

from everyhop.sdk import Guard, Peer, Request, client_context, connect, peer_of, server_context
from everyhop.testing import FakeAgent, FixedX509Source

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {workload: [{run: true}]}
  orders:
    workload: [{run: true}]
    operations: {list: {route: GET /orders, token: required}}
  payments:
    workload: [{run: true}]
    operations: {charge: {route: POST /v1/charges, token: operation}}
allow:
  - {from: storefront, to: orders, operations: all}
  - {from: orders, to: payments, operations: all}
"""
STOREFRONT = "spiffe://shop.example/service/storefront"
ORDERS = "spiffe://shop.example/service/orders"
SECONDS = 65.0


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


class Trouble:
    """Kills and starts the agent, rotates certificates and authorities, changes the policy."""

    def __init__(self, agent, workload):
        self.agent, self.workload = agent, workload
        self.stop = threading.Event()
        self.kills = self.rotations = 0
        self.thread = threading.Thread(target=self.run)

    def run(self):
        chance = random.Random(7)
        while not self.stop.is_set():
            self.agent.stop()
            self.kills += 1
            self.stop.wait(chance.uniform(0.05, 0.6))
            self.agent.issuer.prepare()
            self.agent.change(POLICY.replace("payments:\n", f"payments:\n    # {self.kills}\n"))
            self.agent.start()
            published = self.agent.issuer.sequence
            wait_until(lambda n=published: self.workload.context.sequence >= n)
            self.agent.issuer.rotate()
            for _ in range(3):
                is_new_authority = chance.random() < 0.05
                if is_new_authority:
                    self.agent.authority.prepare()
                new = self.agent.rotate()
                wait_until(lambda x5t=new.x5t: self.workload.x509.thumbprint == x5t)
                if is_new_authority:
                    self.agent.authority.rotate()
                self.rotations += 1
                self.stop.wait(chance.uniform(0.2, 0.4))


class Caller:
    """Asks for everything an application asks for, all the time."""

    def __init__(self, agent, workload, guard):
        self.agent, self.workload, self.guard = agent, workload, guard
        self.storefront = FixedX509Source(agent.authority.issue("storefront"))
        self.server = server_context(workload.x509, [STOREFRONT])
        self.client = client_context(self.storefront, ORDERS)
        self.calls, self.failures = 0, []

    def once(self):
        self.storefront.svid = self.agent.authority.issue("storefront")
        pair = Pair(self.server, self.client).handshake()
        peer = peer_of(pair.server)
        token = self.agent.issuer.access("storefront", "orders", scope=["orders.list"], x5t=peer.x5t)
        request = Request(
            method="GET",
            raw_path=b"/orders",
            headers=[(b"authorization", b"Bearer " + token.encode())],
            peer=Peer(spiffe_id=peer.spiffe_id, x5t=peer.x5t),
        )
        assert self.guard.check(request).operation == "list"
        assert self.workload.tokens.token("payments", "charge")

    def run(self, until):
        while time.monotonic() < until:
            try:
                self.once()
            except Exception as error:
                self.failures.append(repr(error))
            self.calls += 1


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_soak():
    with FakeAgent(POLICY, "orders") as agent, connect(agent.socket) as workload:
        guard = Guard(workload, decisions=lambda _: None)
        caller, trouble = Caller(agent, workload, guard), Trouble(agent, workload)
        caller.run(time.monotonic() + 3)  # caches are warm
        trouble.thread.start()
        time.sleep(2)
        gc.collect()
        tracemalloc.start()
        before = descriptors(), threading.active_count(), tracemalloc.get_traced_memory()[0]
        caller.run(time.monotonic() + SECONDS)
        trouble.stop.set()
        trouble.thread.join(20)
        gc.collect()
        after = descriptors(), threading.active_count(), tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    print(f"{caller.calls} calls, {trouble.kills} kills, {trouble.rotations} rotations; {before} -> {after}")
    assert set(caller.failures) == set()
    assert trouble.kills > 20
    assert caller.calls > 500
    assert after[0] <= before[0] + 4
    assert after[1] <= before[1]
    assert after[2] - before[2] < 8 * 1024 * 1024
