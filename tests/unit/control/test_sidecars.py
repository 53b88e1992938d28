# SPDX-License-Identifier: Apache-2.0
"""When a sidecar gets new files: after a restart of the agent, not before what it carries can be carried on."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tests.unit.control.test_blocked import blocks_of

from everyhop.agent import Launch, LaunchState
from everyhop.control import sidecars as module
from everyhop.control.policy_view import PolicyView
from everyhop.control.sidecars import Sidecars
from everyhop.core.secret import Secret
from everyhop.dataplane.configuration import FILTER
from everyhop.policy import parse_policy
from everyhop.runtime.system import SystemClock
from everyhop.wire.processes import ProcessRef

POLICY = b"""
version: 1
trust_domain: shop.example
services:
  shop: {workload: [{run: true}]}
  orders: {workload: [{run: true}], operations: {create: {route: POST /orders, token: required}}}
allow: [{from: shop, to: orders, operations: [create]}]
"""
X5T = "A" * 43


class Tokens:
    """What the agent holds; nothing at first."""

    def __init__(self) -> None:
        self.held: set[tuple[str, str | None]] = set()

    def generation(self, spiffe_id):
        return SimpleNamespace(x5t=X5T)

    def token_for(self, spiffe_id, target, operation, x5t):
        return "token" if (target, operation) in self.held else None


class Configs:
    """What was published."""

    def __init__(self) -> None:
        self.given = {}

    def published(self, instance):
        return self.given.get(instance)

    def publish(self, instance, configuration):
        self.given[instance] = configuration


@pytest.fixture
def launch(tmp_path):
    for name in ("s", "envoy", "spool"):
        (tmp_path / name).mkdir()
    process = ProcessRef(pid=os.getpid(), start_time=1)
    return Launch(
        instance="i1",
        service="shop",
        uid=os.getuid(),
        run=process,
        envoy=process,
        state=LaunchState.RUNNING,
        directories={
            "sockets": str(tmp_path / "s"),
            "envoy": str(tmp_path / "envoy"),
            "spool": str(tmp_path / "spool"),
        },
        ports={"app": 1001, "ingress": 1002, "egress": 1003},
    )


@pytest.fixture
def made(tmp_path):
    tokens, configs = Tokens(), Configs()
    sidecars = Sidecars(
        configs=configs,
        tokens=tokens,
        key=Secret(b"k" * 32),
        node="n",
        sds_socket=tmp_path / "sds.sock",
        max_connections=16,
        clock=SystemClock(),
    )
    view = PolicyView(parse_policy({"p.yaml": POLICY}))

    async def apply(launch):
        return await sidecars.apply(view, [launch], epoch="e")

    return SimpleNamespace(tokens=tokens, configs=configs, apply=apply, sidecars=sidecars)


async def test_a_running_sidecar_keeps_its_tokens_until_the_restarted_agent_has_others(made, launch):
    assert 0 < await made.apply(launch) <= module._PATIENCE_SECONDS
    assert not made.configs.given
    made.tokens.held.add(("orders", None))
    assert await made.apply(launch) is None
    assert "i1" in made.configs.given


async def test_but_not_for_ever(made, launch, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.05)
    assert await made.apply(launch) is not None
    await asyncio.sleep(0.06)
    assert await made.apply(launch) is None
    assert "i1" in made.configs.given


async def test_a_new_sidecar_does_not_wait(made, launch):
    assert await made.apply(replace(launch, envoy=None)) is None
    assert "i1" in made.configs.given
    first = made.configs.given["i1"]
    assert await made.apply(launch) is None
    assert made.configs.given["i1"] is first


async def test_one_that_ends_while_it_waits_is_forgotten(made, launch):
    assert await made.apply(launch) is not None
    made.configs.keep_only = lambda instances: None
    made.sidecars.keep_only(set())
    assert await made.sidecars.apply(PolicyView(parse_policy({"p.yaml": POLICY})), [], epoch="e") is None


async def test_a_sidecar_keeps_what_it_has_until_a_new_token_is_there(made, launch):
    plain = PolicyView(
        parse_policy({"p.yaml": POLICY.replace(b"{route: POST /orders, token: required}", b"POST /orders")})
    )
    await made.sidecars.apply(plain, [launch], epoch="e")
    before = made.configs.given["i1"]
    assert 0 < await made.apply(launch) <= module._NEW_TOKEN_SECONDS
    assert made.configs.given["i1"] is before
    made.tokens.held.add(("orders", None))
    assert await made.apply(launch) is None
    assert made.configs.given["i1"] is not before


async def test_a_token_that_is_lost_later_holds_nothing_up(made, launch):
    made.tokens.held.add(("orders", None))
    await made.apply(launch)
    made.tokens.held.clear()
    assert await made.apply(launch) is None


async def test_a_held_service_keeps_what_it_has_but_a_new_one_begins(made, launch):
    view = PolicyView(parse_policy({"p.yaml": POLICY}))
    made.tokens.held.add(("orders", None))
    await made.sidecars.apply(view, [launch], epoch="e", held={"shop"})
    first = made.configs.given["i1"]
    await made.sidecars.apply(view, [replace(launch, facts={"app": "port"})], epoch="e", held={"shop"})
    assert made.configs.given["i1"] is first
    await made.sidecars.apply(view, [replace(launch, facts={"app": "port"})], epoch="e")
    assert made.configs.given["i1"] is not first


async def test_a_block_waits_for_nothing_that_a_policy_waits_for(made, launch):
    """Neither for tokens, nor for a turn in the rollout of another policy."""
    made.tokens.held.add(("orders", None))
    assert await made.apply(launch) is None
    first = made.configs.given["i1"]
    assert first.blocks == 0
    made.sidecars.apply_blocks(blocks_of(SystemClock(), "address:203.0.113.7", sequence=4), epoch="")
    assert made.configs.given["i1"].blocks == 4
    await made.sidecars.apply(
        PolicyView(parse_policy({"p.yaml": POLICY})), [launch], epoch="other", held={"shop"}
    )
    assert made.configs.given["i1"].blocks == 4
    assert made.configs.given["i1"].of(FILTER)["authz"] == first.of(FILTER)["authz"]
    await made.sidecars.show_blocks()
