# SPDX-License-Identifier: Apache-2.0
"""Paths as Envoy 1.40 was measured to see them."""

import pytest

from everyhop.core.errors import InputError
from everyhop.evaluators.envoy_paths import (
    EscapedSlashes,
    Normalization,
    canonical,
    normalized,
    template_pattern,
)

BASE = Normalization.BASE
DECODE = Normalization.DECODE_AND_MERGE_SLASHES


@pytest.mark.parametrize(
    ("raw", "none", "base", "merged", "decoded"),
    [
        ("/a/../b", "/a/../b", "/b", "/b", "/b"),
        ("/a/%2e%2E/b", "/a/%2e%2E/b", "/b", "/b", "/b"),
        ("/a/.", "/a/.", "/a/", "/a/", "/a/"),
        ("/a/..", "/a/..", "/", "/", "/"),
        ("/../x", "/../x", "/x", "/x", "/x"),
        ("/a///", "/a///", "/a///", "/a/", "/a/"),
        ("//..//a", "//..//a", "//a", "/a", "/a"),
        ("/a//../b", "/a//../b", "/a/b", "/a/b", "/a/b"),
        ("/a%2Fb", "/a%2Fb", "/a%2Fb", "/a%2Fb", "/a/b"),
        ("/a%5cb", "/a%5cb", "/a%5cb", "/a%5cb", "/a/b"),
        ("/a\\b", "/a\\b", "/a/b", "/a/b", "/a/b"),
        ("/a%2f..%2fb", "/a%2f..%2fb", "/a%2f..%2fb", "/a%2f..%2fb", "/b"),
        ("/a/%2e%2e%2fb", "/a/%2e%2e%2fb", "/a/..%2fb", "/a/..%2fb", "/b"),
        ("/a%zz%", "/a%zz%", "/a%zz%", "/a%zz%", "/a%zz%"),
        ("/%%41a", "/%%41a", "/%25Aa", "/%25Aa", "/%25Aa"),
        ("/%%34%31", "/%%34%31", "/%2541", "/%2541", "/%2541"),
        ("//", "//", "//", "//", "//"),
        ("///?a", "///?a", "///?a", "//?a", "//?a"),
        ("/a%2541", "/a%2541", "/a%2541", "/a%2541", "/a%2541"),
        ("/%41%7e%2D", "/%41%7e%2D", "/A~-", "/A~-", "/A~-"),
        ('/a"<>^`{|}', '/a"<>^`{|}', "/a%22%3C%3E%5E%60%7B%7C%7D", "/a%22%3C%3E%5E%60%7B%7C%7D", "/a%22%3C%3E%5E%60%7B%7C%7D"),
        ("/a[;]", "/a[;]", "/a[;]", "/a[;]", "/a[;]"),
        ("/a/..?x=/../b//c", "/a/..?x=/../b//c", "/?x=/../b//c", "/?x=/../b//c", "/?x=/../b//c"),
        ("/a/...", "/a/...", "/a/...", "/a/...", "/a/..."),
        ("http://h/x/../y", "/x/../y", "/y", "/y", "/y"),
        ("/a%00", "/a%00", None, None, None),
        ("/a#b", None, None, None, None),
        ("/é", None, None, None, None),
        ("*", None, None, None, None),
        ("", None, None, None, None),
        ("a/b", None, None, None, None),
    ],
)  # fmt: skip
def test_normalisation(raw, none, base, merged, decoded):
    found = [normalized(raw, how) for how in Normalization]
    assert found == [none, base, merged, decoded]


def test_escaped_slashes_can_be_refused():
    def refusing(path):
        return canonical(path, normalizes=True, merges=True, escaped=EscapedSlashes.REJECT)

    assert [refusing(path) for path in ("/a%2Fb", "/a%5Cb", "/a?b=%2f", "/a//b")] == [
        None,
        None,
        "/a?b=%2f",
        "/a/b",
    ]


@pytest.mark.parametrize(
    ("template", "path", "matches"),
    [
        ("/t/*/x", "/t/a/x", True),
        ("/t/*/x", "/t//x", False),
        ("/t/*/x", "/t/a/b/x", False),
        ("/t/*/x", "/t/a%2fb/x", True),
        ("/t/*/x", "/t/a;b=c*/x", True),
        ("/t/*/x", "/t/a|b/x", False),
        ("/t/*/x", "/t/a\nb/x", False),
        ("/g/**", "/g", False),
        ("/g/**", "/g/", True),
        ("/g/**", "/g//a", True),
        ("/**/end", "/a/b/end", True),
        ("/a.b/*", "/axb/c", False),
        ("/a/", "/a/", True),
    ],
)
def test_templates(template, path, matches):
    assert (template_pattern(template).fullmatch(path) is not None) is matches


@pytest.mark.parametrize("template", ["a/*", "/**/*", "/**/**", "/a*", "/a//b", "/a|b", "/{x}", "/a b"])
def test_templates_that_envoy_would_not_load_are_refused(template):
    with pytest.raises(InputError):
        template_pattern(template)
