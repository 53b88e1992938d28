# SPDX-License-Identifier: Apache-2.0
"""What of CEL is refused when a condition is read, and what is not."""

from __future__ import annotations

import pytest

from everyhop.conditions import ConditionError, ValueType, Vocabulary, compile_condition
from everyhop.conditions.limits import MAX_NODES, MAX_PATTERN, MAX_PROBLEMS, MAX_TEXT
from everyhop.core.errors import InputError

WORDS = Vocabulary(
    {
        "user.mfa": ValueType.BOOL,
        "user.id": ValueType.STRING,
        "user.level": ValueType.INT,
        "user.score": ValueType.DOUBLE,
        "user.roles": ValueType.STRINGS,
        "request.source_ip": ValueType.STRING,
        "request.query": ValueType.STRING_MAP,
        "now": ValueType.TIMESTAMP,
    }
)


def refusals(text: str) -> list[str]:
    with pytest.raises(ConditionError) as refused:
        compile_condition(text, WORDS)
    return [problem.render() for problem in refused.value.problems]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{'a': 'b'} == request.query", "1:1: maps and messages cannot be written out"),
        ("{'a': true}.a", "1:12: a key can only be read from a variable"),
        ("google.protobuf.Timestamp{} == now", "1:1: maps and messages cannot be written out"),
        (
            "google.protobuf.NullValue.NULL_VALUE == 0",
            "1:26: 'google.protobuf.NullValue.NULL_VALUE' is not a variable",
        ),
        ("1u == 1u", "1:1: an unsigned number cannot be written"),
        ("b'a' == b'a'", "1:1: bytes cannot be written"),
        ("null == null", "1:1: null cannot be written"),
        ("type(1) == type(2)", "1:5: type() is not part of the condition language"),
        ("dyn(user.id) == 1", "1:4: dyn() is not part of the condition language"),
        ("bool(user.id)", "1:5: bool() is not part of the condition language"),
        ("uint(1) == uint(1)", "1:5: uint() is not part of the condition language"),
        ("bytes(user.id) == bytes('a')", "1:6: bytes() is not part of the condition language"),
        (
            "request.query == request.query",
            "1:15: only simple values can be compared or chosen; use 'in', has_any() or has_all()",
        ),
        (
            "user.roles == ['a']",
            "1:12: only simple values can be compared or chosen; use 'in', has_any() or has_all()",
        ),
        (
            "'a' in (user.mfa ? user.roles : ['a'])",
            "1:18: only simple values can be compared or chosen; use 'in', has_any() or has_all()",
        ),
        (
            "user.roles[0] == 'a'",
            "1:11: an element of a list cannot be taken by its number; use 'in' or a loop",
        ),
        ("'a' in user.roles + ['b']", "1:19: lists cannot be added"),
        ("user.id in []", "1:12: a list that is written out needs at least one element"),
        ("['a', 1].exists(x, true)", "1:1: the elements of a list are all of one simple type"),
        ("[['a']].exists(x, true)", "1:1: the elements of a list are all of one simple type"),
        ("user.score < 1e999", "1:14: this number is too large"),
        ("user.score > -1e999", "1:14: this number is too large"),
    ],
)
def test_forms_that_are_not_in_the_language(text, problem):
    assert problem in refusals(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("user.roles.exists(r, user.roles.exists(q, q == r))", "1:39: a loop cannot stand inside another"),
        (
            "request.query.exists(k, k == 'a')",
            "1:8: a loop runs over a list variable, or over a list of literals",
        ),
        (
            "user.roles.map(r, r).exists(r, r == 'a')",
            "1:15: a loop runs over a list variable, or over a list of literals",
        ),
        (
            "[user.id].exists(r, r == 'a')",
            "1:1: a loop runs over a list variable, or over a list of literals",
        ),
        ("user.roles.exists(r, r + 'a' == 'b')", "1:24: nothing can be added or computed inside a loop"),
        ("user.roles.all(r, user.level - 1 > 0)", "1:30: nothing can be added or computed inside a loop"),
        (
            "'b' in user.roles.map(r, r != 'a', r + 'c')",
            "1:38: nothing can be added or computed inside a loop",
        ),
        ("user.roles.exists(user, user == 'a')", "1:18: the loop's variable 'user' hides another name"),
        ("user.roles.exists(has_any, true)", "1:18: the loop's variable 'has_any' hides another name"),
        (
            "user.roles.exists(r, true)" + " && user.roles.all(r, true)" * 4,
            "1:126: more than 4 loops in one condition",
        ),
    ],
)
def test_loops_that_could_cost_much(text, problem):
    assert problem in refusals(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("user.id.matches(user.id)", "1:21: a pattern must be written out"),
        ("user.id.matches('a' + 'b')", "1:21: a pattern must be written out"),
        ("user.id.matches('(')", "1:17: invalid regular expression: missing ): ("),
        ("matches(user.id, '(?<=a)b')", "1:18: invalid regular expression: invalid perl operator: (?<="),
        (f"user.id.matches('{'a' * (MAX_PATTERN + 1)}')", "1:17: the pattern is longer than 256 characters"),
        ("user.id.startsWith('')", "1:20: startsWith('') is true for every text"),
        ("user.id.endsWith('')", "1:18: endsWith('') is true for every text"),
        ("user.id.contains('')", "1:18: contains('') is true for every text"),
        ("timestamp('soon') < now", "1:10: this always fails: String to Timestamp conversion failed"),
        ("now - now < duration('1 day')", "1:21: this always fails: String to Duration conversion failed"),
        ("user.level == 1 / 0", "1:17: this always fails: divide by zero"),
        ("user.level == 9223372036854775807 + 1", "1:35: this always fails: integer overflow"),
        ("user.level == int('x')", "1:18: this always fails: cannot convert string to int"),
    ],
)
def test_literals_that_cannot_work(text, problem):
    assert problem in refusals(text)


