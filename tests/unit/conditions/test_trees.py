# SPDX-License-Identifier: Apache-2.0
"""Trees: read from CEL's checked form, written out again, walked, and cut into clauses."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from everyhop.conditions import Truth, ValueType, Vocabulary, ast, compile_condition
from everyhop.conditions._profile import mistakes
from everyhop.conditions._reading import UnreadableError, read, type_name
from everyhop.conditions.rendering import quote, render
from everyhop.wire.cel import CheckedExpr, Type

WORDS = Vocabulary(
    {
        "a": ValueType.BOOL,
        "b": ValueType.BOOL,
        "n": ValueType.INT,
        "x": ValueType.DOUBLE,
        "s": ValueType.STRING,
        "u.roles": ValueType.STRINGS,
        "r.query": ValueType.STRING_MAP,
        "now": ValueType.TIMESTAMP,
    }
)


def tree(text: str) -> ast.Node:
    return compile_condition(text, WORDS).tree


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("(a)&&((b))", "a && b"),
        ("a && (b || a)", "a && (b || a)"),
        ("(a && b) || a", "a && b || a"),
        ("!(a || b)", "!(a || b)"),
        ("!a == b", "!a == b"),
        ("!(a == b)", "!(a == b)"),
        ("(a ? b : a) ? a : (b ? a : b)", "(a ? b : a) ? a : b ? a : b"),
        ("n - (2 - 1) == -(-3) * -n", "n - (2 - 1) == -(-3) * -n"),
        ("(n - 2) - 1 == n % 2 + 1 / 2", "n - 2 - 1 == n % 2 + 1 / 2"),
        ("(n + 1) * 2 >= 3", "(n + 1) * 2 >= 3"),
        ("x < 1e30", "x < 1e+30"),
        ('s == "it\'s"', "s == 'it\\'s'"),
        ("s == '''a\nb\t\\\\\u00e9\\u0007'''", "s == 'a\\nb\\t\\\\é\\U00000007'"),
        ("has(r.query.k)", "'k' in r.query"),
        ("r.query.k == r.query[s]", "r.query['k'] == r.query[s]"),
        ("s in r.query && 'k' in r.query", "s in r.query && 'k' in r.query"),
        ("size(s) == s.size()", "size(s) == s.size()"),
        ("n in [1,2].map(i, i == 1, 2)", "n in [1, 2].map(i, i == 1, 2)"),
        ("s in u.roles.map(e, s)", "s in u.roles.map(e, s)"),
        ("u.roles.filter(e, e != s).size() == 1", "u.roles.filter(e, e != s).size() == 1"),
        ("u.roles.all(e, e != s) && u.roles.exists_one(e, e == s)", "u.roles.all(e, e != s) && u.roles.exists_one(e, e == s)"),
        ("now.getHours('UTC') < 7 && (n < 3) == true", "now.getHours('UTC') < 7 && n < 3 == true"),
        (".a && .r.query.k == 'k'", "a && r.query['k'] == 'k'"),
    ],
)  # fmt: skip
def test_a_tree_is_written_in_one_form(text, normal):
    first = tree(text)
    assert render(first) == normal
    assert render(tree(normal)) == normal


def test_quoting():
    assert quote("a'\\\n\r\t\0\u202e😀") == "'a\\'\\\\\\n\\r\\t\\U00000000\\U0000202e😀'"


def test_nodes():
    found = tree("a && r.query.k == s && u.roles.exists(e, e in ['x'] && has(r.query.l))")
    kinds = [type(node).__name__ for node in ast.walk(found)]
    assert kinds == (
        [
            "Call",
            "Call",
            "Variable",
            "Call",
            "MapKey",
            "Variable",
            "Loop",
            "Variable",
            "Call",
            "Call",
            "Local",
            "ListOf",
            "Literal",
            "HasKey",
        ]
    )
    loop = next(node for node in ast.walk(found) if isinstance(node, ast.Loop))
    assert (loop.macro, loop.local, loop.type, loop.offset) == ("exists", "e", "bool", 37)
    assert [type(node).__name__ for node in ast.children(tree("s in u.roles.map(e, a, e)").args[1])] == [
        "Variable",
        "Variable",
    ]


def test_types():
    assert type_name(Type()) == "?"
    assert type_name(Type(primitive=99)) == "?"
    assert type_name(Type(well_known=1)) == "?"
    assert type_name(Type(list_type={"elem_type": {"well_known": 3}})) == "list(duration)"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ({}, "this form is not part of the condition language"),
        ({"list_expr": {"optional_indices": [0]}}, "this form is not part of the condition language"),
        ({"const_expr": {}}, "this cannot be written"),
        (
            {"comprehension_expr": {"accu_var": "other"}},
            "this form of loop is not part of the condition language",
        ),
        (
            {"comprehension_expr": {"accu_var": "@result", "iter_var2": "v"}},
            "this form of loop is not part of the condition language",
        ),
    ],
)
def test_a_checked_form_that_no_text_gives(expression, message):
    with pytest.raises(UnreadableError) as refused:
        read(CheckedExpr(expr={"id": 1, **expression}))
    assert (refused.value.message, refused.value.offset) == (message, 0)


def test_a_key_of_what_is_no_map():
    node = ast.MapKey(variable="s", key="k", type="bool", offset=3, id=1)
    assert list(mistakes(node, "s.k", WORDS)) == [(3, "'s' is not a map")]


def test_a_presence_that_the_text_does_not_ask_for():
    node = ast.HasKey(variable="r.query", key="k", is_macro=True, type="bool", offset=3, id=1)
    assert [offset for offset, _ in mistakes(node, "nothing", WORDS)] == [0]


MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_clauses_and_what_they_saw():
    text = (
        "!(a && !(s == 'x' || n < 3)) && u.roles.size() > 0 && r.query.k == 'v' && r.query.size() == 1"
        " && x > 1.0 && now > timestamp(0) && has(r.query.zz) || !(a != b)"
    )
    values = {
        "a": True,
        "b": True,
        "s": "it's\x07",
        "n": 7,
        "x": 1.5,
        "u.roles": ["p", "q"],
        "r.query": {"k": "v"},
        "now": MOMENT,
    }
    clauses = compile_condition(text, WORDS).explain(values)
    assert [(clause.text, clause.truth.value, dict(clause.inputs)) for clause in clauses] == [
        ("!a", "false", {"a": "true"}),
        ("s == 'x'", "false", {"s": "'it\\'s\\U00000007'"}),
        ("n < 3", "false", {"n": "7"}),
        ("u.roles.size() > 0", "true", {"u.roles": "['p', 'q']"}),
        ("r.query['k'] == 'v'", "true", {"r.query['k']": "'v'"}),
        ("r.query.size() == 1", "true", {"r.query": "{'k': 'v'}"}),
        ("x > 1.0", "true", {"x": "1.5"}),
        ("now > timestamp(0)", "true", {"now": "2026-01-02T03:04:05Z"}),
        ("'zz' in r.query", "false", {}),
        ("a == b", "true", {"a": "true", "b": "true"}),
    ]


def test_what_a_clause_shows_is_short():
    values = {"s": "'" * 60_000, "u.roles": ["é" * 60_000] * 3, "r.query": {"k" * 60_000: "v" * 60_000}}
    condition = compile_condition("s == '' || u.roles.size() == 0 || r.query.size() == 0", WORDS)
    for clause in condition.explain(values):
        assert clause.truth is Truth.FALSE
        assert [len(text) for text in clause.inputs.values()] == [120]


def test_a_ternary_is_one_clause():
    condition = compile_condition("a ? (b && a) : b", WORDS)
    assert [clause.text for clause in condition.explain({})] == ["a ? b && a : b"]
    assert repr(condition) == "Condition('a ? (b && a) : b')"
