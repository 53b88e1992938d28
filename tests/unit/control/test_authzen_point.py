# SPDX-License-Identifier: Apache-2.0
"""What AuthZEN's entities mean under a policy: who may ask about what, which call it becomes, what is recorded."""

import json

import pytest
from tests.support.authzen_world import INTRUDER, KEY, ORDERS, POLICY, SPIFFE, STOREFRONT, World, entity

from everyhop.authz import Engine
from everyhop.authzen import Action, Entity, Evaluation, Kind, PageTokens, answer_evaluations, answer_search
from everyhop.control.authzen_peps import Pep
from everyhop.control.authzen_record import explain_record, is_evaluation
from everyhop.core.errors import AccessDenied, InputError, Unavailable
from everyhop.core.secret import Secret
from everyhop.policy import parse_policy


@pytest.fixture(scope="module")
def world():
    return World()


# --- who may ask about what


@pytest.mark.parametrize(
    ("pep", "subject", "resource", "context"),
    [
        (INTRUDER, "service:storefront", "service:orders", {}),
        (INTRUDER, "user:ann", "order:o1", {"caller": "storefront"}),
        (INTRUDER, "user:ann", "order:o1", {"caller": SPIFFE + "storefront"}),
        (INTRUDER, "user:ann", "order:o1", {"caller": "outside"}),
        (INTRUDER, "service:outside", "service:orders", {}),
        (INTRUDER, "service:storefront", "service:nowhere", {}),
        (INTRUDER, "service:nobody", "service:orders", {}),
        (KEY, "service:storefront", "service:orders", {}),
        (KEY, "user:ann", "service:orders", {"caller": "storefront"}),
        (KEY, "user:ann", "service:payments", {}),
        (KEY, "user:ann", "service:nowhere", {}),
        (KEY, "user:ann", "nothing:x", {}),
        (KEY, "user:ann", "order:o1", {}),  # read is not of its scopes
    ],
)
def test_what_is_not_for_this_pep(world, pep, subject, resource, context):
    before = len(world.store.records)
    point = world.points.open(pep)
    asked = Evaluation(
        subject=entity(subject), action=Action(name="read"), resource=entity(resource), context=context
    )
    with pytest.raises(AccessDenied) as caught:
        point.evaluate(asked)
    assert caught.value.message == "this PEP may not ask about this resource, or there is none"
    assert point.forbidden == 1
    assert point.permits(asked) is False
    point.close()
    assert len(world.store.records) == before


@pytest.mark.parametrize("pep", [INTRUDER, KEY, ORDERS])
def test_a_type_of_subject_that_means_nothing_is_never_a_caller(world, pep):
    """``spiffe`` and ``//shop.example/…`` together spell an identity; no type may be read as part of one."""
    action = "list" if pep is KEY else "find"
    for kind, name in (("spiffe", "//shop.example/service/storefront"), ("out", "side"), ("", "outside")):
        subject = Entity(type=kind, id=name)
        answer = world.ask(pep, subject, action, "service:orders")
        assert (answer.decision, answer.context["reason"]) == (False, "unknown-caller")


@pytest.mark.parametrize("path", ["/orders/o1", "/nowhere", "/orders/../orders", "/payments"])
def test_a_key_learns_nothing_beyond_its_scopes_by_paths(world, path):
    route = Entity(type="route", id=path, properties={"service": "orders"})
    with pytest.raises(AccessDenied):
        world.ask(KEY, "user:ann", "GET", route)
    route = Entity(type="route", id="/orders", properties={"service": "orders"})
    assert world.ask(KEY, "user:ann", "GET", route).decision is True


def test_a_service_asks_about_calls_that_it_makes_or_receives(world):
    assert world.ask(STOREFRONT, "service:storefront", "find", "service:orders").decision is True
    assert world.ask(ORDERS, "service:storefront", "find", "service:orders").decision is True
    assert world.ask(ORDERS, "service:intruder", "find", "service:orders").decision is False
    assert world.ask(ORDERS, "user:ann", "read", "order:o1", caller="storefront").decision is True
    assert world.ask(ORDERS, "user:ann", "read", "order:o1", caller="outside").decision is True
    assert world.ask(ORDERS, "user:gus", "read", "order:o1", caller="outside").decision is False
    assert world.ask(INTRUDER, "service:intruder", "find", "service:orders").decision is False
    assert world.ask(KEY, "user:gus", "list", "service:orders").decision is True


