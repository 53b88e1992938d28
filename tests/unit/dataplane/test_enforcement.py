# SPDX-License-Identifier: Apache-2.0
"""The compiled filter decides like the engine, by an interpreter of our own; tests/integration asks Envoy itself."""

import json

from hypothesis import HealthCheck, given, settings, strategies as st
from tests.strategies import policies, requests_for
from tests.support.matchers import decide, regexes

from everyhop.authz import Engine, service_table
from everyhop.dataplane.enforcement import (
    deny_all,
    http_authorization,
    tcp_authorization,
    template_buckets,
    undeclared_service,
)
from everyhop.dataplane.paths import clean_key_expression
from everyhop.policy import parse_policy


def ask(snapshot, service, caller, method, path):
    """Return (action, reason, rule, operation) as the log line gives them."""
    table = service_table(snapshot, service)
    config = http_authorization(snapshot, table)
    inputs = {"key": f"{method} {path.partition('?')[0]}", "caller": caller, "method": method}
    name, action = decide(config, inputs)
    short, reason, rule = name.split("|")
    assert snapshot.hash.startswith(short)
    assert len(short) == 16
    operation, _ = decide(config, inputs, "shadow_matcher")
    if operation.startswith("?"):
        operation = operation.removeprefix("?")
        reason = "unknown-caller" if reason == "no-rule" else reason
    return action, reason, None if rule == "-" else rule, None if operation == "-" else operation


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_it_decides_like_the_engine(data):
    snapshot = data.draw(policies())
    engine = Engine(snapshot)
    for request in data.draw(st.lists(requests_for(snapshot), min_size=5, max_size=25)):
        service = snapshot.services.get(request.target)
        if service is None or service.tcp is not None or not (service.operations or service.probes):
            continue
        method = request.method or "GET"
        expected = engine.decide(
            caller=request.caller, target=request.target, method=method, path=request.path
        )
        found = ask(snapshot, request.target, request.caller, method, request.path)
        assert found == (
            expected.effect.value.upper(),
            expected.reason,
            expected.rule,
            expected.operation,
        ), request


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(policies())
def test_tcp_is_decided_like_the_engine(snapshot):
    engine = Engine(snapshot)
    for name, service in snapshot.services.items():
        if service.tcp is None:
            continue
        verdicts = service_table(snapshot, name).tcp_verdicts
        config = tcp_authorization(snapshot, verdicts)
        for caller in (
            *(str(s.spiffe_id) for s in snapshot.services.values()),
            "spiffe://shop.example/x",
            "a,b",
            "",
        ):
            expected = engine.decide_tcp(caller=caller, target=name)
            found, action = decide(config, {"method": "CONNECT", "caller": caller})
            assert (action, found.split("|")[1]) == (expected.effect.value.upper(), expected.reason)
            other, action = decide(config, {"method": "GET", "caller": caller})
            assert (action, other.split("|")[1]) == ("DENY", "wrong-protocol")


def test_a_service_without_doors_refuses_everything(snapshot):
    assert ask(snapshot, "storefront", "spiffe://shop.example/service/orders", "GET", "/") == (
        "DENY",
        "unknown-operation",
        None,
        None,
    )
    assert (
        ask(snapshot, "storefront", "spiffe://shop.example/service/orders", "GET", "//")[1]
        == "ambiguous-path"
    )


def test_a_caller_with_two_names_is_nobody(snapshot):
    """Envoy joins two URI names by a comma; no table holds a comma."""
    both = "spiffe://shop.example/service/storefront,spiffe://shop.example/service/ledger"
    assert ask(snapshot, "orders", both, "GET", "/orders")[:2] == ("DENY", "unknown-caller")


def test_nothing_that_allows_is_reached_by_default(snapshot):
    """Everything that stands for "no match" denies, at every level."""

    def outcomes(value):
        if isinstance(value, dict):
            if "on_no_match" in value and "action" in value["on_no_match"]:
                yield value["on_no_match"]["action"]["typed_config"]["action"]
            for inner in value.values():
                yield from outcomes(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from outcomes(inner)

    found = list(outcomes(http_authorization(snapshot, service_table(snapshot, "orders"))["matcher"]))
    assert found
    assert set(found) == {"DENY"}
    assert set(
        outcomes(tcp_authorization(snapshot, service_table(snapshot, "ledger").tcp_verdicts)["matcher"])
    ) == {"DENY"}
    assert deny_all()["rules"] == {
        "action": "ALLOW",
        "policies": {},
    }  # an empty list of permissions, not an empty filter
    assert decide(undeclared_service(snapshot), {"method": "GET"})[1] == "DENY"


def test_every_matcher_names_what_happens_otherwise(snapshot):
    def matchers(value):
        if isinstance(value, dict):
            if "matcher_tree" in value or "matcher_list" in value:
                yield value
            for inner in value.values():
                yield from matchers(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from matchers(inner)

    for service in ("orders", "idle", "storefront"):
        config = http_authorization(snapshot, service_table(snapshot, service))
        assert all("on_no_match" in matcher for matcher in matchers(config))


def test_a_literal_hit_meets_no_expression(snapshot):
    """The outermost matcher is the hash of literal keys; expressions stand behind its miss."""
    config = http_authorization(snapshot, service_table(snapshot, "orders"))
    shadow = config["shadow_matcher"]["matcher_list"]["matchers"][0]["on_match"]["matcher"]
    for matcher in (config["matcher"], shadow):
        table = matcher["matcher_tree"]["exact_match_map"]["map"]
        assert {
            "GET /orders",
            "POST /orders",
            "GET /@me",
            "GET /healthz",
            "POST /shop.v1.Orders/Watch",
        } <= set(table)
        assert not list(regexes(table))


def test_the_clean_expression_stands_before_every_template(snapshot):
    table = service_table(snapshot, "orders")
    behind = http_authorization(snapshot, table)["matcher"]["on_no_match"]["matcher"]
    (guard,) = behind["matcher_list"]["matchers"]
    assert guard["predicate"]["single_predicate"]["value_match"]["safe_regex"][
        "regex"
    ] == clean_key_expression(table.guarded)
    assert behind["on_no_match"]["action"]["typed_config"]["name"].split("|")[1] == "ambiguous-path"


def test_buckets_hold_every_template_that_could_match():
    policy = {
        "version": 1,
        "trust_domain": "shop.example",
        "services": {
            "s": {
                "operations": {
                    "a": "GET /{x}",
                    "b": "GET /a/{x}",
                    "c": "GET /a/b/{x}",
                    "d": "GET /a/b/{rest...}",
                    "e": "POST /a/{x}",
                    "f": "GET /{rest...}",
                }
            }
        },
    }
    snapshot = parse_policy({"p.yaml": json.dumps(policy).encode()})
    buckets = template_buckets(service_table(snapshot, "s").templates)
    assert {prefix: [o.name for o in bucket] for prefix, bucket in buckets.items()} == {
        "GET /": ["a", "f"],
        "GET /a/": ["b", "a", "f"],
        "GET /a/b/": ["c", "d", "b", "a", "f"],
        "POST /a/": ["e"],
    }


def test_callers_without_a_rule_are_not_repeated(snapshot):
    """The size follows the permissions, not services times operations."""
    config = json.dumps(http_authorization(snapshot, service_table(snapshot, "orders"))["matcher"])
    assert config.count("service/idle") == 1  # the probe, open to all
    assert config.count("service/storefront") == 10  # nine operations and the probe
