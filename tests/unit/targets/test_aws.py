# SPDX-License-Identifier: Apache-2.0
"""AWS: what is refused by name, Cedar's answers against the engine's, and the routes of the gateway."""

import json

import cedarpy
import pytest
from tests.strategies import HOSTILE, _hostile

from everyhop.authz import Context, Engine, User
from everyhop.policy import parse_policy
from everyhop.targets.compiling import compile_policy

POLICY = """
version: 1
trust_domain: shop.example
attributes: {user: {level: int}}
users:
  issuers:
    - {issuer: "https://idp.example", audience: shop, roles: realm.groups}
roles:
  clerk: [shop.read, shop.me, shop.files, shop.star]
  boss: {grants: ["shop.*"], groups: [bosses]}
services:
  inner: {operations: {x: GET /}}
  shop:
    operations:
      me: GET /users/me
      read: GET /users/{id}
      item: GET /users/{id}/items/{item}
      files: GET /files/{path...}
      star: GET /a*b/{x}
      create: POST /users
      mixed: GET /{x}/all/{rest...}
      paid: {route: "POST /pay", token: operation}
      open: GET /open
allow:
  - {from: outside, to: shop, operations: [me, read, item, files, star, create], user: required}
  - {from: outside, to: shop, operations: [open]}
  - {from: inner, to: shop, operations: [read]}
targets:
  aws: {application_domain: apps.example}
"""


def snapshot_of(text):
    return parse_policy({"everyhop.yaml": text.encode()})


def compiled(text, *beside):
    (found,) = compile_policy(snapshot_of(text), ["aws"], beside=beside)
    return found


def documents(text, *beside):
    return {file.path: json.loads(file.content) for file in compiled(text, *beside).files}


def errors(text, *beside):
    return {one.code for one in compiled(text, *beside).diagnostics if one.is_error}


def policies(text):
    """The policies of the group and of the endpoint, as Cedar reads them."""
    resources = documents(text)["aws/verified_access.tf.json"]["resource"]
    group = resources["aws_verifiedaccess_group"]["everyhop"]
    (endpoint,) = resources["aws_verifiedaccess_endpoint"].values()
    texts = (group["policy_document"], endpoint["policy_document"])
    return [text.replace("$${", "${").replace("%%{", "%{") for text in texts]


def permits(texts, method, path, roles, host="shop.apps.example"):
    context = {
        "everyhop": {"realm": {"groups": list(roles)}},
        "http_request": {"http_method": method, "path": path, "hostname": host},
    }
    request = {"principal": 'U::"u"', "action": 'A::"a"', "resource": 'R::"r"', "context": context}
    return all(cedarpy.is_authorized(request, text, []).allowed for text in texts)


# -- refused


def test_a_stranger_to_the_policy_is_refused():
    texts = policies(POLICY)
    assert not permits(texts, "GET", "/users/me", [])
    assert not permits(texts, "GET", "/users/me", ["nobody"])
    assert not permits(texts, "GET", "/users/me", ["clerk"], host="other.apps.example")
    assert not permits(texts, "GET", "/nowhere", ["boss"])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("[me, read,", "[me, mixed, read,"), "aws.rest"),
        (("[me, read,", "[me, paid, read,"), "aws.token-binding"),
        (("user: required}", 'user: required, when: "user.level > 1"}'), "aws.condition"),
        (("create: POST /users", "create: {grpc: a.B/C}"), "aws.grpc"),
        (("create: POST /users", "create: {websocket: /live}"), "aws.websocket"),
        (("create: POST /users", "create: PROPFIND /users"), "aws.roles"),
        (("application_domain: apps.example", "trust_provider: idp"), "aws.verified-access"),
    ],
)
def test_what_it_cannot_hold_is_refused_by_name(change, code):
    assert code in errors(POLICY.replace(*change))


def test_a_token_that_is_accepted_unbound_still_needs_an_issuer():
    text = POLICY.replace("[open]", "[open, paid]").replace("aws: {", "aws: {accept: [token-binding], ")
    assert "aws.token" in errors(text)
    named = text.replace(
        "targets:", "targets:\n  tokens: {issuer: 'https://t.example', jwks_uri: 'https://t.example/k'}"
    )
    resources = documents(named)["aws/api_gateway.tf.json"]["resource"]
    (authorizer,) = resources["aws_apigatewayv2_authorizer"].values()
    assert authorizer["jwt_configuration"] == {"issuer": "https://t.example", "audience": ["shop#paid"]}


def test_roles_are_nothing_that_a_jwt_authorizer_looks_at():
    assert "aws.roles" in errors(POLICY)
    keys = {one["route_key"] for one in routes(POLICY)}
    assert keys == {"GET /open"}
    assert len(routes(POLICY, "sdk")) == 7


