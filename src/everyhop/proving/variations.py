# SPDX-License-Identifier: Apache-2.0
"""How a request can nearly be the one that a route means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from everyhop.policy.model import SegmentKind
from everyhop.targets.model import Feature

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from everyhop.policy.model import Operation, Route

SAMPLE: Final = "s1"
_REST: Final = "r1/r2"
_LONG: Final = 3000
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "EVIL")


class PathVariation(NamedTuple):
    """A path, in which way it differs, and the feature that it is about."""

    path: str
    words: str
    aspect: Feature


def plain_path(route: Route, parameters: Mapping[str, str] | None = None) -> str:
    """Return a path that a template means, with a short text for each parameter."""
    stated = parameters or {}
    return "/" + "/".join(
        one.text
        if one.kind is SegmentKind.LITERAL
        else stated.get(one.text, SAMPLE if one.kind is SegmentKind.PARAMETER else _REST)
        for one in route.segments
    )


def path_variations(operation: Operation) -> Iterator[PathVariation]:
    """Yield paths near a route's, each with one thing about it; some of them are still its own or another route's."""
    route = operation.route
    path = plain_path(route)
    parts = path[1:].split("/")
    for changed, words in _by_segment(path, parts):
        yield PathVariation(changed, words, Feature.ROUTE)
    for changed, words in _by_character(path):
        yield PathVariation(changed, words, Feature.ROUTE)
    for changed, words in _ambiguous(path, parts):
        yield PathVariation(changed, words, Feature.AMBIGUOUS_PATHS)
    for query, words in (
        ("?", "an empty query"),
        ("?a=1&b=/../c", "a query"),
        ("?/x", "a query with a slash"),
    ):
        yield PathVariation(path + query, words, Feature.ROUTE)
    for one in route.segments:
        if one.kind is not SegmentKind.LITERAL:
            yield from _parameters(route, one.text, is_rest=one.kind is SegmentKind.REST)


def _by_segment(path: str, parts: list[str]) -> Iterator[tuple[str, str]]:
    yield path + "/x", "one segment more"
    yield "/x" + path, "one segment before"
    yield path + path, "twice"
    if not path.endswith("/"):
        yield path + "/", "a slash at the end"
    if len(parts) > 1:
        yield "/" + "/".join(parts[:-1]), "one segment less"
    if path.endswith("/") and len(path) > 1:
        yield path.rstrip("/"), "no slash at the end"
    for index, part in enumerate(parts):
        if part:
            yield "/" + "/".join([*parts[:index], "x", *parts[index:]]), f"one segment more before {part}"


def _by_character(path: str) -> Iterator[tuple[str, str]]:
    yield path + "x", "one character more"
    if len(path) > 2:  # noqa: PLR2004  # something is left
        yield path[:-1], "one character less"
        yield "/x" + path[1:], "one character more at the start"
    if path != path.upper():
        yield path.upper(), "in upper case"
        yield path[:1] + path[1:].capitalize(), "with a capital"
    for character in ".-_~":
        if character in path:
            yield path.replace(character, "x", 1), f"another character in place of {character}"


def _ambiguous(path: str, parts: list[str]) -> Iterator[tuple[str, str]]:
    last = parts[-1]
    head = path[: len(path) - len(last)]
    yield "/" + path, "a second slash at the start"
    yield path + "//", "two slashes at the end"
    yield head + "/" + last, "two slashes"
    yield head + "./" + last, "a dot segment"
    yield head + "x/../" + last, "a segment that is taken back"
    yield path + "/..", "the last segment taken back"
    yield path + "/.", "a dot at the end"
    yield path + "/%2e%2e/x", "encoded dots"
    yield path + ";x=1", "a path parameter"
    yield path + "%00", "an encoded zero"
    yield path + "%0a", "an encoded line feed"
    yield path + "\\", "a backslash"
    yield path + "%2f", "an encoded slash at the end"
    if len(parts) > 1 and head != "/":
        yield head[:-1] + "%2F" + last, "an encoded slash"
        yield head[:-1] + "\\" + last, "a backslash for a slash"
    if last:
        yield head + f"%{ord(last[0]):02X}" + last[1:], "an encoded letter"
        yield head + f"%25{ord(last[0]):02X}" + last[1:], "an encoded percent"


def _parameters(route: Route, name: str, *, is_rest: bool) -> Iterator[PathVariation]:
    feature = Feature.REST if is_rest else Feature.PARAMETER
    for text, words in (
        ("a", "a short value"),
        ("A-Z_0.9~", "a value with marks"),
        ("x" * _LONG, "a long value"),
    ):
        yield PathVariation(plain_path(route, {name: text}), f"{words} of {name}", feature)
    yield PathVariation(plain_path(route, {name: ""}), f"nothing for {name}", feature)
    yield PathVariation(
        plain_path(route, {name: "a%20b"}), f"an encoded blank in {name}", Feature.AMBIGUOUS_PATHS
    )
    yield PathVariation(
        plain_path(route, {name: "a:b@c"}), f"reserved characters in {name}", Feature.AMBIGUOUS_PATHS
    )
    for text, words in (
        ("a%2Fb", "an encoded slash"),
        ("a%5Cb", "an encoded backslash"),
        ("a%25b", "an encoded percent"),
        ("..", "two dots"),
        ("%2e%2e", "two encoded dots"),
        ("a;b", "a semicolon"),
    ):
        yield PathVariation(plain_path(route, {name: text}), f"{words} in {name}", Feature.AMBIGUOUS_PATHS)
    if is_rest:
        yield PathVariation(
            plain_path(route, {name: "a/../../b"}), f"segments taken back in {name}", Feature.AMBIGUOUS_PATHS
        )
        yield PathVariation(plain_path(route, {name: "a/b/c/"}), f"a slash at the end of {name}", feature)
    else:
        yield PathVariation(plain_path(route, {name: "a/b"}), f"two segments for {name}", feature)


def method_variations(operation: Operation, others: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield other methods than the route's, ``others`` those of the service's other routes among them."""
    own = operation.route.method
    for method in (*METHODS, *sorted(others - set(METHODS))):
        if method != own:
            yield method, f"{method} in place of {own}"
    yield own.lower(), f"{own} in lower case"
    yield own + "X", f"{own} with a letter more"
    yield own[:-1] or "X", f"{own} with a letter less"
    yield "X" + own, f"{own} with a letter before"
