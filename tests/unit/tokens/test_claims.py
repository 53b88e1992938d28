# SPDX-License-Identifier: Apache-2.0
"""The quick test of a SPIFFE ID agrees with the one that parses, except that it takes the normal form alone."""

import pytest
from hypothesis import given, strategies as st

from everyhop.core.errors import InputError, TokenError
from everyhop.spiffe import SpiffeId
from everyhop.tokens.access import read_access_claims
from everyhop.tokens.claims import is_digest, is_workload, scopes

PIECES = st.sampled_from(
    [
        "spiffe://",
        "SPIFFE://",
        "a",
        "shop.example",
        "/",
        "//",
        ".",
        "..",
        "service",
        "%",
        "?",
        "#",
        "\n",
        "é",
        "A",
        "_",
        "-",
    ]
)


def parsed(text):
    try:
        found = SpiffeId.parse(text)
    except InputError:
        return False
    return found.has_path and str(found) == text


@given(st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=30))
def test_it_agrees_with_the_parser(text):
    for candidate in (text, f"spiffe://shop.example/{text}", f"spiffe://{text}"):
        assert is_workload(candidate) == parsed(candidate)


@pytest.mark.parametrize("text", ["spiffe://a/b", "spiffe://a/.b", "spiffe://a/...", "spiffe://a/b/..c"])
def test_dots_may_be_part_of_a_name(text):
    assert is_workload(text)
    assert parsed(text)


@pytest.mark.parametrize("text", ["A" * 42, "A" * 44, "A" * 42 + "B", "A" * 42 + "=", "A" * 42 + "\n", ""])
def test_digests(text):
    assert not is_digest(text)


def test_scopes():
    assert scopes("") == frozenset()
    assert scopes("a b a") == {"a", "b"}


@pytest.mark.parametrize(
    "payload",
    [b'{"act":' * 1200, b'{"x":' + b"[" * 8000, b'{"act":{"sub":"a","act":' * 300 + b"1" + b"}}" * 300],
)
def test_depth_is_refused_by_the_reader_itself(payload):
    with pytest.raises(TokenError) as refusal:
        read_access_claims(payload, "k")
    assert refusal.value.token_code == "TOKEN_MALFORMED"
