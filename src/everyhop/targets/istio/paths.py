# SPDX-License-Identifier: Apache-2.0
"""Routes in the words of an AuthorizationPolicy: an exact path or a template of whole segments, never a prefix or a suffix.

Istio has no order among rules, so a template also matches the paths of narrower routes; those are taken off by ``notPaths``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.policy.model import SegmentKind
from everyhop.policy.routes import overlaps, specificity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from everyhop.policy.model import Route, Segment
    from everyhop.targets.intents import Door

_TEMPLATES: Final = {SegmentKind.PARAMETER: "{*}", SegmentKind.REST: "{**}"}
_STAR: Final = "*"


def pattern(route: Route) -> str | None:
    """Return the path of an operation that matches the route, or None where Istio cannot say it.

    A ``*`` of a literal is a wildcard at the end of a path and no literal of a template.  ``{*}`` is one segment that is not empty,
    ``{**}`` what follows the slash, also nothing, as ours are; both take ambiguous paths too, which is a feature of its own.
    """
    if any(segment.kind is SegmentKind.LITERAL and _STAR in segment.text for segment in route.segments):
        return None
    return "/" + "/".join(map(_segment, route.segments))


def excluded(door: Door, doors: Iterable[Door]) -> tuple[str, ...] | None:
    """Return the paths of narrower doors of the same method that the door's own path would match too, sorted.

    None where one of them cannot be said: the door then cannot be opened without opening the other.
    """
    if door.operation is None or door.operation.route.is_literal:
        return ()
    own = door.operation.route
    found = set[str]()
    for other in doors:
        if other is door or other.operation is None:
            continue
        route = other.operation.route
        if route.method == own.method and specificity(route) < specificity(own) and overlaps(route, own):
            text = pattern(route)
            if text is None:
                return None
            found.add(text)
    return tuple(sorted(found))


def _segment(segment: Segment) -> str:
    return _TEMPLATES.get(segment.kind, segment.text)