# --- what a question becomes


@pytest.mark.parametrize(
    ("subject", "action", "resource", "reason"),
    [
        ("service:nobody", "find", "service:orders", "unknown-caller"),
        ("service:storefront", "fly", "service:orders", "unknown-operation"),
        ("robot:r2", "find", "service:orders", "unknown-caller"),
        ("user:stranger", "read", "order:o1", "no-rule"),
    ],
)
def test_what_nobody_knows_is_denied_to_the_target(world, subject, action, resource, reason):
    assert world.reason(ORDERS, subject, action, resource) == reason


@pytest.mark.parametrize(
    ("subject", "action", "resource", "reason"),
    [
        ("user:stranger", "read", "order:o1", "user-not-permitted"),
        ("user:gus", "read", "order:o1", "user-not-permitted"),
        ("user:ann", "read", "order:o1", "allowed"),
        ("user:ann", "read", "order:unheard-of", "allowed"),
        ("user:ann", "charge", "service:payments", "no-rule"),
        ("user:ann", "read", "planet:x", "unknown-resource"),
        ("service:storefront", "read", "service:orders", "user-required"),
        ("service:storefront", "tcp", "service:ledger", "no-rule"),
        ("service:storefront", "x", "service:nowhere", "unknown-service"),
        ("robot:r2", "find", "service:orders", "unknown-caller"),
        ("identity:ann", "read", "order:o1", "allowed"),
    ],
)
def test_reasons(world, subject, action, resource, reason):
    answer = world.ask(STOREFRONT, subject, action, resource)
    assert answer.context["reason"] == reason
    assert answer.decision is (reason == "allowed")


def test_roles_are_the_directorys_where_it_knows_the_user(world):
    claims = {"roles": ["clerk"]}
    known = Entity(type="user", id="gus", properties=claims)
    assert world.reason(STOREFRONT, known, "read", "order:o1") == "user-not-permitted"
    other = Entity(type="user", id="hal", properties=claims)
    assert world.ask(STOREFRONT, other, "read", "order:o1").decision is True


def test_an_id_of_another_issuer_is_not_the_directorys(world):
    issuers = """users:
  issuers:
    - {issuer: "https://one.example", audience: a}
    - {issuer: "https://two.example", audience: a}
"""
    several = World(POLICY + issuers)
    for properties, decision in (
        ({}, True),
        ({"issuer": "https://two.example"}, False),
        ({"issuer": "https://two.example", "roles": ["clerk"]}, True),
    ):
        ann = Entity(type="user", id="ann", properties=properties)
        assert several.ask(STOREFRONT, ann, "read", "order:o1").decision is decision
    gus = Entity(type="user", id="gus", properties={"issuer": "https://two.example", "roles": ["clerk"]})
    assert world.ask(STOREFRONT, gus, "read", "order:o1").decision is False


@pytest.mark.parametrize(
    ("subject", "resource", "decision"),
    [
        ({"id": "ann"}, {"id": "o1"}, True),
        ({"id": "ann"}, {"id": "o2"}, False),
        ({"id": "ann"}, {"id": "o2", "status": "open"}, False),  # the directory knows better
        ({"id": "ann"}, {"id": "o9"}, False),
        ({"id": "ann"}, {"id": "o9", "status": "open"}, True),
        ({"id": "ann"}, {"id": "o9", "Status": "open"}, True),
        ({"id": "ann"}, {"id": "o9", "status": None}, False),
        ({"id": "ann"}, {"id": "a/b", "status": "open"}, False),  # no path can carry it, so no path is read
        ({"id": "ann", "clearance": 0}, {"id": "o1"}, True),
        ({"id": "hal", "roles": ["clerk"], "clearance": 2}, {"id": "o1"}, True),
        ({"id": "hal", "roles": ["clerk"], "Clearance": 2.0}, {"id": "o1"}, True),
        ({"id": "hal", "roles": ["clerk"], "clearance": 1}, {"id": "o1"}, False),
        ({"id": "hal", "roles": ["clerk"]}, {"id": "o1"}, False),
        ({"id": "hal", "clearance": 9}, {"id": "o1"}, False),
    ],
)
def test_conditions_on_user_and_resource(world, subject, resource, decision):
    who, what = dict(subject), dict(resource)
    user = Entity(type="user", id=who.pop("id"), properties=who)
    order = Entity(type="order", id=what.pop("id"), properties=what)
    assert world.ask(STOREFRONT, user, "edit", order).decision is decision


