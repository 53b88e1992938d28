# SPDX-License-Identifier: Apache-2.0
"""A service that is a canary: nothing opens it, and a workload is not told that it is one."""

from __future__ import annotations

import pytest

from everyhop.authz import Engine
from everyhop.core.errors import PolicyError
from everyhop.policy import decode_snapshot, encode_snapshot, parse_policy
from everyhop.policy.excerpt import excerpt

POLICY = b"""\
version: 1
trust_domain: shop.example
services:
  orders:
    operations: {list: GET /orders}
  shop: {}
  vault-backup: {canary: true}
allow:
  - {from: any, to: any, operations: all}
"""


def parsed(text=POLICY):
    return parse_policy({"p.yaml": text})


def test_it_is_known_and_survives_storing():
    snapshot = parsed()
    assert [name for name, one in snapshot.services.items() if one.is_canary] == ["vault-backup"]
    again = decode_snapshot(encode_snapshot(snapshot))
    assert again.services["vault-backup"].is_canary
    assert again.hash == snapshot.hash != parsed(POLICY.replace(b"{canary: true}", b"{}")).hash


@pytest.mark.parametrize("mode", [b"", b"mode: shadow\n"])
@pytest.mark.parametrize("call", [("GET", "/"), ("GET", "/orders"), ("POST", "/v1/secrets")])
def test_not_even_any_opens_it(call, mode):
    snapshot = parsed(POLICY + mode)
    caller = "spiffe://shop.example/service/shop"
    decision = Engine(snapshot).decide(caller=caller, target="vault-backup", method=call[0], path=call[1])
    assert not decision.is_allowed
    assert not snapshot.is_watched("shop", "vault-backup")


@pytest.mark.parametrize(
    "more",
    [
        "{canary: true, operations: {list: GET /x}}",
        "{canary: true, probes: [GET /x]}",
        "{canary: true, tcp: 5432}",
        "{canary: true, workload: [{run: true}]}",
        "{canary: false}",
        "{canary: yes}",
    ],
)
def test_it_has_nothing_that_could_be_opened(more):
    with pytest.raises(PolicyError, match="canary"):
        parsed(POLICY.replace(b"{canary: true}", more.encode()))


@pytest.mark.parametrize(
    "rule",
    [
        "{from: shop, to: vault-backup, operations: all}",
        "{from: shop, to: [orders, vault-backup], operations: [list]}",
        "{from: vault-backup, to: orders, operations: [list]}",
    ],
)
def test_no_rule_may_open_it_or_let_it_call(rule):
    with pytest.raises(PolicyError, match="no rule may"):
        parsed(POLICY + f"  - {rule}\n".encode())


def test_a_rule_may_deny_it():
    assert parsed(POLICY + b"deny:\n  - {from: any, to: vault-backup}\n")


def test_a_workload_is_not_told_which_service_is_one():
    part = excerpt(parsed(), "orders").snapshot
    assert not any(one.is_canary for one in part.services.values())
    assert b"canary" not in part.canonical
