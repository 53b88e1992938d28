# SPDX-License-Identifier: Apache-2.0
"""What the facts of a call decide, between real sidecars and at a real edge: conditions, roles, shadow."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from oidc_issuer import OidcIssuer
from trust_domain import TrustDomainUnderTest, trust_domain, wait_until

POLICY = """\
version: 1
trust_domain: shop.example
users:
  issuers: [{issuer: '@ISSUER@', audience: shop, attributes: {department: org.unit}}]
attributes:
  user: {department: string}
  resource: {owner: string}
  request: {headers: [x-region, x-debug]}
roles:
  viewer: [desk.view]
  editor: {includes: [viewer], grants: [desk.edit, desk.own], groups: [Editors]}
  admin: {grants: [desk.*]}
services:
  storefront: {workload: [{run: true}]}
  intruder: {workload: [{run: true}]}
  orders:
    workload: [{run: true}]
    operations:
      list: GET /orders
      read: "GET /orders/{id}"
      create: POST /orders
      purge: DELETE /orders
      tail: GET /tail
      soon: GET /soon
      left: {route: GET /left, resource: application}
      never: {route: GET /never, resource: application}
  desk:
    workload: [{run: true}]
    operations:
      view: GET /view
      edit: POST /edit
      own: "GET /people/{person}"
      vault: GET /vault
      sales: GET /sales
allow:
  - {from: storefront, to: orders, operations: [list], when: "request.headers['x-region'] == 'eu'"}
  - {from: storefront, to: orders, operations: [read], when: "request.path_params.id != '13'"}
  - {from: storefront, to: orders, operations: [create], when: "now > timestamp('2020-01-01T00:00:00Z')"}
  - {from: storefront, to: orders, operations: [purge], when: "now < timestamp('2020-01-01T00:00:00Z')"}
  - {from: storefront, to: orders, operations: [tail]}
  - {from: storefront, to: orders, operations: [soon], mode: shadow, id: soon}
  - from: storefront
    to: orders
    operations: [left]
    when: "resource.owner == 'x' && in_cidr(request.source_ip, '127.0.0.0/8')"
    id: left
  - {from: storefront, to: orders, operations: [never], when: "resource.owner == 'x' && request.method == 'PUT'"}
  - {from: outside, to: desk, operations: [view, edit], user: required}
  - from: outside
    to: desk
    operations: [own]
    user: required
    when: "request.path_params.person == user.id || has_role(user.roles, 'admin')"
  - {from: outside, to: desk, operations: [vault], user: required, when: user.mfa}
  - {from: outside, to: desk, operations: [sales], user: required, when: "user.department == 'sales'"}
deny:
  - {from: any, to: orders, operations: [tail], when: "'x-debug' in request.headers", id: no-debug}
directory:
  users: {dora: {attributes: {department: sales}}}
tests:
  - {from: storefront, call: GET /orders, to: orders, headers: {x-region: eu}, expect: allow}