@pytest.mark.parametrize(
    ("subject", "resource", "context"),
    [
        ({"clearance": "2"}, {}, {}),
        ({"clearance": True}, {}, {}),
        ({"clearance": 2.5}, {}, {}),
        ({"clearance": 2**63}, {}, {}),
        ({"clearance": 2, "Clearance": 3}, {}, {}),
        ({"department": 5}, {}, {}),
        ({"department": ["sales"]}, {}, {}),
        ({"teams": "a"}, {}, {}),
        ({"teams": [1]}, {}, {}),
        ({"since": "yesterday"}, {}, {}),
        ({"since": "2026-01-01T00:00:00"}, {}, {}),
        ({"roles": "clerk"}, {}, {}),
        ({"roles": [1]}, {}, {}),
        ({"roles": ["x"] * 257}, {}, {}),
        ({"amr": "mfa"}, {}, {}),
        ({"acr": 1}, {}, {}),
        ({"issuer": {}}, {}, {}),
        ({"auth_time": "now"}, {}, {}),
        ({"auth_time": -1}, {}, {}),
        ({"auth_time": 2**40}, {}, {}),
        ({}, {"status": True}, {}),
        ({}, {"size": "1"}, {}),
        ({}, {"status": "open", "STATUS": "closed"}, {}),
        ({}, {}, {"caller": 5}),
        ({}, {}, {"caller": ["storefront"]}),
        ({}, {}, {"device": []}),
        ({}, {}, {"device": {"managed": "true"}}),
        ({}, {}, {"headers": "x"}),
        ({}, {}, {"headers": {"x-region": 5}}),
        ({}, {}, {"headers": {"x-region": [5]}}),
        ({}, {}, {"headers": {"X-Region": "eu", "x-region": "us"}}),
        ({}, {}, {"source_ip": "10.0.0.999"}),
        ({}, {}, {"source_ip": 167772161}),
        ({}, {}, {"ip": "10.0.0.1/8"}),
    ],
)
def test_properties_without_one_meaning_are_refused(world, subject, resource, context):
    user = Entity(type="user", id="hal", properties=subject)
    order = Entity(type="order", id="o1", properties=resource)
    with pytest.raises(InputError):
        world.ask(STOREFRONT, user, "edit", order, **context)


@pytest.mark.parametrize(
    ("action", "context", "decision"),
    [
        ("remote", {}, False),
        ("remote", {"headers": {"X-Region": "eu"}}, True),
        ("remote", {"headers": {"x-region": ["eu", "eu"]}}, False),
        ("remote", {"headers": {"x-region": "eu,us"}}, False),
        ("local", {}, False),
        ("local", {"source_ip": "10.1.2.3"}, True),
        ("local", {"ip": "10.1.2.3"}, True),
        ("local", {"source_ip": "192.0.2.1", "ip": "10.1.2.3"}, False),
        ("guarded", {}, False),
        ("guarded", {"device": {"managed": True}}, True),
        ("guarded", {"device": {"managed": False}}, False),
    ],
)
def test_the_environment_as_the_pep_saw_it(world, action, context, decision):
    assert (
        world.ask(STOREFRONT, "service:storefront", action, "service:orders", **context).decision is decision
    )


@pytest.mark.parametrize(("size", "decision"), [(1, True), (1.5, True), (2, False), (None, False)])
def test_numbers_of_json_are_of_the_declared_type(world, size, decision):
    resource = Entity(type="service", id="orders", properties={"size": size, "teams": ["x"]})
    assert world.ask(STOREFRONT, "service:storefront", "sized", resource).decision is decision


