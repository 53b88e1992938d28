# SPDX-License-Identifier: Apache-2.0
"""What a call carries besides a certificate: tokens, users, bodies; callers from outside; issuers of users."""

from __future__ import annotations

import json

import pytest

from everyhop.core.errors import PolicyError
from everyhop.policy import TokenMode, UserMode, decode_snapshot, encode_snapshot, parse_policy
from everyhop.policy.access import AccessIndex

HEAD = "version: 1\ntrust_domain: shop.example\n"
SCHEMA = json.dumps({"type": "object", "additionalProperties": False, "properties": {"n": {"minimum": 1}}})


def problems(text: str, **beside: bytes) -> list[tuple[str, str]]:
    files = {"p.yaml": (HEAD + text).encode()}
    files |= {name.replace("_", "."): data for name, data in beside.items()}
    with pytest.raises(PolicyError) as caught:
        parse_policy(files)
    return [(p.code, p.message) for p in caught.value.problems]


def parse(text: str, **beside: bytes):
    files = {"p.yaml": (HEAD + text).encode()}
    return parse_policy(files | {name.replace("_", "."): data for name, data in beside.items()})


# --- operations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "code", "message"),
    [
        ("{route: POST /c, once: true}", "conflict", "once needs a token"),
        ("{route: POST /c, token: none, once: true}", "conflict", "once needs a token"),
        ("{route: POST /c, token: yes}", "value", "'yes' is not one of none, required and operation"),
        ("{route: POST /c, token: required, once: maybe}", "value", "'maybe' is not true or false"),
        ("{token: required}", "value", "give exactly one of route, grpc and websocket"),
        ("{grpc: a.B/C, body: '{}'}", "conflict", "a body schema belongs to a route"),
        ("{route: POST /c, body: ../x.json}", "value", "is not the name of a .json file beside the policy"),
        ("{route: POST /c, body: /etc/x.json}", "value", "is not the name of a .json file"),
        ("{route: POST /c, body: x.yaml}", "value", "is not the name of a .json file"),
        ("{route: POST /c, body: y.json}", "body", "there is no file 'y.json'"),
        ("{route: POST /c, body: '{'}", "body", "not a usable JSON Schema"),
        ('{route: POST /c, body: \'{"type": "objekt"}\'}', "body", "not a usable JSON Schema: $.type"),
        (
            '{route: POST /c, body: \'{"$ref": "http://x/y"}\'}',
            "body",
            "may point into the same document only",
        ),
        ('{route: POST /c, body: \'{"a": {"$ref": "y.json"}}\'}', "body", "may point into the same document"),
    ],
)
def test_operations_that_say_too_much_or_too_little(operation, code, message):
    found = problems(f"services: {{a: {{operations: {{x: {operation}}}}}}}")
    assert [c for c, _ in found] == [code]
    assert message in found[0][1]


@pytest.mark.parametrize("key", ["token: required", "once: true", "body: '{}'"])
def test_a_probe_carries_nothing(key):
    found = problems(f"services: {{a: {{operations: {{x: GET /}}, probes: [{{route: GET /up, {key}}}]}}}}")
    assert "conflict" in {code for code, _ in found}
    assert "a probe has no" in " ".join(m for _, m in found)


def test_a_schema_too_large_or_too_deep():
    assert (
        problems(
            "services: {a: {operations: {x: {route: POST /c, body: s.json}}}}",
            s_json=b'{"a": "' + b"x" * 70_000 + b'"}',
        )[0][0]
        == "body"
    )
    deep = b'{"not": ' * 40 + b"{}" + b"}" * 40
    found = problems("services: {a: {operations: {x: {route: POST /c, body: s.json}}}}", s_json=deep)
    assert "nested deeper" in found[0][1]


def test_what_an_operation_asks_for():
    snapshot = parse(
        "services: {a: {operations: {x: {route: POST /c, token: required, once: true, body: s.json}, "
        "y: {grpc: a.B/C, token: operation}, z: {route: GET /z, token: none}}}}",
        s_json=SCHEMA.encode(),
    )
    x, y, z = snapshot.services["a"].operations
    assert (x.token, x.once, json.loads(x.body.document)) == (TokenMode.SERVICE, True, json.loads(SCHEMA))
    assert (y.token, y.once, y.body) == (TokenMode.OPERATION, False, None)
    assert z.token is TokenMode.NONE
    assert (
        parse("services: {a: {operations: {z: GET /z}}}").canonical
        == parse("services: {a: {operations: {z: {route: GET /z, token: none, once: false}}}}").canonical
    )