@pytest.mark.parametrize(
    "zone",
    [
        "Europe/Pari",
        "europe/paris",
        "",
        "02:00",
        "+2",
        "+99:99",
        "+14:60",
        "+15:00",
        "localtime",
        "posix/UTC",
        "right/UTC",
        "/usr/share/zoneinfo/UTC",
        "file:/etc/localtime",
        "../zoneinfo/UTC",
        "Europe/../UTC",
        "Fixed/UTC+01:00:00",
        "Europe",
        "é",
    ],
)
def test_time_zones_that_are_none(zone):
    assert refusals(f"now.getHours('{zone}') < 7")[0].startswith("1:14: there is no time zone")


def test_a_computed_time_zone():
    assert refusals("now.getHours(user.id) < 7") == ["1:18: a time zone must be written out"]


@pytest.mark.parametrize(
    "zone", ["Europe/Paris", "UTC", "Etc/GMT+5", "America/Argentina/Buenos_Aires", "+02:00", "-14:00"]
)
def test_time_zones(zone):
    compile_condition(f"now.getDayOfWeek('{zone}') == 0", WORDS)


@pytest.mark.parametrize(
    "text",
    [
        "has(user.mfa)",
        "has(request.query.page) && has(user.mfa)",
        "has //\n (user.mfa)",
        "has  (user.mfa) && user.id != 'has('",
        "r'\\d' != user.id && has(user.mfa)",
    ],
)
def test_the_presence_of_a_variable_cannot_be_asked_for(text):
    """CEL compiles it, and gives the variable's value."""
    assert any("has() asks for a key of a map" in problem for problem in refusals(text))


@pytest.mark.parametrize(
    "text",
    [
        "has(request.query.page)",
        "has(request.query.page) // has(\n && user.id != \"has(user.mfa)\" && user.id != '''has(''' && user.id != r'\\d has('",
        "has(request.query.`a-b`) || 'a b' in request.query",
    ],
)
def test_the_presence_of_a_key_can(text):
    compile_condition(text, WORDS)


def test_sizes():
    assert refusals("user.mfa" + " " * MAX_TEXT) == [
        f"1:1: the condition is longer than {MAX_TEXT} characters"
    ]
    assert refusals("user.mfa" + " && user.mfa" * 120) == [
        "1:1: the condition has 241 parts; at most 200 are allowed"
    ]
    members = ", ".join(["1"] * (MAX_NODES - 3))
    compile_condition(f"user.level in [{members}]", WORDS)
    assert refusals(f"user.level in [{members}, 1]") == [
        "1:1: the condition has 201 parts; at most 200 are allowed"
    ]
    assert len(refusals(" && ".join(["user.roles == user.roles"] * (MAX_PROBLEMS + 5)))) == MAX_PROBLEMS
    assert refusals("(" * 40 + "user.mfa" + ")" * 40) == ["1:1: the condition is nested too deeply"]
    assert refusals("user.level == 1" + " + 1" * 40) == ["1:1: the condition is nested too deeply"]
    compile_condition("(" * 15 + "user.mfa" + ")" * 15, WORDS)


@pytest.mark.parametrize("text", ["\ud800", "user.id == '\udfff'"])
def test_text_that_is_no_unicode(text):
    assert refusals(text)[0].endswith("this is not valid Unicode")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a.",
        ".a",
        "a..b",
        "a-b",
        "1a",
        "a b",
        "é",
        "a.true",
        "in",
        "int",
        "has",
        "cel.x",
        "google.a",
        "a" * 65,
        ".".join("a" * 9),
    ],
)
def test_names_that_a_condition_cannot_read(name):
    with pytest.raises(InputError, match="cannot be the name of a variable"):
        Vocabulary({name: ValueType.BOOL})


def test_a_name_that_begins_with_another():
    with pytest.raises(InputError, match=r"'user\.id' begins with the name of another"):
        Vocabulary({"user.id": ValueType.STRING, "user": ValueType.STRING_MAP})


def test_a_type_that_is_none():
    with pytest.raises(ValueError, match="bytes"):
        Vocabulary({"a": "bytes"})


def test_vocabularies_are_equal_by_content():
    one, other = (
        Vocabulary(dict(order)) for order in ([("a", "int"), ("b", "bool")], [("b", "bool"), ("a", "int")])
    )
    assert one == other
    assert hash(one) == hash(other)
    assert one != Vocabulary({"a": ValueType.INT})
    assert one != "a"
    with pytest.raises(TypeError):
        one.variables["a"] = ValueType.BOOL