def test_the_issuer_and_the_teams_of_a_user(world):
    user = {
        "roles": ["clerk"],
        "issuer": "https://idp.example",
        "teams": ["a", "b"],
        "auth_time": 1_700_000_000,
    }
    for changed, decision in (
        ({}, True),
        ({"issuer": "https://x.example"}, False),
        ({"teams": ["a"]}, False),
    ):
        who = Entity(type="user", id="hal", properties={**user, **changed})
        assert world.ask(STOREFRONT, who, "team", "service:orders").decision is decision


def test_the_time_is_ours(world):
    night = world.clock.now().replace(hour=3).isoformat()
    answer = world.ask(STOREFRONT, "service:storefront", "night", "service:orders", time=night, now=night)
    assert answer.decision is (world.clock.now().hour < 7)


def test_how_a_user_signed_in(world):
    strong = {"roles": ["clerk"], "amr": ["pwd", "mfa"], "acr": "high", "since": "2020-01-01T00:00:00Z"}
    for changed, decision in (
        ({}, True),
        ({"amr": ["pwd"]}, False),
        ({"acr": "low"}, False),
        ({"amr": None}, False),
    ):
        user = Entity(type="user", id="hal", properties={**strong, **changed})
        assert world.ask(STOREFRONT, user, "secure", "service:orders").decision is decision


def test_a_path_is_made_from_ids_and_properties(world):
    resource = Entity(type="service", id="orders", properties={"line": "7"})
    asked = Action(name="line", properties={"id": "o1"})
    assert world.ask(STOREFRONT, "service:storefront", asked, resource).decision is True
    assert world.store.records[-1].path == "/orders/o1/lines/7"
    asked = Action(name="file", properties={"path": "a/b c", "verbose": True, "deep": {"a": 1}, "n": 5})
    assert world.ask(STOREFRONT, "service:storefront", asked, "service:orders").decision is True
    assert world.store.records[-1].path == "/files/a/b%20c?verbose=true&n=5"
    for properties in ({}, {"path": "a"}, {"path": ["a/b c"]}, {"path": "../b"}, {"path": "a//b c"}):
        asked = Action(name="file", properties=properties)
        assert world.ask(STOREFRONT, "service:storefront", asked, "service:orders").decision is False


def test_an_id_that_reads_as_another_operation_is_decided_by_name(world):
    """``GET /orders/find`` is another door, open to everybody; asking to read the order "find" must not open that."""
    answer = world.ask(STOREFRONT, "user:gus", "read", "order:find")
    assert (answer.decision, answer.context["reason"]) == (False, "user-not-permitted")
    assert world.store.records[-1].operation == "read"
    assert world.store.records[-1].path is None


@pytest.mark.parametrize(
    ("method", "path", "reason"),
    [
        ("GET", "/orders/find", "allowed"),
        ("GET", "/orders/find?x=1", "allowed"),
        ("get", "/orders/find", "unknown-operation"),
        ("GET", "/orders//find", "ambiguous-path"),
        ("GET", "/orders/%66ind", "ambiguous-path"),
        ("GET", "/orders/{id}", "user-required"),
        ("GET", "/orders/{other}", "ambiguous-path"),
        ("GET", "orders", "ambiguous-path"),
        ("POST", "/orders/find", "unknown-operation"),
    ],
)
def test_routes(world, method, path, reason):
    route = Entity(type="route", id=path, properties={"service": "orders"})
    assert world.reason(STOREFRONT, "service:storefront", method, route) == reason
    stated = Entity(type="service", id=SPIFFE + "orders", properties={"method": method, "path": path})
    wanted = "ambiguous-path" if "{" in path else reason  # a template is one of a route only
    assert world.reason(STOREFRONT, "service:storefront", "x", stated) == wanted


@pytest.mark.parametrize(
    "resource",
    [
        Entity(type="route", id="/orders", properties={"service": 5}),
        Entity(type="service", id="orders", properties={"path": 5, "method": "GET"}),
        Entity(type="service", id="orders", properties={"path": "/orders", "method": 5}),
    ],
)
def test_routes_that_are_not_stated_whole(world, resource):
    with pytest.raises(InputError):
        world.ask(STOREFRONT, "service:storefront", "x", resource)


def test_a_route_without_a_service_is_the_peps_own(world):
    assert world.ask(ORDERS, "service:storefront", "GET", "route:/orders/find").decision is True
    with pytest.raises(InputError):
        world.ask(KEY, "user:ann", "GET", "route:/orders")


