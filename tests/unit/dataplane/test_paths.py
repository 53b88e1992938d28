# SPDX-License-Identifier: Apache-2.0
import re

import pytest
from hypothesis import example, given, settings, strategies as st
from tests.strategies import HOSTILE, _hostile

from everyhop.authz import classify_path
from everyhop.authz.paths import CleanPath
from everyhop.dataplane.paths import (
    clean_key_expression,
    template_expression,
    template_path_expression,
    template_prefix,
)
from everyhop.policy.routes import parse_route

GUARDED = (frozenset(), frozenset("@:"), frozenset("!$&'()*+,=:@"))
ALPHABET = "ab./%2eE5Ff40;\\ ?#@:~-_\x00\x7f\u00e9\n"


def same(path, guarded):
    expected = isinstance(classify_path(path, guarded), CleanPath)
    found = re.fullmatch(clean_key_expression(guarded), f"GET {path}", re.ASCII) is not None
    assert found == expected, (path, guarded)


@pytest.mark.parametrize("guarded", GUARDED)
@pytest.mark.parametrize(("name", "pattern"), HOSTILE, ids=[h[0] for h in HOSTILE])
def test_hostile_paths_are_judged_as_the_decision_judges_them(name, pattern, guarded):
    path = _hostile(pattern, "/orders/1")
    if "?" not in path:
        same(path, guarded)


@pytest.mark.parametrize("guarded", GUARDED)
def test_every_byte_alone_and_encoded(guarded):
    for byte in range(256):
        same(f"/a{chr(byte)}b" if chr(byte) != "?" else "/a", guarded)
        same(f"/a%{byte:02x}b", guarded)
        same(f"/a%{byte:02X}", guarded)
        same(f"/%{byte:02x}/", guarded)


@given(
    path=st.text(st.sampled_from([c for c in ALPHABET if c != "?"]), max_size=12).map(lambda t: "/" + t),
    guarded=st.sampled_from(GUARDED),
)
@settings(max_examples=1500, deadline=None)
@example(path="/...", guarded=frozenset())
@example(path="/..a/.b/a..", guarded=frozenset())
@example(path="/%e9/..%41", guarded=frozenset())
@example(path="/", guarded=frozenset())
def test_the_expression_is_the_classification(path, guarded):
    same(path, guarded)


@given(st.text(max_size=10))
@settings(max_examples=300, deadline=None)
def test_whatever_comes_the_two_agree(text):
    if "?" not in text:
        same(text, frozenset("@"))


def test_a_key_has_one_reading():
    """A method that holds a space and a path does not become another request."""
    clean = clean_key_expression(frozenset())
    for key in ("GET /a /b", "GET /a  /b", "GET", "GET ", " /a", "/a", "GET\t/a", "GET /a\n"):
        assert not re.fullmatch(clean, key, re.ASCII)


@pytest.mark.parametrize(
    ("text", "prefix", "matching", "other"),
    [
        (
            "GET /a/{x}",
            "GET /a/",
            ["GET /a/1", "GET /a/%C3%A9"],
            ["GET /a/", "GET /a/1/", "GET /a/1/2", "GET /b/1", "POST /a/1"],
        ),
        ("GET /{x}", "GET /", ["GET /1"], ["GET /", "GET /1/2"]),
        ("GET /a/{rest...}", "GET /a/", ["GET /a/", "GET /a/b/c/"], ["GET /a", "GET /ab"]),
        ("GET /{rest...}", "GET /", ["GET /", "GET /x/y"], ["PUT /"]),
        (
            "PUT /a.b/{x}/c+d/",
            "PUT /a.b/",
            ["PUT /a.b/1/c+d/"],
            ["PUT /aXb/1/c+d/", "PUT /a.b/1/ccd/", "PUT /a.b/1/c+d"],
        ),
        ("GET /(z)/{x}", "GET /(z)/", ["GET /(z)/1"], ["GET /z/1"]),
    ],
)
def test_templates(text, prefix, matching, other):
    route = parse_route(text)
    assert template_prefix(route) == prefix
    expression = template_expression(route)
    assert all(re.fullmatch(expression, key) for key in matching)
    assert not [key for key in other if re.fullmatch(expression, key)]
    assert re.fullmatch(template_path_expression(route), matching[0].split(" ")[1])
