# SPDX-License-Identifier: Apache-2.0
"""Filters, calls whose resource the application knows, and the excerpt by which it decides."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from everyhop.authz import Context, Engine, Extent, Resource, User, enumerate_allowed, filter_resources
from everyhop.core.decision import Reason
from everyhop.core.errors import InputError
from everyhop.policy import decode_snapshot, encode_snapshot, parse_policy
from everyhop.policy.excerpt import excerpt

POLICY = b"""\
version: 1
trust_domain: shop.example
attributes:
  user: {department: string}
  resource: {owner: string, status: string, secret: bool, tags: strings}
roles:
  reader: [orders.list, orders.read, orders.own]
  clerk: {includes: [reader], groups: [staff]}
  nobody: [other.x]
services:
  shop: {}
  batch: {attributes: {}}
  other: {operations: {x: GET /x}}
  ledger: {tcp: 5432}
  orders:
    operations:
      list: {route: GET /orders, resource: application}
      read: {route: "GET /orders/{id}", resource: application}
      own: "GET /own/{id}"
      open: {route: GET /open, resource: application}
    probes: [GET /healthz]
allow:
  - {from: any, to: other, operations: [x], when: "user.department == 'a'", user: required}
  - {from: shop, to: any, operations: [list, read], user: required, when: "resource.owner == user.id"}
  - {from: shop, to: orders, operations: [read, own], user: required, when: "'x' in resource.tags", id: tagged}
  - {from: shop, to: orders, operations: [own], user: required, when: "resource.owner == user.id && request.method == 'GET'"}
  - {from: batch, to: orders, operations: [open]}
  - {from: shop, to: orders, operations: [open], when: "resource.owner == 'x'", mode: shadow}
deny:
  - {from: any, to: orders, operations: [list, read], when: "resource.secret && now.getHours() < 7"}
  - {from: any, to: orders, when: "request.query.size() > 2", operations: [list]}
  - {from: batch, to: other}
directory:
  users: {dora: {roles: [reader]}}
  resources:
    order: {service: orders, parameter: id, items: {"7": {owner: ann}, "8": {secret: true}}}
    thing: {service: other, items: {a: {owner: x}}}
