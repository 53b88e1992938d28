# SPDX-License-Identifier: Apache-2.0
"""The bundle under OPA itself: its checks, its tests, and the engine's answers over generated policies.

``make peers`` builds ``opa`` where there is Go.
"""

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from tests.property.test_opa import ALONE, OURS, fact_worlds
from tests.strategies import policy_documents, requests_for, to_files
from tests.support.peers import peer_program, why_absent

from everyhop.authz import Engine
from everyhop.core.decision import Reason
from everyhop.policy import parse_policy
from everyhop.targets.compiling import compile_policy
from everyhop.targets.opa.testing import input_of

pytestmark = pytest.mark.slow

POLICY = """
version: 1
trust_domain: shop.example
attributes: {user: {level: int}, device: {managed: bool}, service: {team: string}, request: {headers: [x-region]}}
roles: {clerk: [users.read]}
services:
  checkout: {operations: {x: GET /}, attributes: {team: red}}
  users:
    operations:
      me: GET /users/me
      read: GET /users/{id}
      write: {route: "PUT /users/{id}", token: operation}
    probes: [GET /healthz]
  db: {tcp: 5432}
allow:
  - from: checkout
    to: users
    operations: [read]
    user: required
    when: "user.level >= 2 || (device.managed && request.headers['x-region'] in ['eu', 'us'])"
  - {from: checkout, to: users, operations: [me, write]}
  - {from: checkout, to: db}
deny:
  - {from: checkout, to: users, operations: [me], when: "caller.team == 'blue'", reason: x}
targets:
  tokens: {issuer: "https://t.shop.example", jwks_uri: "https://t.shop.example/keys"}
  opa: {accept: [mtls]}
tests:
  - {from: checkout, to: users, call: GET /users/7, user: {id: a, roles: [clerk], level: 2}, expect: allow}
  - {from: checkout, to: users, call: GET /users/7, user: {id: a, roles: [clerk], level: 1}, expect: deny}
  - {from: checkout, to: users, call: GET /users/me, expect: allow}
  - {from: checkout, to: users, call: PUT /users/7, expect: allow}
  - {from: db, to: users, call: "GET /healthz?x", expect: allow}
  - {from: db, to: users, call: "GET /users/..", expect: deny}
  - {from: checkout, to: db, tcp: true, expect: allow}
"""
ME = "spiffe://shop.example/service/checkout"


@pytest.fixture(scope="module")
def opa():
    found = peer_program("opa")
    if not found:
        pytest.skip(why_absent("opa"))

    def run(*arguments, given=None):
        done = subprocess.run(
            [found, *arguments], check=False, input=given, capture_output=True, text=True, timeout=100
        )
        return done.returncode, done.stdout + done.stderr

    return run


def write(directory, text):
    (compiled,) = compile_policy(parse_policy({"everyhop.yaml": text.encode()}), ["opa"])
    for file in compiled.files:
        path = directory / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
    return directory / "opa"


@pytest.fixture
def bundle(tmp_path):
    return write(tmp_path, POLICY)


def test_a_test_that_does_not_hold_is_seen(opa, tmp_path):
    wrong = POLICY.replace("level: 2}, expect: allow", "level: 1}, expect: allow")
    code, said = opa("test", "-b", str(write(tmp_path, wrong)))
    assert code != 0, said
    assert "FAIL" in said


def test_it_passes_the_strict_check(opa, bundle):
    assert opa("check", "-b", "--strict", str(bundle)) == (0, "")


def test_it_is_formatted_as_opa_formats(opa, bundle):
    assert opa("fmt", "-l", str(bundle)) == (0, "")


def test_the_tests_of_the_policy_pass(opa, bundle):
    code, said = opa("test", "-b", str(bundle))
    assert code == 0, said
    assert "PASS: 7/7" in said


def ask(opa, files, questions, rule="data.everyhop.authz.decision"):
    """Ask many questions in one process."""
    with TemporaryDirectory() as name:
        for file in files:
            if file.path.endswith((".rego", "data.json")) and "test" not in file.path:
                (Path(name) / file.path.replace("/", "-")).write_bytes(file.content)
        (Path(name) / "questions.json").write_text(json.dumps({"questions": questions}))
        query = f"[one | some question in data.questions; one := {rule} with input as question]"
        code, said = opa("eval", "-d", name, "--format", "json", query)
        assert code == 0, said
        return json.loads(said)["result"][0]["expressions"][0]["value"]


