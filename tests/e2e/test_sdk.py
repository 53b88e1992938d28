# SPDX-License-Identifier: Apache-2.0
"""The SDK inside a workload of the whole system: identity, context, tokens, the guard."""

from __future__ import annotations

import json
import sys

import pytest
from trust_domain import TrustDomainUnderTest

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {workload: [{run: true}]}
  intruder: {workload: [{run: true}]}
  orders:
    workload: [{run: true}]
    operations:
      list: GET /orders
      create: {route: POST /orders, token: required}
      charge: {route: POST /charge, token: operation, once: true}
    probes: [GET /healthz]
allow:
  - {from: storefront, to: orders, operations: all}
"""

LOOK = """
import json
from everyhop.sdk import connect
from everyhop.core.errors import EveryhopError
with connect() as workload:
    tokens = workload.tokens
    try:
        beyond = tokens.token("intruder")
    except EveryhopError as error:
        beyond = type(error).__name__
    print(json.dumps({
        "service": workload.service,
        "id": str(workload.spiffe_id),
        "targets": {name: [one.name for one in target.operations] for name, target in workload.context.targets.items()},
        "free": tokens.for_call("orders", "GET", "/orders"),
        "same": tokens.for_call("orders", "POST", "/orders") == tokens.token("orders", "create"),
        "once": tokens.token("orders", "charge") != tokens.token("orders", "charge"),
        "beyond": beyond,
    }))
"""

CHECK = """
import json
from everyhop.sdk import Guard, Peer, Refusal, Request, connect
with connect() as workload:
    guard = Guard(workload)
    answers = []
    for caller, method, path in (
        ("storefront", "GET", b"/orders"), ("intruder", "GET", b"/orders"),
        ("intruder", "GET", b"/healthz"), ("storefront", "POST", b"/orders"), ("storefront", "GET", b"/orders/../x"),
    ):
        peer = Peer(spiffe_id=f"spiffe://shop.example/service/{caller}")
        try:
            answers.append(guard.check(Request(method=method, raw_path=path, headers=[], peer=peer)).operation)
        except Refusal as refusal:
            answers.append(refusal.code)
    print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def domain():
    with TrustDomainUnderTest(POLICY) as started:
        started.serve()
        yield started


def test_identity_context_and_tokens(domain: TrustDomainUnderTest) -> None:
    done = domain.once("storefront", sys.executable, "-c", LOOK)
    assert json.loads(done.stdout) == {
        "service": "storefront",
        "id": "spiffe://shop.example/service/storefront",
        "targets": {"orders": ["charge", "create", "list"]},
        "free": None,
        "same": True,
        "once": True,
        "beyond": "AccessDenied",
    }


def test_the_guard_decides_as_the_policy_does(domain: TrustDomainUnderTest) -> None:
    done = domain.once("orders", sys.executable, "-c", CHECK)
    assert json.loads(done.stdout) == [
        "list",
        "ACCESS_DENIED",
        "probes[0]",
        "MISSING_TOKEN",
        "AMBIGUOUS_PATH",
    ]


def test_nobody_gets_nothing(domain: TrustDomainUnderTest) -> None:
    import subprocess

    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from everyhop.sdk import connect\ntry:\n connect(timeout=1)\nexcept Exception as e:\n print(type(e).__name__)",
        ],
        env={**domain.environment, "SPIFFE_ENDPOINT_SOCKET": f"unix://{domain.state}/run/workload.sock"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "AccessDenied"
