# SPDX-License-Identifier: Apache-2.0
"""A policy that is only watched, at real sidecars: what passes, what is still refused, and what is recorded."""

from __future__ import annotations

import pytest
from tests.support.envoy_pair import Mesh, exchange, request_bytes

from everyhop.control.policy_view import PolicyView
from everyhop.control.watching import ShadowWatch
from everyhop.policy import parse_policy

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {}
  batch: {}
  orders:
    operations: {list: GET /orders, read: "GET /orders/{id}", create: POST /orders}
allow:
  - {from: storefront, to: orders, operations: [list, read]}
  - {from: storefront, to: orders, operations: [create], mode: shadow, id: creating}
deny:
  - {from: storefront, to: orders, operations: [read], mode: shadow, id: closing, reason: soon}
shadow:
  - {from: batch, to: orders}
"""
DENY, NOTHING = "deny", (None, None, None)


@pytest.fixture(scope="module")
def mesh():
    with Mesh(POLICY) as mesh:
        mesh.sidecar("orders")
        yield mesh


@pytest.fixture
def watch():
    watch = ShadowWatch()
    watch.take(PolicyView(parse_policy({"p.yaml": POLICY.encode()})))
    return watch


def call(mesh, watch, caller, method, path, **connect):
    """Return the status, and what the record says of the policy in shadow."""
    client = mesh.client(caller, **connect) if caller else mesh.client(**connect)
    sidecar = mesh.sidecars["orders"]
    before = sidecar.log_size() if sidecar.sidecar.access_log.exists() else 0
    with mesh.connect("orders", client) as connection:
        status = exchange(connection, request_bytes(method, path))[0]
    made = sidecar.lines(1, since=before)[-1]
    (seen,) = watch.annotate([made])
    return status, seen, tuple(seen.detail.get(key) for key in ("would", "would_reason", "would_rule"))


@pytest.mark.parametrize(
    "path", ["/orders//7", "/orders/../orders", "/orders/%2e%2e", "/orders;x", "/or%64ers"]
)
def test_ambiguous_paths_are_refused_on_a_watched_edge(mesh, watch, path):
    status, seen, would = call(mesh, watch, "batch", "GET", path)
    assert (status, seen.decision, seen.reason, would) == (400, "deny", "ambiguous-path", NOTHING)


@pytest.mark.parametrize("path", ["/orders", "/unknown"])
def test_strangers_are_refused_where_others_are_watched(mesh, watch, path):
    uri = "spiffe://shop.example/service/nobody"
    status, seen, would = call(mesh, watch, "", "GET", path, uri=uri)
    assert (status, seen.decision, would) == (403, "deny", NOTHING)


def test_unknown_operations_are_refused_on_other_edges(mesh, watch):
    status, seen, would = call(mesh, watch, "storefront", "GET", "/unknown")
    assert (status, seen.reason, would) == (403, "unknown-operation", NOTHING)


@pytest.mark.parametrize(
    ("method", "path", "reason"),
    [
        ("GET", "/orders", "no-rule"),
        ("POST", "/orders", "no-rule"),
        ("GET", "/unknown", "unknown-operation"),
        ("DELETE", "/orders", "unknown-operation"),
    ],
)
def test_a_watched_edge_lets_pass_and_tells(mesh, watch, method, path, reason):
    status, seen, would = call(mesh, watch, "batch", method, path)
    assert (status, seen.decision, seen.reason) == (200, "allow", "shadowed")
    assert would == (DENY, reason, None)


def test_a_rule_in_shadow_changes_nothing_and_tells(mesh, watch):
    status, seen, would = call(mesh, watch, "storefront", "GET", "/orders/7")
    assert (status, seen.rule, would) == (200, "allow[0]", (DENY, "denied-by-rule", "closing"))
    status, seen, would = call(mesh, watch, "storefront", "POST", "/orders")
    assert (status, seen.reason, would) == (403, "no-rule", ("allow", "allowed", "creating"))
    assert call(mesh, watch, "storefront", "GET", "/orders")[2] == NOTHING


def test_the_whole_policy_in_shadow(mesh):
    text = POLICY.replace("trust_domain", "mode: shadow\ntrust_domain")
    watch = ShadowWatch()
    watch.take(PolicyView(parse_policy({"p.yaml": text.encode()})))
    mesh.apply(text)
    try:
        for method, path, expected in (
            ("GET", "/orders", NOTHING),
            ("GET", "/nothing", (DENY, "unknown-operation", None)),
            ("GET", "/orders/7", (DENY, "denied-by-rule", "closing")),
        ):
            status, _, would = wait_watched(lambda m=method, p=path: call(mesh, watch, "storefront", m, p))
            assert (status, would) == (200, expected)
        assert call(mesh, watch, "storefront", "GET", "/orders//7")[0] == 400
        assert call(mesh, watch, "", "GET", "/orders", uri="spiffe://shop.example/service/nobody")[0] == 403
    finally:
        mesh.apply(POLICY)


def wait_watched(attempt):
    """Ask until the sidecar has taken the policy over: the record names the snapshot."""
    for _ in range(100):
        status, seen, would = attempt()
        if status == 200:
            return status, seen, would
    return status, seen, would
