# SPDX-License-Identifier: Apache-2.0
"""Istio's paths in the words of the policy: what is written lies inside, what is denied lies outside of nothing."""

import pytest

from everyhop.importing.paths import matches_text, read_pattern
from everyhop.importing.templates import ONE, write_template

WRITTEN = {
    "*": (["/{rest...}"], ""),
    "/*": (["/{rest...}"], ""),
    "/a": (["/a"], ""),
    "/a/": (["/a/"], ""),
    "/a/*": (["/a/{rest...}"], ""),
    "/a*": (["/a", "/a/{rest...}"], "path-prefix"),
    "/a/b*": (["/a/b", "/a/b/{rest...}"], "path-prefix"),
    "*/info": (["/info", "/{p1}/info", "/{p1}/{p2}/info", "/{p1}/{p2}/{p3}/info"], "path-suffix"),
    "*.html": ([], "path-suffix"),
    "/a/{*}/b": (["/a/{p2}/b"], ""),
    "/a/{**}": (["/a/{rest...}"], ""),
    "/{**}/b": ([], "path-template"),
    "/a b": ([], "path"),
    "/a//b": ([], "path"),
    "/a/{id}": ([], "path"),
    "/a/%2e": ([], "path"),
    "/a/../b": ([], "path"),
    "a": ([], "path"),
}


@pytest.mark.parametrize("text", WRITTEN)
def test_a_pattern_is_written_as_far_as_the_language_goes(text):
    templates, code = WRITTEN[text]
    pattern = read_pattern(text)
    assert ([write_template(one) for one in pattern.templates], pattern.code) == (templates, code)
    assert bool(pattern.lost) == bool(code)


@pytest.mark.parametrize(
    ("text", "template", "expected"),
    [
        ("/admin*", ("administrator",), True),
        ("/admin*", (ONE,), True),
        ("/admin*", ("adm",), False),
        ("*.html", ("a", "b.html"), True),
        ("*.html", ("a", ONE), True),
        ("*.html", ("a", "b"), False),
        ("/{**}/b", ("x",), True),  # not read, so it may be anything
        ("/a b", (ONE,), True),  # a path of one segment, whatever its characters
        ("/a/b", ("a", "b"), True),
        ("/a/b", (ONE, "b"), False),  # the closed set has /a/b beside it
    ],
)
def test_a_denying_pattern_touches_all_that_it_may_match(text, template, expected):
    assert read_pattern(text).touches(template) is expected


def test_texts_match_as_istio_matches_them():
    assert matches_text("*", "x")
    assert not matches_text("*", "")
    assert matches_text("a*", "a")
    assert matches_text("*a", "ba")
    assert matches_text("a", "a")
    assert not matches_text("a", "A")
    assert not matches_text("a*", "ba")
