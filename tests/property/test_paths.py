# SPDX-License-Identifier: Apache-2.0
"""Path classification against an independent one, over any text and over every byte."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st
from tests.reference_decision import is_clean
from tests.strategies import HOSTILE, LITERALS

from everyhop.authz import AmbiguousPath, CleanPath, classify_path

GUARDED = frozenset("@:+(")

PIECES = st.sampled_from(
    [
        "/",
        "//",
        ".",
        "..",
        "%2e",
        "%2F",
        "%25",
        "%40",
        "%41",
        "%5B",
        "%c3",
        "%",
        "%4",
        ";",
        "\\",
        "a",
        "Z9",
        "@",
        "?",
        "~",
        "\x00",
        "é",
        " ",
    ]
) | st.characters(max_codepoint=0x180)


@given(st.lists(PIECES, max_size=12).map("".join), st.frozensets(st.sampled_from("!$&'()*+,=:@")))
@example("/" * 1000, GUARDED)
@example("/a" * 4000 + "/..", GUARDED)
@example("/" + "%c3" * 3000 + "%", GUARDED)
def test_it_agrees_with_an_independent_reading(tail, guarded):
    for target in (tail, "/" + tail):
        found = classify_path(target, guarded)
        assert isinstance(found, CleanPath) == is_clean(target, "".join(guarded)), target
        if isinstance(found, CleanPath):
            assert found.text == target.split("?")[0]
            assert "/" + "/".join(found.segments) == found.text
        else:
            assert 0 <= found.at <= len(target)
            assert found.explanation


@given(st.binary(max_size=40))
def test_bytes_are_read_one_character_each(target):
    assert classify_path(target, GUARDED) == classify_path(target.decode("latin-1"), GUARDED)


@pytest.mark.parametrize("byte", range(256))
@pytest.mark.parametrize("spelling", ["02x", "02X"])
def test_every_byte_raw_and_encoded(byte, spelling):
    for target in (f"/x{chr(byte)}y", f"/x%{byte:{spelling}}y"):
        assert isinstance(classify_path(target, GUARDED), CleanPath) == is_clean(target, "".join(GUARDED)), (
            target
        )


def test_the_hostile_patterns_are_ambiguous_or_another_path():
    path = "/admin/users"
    fills = {"path": path, "bare": path[1:], "upper": "/ADMIN", "swapped": "/ADMIN", "shortened": path}
    fills |= {"encoded_first": "/%61dmin", "encoded_last": "/admi%6e", "encoded_reserved": "/%40x"}
    harmless = {"upper case", "swapped case", "trailing slash", "slash missing", "query", "query with dots"}
    harmless |= {
        "double slash in front",
        "triple slash in front",
    }  # one slash less in front of {path} would be clean
    harmless |= {"query encoded", "fragment encoded", "overlong slash"}  # clean, and not the protected path
    for name, pattern in HOSTILE:
        target = pattern.format(**fills)
        found = classify_path(target, frozenset("".join(LITERALS)))
        if name not in harmless:
            assert isinstance(found, AmbiguousPath), name
        elif isinstance(found, CleanPath) and not name.startswith(("query with", "query", "slash missing")):
            assert found.text != path, name
