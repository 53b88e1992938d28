# SPDX-License-Identifier: Apache-2.0
"""The tree with conditions decides like the engine, order and reasons included; what is left to the agent says so."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from tests.conditioned import ATTRIBUTES, conditioned_documents, facts
from tests.strategies import requests_for, to_files
from tests.support.matchers import decide

from everyhop.authz import Engine, service_table
from everyhop.dataplane import placing
from everyhop.dataplane._names import asks_for_facts
from everyhop.dataplane.conditions import NotLoweredError
from everyhop.dataplane.enforcement import edge_authorization, http_authorization, tcp_authorization
from everyhop.dataplane.placing import PlacedVerdict, Placing
from everyhop.policy import parse_policy
from everyhop.policy.facts import Context
from everyhop.policy.model import OUTSIDE

NOW = datetime(2026, 3, 5, 13, 37, 11, tzinfo=UTC)
BETA = "spiffe://shop.example/service/beta"
LATE = "now > timestamp('2030-01-01T00:00:00Z')"
EARLY = "now < timestamp('2030-01-01T00:00:00Z')"
BROKEN = "caller.team == 'blue'"  # beta has no team here
NOT_EU = "request.headers['x-region'] != 'eu'"


def document(*, allow=(), deny=(), service=None, **more):
    written = {
        "version": 1,
        "trust_domain": "shop.example",
        "attributes": ATTRIBUTES,
        "services": {
            "beta": {},
            "alpha": service or {"operations": {"list": "GET /a"}, "probes": ["GET /healthz"]},
        },
        "allow": [{"from": "beta", "to": "alpha", "operations": "all", **rule} for rule in allow],
        "deny": [{"from": "any", "to": "alpha", **rule} for rule in deny],
        **more,
    }
    return {key: value for key, value in written.items() if value or key == "services"}


def inputs_of(known, caller, method, path):
    headers = {name: ",".join(lines) for name, lines in known.lines().items()}
    bare = path.partition("?")[0]
    return {
        "key": f"{method} {bare}",
        "caller": caller,
        "method": method,
        "source": known.source,
        "request": {"time": NOW, "url_path": bare, "headers": headers},
    }


def told(config, inputs):
    name, action = decide(config, inputs)
    _, reason, rule = name.split("|")
    return action, reason.partition("+")[0], None if rule == "-" else rule, asks_for_facts(name)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_it_decides_like_the_engine(data):
    snapshot = parse_policy(to_files(data.draw(conditioned_documents())))
    engine = Engine(snapshot)
    place = Placing(snapshot)
    for request in data.draw(st.lists(requests_for(snapshot), min_size=5, max_size=15)):
        service = snapshot.services.get(request.target)
        if service is None or service.tcp is not None or not (service.operations or service.probes):
            continue
        method, known = request.method or "GET", data.draw(facts())
        expected = engine.decide(
            caller=request.caller,
            target=request.target,
            method=method,
            path=request.path,
            context=Context(now=NOW, headers=known.lines(), source_ip=known.source),
        )
        config = http_authorization(snapshot, place.table(service_table(snapshot, request.target)))
        inputs = inputs_of(known, request.caller, method, request.path)
        action, reason, rule, is_left = told(config, inputs)
        if is_left:
            assert action == "ALLOW"
            continue
        if expected.reason == "unknown-caller":
            assert (action, reason) == ("DENY", "no-rule")
            continue
        assert (action, reason, rule) == (expected.effect.value.upper(), expected.reason, expected.rule)


@pytest.mark.parametrize(
    ("allow", "deny", "outcome"),
    [
        ([{"when": EARLY}], [], ("ALLOW", "allowed", "allow[0]")),
        ([{"when": LATE}, {"when": EARLY}], [], ("ALLOW", "allowed", "allow[1]")),
        ([{"when": LATE}], [], ("DENY", "condition-false", None)),
        ([{"when": BROKEN}], [], ("DENY", "condition-error", None)),
        ([{"when": LATE}, {"when": BROKEN}], [], ("DENY", "condition-false", None)),
        ([{"when": BROKEN}, {"when": LATE}], [], ("DENY", "condition-error", None)),
        ([{"when": BROKEN}, {"when": EARLY}], [], ("ALLOW", "allowed", "allow[1]")),
        ([{"when": LATE}, {}], [], ("ALLOW", "allowed", "allow[1]")),
        ([{}], [{"when": EARLY}], ("DENY", "denied-by-rule", "deny[0]")),
        ([{}], [{"when": LATE}], ("ALLOW", "allowed", "allow[0]")),
        ([{}], [{"when": BROKEN}], ("DENY", "condition-error", "deny[0]")),
        ([{}], [{"when": LATE}, {"when": BROKEN}, {"when": EARLY}], ("DENY", "condition-error", "deny[1]")),
        ([{}], [{"when": LATE}, {"when": EARLY}, {"when": BROKEN}], ("DENY", "denied-by-rule", "deny[1]")),
        ([{"when": EARLY}], [{"when": LATE}], ("ALLOW", "allowed", "allow[0]")),
        ([{"when": LATE}], [{"when": LATE}], ("DENY", "condition-false", None)),
        ([], [{"when": LATE}], ("DENY", "no-rule", None)),
    ],
)
def test_the_order_of_the_rules(allow, deny, outcome):
    snapshot = parse_policy(to_files(document(allow=allow, deny=deny)))
    config = http_authorization(snapshot, Placing(snapshot).table(service_table(snapshot, "alpha")))
    nothing = {"time": NOW, "url_path": "/a", "headers": {}}
    inputs = {"key": "GET /a", "caller": BETA, "method": "GET", "source": "10.0.0.1", "request": nothing}
    assert told(config, inputs) == (*outcome, False)
    decision = Engine(snapshot).decide(
        caller=BETA, target="alpha", method="GET", path="/a", context=Context(now=NOW)
    )
    assert (decision.effect.value.upper(), decision.reason, decision.rule) == outcome


def test_a_probe_stays_open_but_for_a_deny_rule_that_holds():
    for when, outcome in ((EARLY, "denied-by-rule"), (LATE, "probe"), (BROKEN, "condition-error")):
        snapshot = parse_policy(to_files(document(deny=[{"when": when}])))
        config = http_authorization(snapshot, Placing(snapshot).table(service_table(snapshot, "alpha")))
        nothing = {"time": NOW, "url_path": "/healthz", "headers": {}}
        inputs = {"key": "GET /healthz", "caller": BETA, "method": "GET", "request": nothing}
        assert told(config, inputs)[1] == outcome


def test_an_open_door_keeps_asking_for_its_token():
    service = {"operations": {"list": {"route": "GET /a", "token": "required"}}}
    snapshot = parse_policy(to_files(document(allow=[{"when": EARLY}], service=service)))
    table = Placing(snapshot).table(service_table(snapshot, "alpha"))
    config = http_authorization(snapshot, table)
    inputs = {
        "key": "GET /a",
        "caller": BETA,
        "request": {"time": NOW, "url_path": "/a", "headers": {}},
    }
    assert decide(config, inputs)[0].split("|")[1] == "allowed+s"
    assert table.needs_context


def test_a_connection_is_decided_by_what_is_known_of_it():
    service = {"tcp": 5432}
    rules = [{"from": "beta", "to": "alpha", "when": "in_cidr(request.source_ip, '10.0.0.0/8')"}]
    snapshot = parse_policy(to_files({**document(service=service), "allow": rules}))
    table = Placing(snapshot).table(service_table(snapshot, "alpha"))
    config = tcp_authorization(snapshot, table.tcp_verdicts)
    for source, outcome in (("10.1.2.3", ("ALLOW", "allowed")), ("11.0.0.1", ("DENY", "condition-false"))):
        assert told(config, {"method": "CONNECT", "caller": BETA, "source": source})[:2] == outcome


def test_one_that_the_agent_would_have_to_decide_refuses_a_connection():
    rules = [{"from": "beta", "to": "alpha", "when": "now.getHours('Europe/Paris') < 24"}]
    snapshot = parse_policy(to_files({**document(service={"tcp": 5432}), "allow": rules}))
    table = Placing(snapshot).table(service_table(snapshot, "alpha"))
    config = tcp_authorization(snapshot, table.tcp_verdicts)
    assert told(config, {"method": "CONNECT", "caller": BETA})[:2] == ("DENY", "condition-error")


def test_the_edge_has_conditions_too():
    rules = [{"from": "outside", "to": "alpha", "operations": "all", "when": NOT_EU}]
    snapshot = parse_policy(to_files({**document(), "allow": rules}))
    table = Placing(snapshot).table(service_table(snapshot, "alpha"))
    config = edge_authorization(snapshot, table)
    for headers, reason in (({"x-region": "us"}, "allowed"), ({"x-region": "eu"}, "condition-false")):
        request = {"time": NOW, "url_path": "/a", "headers": headers}
        assert told(config, {"key": "GET /a", "request": request})[1] == reason
    assert isinstance(table.entries[0].outside, PlacedVerdict)
    assert OUTSIDE not in table.entries[0].verdicts


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"allow": [{"when": EARLY, "user": "required"}]}, "about users"),
        ({"allow": [{"when": EARLY}], "mode": "shadow"}, "only watched"),
        ({"allow": [{"when": EARLY}, {"when": LATE, "mode": "shadow"}]}, "only watched"),
        ({"allow": [{"when": EARLY}, {"when": "now.getHours('Europe/Paris') < 8"}]}, "time zones"),
    ],
)
def test_whole_cases_are_left_to_the_agent(changed, why):
    snapshot = parse_policy(to_files(document(**changed)))
    plain = service_table(snapshot, "alpha")
    place = Placing(snapshot)
    verdict = plain.verdicts("list")[BETA]
    assert verdict.asks
    assert place.table(plain).verdicts("list")[BETA] == verdict
    where = placing.Place(
        caller=snapshot.services["beta"],
        target=snapshot.services["alpha"],
        operation=plain.entries[0].operation,
    )
    with pytest.raises(NotLoweredError, match=why):
        place.steps(where, verdict.cases)


@pytest.mark.parametrize("limit", ["MAX_EXPRESSIONS", "MAX_OF_SERVICE"])
def test_too_many_expressions_at_one_door_are_left_as_a_whole(monkeypatch, limit):
    snapshot = parse_policy(to_files(document(allow=[{"when": EARLY}, {"when": LATE}])))
    table = service_table(snapshot, "alpha")
    assert isinstance(Placing(snapshot).table(table).verdicts("list")[BETA], PlacedVerdict)
    monkeypatch.setattr(placing, limit, 3)
    assert Placing(snapshot).table(table).verdicts("list")[BETA].asks


def test_many_callers_with_the_same_conditions_share_them():
    written = document(allow=[{"from": "any", "when": EARLY}, {"from": "s3", "when": "caller.name == 's3'"}])
    written["services"] |= {f"s{n}": {} for n in range(6)}
    snapshot = parse_policy(to_files(written))
    table = Placing(snapshot).table(service_table(snapshot, "alpha"))
    config = http_authorization(snapshot, table)
    assert json.dumps(config).count("CelMatcher") == 2 + 3  # those of everybody, and s3's own
    nothing = {"time": NOW, "url_path": "/a", "headers": {}}
    for caller, outcome in (("s1", "allow[0]"), ("s3", "allow[0]"), ("alpha", "allow[0]"), ("nobody", None)):
        inputs = {"key": "GET /a", "caller": f"spiffe://shop.example/service/{caller}", "request": nothing}
        assert told(config, inputs)[2] == outcome
    both = "spiffe://shop.example/service/s1,spiffe://shop.example/service/s2"
    assert told(config, {"key": "GET /a", "caller": both, "request": nothing})[1] == "no-rule"


def test_a_table_without_conditions_is_as_it_was():
    snapshot = parse_policy(to_files(document(allow=[{}])))
    table = service_table(snapshot, "alpha")
    assert Placing(snapshot).table(table) is table
