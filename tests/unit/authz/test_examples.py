# SPDX-License-Identifier: Apache-2.0
"""The policies of the examples say what their pages say."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from everyhop.authz import Context, Engine, User, run_tests
from everyhop.policy import parse_policy
from everyhop.policy.lint import lint

EXAMPLES = Path(__file__).parents[3] / "examples"
PERMISSIONS = EXAMPLES / "permissions" / "everyhop.yaml"
PORTAL = "spiffe://office.example/service/portal"


@pytest.fixture(scope="module")
def snapshot():
    return parse_policy({"everyhop.yaml": PERMISSIONS.read_bytes()})


def test_its_tests_pass_and_it_has_no_warnings(snapshot):
    results = run_tests(snapshot)
    assert len(results) == 22
    assert all(result.is_passed for result in results)
    page = (PERMISSIONS.parent / "README.md").read_text(encoding="utf-8")
    assert f"# {len(results)} passed" in page
    assert [problem.code for problem in lint(snapshot)] == []


def test_the_matrix_is_the_table_of_its_page(snapshot):
    """Every role, resource and action, with the best facts: two factors, the inside, somebody else's plain document."""
    engine = Engine(snapshot)
    allowed = set()
    paths = {
        "documents": "/documents/plan",
        "reports": "/reports/1",
        "invoices": "/invoices/1",
        "settings": "/settings",
    }
    methods = {"read": "GET", "write": "PUT", "delete": "DELETE"}
    for role, target, action in itertools.product(("viewer", "editor", "admin"), paths, methods):
        context = Context(user=User(id="zoe", roles=(role,), amr=("mfa",)), source_ip="10.0.0.9")
        decision = engine.decide(
            caller=PORTAL, target=target, method=methods[action], path=paths[target], context=context
        )
        if decision.is_allowed:
            allowed.add((role, target, action))
    viewer = {("documents", "read"), ("reports", "read"), ("invoices", "read")}
    editor = viewer | {("documents", "write"), ("reports", "write")}
    admin = set(itertools.product(paths, methods))
    expected = (
        {("viewer", *x) for x in viewer} | {("editor", *x) for x in editor} | {("admin", *x) for x in admin}
    )
    assert allowed == expected


def test_nobody_but_the_portal_asks_for_a_user(snapshot):
    engine = Engine(snapshot)
    context = Context(user=User(id="root"), source_ip="10.0.0.9")
    for caller in ("reports", "settings", "invoices"):
        spiffe_id = f"spiffe://office.example/service/{caller}"
        asked = {"target": "settings", "method": "GET", "path": "/settings", "context": context}
        assert not engine.decide(caller=spiffe_id, **asked).is_allowed
