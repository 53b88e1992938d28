# SPDX-License-Identifier: Apache-2.0
"""The application of the guide to the audit middleware in a whole trust domain: what is done in it is in the log."""

import re
import sys
from pathlib import Path

import pytest
from tests.support.trust_domain import POLICY, trust_domain, wait_until

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "audit-middleware.md"
FRIEND = "spiffe://shop.example/service/storefront"


@pytest.fixture(scope="module")
def domain():
    source = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)[0]
    with trust_domain(POLICY.replace("[list, read]", "[list, read, create]")) as found:
        (found.root / "orders.py").write_text(source)
        found.run("orders", sys.executable, str(found.root / "orders.py"), wait=False)
        wait_until(lambda: found.ready("orders"), seconds=90, what="orders is ready")
        yield found


def call(domain, method, path, *arguments, code=None):
    return domain.json("call", "orders", method, path, "--as", "storefront", *arguments, code=code)


def events(domain, count):
    def found():
        records = domain.records(kind="application")
        return records if len(records) >= count else None

    return wait_until(found, what="the application's events")


def test_what_is_done_is_in_the_log(domain):
    forged = ("--header", "x-forwarded-user: mallory", "--header", "x-everyhop-caller: mallory")
    answer = call(domain, "GET", "/orders/7", *forged)
    assert answer["status"] == 200
    decision = {name.lower(): value for name, value in dict(answer["headers"]).items()}.get(
        "x-everyhop-decision"
    )
    assert call(domain, "GET", "/orders/9")["status"] == 403
    assert call(domain, "GET", "/orders/8")["status"] == 500
    assert call(domain, "POST", "/orders", "--data", "{}")["status"] == 200
    assert call(domain, "GET", "/orders")["status"] == 200
    read, denied, failed, mail, create, listed = events(domain, 6)
    for record in (read, denied, failed, mail, create, listed):
        assert (record["target"], record["caller"], record["point"]) == ("orders", FRIEND, "sdk")
        assert "mallory" not in str(record)
    assert (read["operation"], read["path"], read["detail"]["outcome"]) == (
        "read",
        "/orders/{number}",
        "success",
    )
    assert (read["detail"]["resource_type"], read["detail"]["resource_id"]) == ("order", "7")
    assert read["detail"]["decision"]
    if decision is not None:
        assert read["detail"]["decision"] == decision
    assert (denied["detail"]["outcome"], denied["decision"], denied["status"]) == ("denied", "deny", 403)
    assert (failed["detail"]["outcome"], failed["detail"]["meta.exception"]) == ("failure", "ValueError")
    assert (mail["operation"], mail["detail"]["meta.to"]) == ("order.mail", "customer")
    assert (create["operation"], create["detail"]["meta.items"]) == ("order.create", 2)
    assert listed["operation"] == "list"
    assert len({record["id"] for record in events(domain, 6)}) == 6
    # The sidecar's decision on the same call has its own record, found by the same id.
    assert domain.json("why", read["detail"]["decision"])["record"]["kind"] == "decision"
