# SPDX-License-Identifier: Apache-2.0
"""The service context: read whole or refused whole."""

import json

import pytest

from everyhop.core.errors import InputError, NotFound
from everyhop.policy.model import TokenMode, UserMode
from everyhop.sdk import ServiceContext, find_operation
from everyhop.testing import Issuer, context_document

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {workload: [{run: true}]}
  orders:
    workload: [{run: true}]
    operations:
      list: GET /orders
      charge: {route: "POST /orders/{id}/charge", token: operation, once: true}
    probes: [GET /healthz]
  payments:
    workload: [{run: true}]
    operations:
      pay: {route: POST /v1/pay, token: required}
      any: "GET /v1/{rest...}"
allow:
  - {from: storefront, to: orders, operations: [list], user: optional}
  - {from: storefront, to: orders, operations: [charge], user: required}
  - {from: orders, to: payments, operations: all}
  - {from: outside, to: orders, operations: [list]}
"""


@pytest.fixture
def document():
    raw = context_document(POLICY, "orders", Issuer(), endpoints={"payments": (("127.0.0.1", 8443),)})
    return json.loads(raw)


def parse(members):
    return ServiceContext.parse(json.dumps(members).encode())


def test_a_context_says_what_the_policy_says(document):
    context = parse(document)
    found = {one.name: one for one in context.operations}
    who = "spiffe://shop.example/service/storefront"
    assert found["list"].callers[who].user is UserMode.OPTIONAL
    assert "outside" in found["list"].callers
    assert found["charge"].token is TokenMode.OPERATION
    assert found["charge"].once
    assert set(found["charge"].callers) == {who}
    assert found["probes[0]"].is_probe
    target = context.targets["payments"]
    assert target.ingress == ("127.0.0.1:8443",)
    assert find_operation(target, "POST", b"/v1/pay?x=1").token is TokenMode.SERVICE
    assert find_operation(target, "GET", "/v1/a/b").name == "any"
    assert find_operation(target, "PUT", "/v1/pay") is None
    assert find_operation(target, "GET", "/v1/%2e%2e/x") is None
    assert context.context is context


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("format", 2),
        ("format", "1"),
        ("service", None),
        ("spiffe_id", "http://x"),
        ("spiffe_id", "spiffe://other.example/service/orders"),
        ("trust_domain", "Not a domain"),
        ("operations", {}),
        ("operations", [{"name": "x"}]),
        ("operations", [{"name": "x", "method": "GET", "path": "no-slash", "callers": {}}]),
        ("operations", [{"name": "x", "method": "GET", "path": "/", "callers": {}, "token": "maybe"}]),
        ("operations", [{"name": "x", "method": "GET", "path": "/", "callers": {"a": {"user": "perhaps"}}}]),
        ("operations", [{"name": "x", "method": "GET", "path": "/", "callers": {}, "protocol": "smtp"}]),
        ("revoked", {"kids": "all"}),
        ("revoked", {"jtis": {"a": "never"}}),
        ("targets", {"payments": {"spiffe_id": "payments"}}),
    ],
)
def test_a_malformed_document_is_refused(document, member, value):
    with pytest.raises(InputError):
        parse({**document, member: value})


@pytest.mark.parametrize(
    "member", ["format", "service", "spiffe_id", "trust_domain", "issuer", "jwks", "operations"]
)
def test_a_missing_member_is_refused(document, member):
    del document[member]
    with pytest.raises(InputError):
        parse(document)


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{" * 10_000, b"\xff", b'{"format":1}'])
def test_anything_else_is_refused(data):
    with pytest.raises(InputError):
        ServiceContext.parse(data)


def test_unknown_members_are_passed_over(document):
    document["operations"][0]["news"] = 1
    assert parse({**document, "news": [1]}).service == "orders"


def test_a_service_that_is_not_declared_has_no_context():
    with pytest.raises(NotFound):
        context_document(POLICY, "nobody", Issuer())