"""


@pytest.fixture(scope="module")
def issuer() -> Iterator[OidcIssuer]:
    made = OidcIssuer()
    yield made
    made.close()


@pytest.fixture(scope="module")
def domain(issuer) -> Iterator[TrustDomainUnderTest]:
    with trust_domain(POLICY.replace("@ISSUER@", issuer.url)) as made:
        made.serve("orders")
        made.serve("desk", options=("--edge", "0"))
        yield made


def call(domain, service, *arguments):
    """Return status and decision id of one call, by curl, as a workload."""
    shown = "%{stderr}%{http_code} %header{x-everyhop-decision}"
    done = domain.once(service, "curl", "-s", "-o", "/dev/null", "-w", shown, *arguments)
    status, _, decision = done.stderr.strip().splitlines()[-1].partition(" ")
    return int(status), decision


def recorded(domain, decision):
    return wait_until(
        lambda: next((r for r in domain.records() if r["id"] == decision), None), what="the record"
    )


def outside(domain, issuer, path, *, method="GET", headers=(), **claims: Any) -> httpx.Response:
    bundle = domain.root / "id" / "bundle.pem"
    if not bundle.exists():
        domain.cli("svid", "fetch", "storefront", "--write", str(bundle.parent))
    context = ssl.create_default_context(cafile=str(bundle))
    context.check_hostname = False  # it shows the service's SVID
    now = int(time.time())
    token = issuer.token(**{"iat": now, "exp": now + 600, **claims})
    place = domain.ready("desk")[0]["edge"]
    with httpx.Client(verify=context, trust_env=False) as client:
        fields = [("authorization", f"Bearer {token}"), *headers]
        return client.request(method, f"https://{place}{path}", headers=fields)


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["http://orders/orders"], 403, "condition-error"),
        (["-H", "x-region: us", "http://orders/orders"], 403, "condition-false"),
        (["-H", "x-region: eu", "-H", "X-Region: us", "http://orders/orders"], 403, "condition-error"),
        (["-H", "x-region: eu,us", "http://orders/orders"], 403, "condition-error"),
        (["http://orders/orders/13"], 403, "condition-false"),
        (["-X", "DELETE", "http://orders/orders"], 403, "condition-false"),
        (["-H", "x-debug: 1", "http://orders/tail"], 403, "denied-by-rule"),
        (["-H", "x-debug: 1", "-H", "x-debug: 2", "http://orders/tail"], 403, "condition-error"),
        (["http://orders/soon"], 403, "no-rule"),
        (["http://orders/never"], 403, "condition-false"),
        (["--path-as-is", "http://orders/orders/%31%33"], 400, "ambiguous-path"),
    ],
)
def test_refused_between_services(domain, arguments, status, reason):
    found, decision = call(domain, "storefront", *arguments)
    assert found == status
    assert recorded(domain, decision)["reason"] == reason


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["-H", "x-region: eu", "http://orders/orders"], "allow[0]"),
        (["http://orders/orders/12"], "allow[1]"),
        (["-X", "POST", "http://orders/orders"], "allow[2]"),
        (["http://orders/tail"], "allow[4]"),
    ],
)
def test_allowed_between_services(domain, arguments, rule):
    done = domain.once("storefront", "curl", "-s", *arguments)
    decision = dict(json.loads(done.stdout)["headers"])["x-everyhop-decision"]
    record = recorded(domain, decision)
    assert (record["decision"], record["rule"]) == ("allow", rule)


def test_a_resource_is_left_to_the_application(domain):
    forged = ["-H", "x-everyhop-source: 10.0.0.1", "-H", "X-Forwarded-For: 10.0.0.1"]
    done = domain.once("storefront", "curl", "-s", *forged, "http://orders/left")
    shown = json.loads(done.stdout)["headers"]
    # what the application is to check conditions by is the sidecar's word, once
    assert [value for name, value in shown if name == "x-everyhop-source"] == ["127.0.0.1"]
    record = recorded(domain, dict(shown)["x-everyhop-decision"])
    assert (record["decision"], record["reason"], record["rule"]) == ("allow", "application-decides", "left")


def test_a_stranger_is_not_helped_by_a_condition_that_holds(domain):
    status, _ = call(domain, "intruder", "-H", "x-region: eu", "http://orders/orders")
    assert status == 403


def test_the_record_says_what_the_condition_saw(domain):
    _, decision = call(domain, "storefront", "http://orders/orders/13")
    record = recorded(domain, decision)
    assert record["detail"]["facts"].startswith("false request.path_params['id'] != '13'")


@pytest.mark.parametrize(
    ("path", "method", "claims", "code"),
    [
        ("/view", "GET", {"sub": "ann"}, 403),
        ("/edit", "POST", {"sub": "ann", "roles": ["viewer"]}, 403),
        ("/people/bob", "GET", {"sub": "ann", "roles": ["Editors"]}, 403),
        ("/vault", "GET", {"sub": "ann", "roles": ["viewer"], "amr": ["mfa"]}, 403),
        ("/vault", "GET", {"sub": "ann", "roles": ["admin"], "amr": ["pwd"]}, 403),
        ("/vault", "GET", {"sub": "ann", "roles": ["admin"]}, 403),
        ("/sales", "GET", {"sub": "ann", "roles": ["admin"], "department": "sales"}, 403),
        ("/sales", "GET", {"sub": "ann", "roles": ["admin"], "org": {"unit": "legal"}}, 403),
        ("/sales", "GET", {"sub": "ann", "roles": ["viewer"], "org": {"unit": "sales"}}, 403),
    ],
)
def test_users_who_are_refused(domain, issuer, path, method, claims, code):
    response = outside(domain, issuer, path, method=method, **claims)
    assert (response.status_code, response.json()["code"]) == (code, "ACCESS_DENIED")
    assert response.json().keys() == {"type", "title", "status", "code", "decision"}


def test_an_attribute_of_another_type_makes_no_token_of_a_user(domain, issuer):
    response = outside(domain, issuer, "/sales", sub="ann", roles=["admin"], org={"unit": ["sales"]})
    assert (response.status_code, response.json()["code"]) == (401, "TOKEN_MALFORMED")


@pytest.mark.parametrize(
    ("path", "method", "claims"),
    [
        ("/view", "GET", {"sub": "ann", "roles": ["viewer"]}),
        ("/edit", "POST", {"sub": "ann", "roles": ["Editors"]}),
        ("/people/ann", "GET", {"sub": "ann", "roles": ["editor"]}),
        ("/people/bob", "GET", {"sub": "ann", "roles": ["admin"]}),
        ("/vault", "GET", {"sub": "ann", "roles": ["admin"], "amr": ["pwd", "mfa"]}),
        ("/sales", "GET", {"sub": "dora", "roles": ["admin"]}),
        ("/sales", "GET", {"sub": "ann", "roles": ["admin"], "org": {"unit": "sales"}}),
    ],
)
def test_users_who_are_permitted(domain, issuer, path, method, claims):
    response = outside(domain, issuer, path, method=method, **claims)
    assert response.status_code == 200, response.text
    assert dict(response.json()["headers"])["x-everyhop-user"] == claims["sub"]


def test_an_edit_of_a_condition_is_in_force_at_once(domain):
    before = domain.status()["snapshot"]
    assert call(domain, "storefront", "http://orders/orders/77")[0] == 200
    domain.edit_policy("request.path_params.id != '13'", "request.path_params.id != '77'")
    domain.wait_applied(before)
    assert call(domain, "storefront", "http://orders/orders/77")[0] == 403
    assert call(domain, "storefront", "http://orders/orders/13")[0] == 200


def test_a_condition_with_a_mistake_changes_nothing(domain):
    before = domain.status()["snapshot"]
    domain.edit_policy("x-region'] == 'eu'", "x-region'] = 'eu'")
    wait_until(lambda: domain.status().get("rejected_policy"), what="the text is refused")
    assert domain.status()["snapshot"] == before
    domain.edit_policy("x-region'] = 'eu'", "x-region'] == 'eu'")
