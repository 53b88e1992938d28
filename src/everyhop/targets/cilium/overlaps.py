# SPDX-License-Identifier: Apache-2.0
"""Where a route's expression would reach into a more specific route of the same service.

In the policy ``GET /orders/search`` is another door than ``GET /orders/{id}``.  Cilium adds rules up, has no deny at layer 7, and RE2
has no way to say "but not that" in a small program.  So whoever may pass the wide door and not the narrow one cannot be given the
wide one, unless something beside Cilium tells the two apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.policy.routes import overlaps, specificity
from everyhop.targets.model import Feature

if TYPE_CHECKING:
    from everyhop.targets.intents import Door
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.reach import Opened
    from everyhop.targets.view import View


def without_overlaps(
    view: View, doors: tuple[Door, ...], opened: list[Opened]
) -> tuple[list[Opened], list[Diagnostic]]:
    """Take off the grants of a service that would open a more specific door as well.

    ``doors`` are all doors of the service, ``opened`` those that may be opened, with their grants.
    """
    callers = {door.name: {grant.caller for grant in grants} for door, grants in opened}
    kept: list[Opened] = []
    said: list[Diagnostic] = []
    holder = view.held_beside(Feature.ROUTE)
    for door, grants in opened:
        shut: set[str] = set()
        for other in doors:
            if _takes_from(other, door):
                lacking = {grant.caller for grant in grants} - callers.get(other.name, set())
                if lacking:
                    said.append(_said(view, door, other, lacking, holder))
                    shut |= lacking
        left = grants if holder else tuple(grant for grant in grants if grant.caller not in shut)
        if left:
            kept.append((door, left))
    return kept, said


def _takes_from(narrow: Door, wide: Door) -> bool:
    """Tell whether some path that the wide route matches belongs to the narrow one."""
    if narrow is wide or narrow.operation is None or wide.operation is None:
        return False
    one, other = narrow.operation.route, wide.operation.route
    return one.method == other.method and specificity(one) < specificity(other) and overlaps(one, other)


def _said(view: View, wide: Door, narrow: Door, callers: set[str], holder: str | None) -> Diagnostic:
    many = ", ".join(sorted(callers))
    message = f"Cilium cannot open {wide} to {many} without {narrow}, which it may not call: the paths of the one contain the other's"
    if holder is not None:
        return view.warning("overlap", f"{message}; {holder} tells them apart", door=wide)
    hint = f"open both to the same callers, give {narrow} a path of its own, or name in `with` what tells them apart"
    return view.error("overlap", message, door=wide, suggestion=hint)
