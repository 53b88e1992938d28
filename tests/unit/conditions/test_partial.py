# SPDX-License-Identifier: Apache-2.0
"""What is left of a condition when the resource is not known: its form; what it means is tests/property/test_filtering.py."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from everyhop.conditions import Truth, ValueType, Vocabulary, compile_condition, predicates as p
from everyhop.conditions.partial import MAX_SPREAD, converted, reduce

WORDS = Vocabulary(
    {
        "r.owner": ValueType.STRING,
        "r.level": ValueType.INT,
        "r.secret": ValueType.BOOL,
        "r.tags": ValueType.STRINGS,
        "u.id": ValueType.STRING,
        "u.mfa": ValueType.BOOL,
        "u.roles": ValueType.STRINGS,
        "u.query": ValueType.STRING_MAP,
        "now": ValueType.TIMESTAMP,
        "r.due": ValueType.TIMESTAMP,
    }
)
OWNER = p.Attribute("r.owner", ValueType.STRING)
LEVEL = p.Attribute("r.level", ValueType.INT, 1)
SECRET = p.Attribute("r.secret", ValueType.BOOL)
UNKNOWN = {
    one.name: one
    for one in (
        OWNER,
        LEVEL,
        SECRET,
        p.Attribute("r.tags", ValueType.STRINGS),
        p.Attribute("r.due", ValueType.TIMESTAMP),
    )
}
KNOWN = {"u.id": "ann", "u.roles": ["a", "b"], "now": datetime(2026, 1, 1, tzinfo=UTC), "u.query": {}}
IS_ANN = p.Compare("==", OWNER, p.Constant("ann"))


def left(text, known=KNOWN):
    return reduce(compile_condition(text, WORDS), known, UNKNOWN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # what is an error stays one, and opens nothing
        ("u.mfa", p.ERROR),
        ("r.owner == u.query.x", p.ERROR),
        ("r.owner in [u.id, u.query.x]", p.ERROR),
        ("r.owner == u.query.x && r.secret", p.And((p.ERROR, p.Holds(SECRET)))),
        ("!(r.owner == u.query.x)", p.ERROR),
        ("u.mfa ? r.secret : true", p.ERROR),
        ("r.level > 1 / (1 - 1) || r.secret", None),
        ("starts_with_any(r.owner, ['a', u.query.x])", p.ERROR),
        # what is known is decided
        ("u.id == 'bob' && r.secret", p.FALSE),
        ("u.id == 'ann' || r.secret", p.TRUE),
        ("u.id == 'ann' && r.secret", p.Holds(SECRET)),
        ("u.id == 'ann' ? r.secret : r.level > 1", p.Holds(SECRET)),
        # forms
        ("r.owner == u.id", IS_ANN),
        ("!(r.owner == u.id)", p.Not(IS_ANN)),
        ("!!(r.owner == u.id)", IS_ANN),
        ("r.owner == u.id && r.owner == 'ann'", IS_ANN),
        ("r.owner in u.roles", p.In(OWNER, (p.Constant("a"), p.Constant("b")))),
        ("has_role(u.roles, r.owner)", p.In(OWNER, (p.Constant("a"), p.Constant("b")))),
        ("u.id in [r.owner]", p.In(p.Constant("ann"), (OWNER,))),
        ("r.owner.startsWith(u.id)", p.Part(OWNER, "start", "ann")),
        (
            "starts_with_any(r.owner, u.roles)",
            p.Or((p.Part(OWNER, "start", "a"), p.Part(OWNER, "start", "b"))),
        ),
        (
            "r.secret ? r.level > 1 : true",
            p.Choose(p.Holds(SECRET), p.Compare(">", LEVEL, p.Constant(1)), p.TRUE),
        ),
        (
            "u.roles.exists(x, x == r.owner)",
            p.Or((p.Compare("==", p.Constant("a"), OWNER), p.Compare("==", p.Constant("b"), OWNER))),
        ),
    ],
)
def test_forms(text, expected):
    if expected is None:
        with pytest.raises(Exception, match="always fails"):
            left(text)
    else:
        assert left(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "r.owner.matches('^a')",
        "'x' in r.tags",
        "r.owner in r.tags",
        "r.level + 1 > 2",
        "r.owner.size() > 2",
        "u.id.startsWith(r.owner)",
        "r.owner.startsWith(r.owner)",
        "r.secret == (r.level > 1)",
        "r.tags.exists(t, t == u.id)",
        "u.roles.exists_one(x, x == r.owner)",
        "r.due > timestamp('2026-01-01T00:00:00.000000001Z')",
        "r.owner in u.query",
    ],
)
def test_what_has_no_form_stays_what_it_is(text):
    found = left(text)
    assert isinstance(found, p.Opaque)
    assert p.can_be(Truth.TRUE, found)
    assert p.can_be(Truth.FALSE, found)


def test_a_long_list_is_not_written_out():
    roles = [f"r{n}" for n in range(MAX_SPREAD + 1)]
    assert isinstance(left("u.roles.exists(x, x == r.owner)", {**KNOWN, "u.roles": roles}), p.Opaque)


def test_a_known_value_of_another_type_is_an_error_of_the_whole():
    assert left("u.id == 'ann' || r.secret", {**KNOWN, "u.id": 5}) == p.ERROR
    assert left("true || u.id == 'ann' || r.secret", {**KNOWN, "u.id": "a\0"}) == p.ERROR


def test_unknown_values_are_checked_and_defaults_are_given():
    condition = compile_condition("r.level > 0 && r.owner == 'x'", WORDS)
    assert converted(condition, {"r.owner": "x"}, UNKNOWN) == {"r.owner": "x", "r.level": 1}
    assert converted(condition, {"r.owner": 3}, UNKNOWN) is None
    assert converted(condition, {"r.level": True}, UNKNOWN) is None
    assert converted(condition, {"r.tags": 3}, UNKNOWN) == {"r.level": 1}  # not read here


@pytest.mark.parametrize(
    ("predicate", "can_be_true", "can_be_false"),
    [
        (p.ERROR, False, False),
        (p.And((p.ERROR, IS_ANN)), False, True),
        (p.Or((p.ERROR, IS_ANN)), True, False),
        (p.Not(p.And((p.ERROR, IS_ANN))), True, False),
        (p.Choose(IS_ANN, p.ERROR, p.FALSE), False, True),
        (p.Choose(IS_ANN, p.TRUE, p.ERROR), True, False),
    ],
)
def test_what_a_predicate_can_be(predicate, can_be_true, can_be_false):
    assert p.can_be(Truth.TRUE, predicate) is can_be_true
    assert p.can_be(Truth.FALSE, predicate) is can_be_false


def test_errors_go_together_as_in_cel():
    for predicate in (
        IS_ANN,
        p.In(OWNER, ()),
        p.In(p.Constant("a"), (p.Constant("a"), OWNER)),
        p.Part(OWNER, "end", ""),
    ):
        assert p.evaluate(predicate, {}) is Truth.ERROR
        assert p.evaluate(p.Not(predicate), {}) is Truth.ERROR
        assert p.evaluate(p.Or((predicate, p.TRUE)), {}) is Truth.TRUE
        assert p.evaluate(p.And((predicate, p.FALSE)), {}) is Truth.FALSE
        assert p.evaluate(p.And((predicate, p.TRUE)), {}) is Truth.ERROR
        assert p.evaluate(p.Choose(predicate, p.TRUE, p.TRUE), {}) is Truth.ERROR
    assert len(list(p.walk(p.Choose(IS_ANN, p.Not(IS_ANN), p.Or((IS_ANN, p.TRUE)))))) == 7
