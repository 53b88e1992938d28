# SPDX-License-Identifier: Apache-2.0
"""Routes as expressions: nothing beside the route's clean paths, and programs that Envoy takes."""

import re

import pytest

from everyhop.authz import CleanPath, classify_path
from everyhop.policy.routes import guarded_characters, parse_route
from everyhop.targets.cilium.expressions import MAX_PROGRAM, method_expression, path_expression


def expression(route, *others):
    parsed = parse_route(route)
    return path_expression(parsed, guarded_characters((parsed, *map(parse_route, others))))


def matches(route, path):
    return re.fullmatch(expression(route).text, path) is not None


@pytest.mark.parametrize(
    ("route", "path"),
    [
        ("GET /v1.0/x", "/v1a0/x"),  # the dot is a dot
        ("GET /x", "/xy"),
        ("GET /x", "/x/"),
        ("GET /x", "//x"),
        ("GET /x", "/a/x"),
        ("GET /x", "x"),
        ("GET /x", "/x#y"),
        ("GET /x", "/x;y"),
        ("GET /x/{id}/y", "/x/1?/y"),  # a query is not a segment
        ("GET /x/{id}/y", "/x/1/2/y"),
        ("GET /x/{id}", "/x/"),
        ("GET /x/{id}", "/x/1/"),
        ("GET /x/{id}", "/x/."),
        ("GET /x/{id}", "/x/.."),
        ("GET /x/{id}", "/x/a%2fb"),
        ("GET /x/{id}", "/x/a%2Fb"),
        ("GET /x/{id}", "/x/%5c"),
        ("GET /x/{id}", "/x/%3b"),
        ("GET /x/{id}", "/x/%2e%2e"),
        ("GET /x/{id}", "/x/%61"),
        ("GET /x/{id}", "/x/%25"),
        ("GET /x/{id}", "/x/%00"),
        ("GET /x/{id}", "/x/%7f"),
        ("GET /x/{id}", "/x/%4"),
        ("GET /x/{id}", "/x/%zz"),
        ("GET /x/{id}", "/x/a\nb"),
        ("GET /x/{id}", "/x/a b"),
        ("GET /x/{id}", "/x/a\\b"),
        ("GET /x/{id}", "/x/é"),
        ("GET /x/{rest...}", "/x"),
        ("GET /x/{rest...}", "/x//"),
        ("GET /x/{rest...}", "/x/a//b"),
        ("GET /x/{rest...}", "/x/a/../b"),
        ("GET /x/{rest...}", "/x/a/.."),
        ("GET /x/{rest...}", "/xy/a"),
    ],
)  # fmt: skip
def test_it_refuses(route, path):
    assert not matches(route, path)
    assert not matches(route, path + "?x=1")


@pytest.mark.parametrize(
    ("route", "path"),
    [
        ("GET /", "/"),
        ("GET /x/", "/x/"),
        ("GET /$a(b)*+", "/$a(b)*+"),
        ("GET /x/{id}/y", "/x/1/y"),
        ("GET /x/{id}", "/x/..."),
        ("GET /x/{id}", "/x/.a"),
        ("GET /x/{id}", "/x/a.b."),
        ("GET /x/{id}", "/x/%C3%a9"),
        ("GET /x/{id}", "/x/a%20b"),
        ("GET /x/{id}", "/x/[]"),
        ("GET /x/{rest...}", "/x/"),
        ("GET /x/{rest...}", "/x/a"),
        ("GET /x/{rest...}", "/x/a/b/"),
        ("GET /{rest...}", "/"),
    ],
)
def test_it_accepts_with_and_without_a_query(route, path):
    assert matches(route, path)
    assert matches(route, path + "?")
    assert matches(route, path + "?x=/../y&z=a?b")


def test_a_character_of_a_neighbour_is_not_taken_encoded():
    route = "GET /x/{id}"
    assert re.fullmatch(expression(route).text, "/x/%40me")
    assert not re.fullmatch(expression(route, "GET /@admin").text, "/x/%40me")


@pytest.mark.parametrize("guarded", ["", "@", "$&:", "!$&'()*+,=:@"])
def test_every_byte_of_a_segment_is_taken_just_as_the_engine_takes_it(guarded):
    text = path_expression(parse_route("GET /x/{id}"), frozenset(guarded)).text
    forms = [chr(one) for one in range(256) if chr(one) not in "/?"]
    forms += [f"%{one:02X}" for one in range(256)] + [f"%{one:02x}" for one in range(256)]
    for form in forms:
        for segment in (form, f"a{form}", f"{form}a", f".{form}"):
            clean = isinstance(classify_path(f"/x/{segment}", frozenset(guarded)), CleanPath)
            assert (re.fullmatch(text, f"/x/{segment}") is not None) is clean, segment


def test_head_is_not_get():
    text = method_expression(parse_route("GET /x"))
    assert re.fullmatch(text, "GET")
    assert not any(re.fullmatch(text, other) for other in ("HEAD", "GETX", "get", "", "XGET"))


def test_what_is_literal_before_the_first_parameter_costs_nothing():
    assert expression("GET /a").size == expression("GET /" + "a" * 900).size


def test_a_large_expression_gives_up_encoded_bytes_first():
    found = expression("GET /{a}/{b}/{c}")
    assert found.fits
    assert not found.takes_encoded
    assert re.fullmatch(found.text, "/1/2/3")
    assert not re.fullmatch(found.text, "/1/2/%20")


def test_what_is_larger_still_does_not_fit():
    found = expression("GET /{a}/{b}/{c}/{d}/{e}")
    assert not found.fits
    assert found.size > MAX_PROGRAM
    assert not expression("GET /{a}/" + "b" * 80).fits


def test_texts_say_all_they_match():
    assert expression("GET /{a}/{b}").takes_encoded
    assert expression("GET /a").takes_encoded
