# SPDX-License-Identifier: Apache-2.0
"""The values at which a condition may change its mind: on both sides of each literal, and both sides are seen."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from everyhop.conditions import Truth, ValueType, Vocabulary, analysis, compile_condition
from everyhop.conditions.analysis import MAX_VALUES, boundaries, values_of

WORDS = Vocabulary(
    {
        "a": ValueType.BOOL,
        "n": ValueType.INT,
        "x": ValueType.DOUBLE,
        "s": ValueType.STRING,
        "ip": ValueType.STRING,
        "roles": ValueType.STRINGS,
        "q": ValueType.STRING_MAP,
        "now": ValueType.TIMESTAMP,
        "since": ValueType.TIMESTAMP,
    }
)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("a", "a", {False, True}),
        ("a == true", "a", {False, True}),
        ("n >= 3", "n", {2, 3, 4}),
        ("3 > n", "n", {2, 3, 4}),
        ("n == 9223372036854775807", "n", {2**63 - 2, 2**63 - 1}),
        ("n in [2, 7, 5]", "n", {2, 5, 7, 8}),
        ("x < 1.5", "x", {1.4999999999999998, 1.5, 1.5000000000000002}),
        ("s == 'ann'", "s", {"ann", "ann~", "an"}),
        ("s in ['b', 'c']", "s", {"b", "c", "c~"}),
        ("s.startsWith('ad')", "s", {"ad", "ad~", "~ad", ""}),
        ("s.contains('ad') && starts_with_any(s, ['p', 'q'])", "s", {"~ad~", "p~", "q~", "~q"}),
        ("s.size() < 2", "s", {"a", "aa", "aaa"}),
        ("size(s) < 0", "s", {"a", ""}),
        ("q.k == 'v'", "q['k']", {None, "v", "v~"}),
        ("has(q.k)", "q['k']", {None, "a"}),
        ("has_role(roles, 'r')", "roles", {(), ("r",), ("not-r",)}),
        ("has_all(roles, ['r', 't'])", "roles", {("r",), ("t",), ("r", "t"), ("r", "t", "not-r")}),
        ("'r' in roles", "roles", {("r",), ("not-r",)}),
        ("roles.exists(e, e == 'r' && n < 3)", "roles", {(), ("r",), ("r~",), ("r", "r~", "")}),
        ("roles.map(e, e.startsWith('k'), s).size() > 1", "roles", {("k",), ("~k",)}),
        ("roles.size() > 1", "roles", {("e0",), ("e0", "e1")}),
        ("in_cidr(ip, '10.0.0.0/8')", "ip", {"9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"}),
        ("in_cidr(ip, '::/1')", "ip", {"::", "7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "8000::"}),
        ("now < timestamp('2026-01-01T00:00:00Z')", "now", {moment("2025-12-31T23:59:59"), moment("2026-01-01T00:00:00")}),
        ("now < timestamp('2026-01-01T00:00:00Z') + duration('1h')", "now", {moment("2026-01-01T00:59:59"), moment("2026-01-01T01:00:00")}),
        ("now + duration('1h') > timestamp('2026-01-01T00:00:00Z')", "now", {moment("2025-12-31T23:00:00"), moment("2025-12-31T23:00:01")}),
        ("now - duration('1h') > timestamp('2026-01-01T00:00:00Z')", "now", {moment("2026-01-01T01:00:00"), moment("2026-01-01T01:00:01")}),
        ("now - since < duration('1h')", "since", {moment("2026-01-15T11:00:00"), moment("2026-01-15T11:00:01")}),
        ("now - timestamp('2026-01-01T00:00:00Z') < duration('1h')", "now", {moment("2026-01-01T00:59:59"), moment("2026-01-01T01:00:00")}),
        ("timestamp('2026-01-01T00:00:00Z') - since < duration('1h')", "since", {moment("2025-12-31T23:00:00"), moment("2025-12-31T23:00:01")}),
        ("now.getHours('Europe/Paris') < 7", "now", {moment("2026-01-15T05:59:59"), moment("2026-01-15T06:00:00"), moment("2026-07-15T04:59:59"), moment("2026-07-15T05:00:00")}),
        ("now.getHours() < 24", "now", {moment("2026-01-15T23:00:00"), moment("2026-01-15T23:59:59")}),
        ("now.getHours('-03:30') < 1", "now", {moment("2026-01-15T03:30:00"), moment("2026-01-15T04:29:59")}),
    ],
)  # fmt: skip
def test_boundaries(text, name, values):
    assert values <= set(boundaries(compile_condition(text, WORDS))[name])


@pytest.mark.parametrize(
    "text",
    [
        "a", "n >= 3", "n != 7", "x <= -2.5", "x > 0.0", "s == 'ann'", "s != ''", "s in ['b', 'c']", "s < 'm'",
        "s.startsWith('ad')", "s.endsWith('ad')", "s.contains('ad')", "starts_with_any(s, ['p', 'q'])", "s.matches('abc')",
        "s.size() > 4", "roles.size() == 2", "q.size() >= 2", "q.k == 'v'", "has(q.k)", "s == q.k",
        "has_role(roles, 'r')", "has_any(roles, ['r', 't'])", "has_all(roles, ['r', 't'])", "s in roles",
        "roles.exists(e, e == 'r')", "roles.all(e, e != 'r')", "roles.exists_one(e, e == 'r')",
        "roles.filter(e, e.startsWith('k')).size() > 0", "in_cidr(ip, '192.0.2.0/24')", "in_cidr(ip, '2001:db8::/32')",
        "now < timestamp('2026-01-01T00:00:00Z')", "now - since < duration('2h')", "now > since",
        *(f"now.{getter}('{zone}') < {n}" for zone in ("Asia/Tokyo", "-02:00") for getter, n in (
            ("getHours", 7), ("getMinutes", 30), ("getSeconds", 30), ("getDayOfWeek", 3), ("getDate", 20),
            ("getDayOfMonth", 20), ("getDayOfYear", 100), ("getMonth", 6), ("getFullYear", 2026), ("getMilliseconds", 500))),
    ],
)  # fmt: skip
def test_both_answers_are_among_them(text):
    """The samples of each condition make it true and make it false."""
    condition = compile_condition(text, WORDS)
    found = boundaries(condition)
    truths = {
        condition.evaluate(values_of(condition, dict(zip(found, choice, strict=True)))).truth
        for choice in itertools.islice(itertools.product(*found.values()), 2000)
    }
    assert {Truth.TRUE, Truth.FALSE} <= truths


@pytest.mark.parametrize(
    "text",
    [
        "n in [1, 2].map(e, e)",
        "['x'].exists(e, e == s)",
        "roles.exists(e, a)",
        "has_any(roles, roles) || has_role(roles, s) || ['x'].exists(e, has_role(roles, e))",
        "(a ? s : ip).startsWith('x') || (a ? s : ip) in ['y'] || in_cidr(a ? s : ip, '10.0.0.0/8')",
        "(a ? n : n) == 3 || -n == 3 || n + 1 == 3 || n - 1 == 3",
        "now - duration(s) > timestamp('2026-01-01T00:00:00Z') || (a ? now : since) - now < duration('1s')",
        "now - (a ? now : since) < duration('1s') || duration(s).getHours() == 1 || s.size() > 5000",
        "n == size('abc') || s in [ip, s] || now.getFullYear() == 20000 || now.getMonth() == 77",
        "(a ? now : now) + duration('1s') > timestamp(0) || now + duration(s) > timestamp(0)",
        "duration(s) == duration('3s') || now - now == duration('0s') || (a ? s : s).size() == 1",
        "roles.exists(e, e == ip)",
        "s in roles.map(e, e)",
        "roles.exists(e, starts_with_any(e, roles))",
        "1 == 2 || s == 'x'",
        "has_any(['x'], ['y']) || int(s) == 3 || s in [s + s]",
        "(a ? now : since) - (a ? now : since) < duration('1s')",
    ],
)  # fmt: skip
def test_what_no_rule_knows_gets_samples_of_its_type(text):
    condition = compile_condition(text, WORDS)
    found = boundaries(condition)
    assert set(found) == condition.variables
    assert all(found.values())


def test_nothing_that_is_read_is_a_length_of_time():
    assert analysis._around(timedelta(seconds=1)) == ()


def test_they_are_bounded():
    many = ", ".join(f"'k{n}'" for n in range(150))
    assert len(boundaries(compile_condition(f"s in [{many}]", WORDS))["s"]) == MAX_VALUES


def test_choices_become_values():
    condition = compile_condition("q.k == 'v' && q.size() == 2 && s == 'x' && q.gone != ''", WORDS)
    chosen = {"q": {"other": "o"}, "q['k']": "v", "q['gone']": None, "s": "x", "unknown": 1}
    assert values_of(condition, chosen) == {"q": {"other": "o", "k": "v"}, "s": "x"}
    assert values_of(compile_condition("has(q.k)", WORDS), {}) == {"q": {}}
