# SPDX-License-Identifier: Apache-2.0
"""Paths with a second reading, by name of the flaw."""

from __future__ import annotations

import pytest

from everyhop.authz import AmbiguousPath, CleanPath, PathFlaw, classify_path

GUARDED = frozenset("@:")


@pytest.mark.parametrize(
    ("target", "reason", "at"),
    [
        ("", "not-absolute", 0),
        ("*", "not-absolute", 0),
        ("?", "not-absolute", 0),
        ("?/x", "not-absolute", 0),
        ("admin", "not-absolute", 0),
        ("shop.v1.Orders/Watch", "not-absolute", 0),
        ("http://host/admin", "not-absolute", 0),
        ("@evil/x", "not-absolute", 0),
        (" /x", "not-absolute", 0),
        ("\\x", "not-absolute", 0),
        ("//", "empty-segment", 1),
        ("//admin", "empty-segment", 1),
        ("///admin", "empty-segment", 1),
        ("/a//b", "empty-segment", 3),
        ("/a//", "empty-segment", 3),
        ("/.", "dot-segment", 1),
        ("/./a", "dot-segment", 1),
        ("/a/..", "dot-segment", 3),
        ("/a/../b", "dot-segment", 3),
        ("/a/../", "dot-segment", 3),
        ("/a b", "bad-character", 2),
        ("/a\tb", "bad-character", 2),
        ("/a\n", "bad-character", 2),
        ("/a\x00", "bad-character", 2),
        ("/a\x7f", "bad-character", 2),
        ("/é", "bad-character", 1),
        (b"/\xc3\xa9", "bad-character", 1),
        ("/\uff0fx", "bad-character", 1),
        *((f"/a{c}b", "bad-character", 2) for c in ';\\#<>"{}|^`'),
        ("/..;/a", "bad-character", 3),
        ("/%", "bad-triplet", 1),
        ("/%4", "bad-triplet", 1),
        ("/%/41", "bad-triplet", 1),
        ("/%zz", "bad-triplet", 1),
        ("/%+1", "bad-triplet", 1),
        ("/% 1", "bad-triplet", 1),
        ("/%\u0664\u0661", "bad-triplet", 1),
        ("/%00", "encoded-control", 1),
        ("/x%0a", "encoded-control", 2),
        ("/x%0D", "encoded-control", 2),
        ("/x%7f", "encoded-control", 2),
        ("/a%2fb", "encoded-separator", 2),
        ("/a%2F..%2Fb", "encoded-separator", 2),
        ("/a%5c", "encoded-separator", 2),
        ("/a%3B", "encoded-separator", 2),
        ("/%25", "encoded-percent", 1),
        ("/%252e%252e", "encoded-percent", 1),
        ("/%61dmin", "encoded-unreserved", 1),
        ("/admi%6E", "encoded-unreserved", 5),
        ("/%2e", "encoded-unreserved", 1),
        ("/%2E%2e/x", "encoded-unreserved", 1),
        ("/.%2e/x", "encoded-unreserved", 2),
        ("/%7e", "encoded-unreserved", 1),
        ("/%40me", "encoded-guarded", 1),
        ("/a%3ab", "encoded-guarded", 2),
    ],
)
def test_an_ambiguous_path_has_a_flaw_at_a_place(target, reason, at):
    found = classify_path(target, GUARDED)
    assert found == AmbiguousPath(PathFlaw(reason), at)
    assert found.explanation


@pytest.mark.parametrize(
    ("target", "segments"),
    [
        ("/", ("",)),
        ("/a", ("a",)),
        ("/a/", ("a", "")),
        ("/a/b.c/~d", ("a", "b.c", "~d")),
        ("/...", ("...",)),
        ("/.a/..b/c..", (".a", "..b", "c..")),
        ("/@me/a:b", ("@me", "a:b")),
        ("/[x]!$&'()*+,=", ("[x]!$&'()*+,=",)),
        ("/a%20b/%C3%A9/%ff", ("a%20b", "%C3%A9", "%ff")),
        ("/%24%5B%23%3F", ("%24%5B%23%3F",)),
        (b"/a", ("a",)),
        ("/a?", ("a",)),
        ("/a?b//../%2f;\x00", ("a",)),
    ],
)
def test_a_clean_path_keeps_its_bytes(target, segments):
    found = classify_path(target, GUARDED)
    assert isinstance(found, CleanPath)
    assert found.segments == segments


def test_encoding_is_guarded_only_where_a_route_holds_the_character():
    assert isinstance(classify_path("/%40me", frozenset()), CleanPath)
    assert isinstance(classify_path("/%40me", frozenset("@")), AmbiguousPath)
    assert isinstance(classify_path("/%2a", frozenset("@")), CleanPath)
    assert isinstance(classify_path("/%2a", frozenset("*")), AmbiguousPath)


@pytest.mark.parametrize(
    "target", ["/" + "a" * 1_000_000, "/a" * 500_000, "/" + "%c3" * 300_000 + "%", "/" * 1_000_000]
)
def test_long_paths_take_no_long_time(target):
    classify_path(target, GUARDED)  # the time limit of the test run is the assertion