def test_what_is_only_watched_says_what_it_would_be(world):
    answer = world.ask(STOREFRONT, "service:storefront", "watched", "service:orders")
    assert answer.decision is False
    assert answer.context["would"] == {"decision": True, "reason": "allowed"}
    assert world.store.records[-1].detail["would"] == "allow"


# --- search


def search(world, pep, kind, **members):
    body = json.dumps(members).encode()
    answer = answer_search(
        world.points.open(pep), kind, body, tokens=PageTokens(Secret(b"k" * 32)), now=world.clock.now()
    )
    return [entity.get("id", entity.get("name")) for entity in answer["results"]], answer["context"]


def test_searches_find_what_this_pep_may_know(world):
    read, order = {"name": "read"}, {"type": "order", "id": "o1"}
    ann = {"type": "user", "id": "ann"}
    assert search(world, STOREFRONT, Kind.SUBJECT, subject={"type": "user"}, action=read, resource=order)[
        0
    ] == ["ann"]
    assert (
        search(world, INTRUDER, Kind.SUBJECT, subject={"type": "user"}, action=read, resource=order)[0] == []
    )
    assert search(world, KEY, Kind.SUBJECT, subject={"type": "user"}, action=read, resource=order)[0] == []
    find, orders = {"name": "find"}, {"type": "service", "id": "orders"}
    callers = {"type": "service"}
    assert search(world, ORDERS, Kind.SUBJECT, subject=callers, action=find, resource=orders)[0] == [
        "storefront"
    ]
    assert search(world, STOREFRONT, Kind.SUBJECT, subject=callers, action=find, resource=orders)[0] == [
        "storefront"
    ]
    assert search(world, INTRUDER, Kind.SUBJECT, subject=callers, action=find, resource=orders)[0] == []
    assert search(world, STOREFRONT, Kind.RESOURCE, subject=ann, action=read, resource={"type": "order"})[
        0
    ] == [*("o1", "o2")]
    services = {"type": "service"}
    storefront = {"type": "service", "id": "storefront"}
    assert search(world, STOREFRONT, Kind.RESOURCE, subject=storefront, action=find, resource=services)[
        0
    ] == ["orders"]
    found, _ = search(world, STOREFRONT, Kind.ACTION, subject=ann, resource=order)
    assert found == ["edit", "find", "list", "read"]
    assert search(world, KEY, Kind.ACTION, subject=ann, resource=orders)[0] == ["list"]
    route = {"type": "route", "id": "/orders/find", "properties": {"service": "orders"}}
    assert search(world, STOREFRONT, Kind.ACTION, subject=storefront, resource=route)[0] == ["GET"]


def test_what_a_key_may_not_know_looks_like_what_there_is_not(world):
    ann, read = {"type": "user", "id": "ann"}, {"name": "charge"}
    other = Pep(name="apikey:other", scopes=frozenset({"payments.charge"}))
    for kind in ("order", "planet"):
        found = search(world, other, Kind.RESOURCE, subject=ann, action=read, resource={"type": kind})
        assert found == ([], {"snapshot": world.snapshot.hash, "reason": "unknown-type"})
        found = search(world, other, Kind.ACTION, subject=ann, resource={"type": kind, "id": "o1"})
        assert found == ([], {"snapshot": world.snapshot.hash, "reason": "unknown-type"})
    for name in ("orders", "nowhere"):
        found = search(world, other, Kind.ACTION, subject=ann, resource={"type": "service", "id": name})
        assert found[1]["reason"] == "unknown-type"


# --- records


