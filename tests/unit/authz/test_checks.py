# SPDX-License-Identifier: Apache-2.0
"""The tests that a policy brings along."""

from __future__ import annotations

import pytest

from everyhop.authz import resolve_caller, run_tests
from everyhop.core.errors import InputError, NotFound
from everyhop.policy import parse_policy


def test_a_failing_test_is_a_problem_at_its_place(files):
    text = files["shop.yaml"].replace(b"to: orders, expect: allow", b"to: orders, expect: deny")
    text = text.replace(b"tcp: true, to: ledger, expect: allow", b"tcp: true, to: cache, expect: allow")
    found = [result.problem() for result in run_tests(parse_policy({"shop.yaml": text}))]
    assert [problem and problem.render() for problem in found] == [
        "shop.yaml:35:5: error: tests[0]: storefront -> orders GET /orders/7: expected deny, but it is allow by allow[0] (allowed) [test-failed]",
        None,
        "shop.yaml:37:5: error: tests[2]: orders -> cache tcp: expected allow, but it is deny (no-rule) [test-failed]",
        None,
    ]


def test_passing_tests(snapshot, engine):
    results = run_tests(snapshot, engine)
    assert [(r.index, r.is_passed, r.call) for r in results] == [
        (0, True, "GET /orders/7"),
        (1, True, "POST /orders"),
        (2, True, "tcp"),
        (3, True, "tcp"),
    ]


def test_callers_are_names_or_spiffe_ids(snapshot):
    assert resolve_caller(snapshot, "orders") == "spiffe://shop.example/service/orders"
    assert resolve_caller(snapshot, "SPIFFE://Shop.Example/x") == "spiffe://shop.example/x"
    with pytest.raises(NotFound) as caught:
        resolve_caller(snapshot, "ordrs")
    assert caught.value.hint == "did you mean 'orders'?"
    with pytest.raises(NotFound) as caught:
        resolve_caller(snapshot, "zzz")
    assert caught.value.hint is None
    with pytest.raises(InputError):
        resolve_caller(snapshot, "spiffe://a//b")