def envoy_input(path, *, claims=None, principal=ME, target="users", method="GET", headers=None):
    metadata = {} if claims is None else {"envoy.filters.http.jwt_authn": {"everyhop_token": claims}}
    return {
        "attributes": {
            "source": {"principal": principal, "address": {"socketAddress": {"address": "10.0.0.1"}}},
            "request": {"http": {"method": method, "path": path, "headers": headers or {}}},
            "contextExtensions": {"everyhop_target": target},
            "metadataContext": {"filterMetadata": metadata},
        }
    }


def test_the_way_in_for_envoy_asks_the_same(opa):
    text = POLICY.replace("accept: [mtls]", "accept: [mtls, token-binding]")
    (compiled,) = compile_policy(parse_policy({"everyhop.yaml": text.encode()}), ["opa"])
    claims = {"iss": "https://t.shop.example", "sub": ME, "aud": "users#write"}
    questions = [
        envoy_input("/users/me"),
        envoy_input("/users/me", principal="spiffe://shop.example/service/db"),
        envoy_input("/users/me", principal=""),
        envoy_input("/users/..;/me"),
        envoy_input("/users/7", method="PUT", claims=claims),
        envoy_input("/users/7", method="PUT", claims={**claims, "aud": ["users#write", "x"]}),
        envoy_input("/users/7", method="PUT", claims={**claims, "aud": ["users"]}),
        envoy_input("/users/7", method="PUT", claims={**claims, "sub": "spiffe://shop.example/service/db"}),
        envoy_input("/users/7", method="PUT", claims={**claims, "iss": "https://evil.example"}),
        envoy_input("/users/7", method="PUT"),
        {},
    ]
    found = ask(opa, compiled.files, questions, "data.everyhop.authz_envoy.result")
    assert [one["http_status"] for one in found] == [200, 403, 403, 400, 200, 200, 401, 401, 401, 401, 403]
    assert [one["allowed"] for one in found] == [
        status == 200 for status in (one["http_status"] for one in found)
    ]


def test_envoys_request_is_put_into_the_words_of_the_contract(opa):
    (compiled,) = compile_policy(parse_policy({"everyhop.yaml": POLICY.encode()}), ["opa"])
    claims = {"iss": "https://t.shop.example", "sub": ME, "aud": "users#write", "cnf": {"x5t#S256": "AbC"}}
    asked = envoy_input("/users/7?x", method="PUT", claims=claims, headers={"x-region": "eu,us"})
    assert ask(opa, compiled.files, [asked], "data.everyhop.authz_envoy.question") == [
        {
            "caller": ME,
            "target": "users",
            "method": "PUT",
            "path": "/users/7?x",
            "headers": {"x-region": ["eu,us"]},
            "source_ip": "10.0.0.1",
            "token": {
                "issuer": "https://t.shop.example",
                "subject": ME,
                "audiences": ["users#write"],
                "thumbprint": "AbC",
            },
        }
    ]


LONG = settings(max_examples=40, suppress_health_check=list(HealthCheck))


@LONG
@given(data=st.data())
def test_opa_answers_as_the_engine_does_where_no_fact_counts(opa, data):
    snapshot = parse_policy(to_files({**data.draw(policy_documents()), "targets": ALONE}))
    (compiled,) = compile_policy(snapshot, ["opa"])
    requests = data.draw(st.lists(requests_for(snapshot), min_size=20, max_size=40))
    engine = Engine(snapshot)
    calls = [
        {"caller": one.caller, "target": one.target, "method": one.method, "path": one.path}
        for one in requests
    ]
    for call, found in zip(calls, ask(opa, compiled.files, calls), strict=True):
        decision = engine.decide(**call)
        assert found["allow"] == decision.is_allowed, (call, found, decision)
        assert found["reason"] == OURS.get(decision.reason, decision.reason), (call, found)
        assert (found["status"] == 400) == (decision.reason is Reason.AMBIGUOUS_PATH)
        assert found["rule"] == (decision.rule if decision.is_allowed else None)


@LONG
@given(world=fact_worlds(calls=40))
def test_opa_answers_as_the_engine_does_where_facts_count(opa, world):
    snapshot, calls = world
    (compiled,) = compile_policy(snapshot, ["opa"])
    assert not compiled.failed, compiled.diagnostics
    engine = Engine(snapshot)
    answers = ask(opa, compiled.files, [input_of(*call) for call in calls])
    for (caller, target, method, path, context), found in zip(calls, answers, strict=True):
        decision = engine.decide(caller=caller, target=target, method=method, path=path, context=context)
        assert found["allow"] == decision.is_allowed, (found, decision, caller, target, method, path, context)
        if decision.is_allowed:
            assert found["rule"] == decision.rule