def test_every_evaluation_is_a_record_with_the_id_that_the_pep_has(world):
    point = world.points.open(STOREFRONT)
    items = [{"resource": {"type": "order", "id": name}} for name in ("o1", "o2", "o3")]
    body = {"subject": {"type": "user", "id": "ann"}, "action": {"name": "edit"}, "evaluations": [*items, {}]}
    answer = answer_evaluations(point, json.dumps(body).encode())
    before = len(world.store.records)
    point.close()
    made = world.store.records[before:]
    assert [item["context"].get("decision_id") for item in answer["evaluations"]] == [
        *(r.id for r in made),
        None,
    ]
    assert [record.decision for record in made] == ["allow", "deny", "deny"]
    first = made[0]
    assert (first.caller, first.target, first.operation) == (SPIFFE + "storefront", "orders", "edit")
    assert (first.method, first.path, first.point.value) == ("PUT", "/orders/o1", "control")
    assert first.snapshot == world.snapshot.hash
    assert first.detail["via"] == "authzen"
    assert first.detail["pep"] == STOREFRONT.name
    assert first.detail["subject"] == "user:ann"
    assert len({record.id for record in made}) == 3


def test_a_record_can_be_explained_afterwards(world):
    engine = Engine(world.snapshot)
    user = Entity(type="user", id="ann", properties={"clearance": 3, "Password": "hunter2", "roles": ["x"]})
    order = Entity(type="order", id="o2", properties={"status": "open", "note": "hunter2"})
    world.ask(
        STOREFRONT, user, "edit", order, device={"managed": True, "serial": "hunter2"}, secret="hunter2"
    )
    record = world.store.records[-1]
    assert "hunter2" not in str(record)
    assert is_evaluation(record)
    text, explanation = explain_record(engine, record)
    assert explanation.decision.reason.value == record.reason == "condition-false"
    assert "resource.status" in text
    assert "closed" in text
    cases = [
        (STOREFRONT, "user:gus", "read", "order:find", "user-not-permitted", "clerk"),
        (STOREFRONT, "user:ann", "fly", "order:o1", "unknown-operation", "no operation 'fly'"),
        (STOREFRONT, "user:ann", "read", "planet:x", "unknown-resource", "no type of resource 'planet'"),
        (STOREFRONT, "service:storefront", "find", "service:orders", "allowed", "storefront may call find"),
        (KEY, "user:gus", "list", "service:orders", "allowed", "may call list"),
        (STOREFRONT, "robot:r2", "find", "service:orders", "unknown-caller", "(nobody)"),
        (ORDERS, "service:nobody", "find", "service:orders", "unknown-caller", "nobody"),
    ]
    for pep, subject, action, resource, reason, words in cases:
        assert world.reason(pep, subject, action, resource) == reason
        text, _ = explain_record(engine, world.store.records[-1])
        assert words in text, text
    world.ask(STOREFRONT, "user:" + "u" * 2000, "read", "order:" + "o" * 2000)
    text, explanation = explain_record(engine, world.store.records[-1])
    assert explanation is None
    assert "too long" in text


def test_a_question_that_another_policy_does_not_understand_cannot_be_explained(world):
    assert world.ask(STOREFRONT, "user:ann", "read", "order:o1").decision is True
    other = parse_policy({"p.yaml": POLICY.replace("storefront", "shopfront").encode()})
    text, explanation = explain_record(Engine(other), world.store.records[-1])
    assert explanation is None
    assert "cannot be asked again" in text


def test_searches_leave_no_records_of_decisions(world):
    before = len(world.store.records)
    read = {"name": "read"}
    search(
        world,
        STOREFRONT,
        Kind.SUBJECT,
        subject={"type": "user"},
        action=read,
        resource={"type": "order", "id": "o1"},
    )
    assert len(world.store.records) == before


def test_what_cannot_be_recorded_is_not_answered():
    world = World()
    world.store.fails = True
    with pytest.raises(Unavailable):
        world.ask(STOREFRONT, "service:storefront", "find", "service:orders")


@pytest.mark.parametrize("size", [2048])
def test_long_names_are_cut_in_records_and_only_there(world, size):
    answer = world.ask(STOREFRONT, "user:" + "u" * size, "read", "order:" + "é" * size)
    assert answer.decision is False
    assert len(world.store.records[-1].detail["subject"]) <= 2048


def test_a_new_policy_is_asked_at_the_next_request(world):
    fresh = World()
    assert fresh.ask(STOREFRONT, "service:storefront", "find", "service:orders").decision is True
    fresh.snapshot = parse_policy(
        {"p.yaml": POLICY.replace("operations: [find]}", "operations: [list]}").encode()}
    )
    assert fresh.ask(STOREFRONT, "service:storefront", "find", "service:orders").decision is False