def test_the_snapshot_holds_the_schema_itself():
    text = "services: {a: {operations: {x: {route: POST /c, body: s.json}}}}"
    one, other = parse(text, s_json=b'{"type": "object"}'), parse(text, s_json=b'{"type": "array"}')
    assert one.hash != other.hash
    again = decode_snapshot(encode_snapshot(one))
    assert again == one
    assert again.services["a"].operations[0].body.document == b'{"type":"object"}'


def test_a_policy_may_itself_be_json():
    text = json.dumps(
        {"version": 1, "trust_domain": "shop.example", "services": {"a": {"operations": {"x": "GET /"}}}}
    )
    assert parse_policy({"p.json": text.encode()}).services["a"].operations[0].name == "x"


# --- users and the outside -------------------------------------------------------------------------------------------

SERVICES = "services: {a: {}, b: {operations: {x: GET /x, y: GET /y}, probes: [GET /up]}, db: {tcp: 5432}}\n"


@pytest.mark.parametrize(
    ("rules", "code", "message"),
    [
        ("allow: [{from: a, to: b, operations: [x], user: maybe}]", "value", "'maybe' is not one of none"),
        ("allow: [{from: a, to: db, user: required}]", "conflict", "bytes of a tcp service carry no user"),
        (
            "deny: [{from: a, to: b, operations: [x], user: required}]",
            "conflict",
            "a deny rule has no 'user'",
        ),
        ("allow: [{from: a, to: outside, operations: [x]}]", "unknown-service", "unknown service 'outside'"),
        (
            "allow: [{from: [outside, outside], to: b, operations: [x]}]",
            "duplicate",
            "'outside' is here twice",
        ),
    ],
)
def test_rules_that_cannot_be_meant(rules, code, message):
    found = problems(SERVICES + rules)
    assert found[0][0] == code
    assert message in found[0][1]


def test_nobody_is_called_outside():
    assert problems("services: {outside: {}}")[0][0] == "name"


def allows(rules: str, caller: str, door: str) -> bool:
    access = AccessIndex(parse(SERVICES + rules)).of("b", door)
    return access.allows(caller, is_probe=door.startswith("probes"))


def test_any_does_not_mean_the_outside():
    assert not allows("allow: [{from: any, to: b, operations: all}]", "outside", "x")
    assert allows("allow: [{from: any, to: b, operations: all}]", "a", "x")
    assert allows(
        "allow: [{from: any, to: b, operations: all}, {from: outside, to: b, operations: [x]}]",
        "outside",
        "x",
    )
    assert not allows("allow: [{from: [a, outside], to: b, operations: [y]}]", "outside", "x")


def test_a_deny_for_any_means_the_outside_too():
    allow = "allow: [{from: outside, to: b, operations: all}]\n"
    assert allows(allow, "outside", "x")
    assert not allows(allow + "deny: [{from: any, to: b, operations: [x]}]", "outside", "x")
    assert not allows(allow + "deny: [{from: outside, to: any}]", "outside", "x")
    assert allows(allow + "deny: [{from: a, to: any}]", "outside", "x")


def test_probes_are_not_for_the_outside():
    assert not allows("allow: [{from: outside, to: b, operations: all}]", "outside", "probes[0]")
    assert allows("", "a", "probes[0]")


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ("required", UserMode.REQUIRED),
        ("optional", UserMode.OPTIONAL),
        ("none", UserMode.NONE),
        ("required required", UserMode.REQUIRED),
        ("required none", UserMode.OPTIONAL),
        ("optional required", UserMode.OPTIONAL),
        ("none optional", UserMode.OPTIONAL),
    ],
)
def test_rules_for_one_door_add_up(modes, expected):
    rules = ", ".join(f"{{from: a, to: b, operations: [x], user: {mode}}}" for mode in modes.split())
    snapshot = parse(f"{SERVICES}allow: [{rules}, {{from: outside, to: b, operations: [x]}}]")
    assert AccessIndex(snapshot).of("b", "x").user_mode("a") is expected
    assert AccessIndex(snapshot).of("b", "y").user_mode("a") is UserMode.NONE
    assert AccessIndex(snapshot).of("b", "x").user_mode("outside") is UserMode.NONE
    assert decode_snapshot(encode_snapshot(snapshot)) == snapshot