"""
NOON = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
NIGHT = datetime(2026, 5, 1, 3, 0, tzinfo=UTC)
ANN = User(id="ann", roles=("reader",))
SHOP, BATCH = "spiffe://shop.example/service/shop", "spiffe://shop.example/service/batch"


@pytest.fixture(scope="module")
def snapshot():
    return parse_policy({"p.yaml": POLICY})


@pytest.fixture(scope="module")
def engine(snapshot):
    return Engine(snapshot)


def decide(engine, path, *, caller=SHOP, user=ANN, now=NOON, resource=None):
    context = Context(now=now, user=user, resource=resource)
    return engine.decide(caller=caller, target="orders", method="GET", path=path, context=context)


# -- the resource is left to the application


@pytest.mark.parametrize(
    ("path", "facts", "reason"),
    [
        ("/orders", {"user": None}, Reason.USER_REQUIRED),
        ("/orders", {"user": User(id="ann")}, Reason.USER_NOT_PERMITTED),
        ("/orders", {"caller": BATCH}, Reason.NO_RULE),
        ("/orders?a=1&b=2&c=3", {}, Reason.DENIED_BY_RULE),
        ("/orders?a=1&a=2", {}, Reason.CONDITION_ERROR),
        # what the path names and the directory knows is not open
        ("/orders/8", {"now": NIGHT}, Reason.DENIED_BY_RULE),
        ("/orders/8", {"now": None}, Reason.CONDITION_ERROR),
        # an operation that leaves nothing open still denies what it does not know
        ("/own/9", {}, Reason.CONDITION_ERROR),
        ("/own/7", {"user": User(id="bob", roles=("reader",))}, Reason.CONDITION_ERROR),
        # a stated resource is decided on
        ("/orders/9", {"resource": Resource(attributes={"owner": "bob"})}, Reason.CONDITION_FALSE),
        (
            "/orders/9",
            {"resource": Resource(attributes={"owner": "ann", "secret": True}), "now": NIGHT},
            Reason.DENIED_BY_RULE,
        ),
    ],
)
def test_no_resource_could_be_allowed(engine, path, facts, reason):
    found = decide(engine, path, **facts)
    assert (found.is_allowed, found.reason) == (False, reason)
    named = {"caller": SHOP, "user": ANN, "now": NOON, "resource": None} | facts
    explained = engine.explain(
        caller=named.pop("caller"), target="orders", method="GET", path=path, context=Context(**named)
    )
    assert explained.decision == found
    assert explained.render()


def test_some_resource_could_be_allowed(engine):
    found = decide(engine, "/orders/9")
    assert (found.is_allowed, found.reason, found.rule) == (True, Reason.APPLICATION_DECIDES, "allow[1]")
    context = Context(now=NOON, user=ANN)
    explained = engine.explain(caller=SHOP, target="orders", method="GET", path="/orders/9", context=context)
    assert "the application checks which" in explained.render()
    # with nothing left open by the rules it is a plain answer
    assert decide(engine, "/open", caller=BATCH, user=None).reason is Reason.ALLOWED
    assert decide(engine, "/own/7").rule == "allow[3]"


def test_what_the_directory_knows_of_the_path_is_used(engine):
    bob = User(id="bob", roles=("reader",))
    # order 7 is Ann's: only what is not known of it (its tags) may still let Bob pass
    assert decide(engine, "/orders/7", user=bob).rule == "tagged"
    assert decide(engine, "/orders/7").rule == "allow[1]"


# -- filters


def filtered(engine, operation="list", **facts):
    named = {"caller": SHOP, "user": ANN, "now": NOON, "resource_type": None} | facts
    return filter_resources(
        engine,
        caller=named["caller"],
        target="orders",
        operation=operation,
        context=Context(now=named["now"], user=named["user"]),
        resource_type=named["resource_type"],
        method="GET",
        path="/orders",
    )


@pytest.mark.parametrize(
    ("operation", "facts", "reason"),
    [
        ("list", {"caller": "spiffe://shop.example/service/none"}, Reason.UNKNOWN_CALLER),
        ("nothing", {}, Reason.UNKNOWN_OPERATION),
        ("list", {"caller": BATCH}, Reason.NO_RULE),
        ("list", {"user": None}, Reason.USER_REQUIRED),
        ("list", {"user": User(id="ann")}, Reason.USER_NOT_PERMITTED),
    ],
)
def test_nothing_is_visible(engine, operation, facts, reason):
    found = filtered(engine, operation, **facts)
    assert (found.extent, found.judgement.reason) == (Extent.NONE, reason)
    assert not found.allows(Resource(attributes={"owner": "ann", "secret": False}))


def test_an_unknown_attribute_in_a_deny_rule_denies(engine):
    found = filtered(engine)
    assert found.allows(Resource(attributes={"owner": "ann", "secret": False}))
    assert found.allows(Resource(attributes={"owner": "ann"}))  # by day the rule is false whatever it is
    night = filtered(engine, now=NIGHT)
    assert night.allows(Resource(attributes={"owner": "ann", "secret": False}))
    assert not night.allows(Resource(attributes={"owner": "ann"}))
    assert not night.allows(Resource(attributes={"owner": "ann", "secret": True}))


def test_the_directory_goes_before_the_application(engine):
    found = filtered(engine, resource_type="order")
    assert set(found.known) == {"7", "8"}
    assert found.allows(Resource(type="order", id="7", attributes={"owner": "bob", "secret": False}))
    assert not filtered(engine, now=NIGHT, resource_type="order").allows(
        Resource(type="order", id="8", attributes={"owner": "ann", "secret": False})
    )


def test_a_directory_too_large_for_a_filter_is_refused():
    items = ", ".join(f'"{n}": {{owner: ann}}' for n in range(201))
    text = POLICY.replace(b'items: {"7": {owner: ann}, "8": {secret: true}}', f"items: {{{items}}}".encode())
    with pytest.raises(InputError, match="more than 200"):
        filtered(Engine(parse_policy({"p.yaml": text})), resource_type="order")


def test_a_search_is_lazy_and_in_order(engine):
    seen = []

    def endless():
        number = 0
        while True:
            number += 1
            seen.append(number)
            yield Resource(id=str(number), attributes={"owner": "ann" if number % 2 else "bob"})

    named = {"caller": SHOP, "target": "orders", "operation": "list", "method": "GET", "path": "/orders"}
    found = enumerate_allowed(engine, **named, context=Context(now=NOON, user=ANN), resources=endless())
    assert [next(found).id for _ in range(3)] == ["1", "3", "5"]
    assert seen == [1, 2, 3, 4, 5]
    for nobody in ({"caller": "spiffe://shop.example/service/none"}, {"operation": "nothing"}):
        assert list(enumerate_allowed(engine, **(named | nobody), resources=endless())) == []


# -- the excerpt


def test_an_excerpt_decides_as_the_whole(snapshot, engine):
    part = excerpt(snapshot, "orders")
    again = decode_snapshot(encode_snapshot(part.snapshot))
    assert again == part.snapshot
    small = Engine(again)
    users = [
        None,
        ANN,
        User(id="bob"),
        User(id="dora"),
        User(id="x", roles=("staff",)),
        User(id="y", roles=("nobody",)),
    ]
    resources = [None, Resource(), Resource(attributes={"owner": "ann"}), Resource(type="order", id="8")]
    checked = 0
    for caller in (SHOP, BATCH, "spiffe://shop.example/service/none", "outside"):
        for path in (
            "/orders",
            "/orders/7",
            "/orders/8",
            "/orders/9",
            "/own/7",
            "/open",
            "/healthz",
            "/x",
            "/%2F",
        ):
            for user in users:
                for now in (NOON, NIGHT, None):
                    for resource in resources:
                        facts = {"caller": caller, "user": user, "now": now, "resource": resource}
                        one, other = decide(engine, path, **facts), decide(small, path, **facts)
                        rule = part.rule_ids.get(other.rule, other.rule)
                        would = other.would and replace(
                            other.would, rule=part.rule_ids.get(other.would.rule, other.would.rule)
                        )
                        assert replace(other, snapshot=one.snapshot, rule=rule, would=would) == one
                        checked += 1
    assert checked == 4 * 9 * 6 * 3 * 4


def test_an_excerpt_holds_nothing_of_others(snapshot):
    part = excerpt(snapshot, "orders").snapshot
    assert not part.services["other"].operations
    assert part.services["ledger"].tcp is None
    assert set(part.directory.resources) == {"order"}
    assert {name for rule in part.rules for name in rule.targets} == {"orders"}
    assert {service for role in part.roles.values() for service, _ in role.grants} == {"orders"}


def test_an_excerpt_without_grants_still_asks_for_them():
    text = POLICY.replace(b"  reader: [orders.list, orders.read, orders.own]\n", b"  reader: [other.x]\n")
    part = excerpt(parse_policy({"p.yaml": text}), "orders")
    small = Engine(decode_snapshot(encode_snapshot(part.snapshot)))
    assert decide(small, "/orders").reason is Reason.USER_NOT_PERMITTED