def routes(text, *beside):
    return documents(text, *beside)["aws/api_gateway.tf.json"]["resource"]["aws_apigatewayv2_route"].values()


def test_that_calls_between_services_are_not_there_is_said():
    codes = [one.code for one in compiled(POLICY).diagnostics if not one.is_error]
    assert codes == ["aws.service-to-service"]
    assert "inner" not in json.dumps(documents(POLICY))


def test_a_policy_that_opens_nothing_to_outside_has_no_files():
    text = POLICY.replace("from: outside", "from: inner")
    assert compiled(text).files == ()


# -- Cedar and the engine

PATHS = (
    "/users/me",
    "/users/7",
    "/users/7/items/3",
    "/files/",
    "/files/a/b",
    "/a*b/x",
    "/users",
    "/open",
    "/x/all/y",
)


@pytest.mark.parametrize("roles", [(), ("clerk",), ("bosses",), ("x",)])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_cedar_permits_what_the_engine_allows_and_nothing_else(roles, method):
    engine, texts = Engine(snapshot_of(POLICY)), policies(POLICY)
    context = Context(user=User(id="u", issuer="https://idp.example", roles=roles))
    for path in (
        *PATHS,
        "/users/",
        "/files",
        "/users/7/items",
        "//users/7",
        "/axb/x",
        "/a*b/x/y",
        "/users/me/",
    ):
        expected = engine.decide(caller="outside", target="shop", method=method, path=path, context=context)
        assert permits(texts, method, path, roles) == expected.is_allowed, path
        if path.startswith("/") and not path.startswith("//"):  # the other spelling of the same path
            assert permits(texts, method, path[1:], roles) == expected.is_allowed, path


# Cedar has no word for what is not ASCII; no HTTP request has it in its path either (RFC 9112 section 3.2).
IN_ASCII = [(name, pattern) for name, pattern in HOSTILE if pattern.isascii()]


@pytest.mark.parametrize("hostile", [pattern for _, pattern in IN_ASCII], ids=[name for name, _ in IN_ASCII])
def test_no_ambiguous_path_is_permitted(hostile):
    engine, texts = Engine(snapshot_of(POLICY)), policies(POLICY)
    context = Context(user=User(id="u", issuer="https://idp.example", roles=("bosses",)))
    for path in PATHS:
        asked = _hostile(hostile, path).partition("?")[0]
        slashed = asked if asked.startswith("/") else f"/{asked}"  # how Verified Access may spell it
        allowed = any(
            engine.decide(caller="outside", target="shop", method="GET", path=one, context=context).is_allowed
            for one in (asked, slashed)
        )
        assert allowed or not permits(texts, "GET", asked, ["bosses"]), asked


def test_cedar_takes_every_statement():
    for text in policies(POLICY):
        assert len(json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]) == 8


# -- Terraform


def test_templates_of_terraform_are_not_left_in_texts():
    text = POLICY.replace("GET /a*b/{x}", "GET /a$b/{x}")
    raw = documents(text)["aws/verified_access.tf.json"]["resource"]["aws_verifiedaccess_group"]["everyhop"]
    assert "${" not in raw["policy_document"].replace("$${", "")


def test_every_reference_is_to_a_block_that_is_there():
    for document in documents(POLICY, "sdk").values():
        text = json.dumps(document["resource"])
        for kind, blocks in document["resource"].items():
            for name in blocks:
                if kind in {
                    "aws_apigatewayv2_api",
                    "aws_apigatewayv2_integration",
                    "aws_verifiedaccess_instance",
                }:
                    assert f"${{{kind}.{name}.id}}" in text
        for name in document["variable"]:
            assert f"var.{name}" in text


def test_routes_have_the_gateways_spelling():
    keys = {one["route_key"]: one for one in routes(POLICY, "sdk")}
    assert {"GET /users/me", "GET /users/{id}", "GET /files/{path+}", "POST /users", "GET /open"} <= set(keys)
    assert keys["GET /open"]["authorization_type"] == "NONE"
    assert "allow[1] at everyhop.yaml:" in keys["GET /open"]["//"]


def test_users_without_roles_are_checked_by_a_jwt_authorizer():
    text = POLICY.replace(POLICY[POLICY.index("roles:\n") : POLICY.index("services:")], "")
    resources = documents(text)["aws/api_gateway.tf.json"]["resource"]
    (authorizer,) = resources["aws_apigatewayv2_authorizer"].values()
    assert authorizer["jwt_configuration"] == {"issuer": "https://idp.example", "audience": ["shop"]}
    assert authorizer["identity_sources"] == ["$request.header.Authorization"]