# --- issuers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ("{}", "'issuers' missing"),
        ("{issuers: []}", "the list is empty"),
        ("{issuers: [{issuer: 'https://x'}]}", "'audience' missing"),
        ("{issuers: [{audience: x}]}", "'issuer' missing"),
        ("{issuers: [{issuer: 'ftp://x', audience: x}]}", "is not a usable URL"),
        ("{issuers: [{issuer: 'http://login.example', audience: x}]}", "is not a usable URL"),
        ("{issuers: [{issuer: 'http://127.0.0.1.evil.example', audience: x}]}", "is not a usable URL"),
        ("{issuers: [{issuer: 'https://u:p@x', audience: x}]}", "is not a usable URL"),
        ("{issuers: [{issuer: 'https://x/?a', audience: x}]}", "is not a usable URL"),
        ("{issuers: [{issuer: 'https://x#', audience: x}]}", "is not a usable URL"),
        ("{issuers: [{issuer: 'https://x:99999', audience: x}]}", "is not a usable URL"),
        ("{issuers: [{issuer: 'file:///etc/passwd', audience: x}]}", "is not a usable URL"),
        ("{issuers: [{issuer: 'https://x', audience: x, jwks: 'file:///x'}]}", "is not a usable URL"),
        ("{issuers: [{issuer: 'https://x', audience: 'a b'}]}", "is not an audience"),
        ("{issuers: [{issuer: 'https://x', audience: [a, a]}]}", "is here twice"),
        ("{issuers: [{issuer: 'https://x', audience: {}}]}", "expected text"),
        ("{issuers: [{issuer: 'https://x', audience: x, algorithms: [HS256]}]}", "is not one of RS256"),
        ("{issuers: [{issuer: 'https://x', audience: x, algorithms: none}]}", "is not one of RS256"),
        ("{issuers: [{issuer: 'https://x', audience: x, roles: a..b}]}", "is not the path of a claim"),
        ("{issuers: [{issuer: 'https://x', audience: x}, {issuer: 'https://x', audience: y}]}", "twice"),
        ("{issuers: [{issuer: 'https://x', audience: x, secret: y}]}", "unknown key 'secret'"),
    ],
)
def test_issuers_that_are_refused(users, message):
    found = problems(f"services: {{a: {{}}}}\nusers: {users}")
    assert message in found[0][1], found


def test_an_issuer():
    text = (
        "services: {a: {}}\nusers: {issuers: [{issuer: 'https://login.example/', audience: [x, y]}, "
        "{issuer: 'http://[::1]:99', audience: z, jwks: 'https://k/', roles: realm_access.roles, algorithms: ES256}]}"
    )
    snapshot = parse(text)
    one, other = snapshot.user_issuers
    assert (one.issuer, one.audiences, one.jwks) == ("https://login.example/", ("x", "y"), None)
    assert (one.roles, one.algorithms) == (("roles",), ("RS256", "ES256"))
    assert (other.jwks, other.roles, other.algorithms) == (
        "https://k/",
        ("realm_access", "roles"),
        ("ES256",),
    )
    again = decode_snapshot(encode_snapshot(snapshot))
    assert again == snapshot
    assert again.user_issuers[1].span == other.span


@pytest.mark.parametrize(
    ("operation", "code", "message"),
    [
        ("{route: GET /c, resource: sidecar}", "value", "'sidecar' is not application"),
        ("{route: GET /c, resource: [application]}", "type", "resource"),
        ("{grpc: a.B/C, resource: application}", "conflict", "belongs to a route"),
        ("{websocket: /c, resource: application}", "conflict", "belongs to a route"),
    ],
)
def test_who_checks_resources_is_refused(operation, code, message):
    with pytest.raises(PolicyError) as caught:
        parse(f"services: {{a: {{operations: {{x: {operation}}}}}}}")
    (problem,) = caught.value.problems
    assert problem.code == code
    assert message in problem.message


def test_a_probe_leaves_no_resource_to_the_application():
    with pytest.raises(PolicyError, match="a probe has no 'resource'"):
        parse("services: {a: {probes: [{route: GET /h, resource: application}]}}")


def test_an_operation_may_leave_the_resource_to_the_application():
    left = parse("services: {a: {operations: {x: {route: GET /c, resource: application}}}}")
    plain = parse("services: {a: {operations: {x: {route: GET /c}}}}")
    assert left.services["a"].operations[0].leaves_resource
    assert not plain.services["a"].operations[0].leaves_resource
    assert left.hash != plain.hash
    assert decode_snapshot(encode_snapshot(left)) == left
