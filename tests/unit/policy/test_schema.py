# SPDX-License-Identifier: Apache-2.0
"""The schema for editors: it finds the typing slips, and never marks what the parser accepts."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import pytest

from everyhop.core.errors import PolicyError
from everyhop.policy import parse_policy
from everyhop.policy.schema import json_schema

VALID: dict[str, Any] = {
    "version": 1,
    "trust_domain": "shop.example",
    "identity": "/svc/{service}",
    "services": {
        "shop": {
            "workload": [
                {
                    "run": True,
                    "unix": {"uid": 0, "user": "shop", "path": "/opt/my app/x", "sha256": "a1" * 32},
                }
            ]
        },
        "orders": {
            "operations": {
                "list": "GET /orders",
                "read": {"route": "GET /orders/{id}"},
                "files": "GET /files/{path...}",
                "root": "GET /",
                "slash": "GET /dir/",
                "watch": {"grpc": "shop.v1.Orders/Watch"},
                "feed": {"websocket": "/feed"},
                "charge": {
                    "route": "POST /c",
                    "token": "required",
                    "once": True,
                    "body": '{"type": "object"}',
                },
                "sure": {"grpc": "a.B/C", "token": "operation", "once": False},
            },
            "probes": ["GET /up", {"grpc": "grpc.health.v1.Health/Check"}],
            "identity": "/ns/a.b/sa/orders",
        },
        "ledger": {"tcp": 5432},
    },
    "allow": [
        {"from": "shop", "to": "orders", "operations": ["list"], "id": "a.b"},
        {"from": ["shop", "orders"], "to": "ledger"},
        {"from": "any", "to": "any", "operations": "all", "reason": "why"},
        {
            "from": "shop",
            "to": "orders",
            "operations": ["read"],
            "user": "optional",
            "when": "user.mfa && request.path_params.id == '7'",
            "mode": "shadow",
        },
        {"from": ["outside", "shop"], "to": "orders", "operations": ["read"], "user": "required"},
        {"from": "outside", "to": "orders", "operations": ["list"], "user": "none"},
    ],
    "mode": "enforce",
    "attributes": {
        "user": {"department": "string", "clearance": {"type": "int", "default": 0}},
        "service": {"team": "string"},
        "request": {"headers": ["x-region"]},
    },
    "roles": {
        "viewer": ["orders.list", "orders.read"],
        "clerk": {"includes": ["viewer"], "grants": ["orders.*"], "groups": ["Staff of the shop"]},
    },
    "shadow": [{"from": "shop", "to": "orders"}],
    "directory": {
        "users": {"alice": {"roles": ["viewer"], "attributes": {"department": "sales"}}},
        "resources": {"file": {"service": "orders", "parameter": "id", "items": {"7": {}}}},
    },
    "users": {
        "issuers": [
            {"issuer": "https://login.example/", "audience": "everyhop"},
            {
                "issuer": "http://127.0.0.1:8080/realms/x",
                "audience": ["a", "b"],
                "jwks": "https://login.example/keys",
                "roles": "realm_access.roles",
                "attributes": {"department": "org.unit"},
                "algorithms": ["ES256"],
            },
        ]
    },
    "deny": [{"from": "any", "to": "orders", "operations": ["files"]}],
    "tests": [
        {"from": "shop", "to": "orders", "call": "GET /orders?x", "expect": "allow"},
        {"from": "spiffe://x/y", "to": "ledger", "tcp": True, "expect": "deny"},
    ],
}
VALIDATOR = jsonschema.Draft202012Validator(json_schema())

# (path to the value, its replacement; the key is removed where the replacement is ...)
SLIPS: list[tuple[tuple[Any, ...], Any]] = [
    (("version",), 2),
    (("version",), ...),
    (("trust_domain",), "Shop.Example"),
    (("identity",), "svc/{service}"),
    (("identity",), "/svc/{servce}"),
    (("identity",), "/everyhop/x"),
    (("identity",), "/a/../b"),
    (("alow",), []),
    (("roles",), {}),
    (("roles",), {"r": []}),
    (("roles",), {"r": ["orders"]}),
    (("roles",), {"r": {"grant": ["orders.list"]}}),
    (("mode",), "dry"),
    (("attributes",), {"users": {"a": "string"}}),
    (("attributes",), {"user": {"a": "text"}}),
    (("attributes",), {"user": {"A": "string"}}),
    (("attributes",), {"request": {"headers": ["X-Region"]}}),
    (("shadow",), [{"from": "shop"}]),
    (("shadow",), [{"from": "shop", "to": "orders", "operations": ["list"]}]),
    (("directory",), {"people": {}}),
    (("directory",), {"resources": {"record": {"items": {}}}}),
    (("services",), []),
    (("services", "Shop"), {}),
    (("services", "any"), {}),
    (("services", "shop", "workloads"), []),
    (("services", "shop", "workload"), []),
    (("services", "shop", "workload", 0, "run"), False),
    (("services", "shop", "workload", 0, "unix"), {}),
    (("services", "shop", "workload", 0, "unix", "uid"), -1),
    (("services", "shop", "workload", 0, "unix", "path"), "bin/x"),
    (("services", "shop", "workload", 0, "unix", "path"), "/bin/../x"),
    (("services", "shop", "workload", 0, "unix", "sha256"), "A1" * 32),
    (("services", "shop", "workload", 0, "kubernetes"), {}),
    (("services", "shop", "tcp"), 0),
    (("services", "ledger", "operations"), {"a": "GET /"}),
    (("services", "ledger", "probes"), ["GET /"]),
    (("services", "ledger", "canary"), True),
    (("services", "shop", "canary"), True),
    (("services", "ledger"), {"canary": False}),
    (("services", "orders", "operations"), {}),
    (("services", "orders", "operations", "all"), "GET /all"),
    (("services", "orders", "operations", "list"), "get /orders"),
    (("services", "orders", "operations", "list"), "GET orders"),
    (("services", "orders", "operations", "list"), "GET  /orders"),
    (("services", "orders", "operations", "list"), "GET //orders"),
    (("services", "orders", "operations", "list"), "GET /../orders"),
    (("services", "orders", "operations", "list"), "GET /%41"),
    (("services", "orders", "operations", "list"), "GET /{a...}/b"),
    (("services", "orders", "operations", "list"), "GET /x-{a}"),
    (("services", "orders", "operations", "list"), {"route": "GET /", "grpc": "a/b"}),
    (("services", "orders", "operations", "list"), {}),
    (("services", "orders", "operations", "watch"), {"grpc": "/shop.v1.Orders/Watch"}),
    (("services", "orders", "probes", 0), {"websocket": "/x"}),
    (("services", "orders", "probes", 0), {"route": "GET /up", "token": "required"}),
    (("services", "orders", "operations", "charge", "token"), "yes"),
    (("services", "orders", "operations", "charge", "token"), ...),
    (("services", "orders", "operations", "charge", "token"), "none"),
    (("services", "orders", "operations", "charge", "route"), ...),
    (("services", "orders", "operations", "charge", "body"), ""),
    (("services", "orders", "operations", "sure", "body"), '{"type": "object"}'),
    (("services", "outside"), {}),
    (("allow", 4, "user"), "maybe"),
    (("allow", 4, "to"), "outside"),
    (("deny", 0, "user"), "required"),
    (("users", "issuers"), []),
    (("users", "issuers"), ...),
    (("users", "issuers", 0, "audience"), ...),
    (("users", "issuers", 0, "audience"), "a b"),
    (("users", "issuers", 0, "issuer"), "https://login.example/?a"),
    (("users", "issuers", 0, "issuer"), "login.example"),
    (("users", "issuers", 1, "algorithms"), ["HS256"]),
    (("users", "issuers", 1, "algorithms"), ["none"]),
    (("users", "issuers", 1, "roles"), "a..b"),
    (("users", "issuers", 1, "attributes"), {"department": "a..b"}),
    (("users", "issuers", 1, "attributes"), {"Department": "a"}),
    (("allow", 0, "when"), ""),
    (("allow", 0, "mode"), "off"),
    (("allow", 0, "from"), []),
    (("allow", 0, "from"), ["shop", "any"]),
    (("allow", 0, "from"), ["shop", "shop"]),
    (("allow", 0, "to"), ...),
    (("allow", 0, "operations"), "list"),
    (("allow", 0, "operations"), []),
    (("allow", 0, "id"), "allow[0]"),
    (("allow",), []),
    (("tests", 0, "expect"), "yes"),
    (("tests", 0, "tcp"), True),
    (("tests", 0, "call"), ...),
    (("tests", 0, "call"), "/orders"),
    (("tests", 0, "user"), "alice"),
    (("tests", 0, "at"), "noon"),
]


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    document = copy.deepcopy(VALID)
    place: Any = document
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert json.loads(json.dumps(json_schema())) == json_schema()


def test_a_valid_policy_passes_both():
    VALIDATOR.validate(VALID)
    assert parse_policy({"p.json": json.dumps(VALID).encode()})


def test_text_stands_for_numbers_and_booleans():
    document = changed(("services", "ledger", "tcp"), "5432") | {"version": "1"}
    document["services"]["shop"]["workload"][0] = {"run": "true", "unix": {"uid": "7"}}
    VALIDATOR.validate(document)
    assert parse_policy({"p.json": json.dumps(document).encode()})


@pytest.mark.parametrize(("path", "value"), SLIPS)
def test_a_typing_slip_fails_both(path, value):
    document = changed(path, value)
    assert not VALIDATOR.is_valid(document)
    with pytest.raises(PolicyError):
        parse_policy({"p.json": json.dumps(document).encode()})
