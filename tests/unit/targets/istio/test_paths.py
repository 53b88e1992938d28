# SPDX-License-Identifier: Apache-2.0
"""Routes as Istio's paths: what cannot be said is refused, what a template would match too is taken off."""

import pytest

from everyhop.policy import parse_policy
from everyhop.policy.routes import parse_route
from everyhop.targets.intents import Intents
from everyhop.targets.istio.paths import excluded, pattern


@pytest.mark.parametrize("route", ["GET /a*", "GET /*", "GET /a*b", "GET /a/*/{id}", "GET /{id}/b*"], ids=str)
def test_a_star_of_a_literal_is_never_written(route):
    assert pattern(parse_route(route)) is None


@pytest.mark.parametrize(
    ("route", "path"),
    [
        ("GET /", "/"),
        ("POST /v1/payments", "/v1/payments"),
        ("GET /a/", "/a/"),
        ("GET /a/{id}", "/a/{*}"),
        ("GET /a/{id}/", "/a/{*}/"),
        ("GET /{x}/b/{y}", "/{*}/b/{*}"),
        ("GET /files/{path...}", "/files/{**}"),
        ("GET /{path...}", "/{**}"),
        ("GET /q/(a)'!$&+,=@~/{id}", "/q/(a)'!$&+,=@~/{*}"),
    ],
)
def test_a_route_is_an_exact_path_or_a_template_of_whole_segments(route, path):
    assert pattern(parse_route(route)) == path


def doors_of(*routes):
    operations = "".join(f"\n      o{n}: {route}" for n, route in enumerate(routes))
    text = (
        f"version: 1\ntrust_domain: shop.example\nservices:\n  a:\n    operations:{operations}\nallow:\n"
        "  - {from: a, to: a, operations: all}\n"
    )
    doors = Intents(parse_policy({"p.yaml": text.encode()})).of("a").doors
    return {str(door.operation.route): door for door in doors}


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        ("GET /o/{id}", ["GET /o/export"], ("/o/export",)),
        ("GET /o/{id}", ["POST /o/export", "GET /p/x", "GET /o/a/b"], ()),
        ("GET /o/{id}/x", ["GET /o/mine/{part}"], ("/o/mine/{*}",)),
        ("GET /{rest...}", ["GET /a", "GET /a/{id}", "GET /b/{p...}"], ("/a", "/a/{*}", "/b/{**}")),
        ("GET /o/{id}", ["GET /{rest...}"], ()),
        ("GET /o/export", ["GET /o/{id}"], ()),
    ],
    ids=["literal", "others", "crossing", "rest", "wider", "own-literal"],
)
def test_narrower_doors_are_taken_off(own, others, expected):
    doors = doors_of(own, *others)
    assert excluded(doors[own], doors.values()) == expected


def test_a_door_that_would_open_one_that_cannot_be_said_stays_shut():
    doors = doors_of("GET /o/{id}", "GET /o/a*")
    assert excluded(doors["GET /o/{id}"], doors.values()) is None
    assert excluded(doors["GET /o/a*"], doors.values()) == ()
