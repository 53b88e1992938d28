# SPDX-License-Identifier: Apache-2.0
"""Values are converted strictly before CEL sees them: what is not exactly of its type is an error."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from enum import StrEnum
from types import MappingProxyType

import pytest

from everyhop.conditions import Truth, ValueType, Vocabulary, compile_condition
from everyhop.conditions.limits import MAX_ELEMENTS, MAX_LOOPED, MAX_STRING

WORDS = Vocabulary({f"v.{kind}": kind for kind in ValueType})


class Word(StrEnum):
    A = "a"

    def __str__(self) -> str:
        return "something else"


class Liar(str):
    __slots__ = ()

    def __len__(self) -> int:
        return 0


class Breaks(dict):
    def get(self, *_):
        raise RuntimeError("no")

    __getitem__ = __contains__ = items = get


def evaluate(text: str, kind: str, value: object):
    return compile_condition(text, WORDS).evaluate({f"v.{kind}": value})


@pytest.mark.parametrize(
    ("text", "kind", "value", "error"),
    [
        ("v.bool", "bool", 1, "v.bool is not true or false"),
        ("v.bool", "bool", "true", "v.bool is not true or false"),
        ("v.int == 1", "int", True, "v.int is not a whole number of 64 bits"),
        ("v.int == 1", "int", 1.0, "v.int is not a whole number of 64 bits"),
        ("v.int > 1", "int", 2**63, "v.int is not a whole number of 64 bits"),
        ("v.int < 1", "int", -(2**63) - 1, "v.int is not a whole number of 64 bits"),
        ("v.double != 1.0", "double", float("nan"), "v.double is not a finite number"),
        ("v.double > 1.0", "double", float("inf"), "v.double is not a finite number"),
        ("v.double == 1.0", "double", True, "v.double is not a finite number"),
        ("v.double > 1.0", "double", 2**53 + 1, "v.double is not a finite number"),
        ("v.string == 'a'", "string", b"a", "v.string is not text"),
        ("v.string != 'a'", "string", "\ud800", "v.string is not valid Unicode"),
        ("v.string != 'a'", "string", "a" * (MAX_STRING + 1), f"v.string is longer than {MAX_STRING} characters"),
        ("v.string != 'a'", "string", Liar("a" * (MAX_STRING + 1)), f"v.string is longer than {MAX_STRING} characters"),
        ("'a' in v.strings", "strings", "a", "v.strings is not a list of text"),
        ("'a' in v.strings", "strings", {"a": 1}, "v.strings is not a list of text"),
        ("'a' in v.strings", "strings", ["a", 1], "v.strings is not text"),
        ("'a' in v.strings", "strings", ["a", "\ud800"], "v.strings is not valid Unicode"),
        ("'a' in v.strings", "strings", ["a"] * (MAX_ELEMENTS + 1), f"v.strings has more than {MAX_ELEMENTS} elements"),
        ("v.strings.exists(r, r == 'a')", "strings", ["a"] * (MAX_LOOPED + 1), f"v.strings has more than {MAX_LOOPED} elements"),
        ("['a'].all(r, r in v.strings)", "strings", ["a"] * (MAX_LOOPED + 1), f"v.strings has more than {MAX_LOOPED} elements"),
        ("'a' in v.strings", "strings", ["a" * MAX_STRING] * 17, "v.strings holds more than 1048576 characters"),
        ("v.timestamp > timestamp(0)", "timestamp", datetime(2026, 1, 1), "v.timestamp is not a moment with a time zone"),  # noqa: DTZ001
        ("v.timestamp > timestamp(0)", "timestamp", date(2026, 1, 1), "v.timestamp is not a moment with a time zone"),
        ("v.timestamp > timestamp(0)", "timestamp", "2026-01-01T00:00:00Z", "v.timestamp is not a moment with a time zone"),
        ("v.timestamp > timestamp(0)", "timestamp", datetime.max.replace(tzinfo=UTC), "v.timestamp is outside the years 1 to 9999"),
        ("v.timestamp < timestamp(0)", "timestamp", datetime.min.replace(tzinfo=timezone(timedelta(hours=9))), "v.timestamp is outside the years 1 to 9999"),
        ("v.string_map.a == 'a'", "string_map", [("a", "a")], "v.string_map is not a map from text to text"),
        ("v.string_map.a == 'a'", "string_map", {"a": 1}, "v.string_map is not text"),
        ("v.string_map.size() > 0", "string_map", {1: "a"}, "v.string_map is not text"),
        ("v.string_map.size() > 0", "string_map", {str(n): "" for n in range(MAX_ELEMENTS + 1)}, f"v.string_map has more than {MAX_ELEMENTS} entries"),
        ("v.string_map.size() > 0", "string_map", {str(n): "a" * MAX_STRING for n in range(17)}, "v.string_map holds more than 1048576 characters"),
        ("v.string_map.a == 'a'", "string_map", Breaks(), "the values cannot be read"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_an_error(text, kind, value, error):
    outcome = evaluate(text, kind, value)
    assert (outcome.truth, outcome.error) == (Truth.ERROR, error)
    clause = compile_condition(f"false || {text}", WORDS).explain({f"v.{kind}": value})[1]
    assert clause.truth is Truth.ERROR
    assert clause.error == error.replace("the values", f"v.{kind}")


def test_a_bad_value_is_an_error_of_the_whole_condition():
    """What is absent may be absorbed; what is there and wrong says that somebody errs, and that is a deny."""
    condition = compile_condition("v.bool || v.int == 1", WORDS)
    assert condition.evaluate({"v.bool": True}).truth is Truth.TRUE
    assert condition.evaluate({"v.bool": True, "v.int": None}).truth is Truth.TRUE
    assert condition.evaluate({"v.bool": True, "v.int": "1"}).truth is Truth.ERROR


@pytest.mark.parametrize("values", [None, 3, "v.bool", [("v.bool", True)], Breaks()])
def test_values_that_are_no_mapping(values):
    condition = compile_condition("v.bool", WORDS)
    assert condition.evaluate(values).truth is Truth.ERROR
    assert [clause.truth for clause in condition.explain(values)] == [Truth.ERROR]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("v.int == 9223372036854775807", "int", 2**63 - 1),
        ("v.int < -9223372036854775807", "int", -(2**63)),
        ("v.double == 1.0", "double", 1),
        ("v.double == 1.5", "double", 1.5),
        ("v.string == 'a'", "string", Word.A),
        ("v.string == 'é😀'", "string", "é😀"),
        ("v.strings.size() == 4096", "strings", ["a"] * MAX_ELEMENTS),
        ("v.strings.exists_one(r, r == 'b')", "strings", ["a"] * (MAX_LOOPED - 1) + ["b"]),
        ("'a' in v.strings", "strings", frozenset({"a"})),
        ("'a' in v.strings", "strings", (Word.A,)),
        ("v.timestamp == timestamp('2026-01-01T00:00:00.000001Z')", "timestamp", datetime(2026, 1, 1, 2, microsecond=1, tzinfo=timezone(timedelta(hours=2)))),
        ("v.string_map.a == 'a'", "string_map", MappingProxyType({"a": "a", "other": 7})),
        ("v.string_map.size() == 1", "string_map", {"a": "a"}),
    ],
)  # fmt: skip
def test_values(text, kind, value):
    assert evaluate(text, kind, value).truth is Truth.TRUE


def test_what_is_not_read_is_ignored():
    values = {"v.bool": True, "v.int": "no number", "other": object(), 3: 4}
    assert compile_condition("v.bool", WORDS).evaluate(values).truth is Truth.TRUE
