# SPDX-License-Identifier: Apache-2.0
"""The OPA bundle: what it refuses, by name or by answer, and what its files are.

Whole policies are compared in tests/property/test_opa.py, and under OPA itself in tests/conformance/opa.
"""

import json
import re

import pytest
from tests.support.rego import RegoBundle

from everyhop.policy import parse_policy
from everyhop.targets.compiling import compile_policy

HEAD = """
version: 1
trust_domain: shop.example
attributes: {user: {level: int}, device: {managed: bool}, request: {headers: [x-region]}, resource: {owner: string}}
services:
  checkout: {operations: {x: GET /}}
  users:
    operations:
      me: GET /users/me
      read: GET /users/{id}
      write: {route: "PUT /users/{id}", token: operation}
      once: {route: "POST /once", token: required, once: true}
    probes: [GET /healthz]
  db: {tcp: 5432}
"""
RULES = """
allow:
  - {from: checkout, to: users, operations: [me, read, write]}
  - {from: outside, to: users, operations: [read]}
  - {from: checkout, to: db}
"""
ACCEPT = """
targets:
  tokens: {issuer: "https://t.shop.example", jwks_uri: "https://t.shop.example/keys"}
  opa: {accept: [mtls]}
"""
ME = "spiffe://shop.example/service/checkout"
DB = "spiffe://shop.example/service/db"


def compiled(text, *beside):
    (found,) = compile_policy(parse_policy({"everyhop.yaml": text.encode()}), ["opa"], beside=beside)
    return found


def codes(text, *beside):
    return {one.code for one in compiled(text, *beside).diagnostics if one.is_error}


@pytest.fixture(scope="module")
def bundle():
    return RegoBundle(compiled(HEAD + RULES + ACCEPT).files)


def question(method="GET", path="/users/7", caller=ME, target="users", **further):
    return {"caller": caller, "target": target, "method": method, "path": path, **further}


def token(**changed):
    held = {
        "issuer": "https://t.shop.example",
        "subject": ME,
        "audiences": ["users#write"],
        "thumbprint": "AbC",
    }
    return {"token": {**held, **changed}, "thumbprint": "AbC"}


@pytest.mark.parametrize(
    ("asked", "status", "reason"),
    [
        ({}, 403, "unknown-service"),
        (question(target="nobody"), 403, "unknown-service"),
        (question(target="db"), 403, "wrong-protocol"),
        (question(connection="tcp"), 403, "wrong-protocol"),
        (question(path="/users/.."), 400, "ambiguous-path"),
        (question(path="/users/a%2fb"), 400, "ambiguous-path"),
        (question(path="/users/a;b"), 400, "ambiguous-path"),
        (question(path="//users/7"), 400, "ambiguous-path"),
        (question(path=7), 400, "ambiguous-path"),
        ({"caller": ME, "target": "users", "method": "GET"}, 400, "ambiguous-path"),
        (question(method="get"), 403, "unknown-operation"),
        (question(method=["GET"]), 403, "unknown-operation"),
        (question(path="/users/7/"), 403, "unknown-operation"),
        (question(caller="spiffe://shop.example/service/nobody"), 403, "unknown-caller"),
        (question(caller=""), 403, "unknown-caller"),
        (question(caller=None), 403, "unknown-caller"),
        (question(caller=["outside"]), 403, "unknown-caller"),
        (question(caller=DB), 403, "no-rule"),
        (question(path="/users/me", caller="outside"), 403, "no-rule"),
        (question("PUT"), 401, "token-required"),
        (question("PUT", **token(audiences=["users"])), 401, "token-required"),
        (question("PUT", **token(audiences="users#write")), 401, "token-required"),
        (question("PUT", **token(subject=DB)), 401, "token-required"),
        (question("PUT", **token(issuer="https://evil.example")), 401, "token-required"),
        (question("PUT", **token(thumbprint="other")), 401, "token-required"),
        (question("PUT", token=token()["token"]), 401, "token-required"),
        (question("PUT", **(token(thumbprint="") | {"thumbprint": ""})), 401, "token-required"),
    ],
)
def test_it_refuses(bundle, asked, status, reason):
    found = bundle.ask(asked)
    assert (found["allow"], found["status"], found["reason"]) == (False, status, reason)
    assert bundle.ask(asked, "allow") is not True


@pytest.mark.parametrize(
    ("asked", "rule"),
    [
        (question(), "allow[0]"),
        (question(path="/users/me?x=/.."), "allow[0]"),
        (question(caller="outside"), "allow[1]"),
        (question("PUT", **token()), "allow[0]"),
        (question(path="/healthz", caller=DB), "services.users.probes[0]"),
        ({"caller": ME, "target": "db", "connection": "tcp"}, "allow[2]"),
    ],
)
def test_it_allows(bundle, asked, rule):
    found = bundle.ask(asked)
    assert (found["allow"], found["status"], found["rule"]) == (True, 200, rule)
    assert bundle.ask(asked, "allow") is True


# -- what it cannot hold


def test_without_a_holder_of_mutual_tls_everything_stays_shut():
    text = HEAD + RULES + ACCEPT.replace("accept: [mtls]", "accept: [token-binding]")
    assert "opa.mtls" in codes(text)
    assert not RegoBundle(compiled(text).files).ask(question())["allow"]
    assert RegoBundle(compiled(text, "envoy").files).ask(question())["allow"]


