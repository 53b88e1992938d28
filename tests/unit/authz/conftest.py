# SPDX-License-Identifier: Apache-2.0
"""One policy for the tests of this room."""

import pytest

from everyhop.authz import Engine
from everyhop.policy import Snapshot, parse_policy

TEXT = b"""\
version: 1
trust_domain: shop.example
services:
  storefront: {workload: [{run: true}]}
  orders:
    operations:
      list: GET /orders
      read: GET /orders/{id}
      special: GET /orders/special
      create: POST /orders
      watch: {grpc: shop.v1.Orders/Watch}
      feed: {websocket: /feed}
      files: GET /files/{path...}
      root: GET /
    probes: [GET /healthz]
  payments:
    operations:
      charge: POST /v1/charges
      refund: POST /v1/charges/{id}/refund
    probes: [GET /healthz]
  ledger: {tcp: 5432}
  cache: {tcp: 6379}
  lone: {}
allow:
  - {from: storefront, to: orders, operations: [list, read, watch, files]}
  - from: orders
    to: payments
    operations: [charge]
  - {from: [payments, orders], to: ledger, id: books}
  - {from: any, to: any, operations: [refund]}
deny:
  - {from: any, to: payments, operations: [refund], reason: no refunds at night}
  - {from: lone, to: any}
tests:
  - {from: storefront, call: GET /orders/7, to: orders, expect: allow}
  - {from: storefront, call: POST /orders, to: orders, expect: deny}
  - {from: orders, tcp: true, to: ledger, expect: allow}
  - {from: "spiffe://other.example/service/orders", tcp: true, to: ledger, expect: deny}
"""


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    return {"shop.yaml": TEXT}


@pytest.fixture(scope="session")
def snapshot(files) -> Snapshot:
    return parse_policy(files)


@pytest.fixture
def engine(snapshot) -> Engine:
    return Engine(snapshot)


@pytest.fixture
def ask(engine):
    """Ask as people write: ``ask("orders", "GET /x", "payments")`` gives (reason, rule, operation)."""

    def decide(caller: str, call: str, target: str) -> tuple[str, str | None, str | None]:
        caller = caller if caller.startswith("spiffe:") else f"spiffe://shop.example/service/{caller}"
        if call == "tcp":
            decision = engine.decide_tcp(caller=caller, target=target)
        else:
            method, _, path = call.partition(" ")
            decision = engine.decide(caller=caller, target=target, method=method, path=path)
        assert decision.caller == caller
        assert decision.target == target
        assert decision.snapshot == engine.snapshot.hash
        assert decision.is_allowed == (decision.reason in {"allowed", "probe"})
        assert decision.status == (
            200 if decision.is_allowed else 400 if decision.reason == "ambiguous-path" else 403
        )
        return decision.reason.value, decision.rule, decision.operation

    return decide
