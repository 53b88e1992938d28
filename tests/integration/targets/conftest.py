# SPDX-License-Identifier: Apache-2.0
"""One policy, compiled to proxies that are then run for real."""

import asyncio
from types import SimpleNamespace

import pytest

from everyhop.authz import Engine
from everyhop.evaluators.model import Request, Wire, Workload
from everyhop.policy import parse_policy
from everyhop.targets import compile_policy
from everyhop.testing.authority import Authority

DOMAIN = "shop.example"
POLICY = """\
version: 1
trust_domain: shop.example
services:
  web: {}
  job: {}
  orders:
    operations:
      list: GET /orders
      read: GET /orders/{id}
      create: POST /orders
      mine: GET /orders/mine
      files: GET /public/{rest...}
      region: GET /region
      pay: {route: POST /pay, token: required}
      say: POST /say
      hear: GET /hear
      live: {websocket: "/live/{room}"}
    probes: [GET /healthz]
  rpc: {operations: {get: {grpc: shop.v1.Rpc/Get}}}
  closed: {operations: {x: GET /x}}
  db: {tcp: 5432}
  shut: {tcp: 5433}
attributes:
  request: {headers: [x-region]}
allow:
  - {from: web, to: orders, operations: [list, read, create, files, pay, live, hear]}
  - {from: job, to: orders, operations: [list, read, create]}
  - {from: web, to: orders, operations: [region], when: "request.headers['x-region'] == 'eu'"}
  - {from: web, to: orders, operations: [say], user: optional}
  - {from: web, to: rpc, operations: all}
  - {from: web, to: db}
deny:
  - {from: job, to: orders, operations: [create], reason: jobs only read}
targets:
  SETTINGS
"""


def compiled(target, settings, policy=POLICY):
    """A policy compiled to one target: its snapshot, engine, files and diagnostics."""
    snapshot = parse_policy({"everyhop.yaml": policy.replace("SETTINGS", settings).encode()})
    (one,) = compile_policy(snapshot, [target])
    return SimpleNamespace(
        snapshot=snapshot,
        engine=Engine(snapshot),
        files={file.path: file.content for file in one.files},
        diagnostics=one.diagnostics,
        codes=sorted({diagnostic.code for diagnostic in one.diagnostics}),
    )


def identity(service, domain=DOMAIN):
    return f"spiffe://{domain}/service/{service}"


async def until(probe, *, seconds=60):
    """Ask until there is an answer; what a busy machine needs is time, not luck."""
    async with asyncio.timeout(seconds):
        while True:
            if (found := await probe()) is not None:
                return found
            await asyncio.sleep(0.05)


def request_of(peer, method="", path="", *, target="orders", wire=Wire.HTTP, **more):
    """One request of an evaluator; ``peer`` is a service, a SPIFFE ID or None."""
    name = peer or "nobody"
    place = Workload(name=name, namespace="", service_account=name, labels={})
    there = Workload(name=target, namespace="", service_account=target, labels={})
    known = peer if peer is None or "://" in peer else identity(peer)
    return Request(
        source=place, target=there, port=15443, peer=known, method=method, path=path, wire=wire, **more
    )


@pytest.fixture(scope="session")
def authority():
    return Authority(DOMAIN)
