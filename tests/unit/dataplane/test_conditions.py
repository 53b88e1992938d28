# SPDX-License-Identifier: Apache-2.0
"""What is lowered is true, false and an error where the condition is; everything else is refused with its reason."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from tests.conditioned import ATTRIBUTES, IN_ENVOY, facts, texts
from tests.strategies import to_files
from tests.support.matchers import _holds

from everyhop.authz import Engine
from everyhop.conditions import Truth, compile_condition
from everyhop.conditions.rendering import render
from everyhop.dataplane.conditions import MAX_DEPTH, Lowering, NotLoweredError, Place, literal, missing
from everyhop.dataplane.predicates import expression, really_false, really_true
from everyhop.policy import parse_policy
from everyhop.policy.facts import Context
from everyhop.policy.vocabulary import vocabulary_of

NOW = datetime(2026, 3, 5, 13, 37, 11, tzinfo=UTC)
SERVICES = {
    "beta": {"attributes": {"team": "blue", "tags": ["blue", "green"], "load": 1, "since": "2020-01-01T00:00:00Z"}},
    "gamma": {"attributes": {"tier": 3}},
    "alpha": {
        "attributes": {"team": "blue"},
        "operations": {"list": "GET /a", "read": "GET /b/{id}"},
    },
    "store": {"tcp": 5432},
}  # fmt: skip


def snapshot_of(*conditions, attributes=ATTRIBUTES):
    rules = [
        {"from": ["beta", "gamma"], "to": "alpha", "operations": "all", "when": text} for text in conditions
    ]
    document = {
        "version": 1,
        "trust_domain": "shop.example",
        "attributes": attributes,
        "services": SERVICES,
        "allow": rules,
    }
    return parse_policy(to_files(document))


def place_of(snapshot, caller="beta", operation="read"):
    target = snapshot.services["store" if operation is None else "alpha"]
    doors = {o.name: o for o in target.operations}
    return Place(caller=snapshot.services.get(caller), target=target, operation=doors.get(operation or ""))


PLAIN = snapshot_of("true")


def lowered(text, *, attributes=ATTRIBUTES, **where):
    snapshot = PLAIN if attributes is ATTRIBUTES else snapshot_of("true", attributes=attributes)
    condition = compile_condition(text, vocabulary_of(snapshot.attributes))
    return Lowering(snapshot).condition(condition, place_of(snapshot, **where))


def inputs_of(known, path):
    headers = {name: ",".join(lines) for name, lines in known.lines().items()}
    return {
        "request": {"time": NOW, "url_path": path.partition("?")[0], "headers": headers},
        "source": known.source,
    }


def holds(predicate, inputs):
    return predicate if isinstance(predicate, bool) else _holds(predicate, inputs)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=texts(agent=False), known=facts(), where=st.sampled_from(("beta", "gamma")), deep=st.booleans())
def test_each_is_what_the_engine_finds(text, known, where, deep):
    snapshot = snapshot_of(text)
    engine = Engine(snapshot)
    path = "/b/xa?q=1" if deep else "/a"
    door = engine.find("alpha", "GET", path)
    context = Context(now=NOW, headers=known.lines(), source_ip=known.source)
    call = engine.call(door, str(snapshot.services[where].spiffe_id), context, "GET", path)
    condition = snapshot.rules[0].condition
    expected = condition.evaluate(engine.facts.values(condition, call)).truth
    tree = Lowering(snapshot).condition(condition, place_of(snapshot, where, door.name))
    inputs = inputs_of(known, path)
    assert holds(really_true(tree), inputs) is (expected is Truth.TRUE), render(tree)
    assert holds(really_false(tree), inputs) is (expected is Truth.FALSE), render(tree)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("user.id == 'a'", "verifies users"),
        ("user.mfa || now > timestamp('2020-01-01T00:00:00Z')", "verifies users"),
        ("'x' in user.roles", "verifies users"),
        ("resource.id == 'a'", "knows the resource"),
        ("request.query['q'] == 'a'", "no request.query"),
        ("'q' in request.query", "no request.query"),
        ("request.path_params['id'] == 'a'", "no request.path_params"),
        ("size(request.path_params) == 1", "size"),
        ("request.headers[request.method] == 'a'", "'[_]' on these types"),
        ("request.headers['x-region'] == 'a' || request.headers[request.method] == 'a'", "computed name"),
        ("size(request.headers) == 1", "size"),
        ("now.getHours('Europe/Paris') < 8", "time zones"),
        ("now.getHours('Etc/GMT') < 8", "time zones"),
        ("request.path.matches('^/a')", "matches"),
        ("int(request.headers['x-level']) > 1", "int"),
        ("string(now) == 'a'", "string"),
        ("request.method + 'x' == 'GETx'", "'+' on these types"),
        ("has_role(caller.tags, 'blue')", "has_role"),
        ("caller.tags.exists(t, t == 'blue')", "loops"),
        ("in_cidr(request.headers['x-region'], '10.0.0.0/8')", "caller's address only"),
        ("request.source_ip == '10.0.0.1'", "request.source_ip has no equal"),
        ("in_cidr(request.source_ip, '::/0')", "another way"),
        ("in_cidr(request.source_ip, '::/16')", "another way"),
        ("timestamp(request.headers['x-region']) < now", "timestamp"),
        ("starts_with_any(request.path, caller.tags)", "written out"),
        (" || ".join(f"in_cidr(request.source_ip, '10.{n}.0.0/16')" for n in range(4)), "3 networks"),
        ("'x-region' in request.headers && " + "!(true && " * 14 + "request.path == 'a'" + ")" * 14, "too large"),
    ],
)  # fmt: skip
def test_what_envoy_cannot_say_exactly_is_not_said(text, why):
    with pytest.raises(NotLoweredError) as refused:
        lowered(text)
    assert why in refused.value.why


def test_one_that_grows_too_large():
    clause = "request.headers['x-region'] == request.headers['x-level']"
    with pytest.raises(NotLoweredError, match="too large"):
        lowered(" || ".join([clause] * 20))


def test_more_headers_than_can_be_guarded():
    headers = [f"x-{n}" for n in range(5)]
    attributes = {**ATTRIBUTES, "request": {"headers": headers}}
    with pytest.raises(NotLoweredError, match="4 headers"):
        lowered(" && ".join(f"request.headers['{name}'] == 'a'" for name in headers), attributes=attributes)


def test_constants_are_written_out_and_the_rest_is_envoys():
    text = "caller.name == 'beta' && request.method == 'GET' && request.path == '/a' && now.getHours('+02:30') < 8"
    assert render(lowered(text, operation="list")) == (
        "'beta' == 'beta' && 'GET' == 'GET' && '/a' == '/a'"
        " && (request.time + duration('9000s')).getHours() < 8"
    )
    assert "request.url_path == '/a'" in render(lowered(text, operation="read"))
    assert render(lowered("now.getHours('UTC') < 8")) == "request.time.getHours() < 8"


def test_a_header_is_read_behind_a_guard():
    assert render(lowered("request.headers['x-region'] == 'eu'")) == (
        "(!('x-region' in request.headers) || request.headers['x-region'].matches('^[\\\\t -+\\\\--~]*$')"
        " ? request.headers['x-region'] : request.headers['']) == 'eu'"
    )


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("caller.team == 'blue'", Truth.ERROR),
        ("caller.legacy", Truth.ERROR),
        ("caller.since < now", Truth.ERROR),
        ("caller.load > 1.0", Truth.ERROR),
        ("'blue' in caller.tags", Truth.ERROR),
        ("caller.tier == 3", Truth.TRUE),
    ],
)
def test_an_attribute_that_a_service_does_not_have_is_an_error(text, outcome):
    tree = lowered(text, caller="gamma")
    inputs = {"request": {"time": NOW, "url_path": "/b/1", "headers": {"x-region": ""}}, "source": "10.0.0.1"}
    assert holds(really_true(tree), inputs) is (outcome is Truth.TRUE)
    assert not holds(really_false(tree), inputs)


def test_there_is_an_error_of_every_type_that_an_attribute_can_have():
    with pytest.raises(NotLoweredError, match="type duration"):
        missing(replace(literal(1), type="duration"))


def test_a_stranger_at_the_edge_has_no_spiffe_id():
    assert render(lowered("caller.name == 'outside'", caller="outside")) == "'outside' == 'outside'"
    assert "request.headers['']" in render(lowered("caller.spiffe_id == 'x'", caller="outside"))


@pytest.mark.parametrize(
    "text", ["request.headers['x-region'] == 'eu'", "request.path == '/'", "request.method == 'CONNECT'"]
)
def test_a_connection_has_no_request(text):
    if "method" in text:
        assert "request.headers['']" in render(lowered(text, operation=None))
        return
    with pytest.raises(NotLoweredError):
        lowered(text, operation=None)
    lowered("now.getHours() < 8 && caller.name == 'beta'", operation=None)


def test_every_example_is_within_the_bounds_of_messages():
    def levels(value):
        if isinstance(value, list):
            return max(map(levels, value), default=0)
        return 1 + max(map(levels, value.values()), default=0) if isinstance(value, dict) else 0

    assert 2 * MAX_DEPTH + 10 < 100
    for text in IN_ENVOY:
        assert levels(expression(lowered(text))) < 100


def test_what_is_always_so_needs_no_expression():
    assert really_true(literal(value=True)) is True
    assert really_false(literal(value=True)) is False
    network = really_true(lowered("in_cidr(request.source_ip, '10.0.0.0/8') && true"))
    assert network["single_predicate"]["input"]["name"] == "source"
