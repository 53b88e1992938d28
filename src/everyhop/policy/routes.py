# SPDX-License-Identifier: Apache-2.0
"""Route templates: text to :class:`Route`, their order and their overlaps.

The characters of a literal are those that a path carries without percent-encoding (RFC 3986 ``pchar`` without
``%`` and ``;``), so a literal has exactly one spelling on the wire.
"""

from __future__ import annotations

import re
from typing import Final

from everyhop.core.errors import InputError
from everyhop.policy import _grammar as g
from everyhop.policy.model import Route, Segment, SegmentKind

_LITERAL: Final = re.compile(g.LITERAL, re.ASCII)
_PARAMETER: Final = re.compile(r"\{(" + g.PARAMETER_NAME + r")(\.\.\.)?\}", re.ASCII)
_GRPC: Final = re.compile(g.GRPC_METHOD, re.ASCII)
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_RANK: Final = {SegmentKind.LITERAL: 0, SegmentKind.PARAMETER: 1, SegmentKind.REST: 2}


def parse_route(text: str) -> Route:
    """Parse ``METHOD /path``, one space between.  Raises InputError saying what is wrong and how to mend it."""
    method, space, template = text.partition(" ")
    if not space:
        raise InputError(f"{text[:60]!r} is not METHOD /path", hint="for example GET /orders/{id}")
    if method not in g.METHODS:
        if method.upper() in g.METHODS:
            raise InputError(f"methods are case-sensitive: {method!r}", hint=f"write {method.upper()}")
        if method in {"CONNECT", "TRACE"}:
            raise InputError(f"{method} cannot be an operation", hint="it never reaches an application")
        raise InputError(f"unknown method {method[:40]!r}", hint="one of " + ", ".join(g.METHODS[:7]) + ", …")
    if template.startswith(" ") or template.endswith(" "):
        raise InputError("exactly one space belongs between method and path")
    return Route(method=method, segments=parse_template(template))


def parse_grpc(text: str) -> Route:
    """Parse ``package.Service/Method`` into its HTTP/2 route.  Raises InputError."""
    if not _GRPC.fullmatch(text):
        hint = "no leading slash" if text.startswith("/") else "for example shop.v1.Orders/Watch"
        raise InputError(f"{text[:60]!r} is not package.Service/Method", hint=hint)
    return Route(method="POST", segments=parse_template("/" + text))


def parse_template(template: str) -> tuple[Segment, ...]:
    """Parse a path template.  Raises InputError."""
    if not template.startswith("/"):
        raise InputError(f"the path {template[:60]!r} does not start with /")
    if len(template) > g.MAX_TEMPLATE:
        raise InputError(f"a path template has at most {g.MAX_TEMPLATE} characters")
    parts = template[1:].split("/")
    if len(parts) > g.MAX_SEGMENTS:
        raise InputError(f"a path template has at most {g.MAX_SEGMENTS} segments")
    segments = tuple(_segment(part, is_last=i == len(parts) - 1) for i, part in enumerate(parts))
    names = [s.text for s in segments if s.kind is not SegmentKind.LITERAL]
    if len(set(names)) != len(names):
        raise InputError("two parameters of one path have the same name")
    return segments


def _segment(part: str, *, is_last: bool) -> Segment:
    if not part:
        if not is_last:
            raise InputError(
                "the path has an empty segment (//)", hint="it would be refused as ambiguous anyway"
            )
        return Segment(kind=SegmentKind.LITERAL, text="")
    parameter = _PARAMETER.fullmatch(part)
    if parameter:
        if not parameter[2]:
            return Segment(kind=SegmentKind.PARAMETER, text=parameter[1])
        if not is_last:
            raise InputError(f"{part} takes the rest of the path, so it can only be last")
        return Segment(kind=SegmentKind.REST, text=parameter[1])
    if "{" in part or "}" in part:
        raise InputError(
            f"{part[:60]!r} is not a parameter", hint="a parameter is a whole segment: {name} or {name...}"
        )
    if part in {".", ".."}:
        raise InputError(
            f"the path has a dot segment ({part})", hint="it would be refused as ambiguous anyway"
        )
    if not _LITERAL.fullmatch(part):
        bad = next(c for c in part if not _LITERAL.fullmatch(c))
        hints = {"?": "a query is not part of the path", "%": "write the path without percent-encoding"}
        raise InputError(f"the character {bad!r} cannot stand in a path", hint=hints.get(bad))
    return Segment(kind=SegmentKind.LITERAL, text=part)


def shape(route: Route) -> tuple[str, ...]:
    """Return what two routes must not share within a service: method and segments without parameter names."""
    marks = {SegmentKind.PARAMETER: "{}", SegmentKind.REST: "{...}"}
    return route.method, *(marks.get(s.kind, s.text) for s in route.segments)


def specificity(route: Route) -> tuple[int, ...]:
    """Return a sort key: of all routes that match a path, the lowest is the most specific one."""
    return tuple(_RANK[s.kind] for s in route.segments)


def overlaps(left: Route, right: Route) -> bool:
    """Tell whether some clean path matches both templates; methods are not looked at."""
    a, b = left.segments, right.segments
    for i in range(max(len(a), len(b))):
        if i >= len(a) or i >= len(b):
            return False
        kinds = {a[i].kind, b[i].kind}
        if SegmentKind.REST in kinds:
            return True
        if kinds == {SegmentKind.LITERAL} and a[i].text != b[i].text:
            return False
        if kinds == {SegmentKind.LITERAL, SegmentKind.PARAMETER} and not (a[i].text and b[i].text):
            return False  # a parameter is never empty, and an empty literal is nothing else
    return True


def guarded_characters(routes: tuple[Route, ...]) -> frozenset[str]:
    """Return the characters that a path of this service must not carry percent-encoded.

    These are the reserved characters of its literals: with ``/@admin`` declared, ``/%40admin`` would
    match ``/{id}`` here while the application reads the other door.  Unreserved characters are never
    encoded on a clean path, so they are not listed.
    """
    literals = (s.text for r in routes for s in r.segments if s.kind is SegmentKind.LITERAL)
    return frozenset(c for text in literals for c in text if c not in _UNRESERVED)
