# SPDX-License-Identifier: Apache-2.0
"""Paths and methods as Istio's rules write them, in the words of the policy.

Istio: exact, ``prefix*`` and ``*suffix`` by character, ``*`` for whatever is there, ``{*}`` for one segment and a last ``{**}``
for the rest (istio.io, reference of AuthorizationPolicy, ``paths``).  For a rule that allows, a pattern becomes templates inside
it; for a rule that denies, a test which is never wrongly no.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError
from everyhop.importing.templates import (
    EVERYTHING,
    ONE,
    REST,
    Template,
    contains,
    may_be,
    may_end,
    may_start,
    meet,
    read_template,
)
from everyhop.policy.routes import parse_template

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_LEADING: Final = 3
"""A suffix is carried over behind at most so many segments of any name."""


@dataclass(frozen=True, slots=True)
class Inside:
    """Templates inside a pattern; ``lost`` says what of it they leave out, empty for nothing."""

    templates: tuple[Template, ...]
    lost: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern, to be tried on templates that are closed under intersection with its own.

    There a template lies either inside one of an exact pattern's templates or, but for what is more specific, outside of all.
    """

    text: str
    templates: tuple[Template, ...]
    lost: str
    code: str

    def covers(self, template: Template) -> bool:
        """Tell whether the pattern matches every path of a template; never wrongly yes."""
        return any(contains(one, template) for one in self.templates)

    def touches(self, template: Template) -> bool:
        """Tell whether the pattern matches some path of a template; never wrongly no."""
        return self.covers(template) or (bool(self.lost) and touches(self.text)(template))


def read_pattern(text: str) -> Pattern:
    """Read one of Istio's patterns; any text is one."""
    found = inside(text)
    return Pattern(text, found.templates, found.lost, found.code)


def inside(pattern: str) -> Inside:
    """Return the templates of a pattern, none of which matches a path that the pattern does not."""
    if pattern == "*":
        return Inside((EVERYTHING,))
    if "{*}" in pattern or "{**}" in pattern:
        return _templated(pattern)
    if pattern.startswith("*"):
        return _behind(pattern[1:])
    if pattern.endswith("*"):
        return _before(pattern[:-1])
    return _one(pattern, pattern)


def _one(text: str, pattern: str) -> Inside:
    try:
        template = tuple(segment.text for segment in parse_template(text))
        if "{" in text or "}" in text:
            raise InputError("braces")
    except InputError:
        return Inside((), f"no operation can have the path {pattern!r}", "path")
    return Inside((template,))


def _templated(pattern: str) -> Inside:
    text = "/".join(
        {"{*}": f"{{p{index}}}", "{**}": "{rest...}"}.get(part, part)
        for index, part in enumerate(pattern.split("/"))
    )
    try:
        return Inside((read_template(text),))
    except InputError as error:
        return Inside((), f"the template {pattern!r} cannot be written: {error.message}", "path-template")


def _before(prefix: str) -> Inside:
    if prefix in {"", "/"}:
        return Inside((EVERYTHING,))
    if prefix.endswith("/"):
        found = _one(prefix, prefix + "*")
        return Inside(tuple((*template[:-1], REST) for template in found.templates), found.lost, found.code)
    found = _one(prefix, prefix + "*")
    if found.lost:
        return found
    template = found.templates[0]
    lost = f"{prefix + '*'!r} goes on within a segment too, as in {prefix + 'x'!r}"
    return Inside((template, (*template, REST)), lost, "path-prefix")


def _behind(suffix: str) -> Inside:
    if not suffix.startswith("/"):
        return Inside((), f"{'*' + suffix!r} ends a segment of any name", "path-suffix")
    found = _one(suffix, "*" + suffix)
    if found.lost:
        return found
    template = found.templates[0]
    templates = tuple((ONE,) * leading + template for leading in range(MAX_LEADING + 1))
    return Inside(
        templates, f"{'*' + suffix!r} may stand behind more than {MAX_LEADING} segments", "path-suffix"
    )


def touches(pattern: str) -> Callable[[Template], bool]:
    """Return a test of whether a pattern may match a path of a template; it is never wrongly no."""
    if pattern in {"*", "/*"}:
        return lambda _: True
    if "{*}" in pattern or "{**}" in pattern:
        found = _templated(pattern).templates
        return (lambda template: meet(found[0], template) is not None) if found else (lambda _: True)
    if pattern.startswith("*"):
        return lambda template: may_end(template, pattern[1:])
    if pattern.endswith("*"):
        return lambda template: may_start(template, pattern[:-1])
    return lambda template: may_be(template, pattern)


def matches_text(pattern: str, value: str) -> bool:
    """Tell whether one of Istio's string patterns matches a value: exact, ``prefix*``, ``*suffix``, or ``*`` for not empty."""
    if pattern == "*":
        return bool(value)
    if pattern.startswith("*"):
        return value.endswith(pattern[1:])
    if pattern.endswith("*"):
        return value.startswith(pattern[:-1])
    return value == pattern
