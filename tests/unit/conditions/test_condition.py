# SPDX-License-Identifier: Apache-2.0
"""The door of the room: what is refused when it is read, what an evaluation gives, what explains it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from everyhop.conditions import (
    Clause,
    ConditionError,
    Truth,
    ValueType,
    Vocabulary,
    compile_condition,
)
from everyhop.core.errors import InputError

WORDS = Vocabulary(
    {
        "user.mfa": ValueType.BOOL,
        "user.id": ValueType.STRING,
        "user.level": ValueType.INT,
        "user.score": ValueType.DOUBLE,
        "user.roles": ValueType.STRINGS,
        "request.source_ip": ValueType.STRING,
        "request.path_params": ValueType.STRING_MAP,
        "request.query": ValueType.STRING_MAP,
        "now": ValueType.TIMESTAMP,
    }
)
VALUES = {
    "user.mfa": True,
    "user.id": "ann",
    "user.level": 3,
    "user.score": 1.5,
    "user.roles": ["clerk", "viewer"],
    "request.source_ip": "10.1.2.3",
    "request.path_params": {"id": "ann"},
    "request.query": {},
    "now": datetime(2026, 1, 2, 6, 30, tzinfo=UTC),
}


def truth(text: str, **changes: object) -> Truth:
    values = VALUES | {name.replace("__", "."): value for name, value in changes.items()}
    return compile_condition(text, WORDS).evaluate(values).truth


@pytest.mark.parametrize(
    ("text", "line", "column", "message", "suggestion"),
    [
        ("user.idd == 'a'", 1, 1, "there is no variable 'user.idd'", "did you mean 'user.id'?"),
        ("user.mfa\n  && usr.id == 'a'", 2, 6, "there is no variable 'usr.id'", "did you mean 'user.id'?"),
        ("'é😀' == user.i", 1, 9, "there is no variable 'user.i'", "did you mean 'user.id'?"),
        ("user.id.startswith('a')", 1, 9, "there is no function 'startswith'", "did you mean 'startsWith'?"),
        ("user . idd == 'a'", 1, 6, "there is no variable 'user.idd'", "did you mean 'user.id'?"),
        ("inCidr(user.id, 'a')", 1, 1, "there is no function 'inCidr'", "did you mean 'in_cidr'?"),
        ("now.getHours('UTC', 2) == 1", 1, 5, "getHours() does not take these arguments", None),
        ("user.level > '3'", 1, 12, "> cannot be applied to (int, string)", None),
        ("user.mfa and user.mfa", 1, 10, "syntax error: mismatched input 'and' expecting <EOF>", "write &&"),
        ("user.mfa == null", 1, 10, "== cannot be applied to (bool, null_type)", None),
        ("user.level", 1, 5, "a condition is true or false; this is of type int", None),
        ("", 1, 1, "syntax error: mismatched input '<EOF>'", None),
    ],
)
def test_a_mistake_is_named_where_it_is(text, line, column, message, suggestion):
    with pytest.raises(ConditionError) as refused:
        compile_condition(text, WORDS)
    first = refused.value.problems[0]
    assert (first.line, first.column, first.message, first.suggestion) == (line, column, message, suggestion)
    assert isinstance(refused.value, InputError)
    assert refused.value.code == "CONDITION_INVALID"


def test_only_a_real_true_is_true():
    assert truth("user.mfa") is Truth.TRUE
    assert truth("user.mfa", user__mfa=False) is Truth.FALSE
    for value in (None, 1, "true", [True], object()):
        assert truth("user.mfa", user__mfa=value) is Truth.ERROR


def test_what_is_read_is_known():
    condition = compile_condition(
        "user.mfa && request.path_params.id == user.id && 'page' in request.query && request.query.size() < 3",
        WORDS,
    )
    assert condition.variables == {"user.mfa", "request.path_params", "user.id", "request.query"}
    assert condition.keys == {"request.path_params": {"id"}, "request.query": {"page"}}
    assert condition.dynamic_maps == {"request.query"}


def test_the_clauses_say_why():
    condition = compile_condition("user.mfa && !(user.level > 2 || user.id == 'bob')", WORDS)
    assert condition.explain({"user.mfa": True, "user.level": 3}) == (
        Clause("user.mfa", Truth.TRUE, {"user.mfa": "true"}),
        Clause("!(user.level > 2)", Truth.FALSE, {"user.level": "3"}),
        Clause("user.id != 'bob'", Truth.ERROR, {}, "user.id is not known"),
    )
