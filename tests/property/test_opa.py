# SPDX-License-Identifier: Apache-2.0
"""An OPA bundle against the engine: the same answers for policies without facts and with them."""

from hypothesis import Phase, given, settings, strategies as st
from tests.strategies import STRANGERS, policy_documents, requests_for, to_files
from tests.support.rego import RegoBundle

from everyhop.authz import Context, Engine, User
from everyhop.core.decision import Reason
from everyhop.policy import parse_policy
from everyhop.targets.compiling import compile_policy
from everyhop.targets.opa.testing import input_of

PHASES = (
    Phase.explicit,
    Phase.reuse,
    Phase.generate,
)  # a question costs 20 ms here: a failure is not made smaller
ALONE = {"opa": {"accept": ["mtls"]}}
OURS = {Reason.DENIED_BY_RULE: "no-rule"}


def bundle_of(snapshot):
    (compiled,) = compile_policy(snapshot, ["opa"])
    return compiled, RegoBundle(compiled.files)


@st.composite
def worlds(draw):
    document = draw(policy_documents())
    snapshot = parse_policy(to_files({**document, "targets": ALONE}))
    return snapshot, draw(st.lists(requests_for(snapshot), min_size=3, max_size=8))


@given(worlds())
@settings(max_examples=10, phases=PHASES)
def test_it_answers_as_the_engine_does_where_no_fact_counts(world):
    snapshot, requests = world
    compiled, bundle = bundle_of(snapshot)
    assert not compiled.failed, compiled.diagnostics
    engine = Engine(snapshot)
    for request in requests:
        call = {
            "caller": request.caller,
            "target": request.target,
            "method": request.method,
            "path": request.path,
        }
        decision = engine.decide(**call)
        found = bundle.ask(call)
        assert found["allow"] == decision.is_allowed, request
        assert found["reason"] == OURS.get(decision.reason, decision.reason), request
        assert found["operation"] == decision.operation
        assert found["status"] == (
            200 if decision.is_allowed else 400 if decision.reason is Reason.AMBIGUOUS_PATH else 403
        )
        if decision.is_allowed:
            assert found["rule"] == decision.rule
    for name, service in snapshot.services.items():
        if service.tcp is None and name != min(snapshot.services):
            continue
        for caller in (*(str(one.spiffe_id) for one in snapshot.services.values()), *STRANGERS[:3]):
            connection = {"caller": caller, "target": name, "connection": "tcp"}
            expected = engine.decide_tcp(caller=caller, target=name)
            assert bundle.ask(connection)["allow"] == expected.is_allowed, (service, caller)


# -- with facts

SERVICES = ("a", "b", "c")
OPERATIONS = {"read": "GET /things/{id}", "list": "GET /things", "put": "PUT /things/{id}"}
PLAIN = (
    "request.headers['x-a'] == '1'",
    "'x-a' in request.headers",
    "!('x-a' in request.headers) || device.managed",
    "request.headers['x-a'] in ['1', '2']",
    "caller.name == 'a' || device.level >= 3",
    "device.managed",
    "!device.managed",
    "device.managed ? device.level > 1 : device.level > 2",
    "device.score < 0.5 || caller.team == 'x'",
    "target.team == 'x' && request.headers['x-a'] != '2'",
    "request.path.startsWith('/things/7') && request.method != 'PUT'",
    "operation == 'read' && target.name in ['a', 'b']",
    "request.source_ip == '10.0.0.1'",
    "has_any(device.tags, ['t1', 't2'])",
    "has_all(device.tags, ['t1', 't2'])",
    "has_all(['t1', 't2', 't3'], device.tags)",
    "'t1' in device.tags && !('t2' in device.tags)",
    "caller.spiffe_id.endsWith('/a') || caller.spiffe_id.contains('vice/b')",
)
ABOUT_USERS = (
    "user.mfa",
    "!user.mfa",
    "user.id == 'u'",
    "has_role(user.roles, 'r2')",
    "'r1' in user.roles",
    "user.level > 2 || user.mfa",
    "user.unit != 'q'",
    "user.acr == 'gold' || 'pwd' in user.amr",
)


