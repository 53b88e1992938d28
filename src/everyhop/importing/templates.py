# SPDX-License-Identifier: Apache-2.0
"""Sets of paths as the policy writes them, with their inclusion and intersection.

A call belongs to the most specific operation that matches it.  Where a service has, for each two templates that overlap, their
intersection as an operation too, the most specific match of a path is the intersection of all that match it.  So a rule about a
template is carried over exactly by naming every operation whose template lies inside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError
from everyhop.policy.model import SegmentKind
from everyhop.policy.routes import parse_template

if TYPE_CHECKING:
    from collections.abc import Iterable

ONE: Final = "{}"
REST: Final = "{...}"
Template = tuple[str, ...]
"""Segments: a literal, :data:`ONE` for exactly one segment, :data:`REST` (last) for whatever follows the slash."""

EVERYTHING: Final[Template] = (REST,)
MAX_TEMPLATES: Final = 400
_MARKS: Final = {SegmentKind.PARAMETER: ONE, SegmentKind.REST: REST}


def read_template(text: str) -> Template:
    """Read a path template of the policy language.  Raises InputError for what the language cannot say."""
    return tuple(_MARKS.get(segment.kind, segment.text) for segment in parse_template(text))


def write_template(template: Template) -> str:
    """Return the text of a template; its parameters are called p1, p2 and rest."""
    segments = []
    for index, segment in enumerate(template, 1):
        segments.append(f"{{p{index}}}" if segment == ONE else "{rest...}" if segment == REST else segment)
    return "/" + "/".join(segments)


def contains(wide: Template, narrow: Template) -> bool:
    """Tell whether every path of ``narrow`` is one of ``wide``."""
    for index, segment in enumerate(wide):
        if segment == REST:
            return len(narrow) > index
        if index >= len(narrow) or narrow[index] == REST:
            return False
        if segment == ONE:
            if not narrow[index]:
                return False
        elif segment != narrow[index]:
            return False
    return len(wide) == len(narrow)


def meet(left: Template, right: Template) -> Template | None:
    """Return the template of the paths that are in both, or None where there is none."""
    found: list[str] = []
    for index in range(max(len(left), len(right))):
        if index >= len(left) or index >= len(right):
            return None
        a, b = left[index], right[index]
        if a == REST:
            return (*found, *right[index:])
        if b == REST:
            return (*found, *left[index:])
        if a == ONE and b:
            found.append(b)
        elif a == b or (b == ONE and a):
            found.append(a)
        else:
            return None
    return tuple(found)


def closed(templates: Iterable[Template]) -> list[Template]:
    """Return the templates with all their intersections, sorted.  Raises InputError where that would be too many."""
    found = set(templates)
    queue = sorted(found)
    while queue:
        one = queue.pop()
        new = {both for other in found if (both := meet(one, other)) is not None} - found
        found |= new
        queue += sorted(new)
        if len(found) > MAX_TEMPLATES:
            raise InputError(
                f"the paths of one service overlap in more than {MAX_TEMPLATES} ways",
                hint="import its rules in parts",
            )
    return sorted(found)


def example(template: Template) -> str:
    """Return a path that the template matches."""
    return "/" + "/".join({ONE: "x1", REST: "x2"}.get(segment, segment) for segment in template)


def may_start(template: Template, prefix: str) -> bool:
    """Tell whether some path of the template starts with a text; never wrongly no."""
    if not prefix.startswith("/"):
        return not prefix
    *whole, last = prefix[1:].split("/")
    for index, part in enumerate(whole):
        if index >= len(template):
            return False
        if template[index] == REST:
            return True
        if not (bool(part) if template[index] == ONE else template[index] == part):
            return False
    if len(whole) >= len(template):
        return False
    segment = template[len(whole)]
    return segment in {ONE, REST} or segment.startswith(last)


def may_end(template: Template, suffix: str) -> bool:
    """Tell whether some path of the template ends with a text; never wrongly no."""
    if template[-1] == REST:
        return True
    first, *whole = suffix.split("/")
    for index, part in enumerate(reversed(whole), 1):
        if index > len(template):
            return False
        segment = template[-index]
        if not (bool(part) if segment == ONE else segment == part):
            return False
    if len(whole) >= len(template):
        return not first and len(whole) == len(template)
    segment = template[-1 - len(whole)]
    return segment == ONE or segment.endswith(first)


def may_be(template: Template, path: str) -> bool:
    """Tell whether the template matches one path, whatever characters it has."""
    if not path.startswith("/"):
        return False
    parts = path[1:].split("/")
    for index, segment in enumerate(template):
        if segment == REST:
            return len(parts) > index
        if index >= len(parts) or not (bool(parts[index]) if segment == ONE else segment == parts[index]):
            return False
    return len(parts) == len(template)