def test_a_token_for_one_call_is_refused():
    text = HEAD + RULES.replace("write]", "write, once]") + ACCEPT
    assert codes(text) == {"opa.once"}


def test_tokens_without_an_issuer_are_refused():
    text = HEAD + RULES + "targets: {opa: {accept: [mtls]}}\n"
    assert codes(text) == {"opa.tokens"}
    found = RegoBundle(compiled(text).files).ask(question("PUT", **token(issuer=None)))
    assert not found["allow"]


@pytest.mark.parametrize(
    "condition",
    [
        "now.getHours('UTC') < 7",
        "now > timestamp('2026-01-01T00:00:00Z')",
        "request.query['q'] == 'z'",
        "request.path_params['id'] == '7'",
        "in_cidr(request.source_ip, '10.0.0.0/8')",
        "resource.owner == 'u'",
        "size(request.headers) > 1",
        "request.path.matches('^/users/.$')",
        "user.roles.exists(r, r == 'x')",
        "user.level + 1 > 2",
    ],
)
@pytest.mark.parametrize("is_deny", [False, True], ids=["allow", "deny"])
def test_a_condition_without_a_form_is_refused_by_name_and_what_hangs_on_it_is_shut(condition, is_deny):
    entry = f'{{from: checkout, to: users, operations: [read], when: "{condition}"'
    allow = "\nallow:\n  - {from: checkout, to: users, operations: [read, me]}\n"
    rules = (
        f"{allow}deny:\n  - {entry}, reason: x}}\n"
        if is_deny
        else f"\nallow:\n  - {entry}, user: optional}}\n"
    )
    text = HEAD + rules + ACCEPT
    assert codes(text) == {"opa.conditional-deny" if is_deny else "opa.condition"}
    found = RegoBundle(compiled(text).files)
    assert not found.ask(question())["allow"]
    assert found.ask(question(path="/users/me"))["allow"] == is_deny
    assert not codes(text, "sdk")
    assert RegoBundle(compiled(text, "sdk").files).ask(question())["allow"]


# -- the files


def test_the_manifest_owns_every_package_and_nothing_else():
    files = {file.path: file.content.decode() for file in compiled(HEAD + RULES + ACCEPT).files}
    assert sorted(files) == [
        "opa/.manifest",
        "opa/data.json",
        "opa/envoy.rego",
        "opa/policy.rego",
        "opa/policy_test.rego",
    ]
    manifest = json.loads(files["opa/.manifest"])
    packages = {
        re.search(r"^package (\S+)$", text, re.MULTILINE)[1]
        for path, text in files.items()
        if path.endswith("rego")
    }
    assert {one.replace(".", "/") for one in packages} == set(manifest["roots"])
    assert manifest["rego_version"] == 1
    assert list(json.loads(files["opa/data.json"])) == ["everyhop"]


def test_another_package():
    text = HEAD + RULES + ACCEPT.replace("accept: [mtls]", "accept: [mtls], package: acme.gate")
    assert RegoBundle(compiled(text).files, "acme.gate").ask(question())["allow"]


TESTS = """
tests:
  - {from: checkout, to: users, call: GET /users/7, expect: allow}
  - {from: checkout, to: users, call: PUT /users/7, expect: allow}
  - {from: outside, to: users, call: GET /users/me, expect: deny}
  - {from: "spiffe://shop.example/service/x", to: users, call: "GET /users/..", expect: deny}
  - {from: checkout, to: db, tcp: true, expect: allow}
"""


def test_the_tests_of_the_policy_are_tests_of_the_bundle():
    found = compiled(HEAD + RULES + ACCEPT + TESTS)
    (module,) = [file.content.decode() for file in found.files if file.path.endswith("_test.rego")]
    cases = re.findall(
        r"^(\w*test_\d+_(\w+)) if \{\n\t(not )?rules.allow with input as (.*)$", module, re.MULTILINE
    )
    assert [name for name, *_ in cases] == [
        "test_0_allow", "test_1_allow", "test_2_deny", "test_3_deny", "test_4_allow",
    ]  # fmt: skip
    bundle = RegoBundle(found.files)
    for _, expected, negated, given in cases:
        assert bundle.ask(json.loads(given))["allow"] == (expected == "allow") == (not negated)


def test_a_test_of_what_stays_shut_is_marked_as_to_do():
    text = HEAD + RULES + "targets: {opa: {accept: [mtls]}}\n" + TESTS
    module = next(file.content for file in compiled(text).files if file.path.endswith("_test.rego"))
    assert b"\ntodo_test_1_allow if" in module
    assert b"\ntest_0_allow if" in module


def test_text_of_the_policy_cannot_leave_its_comment():
    condition = "caller.name == 'x'\\n || caller.name == 'y'\\r || caller.name == 'z'"
    rules = f'\nallow:\n  - {{from: checkout, to: users, operations: [read], when: "{condition}"}}\n'
    files = compiled(HEAD + rules + ACCEPT).files
    module = next(file.content.decode() for file in files if file.path == "opa/policy.rego")
    for line in module.splitlines():
        assert not line.lstrip().startswith("||"), line
