# SPDX-License-Identifier: Apache-2.0
"""Regular expressions: whole matches, first matches, refusals, and the size of a program."""

import random
import re
import time

import pytest

from everyhop.core.errors import InputError
from everyhop.evaluators.regex import FirstMatch, FullMatch, program_size


@pytest.mark.parametrize(
    ("expression", "text", "full", "first"),
    [
        ("/a|/ab", "/ab", True, False),  # the notes' trap: the first alternative wins, and it is too short
        ("/ab|/a", "/ab", True, True),
        ("/ab|/a", "/a", True, True),
        ("^(?:/a|/ab)$", "/ab", True, True),
        ("/a*?", "/aa", True, False),
        ("/a*", "/aa", True, True),
        ("/a??b?", "/ab", True, False),
        ("(?:/a|/ab)c?", "/abc", True, False),
        ("b", "ab", False, False),
        ("/a", "/ab", False, False),
        ("", "", True, True),
        ("", "x", False, False),
        ("^/v1/x/[^/?]+/y(\\?.*)?$", "/v1/x/7/y?q=/", True, True),
        ("/v1.x", "/v1\nx", False, False),
        ("a$", "a\n", False, False),  # unlike Python's `$`
        ("[[:alpha:]]+", "aZ", True, True),
        ("[^[:digit:]/]", "x", True, True),
        ("[]a-]+", "]-a", True, True),
        ("[\\d\\-]+", "1-2", True, True),
        ("\\x41\\x{42}", "AB", True, True),
        ("(?i)get", "GeT", True, True),
        ("(?i)[^a]", "A", False, False),
        ("a(?i:b(?-i:c)b)a", "aBcBa", True, True),
        ("a(?i:b(?-i:c)b)a", "aBCBa", False, False),
        ("a(?i:b)a", "aBA", False, False),
        ("(?P<name>a)(?<other>b)", "ab", True, True),
        ("\\Aab\\z", "ab", True, True),
        ("a{2}", "aa", True, True),
        ("a{2,}", "a", False, False),
        ("a{1,2}", "aaa", False, False),
    ],
)
def test_matches(expression, text, full, first):
    assert FullMatch(expression)(text) is full
    assert FirstMatch(expression)(text) is first


@pytest.mark.parametrize(
    "expression",
    [
        "(a", "a)", "[a", "[b-a]", "[a&&b]", "[a[b]]", "[a-b-c]", "[\\d-z]", "[[:nope:]]", "*a", "a**", "a{2}{3}", "a{1001}", "a{3,2}",
        "a{", "a{,3}", "^*", "(?=a)", "(?!a)", "(?<=a)b", "(?s)a", "(?s:a)", "a(?i)b", "a\\b", "(a)\\1", "\\p{L}", "\\Qa\\E", "\\Z", "\\", "a++",
        "\\x{110000}", "(" * 101 + ")" * 101, "a" * 8193,
    ],
)  # fmt: skip
def test_what_engines_differ_over_or_refuse_is_refused(expression):
    with pytest.raises(InputError):
        FullMatch(expression)


def test_a_loop_over_nothing_is_refused_where_preference_counts():
    assert FullMatch("(a?)*b")("aab")
    with pytest.raises(InputError, match="engines differ"):
        FirstMatch("(a?)*b")


def _expression(chance, depth=0):
    kind = chance.random()
    if depth > 3 or kind < 0.5:
        return chance.choice(["a", "b", "ab", "/", "[a-c]", "[^/]", ".", "x"])
    if kind < 0.65:
        return _expression(chance, depth + 1) + _expression(chance, depth + 1)
    if kind < 0.85:
        return "(?:" + "|".join(_expression(chance, depth + 1) for _ in range(chance.randint(2, 3))) + ")"
    return f"(?:{_expression(chance, depth + 1)})" + chance.choice(["*", "+", "?", "*?", "+?", "??", "{1,2}"])


def test_both_questions_are_answered_as_pythons_backtracking_does():
    chance = random.Random(6)
    asked = 0
    for _ in range(600):
        expression = _expression(chance)
        reference = re.compile(expression)
        full = FullMatch(expression)
        try:
            first = FirstMatch(expression)
        except InputError:
            first = None
        for _ in range(12):
            text = "".join(chance.choice("abcx/") for _ in range(chance.randint(0, 6)))
            found = reference.search(text)
            assert full(text) is (reference.fullmatch(text) is not None), (expression, text)
            if first is not None:
                spans = found is not None and found.span() == (0, len(text))
                assert first(text) is spans, (expression, text)
                asked += 1
    assert asked > 5000


def test_a_hostile_expression_takes_linear_time():
    start = time.monotonic()
    assert not FullMatch("(?:a+)+b")("a" * 20_000)
    assert not FullMatch("(?:a|a)*b")("a" * 20_000)
    assert time.monotonic() - start < 5


def test_a_program_that_becomes_too_large_is_refused():
    with pytest.raises(InputError, match="too large"):
        FullMatch("(?:a{100}){300}")
    with pytest.raises(InputError, match="too large"):
        program_size("(?:a{100}){300}")


@pytest.mark.parametrize(
    ("expression", "size"),
    [  # reported by Envoy 1.40.0 with re2.max_program_size.error_level 0
        ("/", 5), ("^/abc$", 4), ("abc$", 7), ("^(?:abc)$", 4), ("^[ab]c$", 4), ("^(GET|HEAD)$", 11), ("GET|POST", 11), (".*", 6),
        ("a*b*", 7), ("a+b+", 9), (".*foo.*", 11), ("[^/]+", 7), ("\\w", 7), ("\\W", 9), ("(?i)abc", 7), ("^/(?i:%2[a-f])[x-z]$", 8), ("a{2,4}", 10), ("a{2,}", 7),
        ("[^/]{1,5}", 18), ("abc|abd|xyz", 10), ("abc|xyz|abd", 13), ("x-envoy-(a|b|c)", 15), ("(a|b|cc)", 9), ("a|", 6), ("^$", 2),
        ("abc|abcd", 9), ("(\\?.*)?", 10), ("^/v1/payments(\\?.*)?$", 10), ("/v1/payments(\\?.*)?", 22), ("(?:a*)?", 5),
        ("^/v1/x/[^/?]+/y(\\?.*)?$", 16), ("^/v1/x/[0-9a-fA-F]{8}$", 20), ("[A-Za-z0-9._~-]+", 10), ("^(?:abc){2}/(?:a)?$", 11),
        # the expression of cilium#48773
        ("/(dashboard|alerts|calendar|components|metrics|critical_asset_metrics|critical_product_metrics|simple_search|support|celery_status|choices)([/?].*)?", 128),
    ],
)  # fmt: skip
def test_the_size_is_what_envoy_reports(expression, size):
    assert program_size(expression) == size
