# SPDX-License-Identifier: Apache-2.0
"""A refusal inside an application, found by the id that its caller was shown."""

import sys
from pathlib import Path

import pytest
from tests.support.trust_domain import POLICY, trust_domain, wait_until

APP = Path(__file__).parents[1] / "support" / "refusing_app.py"
SCHEMA = 'body: \'{"type":"object","required":["amount"]}\''
WITH_BODY = POLICY.replace("create: POST /orders", f"create: {{route: POST /orders, {SCHEMA}}}").replace(
    "[list, read]", "[list, read, create]"
)


@pytest.fixture(scope="module")
def domain():
    with trust_domain(WITH_BODY) as found:
        found.run("orders", sys.executable, str(APP))
        yield found


def called(domain, method, path, *arguments, code=None):
    return domain.json("call", "orders", method, path, "--as", "storefront", *arguments, code=code)


def application_records(domain, decision):
    def found():
        return [r for r in domain.records() if r["point"] == "sdk" and r["detail"]["decision"] == decision]

    return wait_until(found, what="the application's record")


@pytest.mark.parametrize(
    ("method", "path", "arguments", "status", "code", "reason"),
    [
        ("GET", "/orders/7", (), 403, "ACCESS_DENIED", "other-operation"),
        ("POST", "/orders", ("--data", "{}"), 415, "BODY_NOT_JSON", "body"),
    ],
)
def test_a_refusal_inside_the_application_is_found_by_its_id(
    domain, method, path, arguments, status, code, reason
):
    answer = called(domain, method, path, *arguments)
    assert answer["status"] == status
    decision = {name.lower(): value for name, value in dict(answer["headers"]).items()}["x-everyhop-decision"]
    (record,) = application_records(domain, decision)
    assert (record["target"], record["decision"], record["reason"]) == ("orders", "deny", reason)
    assert record["caller"] == "spiffe://shop.example/service/storefront"
    assert (record["method"], record["path"]) == (method, path)
    assert record["detail"]["code"] == code
    told = domain.cli("why", decision)
    assert f"the application of orders refused it [{code}]" in told
    assert "also       allow by ingress of orders" in told
    assert record["id"] in domain.cli("log", "show", "--denied")
    assert domain.json("why", record["id"])["record"]["id"] == record["id"]


def test_what_the_sidecar_has_recorded_is_not_recorded_twice(domain):
    assert called(domain, "GET", "/orders")["status"] == 200
    assert called(domain, "GET", "/orders/8")["status"] == 403
    wait_until(lambda: [r for r in domain.records() if r["point"] == "sdk" and r["path"] == "/orders/8"])
    assert not [r for r in domain.records() if r["point"] == "sdk" and r["decision"] == "allow"]
