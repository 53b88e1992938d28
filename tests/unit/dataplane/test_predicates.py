# SPDX-License-Identifier: Apache-2.0
"""Predicates: literals fold away as CEL would have them, networks become Envoy's own matcher, sizes are counted."""

import itertools

import pytest
from tests.support.matchers import _holds

from everyhop.conditions import ast, compile_condition
from everyhop.conditions.model import ValueType, Vocabulary
from everyhop.conditions.rendering import render
from everyhop.dataplane.predicates import expression, expressions, folded, negated, really_false, really_true

WORDS = Vocabulary({"request.headers": ValueType.STRING_MAP, "source.address": ValueType.STRING})
X = "request.headers['x'] == 'a'"
NET, OTHER = "in_cidr(source.address, '10.0.0.0/8')", "in_cidr(source.address, '10.1.0.0/16')"


def tree(text):
    return compile_condition(text, WORDS).tree


def holds(predicate, source="192.0.2.1", headers=()):
    inputs = {"source": source, "request": {"headers": dict(headers), "url_path": "/"}}
    return predicate if isinstance(predicate, bool) else _holds(predicate, inputs)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"true && {X}", X),
        (f"{X} && true", X),
        (f"{X} && false", "false"),
        (f"false || {X}", X),
        (f"{X} || true", "true"),
        ("false || false", "false"),
        ("true && true", "true"),
        ("!true", "false"),
        (f"!({X})", f"!({X})"),
        (f"true ? {X} : false", X),
        (f"false ? true : {X}", X),
        (f"({X}) ? true && true : !true", f"{X} ? true : false"),
        (f"!(false || !(true && {X}))", f"!(!({X}))"),
    ],
)
def test_literals_fold_away_and_absorb_errors_as_in_cel(text, left):
    assert render(folded(tree(text))) == left


@pytest.mark.parametrize(
    "text",
    [NET, f"!{NET}", f"{NET} && {X}", f"{X} || {NET}", f"{NET} ? {X} : !({X})", f"{NET} && !{OTHER} || {X}", f"{OTHER} == {NET}"],
)  # fmt: skip
def test_each_combination_of_networks_is_what_the_condition_says(text):
    condition = compile_condition(text, WORDS)
    sources = ("10.1.2.3", "10.2.2.3", "192.0.2.1", "::ffff:10.1.0.1", "2001:db8::1")
    for source, headers in itertools.product(sources, ({}, {"x": "a"}, {"x": "b"})):
        truth = condition.evaluate({"source.address": source, "request.headers": headers}).truth
        assert holds(really_true(condition.tree), source, headers) is (truth == "true"), (source, headers)
        assert holds(really_false(condition.tree), source, headers) is (truth == "false"), (source, headers)


def test_a_network_alone_is_no_expression():
    assert expressions(really_true(tree(NET))) == 1  # one matcher, and it is not CEL's
    assert "CelMatcher" not in str(really_true(tree(NET)))
    assert expressions(really_true(tree(f"{NET} && {X}"))) == 2
    assert expressions(True) == 0
    assert expressions(negated(really_true(tree(X)))) == 1


def test_the_opposite_of_a_predicate():
    assert negated(True) is False
    assert negated(False) is True
    assert holds(negated(really_true(tree(X))), headers={})  # an error is not true


def test_an_expression_names_attributes_as_envoy_does():
    found = expression(tree("'x' in request.headers"))
    assert found["call_expr"]["function"] == ast.IN
    attribute = found["call_expr"]["args"][1]["select_expr"]
    assert (attribute["operand"]["ident_expr"]["name"], attribute["field"]) == ("request", "headers")
    ids = list(_ids(found))
    assert len(ids) == len(set(ids))


def test_there_is_no_expression_for_a_loop():
    words = Vocabulary({"tags": ValueType.STRINGS})
    with pytest.raises(TypeError, match="Loop"):
        expression(compile_condition("tags.exists(t, t == 'a')", words).tree)


def _ids(value):
    if isinstance(value, list):
        for inner in value:
            yield from _ids(inner)
    elif isinstance(value, dict):
        if "id" in value:
            yield value["id"]
        for inner in value.values():
            yield from _ids(inner)