@st.composite
def fact_rules(draw, *, is_deny):
    rule = {
        "from": draw(st.sampled_from((*SERVICES, "any", "any", *([] if is_deny else ["outside"])))),
        "to": draw(st.sampled_from(SERVICES[:2])),
        "operations": draw(st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, unique=True)),
    }
    if not is_deny:
        rule["user"] = draw(st.sampled_from(("none", "optional", "required")))
    if draw(st.integers(0, 2)):
        rule["when"] = draw(st.sampled_from(PLAIN if rule.get("user") == "none" else PLAIN + ABOUT_USERS))
    return rule


@st.composite
def fact_worlds(draw, *, calls=5):
    document = {
        "version": 1,
        "trust_domain": "x.example",
        "attributes": {
            "user": {"level": "int", "unit": {"type": "string", "default": "q"}},
            "device": {
                "managed": "bool",
                "level": {"type": "int", "default": 2},
                "score": "double",
                "tags": "strings",
            },
            "service": {"team": "string"},
            "request": {"headers": ["x-a"]},
        },
        "services": {
            name: {"operations": OPERATIONS, "attributes": {"team": "x"} if name == "a" else {}}
            for name in SERVICES
        },
        "targets": ALONE,
    }
    for key in ("allow", "deny"):
        found = draw(st.lists(fact_rules(is_deny=key == "deny"), min_size=key == "allow", max_size=4))
        if found:
            document[key] = found
    if draw(st.booleans()):
        document["roles"] = {"r1": ["a.read", "b.*"], "r2": {"grants": ["a.put"], "groups": ["g2"]}}
        document["directory"] = {"users": {"u": {"roles": ["r2"], "attributes": {"level": 4}}}}
    return parse_policy(to_files(document)), draw(st.lists(facts(), min_size=3, max_size=calls))


def some(*values):
    return st.sampled_from(values)


@st.composite
def facts(draw):
    user = None
    if draw(st.booleans()):
        user = User(
            id=draw(some("u", "v")),
            issuer=draw(some(None, "https://idp.example")),
            roles=draw(some((), ("r1",), ("g2", "r1"), ("x",))),
            amr=draw(some(None, (), ("pwd",), ("mfa", "pwd"))),
            acr=draw(some(None, "gold")),
            attributes=draw(some({}, {"level": 2}, {"level": 3}, {"unit": "z"}, {"level": "3"})),
        )
    device = {
        "managed": draw(some(None, True, False)),
        "level": draw(some(None, 1, 3, "3")),
        "score": draw(some(None, 0.25, 0.5)),
        "tags": draw(some(None, (), ("t1",), ("t2", "t1"))),
    }
    context = Context(
        user=user,
        device={name: value for name, value in device.items() if value is not None},
        headers={}
        if (lines := draw(some(None, ("1",), ("2",), ("1", "2"), ("1,2",), ("",)))) is None
        else {"x-a": lines},
        source_ip=draw(some(None, "10.0.0.1")),
    )
    caller = draw(
        some(*(f"spiffe://x.example/service/{name}" for name in SERVICES), "outside", "spiffe://x.example/y")
    )
    call = draw(
        some(("GET", "/things/7"), ("GET", "/things"), ("PUT", "/things/8?x=1"), ("PUT", "/things/7"))
    )
    return caller, draw(some(*SERVICES[:2])), *call, context


@given(fact_worlds())
@settings(max_examples=12, phases=PHASES)
def test_it_answers_as_the_engine_does_where_facts_count(world):
    snapshot, calls = world
    compiled, bundle = bundle_of(snapshot)
    assert not compiled.failed, compiled.diagnostics
    engine = Engine(snapshot)
    for caller, target, method, path, context in calls:
        decision = engine.decide(caller=caller, target=target, method=method, path=path, context=context)
        found = bundle.ask(input_of(caller, target, method, path, context))
        assert found["allow"] == decision.is_allowed, (found, decision, caller, target, method, path, context)
        if decision.is_allowed:
            assert found["rule"] == decision.rule
