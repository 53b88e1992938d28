# SPDX-License-Identifier: Apache-2.0
"""Which users may get different answers at a door: by what their roles grant there, and by what conditions ask of them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from everyhop.authz.difference import atoms
from everyhop.authz.difference.model import Users

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from everyhop.authz.difference.paths import Pair
    from everyhop.authz.engine import Engine
    from everyhop.conditions import Condition

ROLES: Final = "user.roles"
MAX_ROLES: Final = 24
"""Single roles that are told apart at one door."""

MAX_TOGETHER: Final = 8
MAX_PEOPLE: Final = 16


def user_classes(
    sides: tuple[Engine, Engine], pair: Pair, conditions: Sequence[Condition]
) -> tuple[tuple[Users, ...], str | None]:
    """Return nobody, a user without a role, one for each kind of role, and those of the directory that changed.

    Roles are of one kind when both policies grant the operation to all or to none of them and no condition names
    them.  Pairs of roles are told apart only where a condition reads a user's roles.  What was left out, if anything,
    is said beside them.
    """
    asking = [condition for condition in conditions if ROLES in condition.variables]
    granting = [
        frozenset() if door is None else side.permissions.granting(pair.target, door.name)
        for side, door in zip(sides, (pair.old, pair.new), strict=True)
    ]
    named = {name for condition in asking for name in _named(condition)}
    kinds: dict[object, list[str]] = {}
    for name in sorted(granting[0] | granting[1] | named):
        kind = (name in granting[0], name in granting[1], name if name in named else None)
        kinds.setdefault(kind, []).append(name)
    singles = list(kinds.values())[:MAX_ROLES]
    have_roles = bool(asking) or any(side.permissions.are_asked for side in sides)
    found = [Users(is_nobody=True), Users(is_anybody=not have_roles)]
    found += [Users(roles=(first,), alike=tuple(rest)) for first, *rest in singles]
    if asking:
        found += _together(asking, [first for first, *_ in singles], granting)
    people = _changed_people(sides)
    found += [Users(id=name) for name in people[:MAX_PEOPLE]]
    cut = None
    if len(kinds) > MAX_ROLES or (asking and len(singles) > MAX_TOGETHER):
        cut = (
            f"{len(kinds)} kinds of roles, of which {MAX_ROLES} were told apart, and {MAX_TOGETHER} in pairs"
        )
    elif len(people) > MAX_PEOPLE:
        cut = f"{len(people)} users of the directory differ, of whom {MAX_PEOPLE} were tried"
    return tuple(found), cut


def _named(condition: Condition) -> Iterator[str]:
    for value in atoms.samples_of(condition).get(ROLES, ()):
        if isinstance(value, tuple):
            yield from (name for name in value if not name.startswith("not-"))


def _together(
    asking: Sequence[Condition], singles: Sequence[str], granting: Sequence[frozenset[str]]
) -> Iterator[Users]:
    """Yield sets of roles of which a condition says something that it says of none before."""
    parts = [atom for condition in asking for atom in atoms.atoms_of(condition) if atom.names == {ROLES}]

    def said(roles: tuple[str, ...]) -> tuple[object, ...]:
        truths = (a.condition and a.condition.evaluate({ROLES: roles}).truth for a in parts)
        return (*truths, *(not names.isdisjoint(roles) for names in granting))

    seen = {said(()), *(said((name,)) for name in singles)}
    whole = (
        tuple(value)
        for condition in asking
        for value in atoms.samples_of(condition).get(ROLES, ())
        if isinstance(value, tuple)
    )
    for roles in (*itertools.combinations(singles[:MAX_TOGETHER], 2), *whole):
        if len(roles) > 1 and said(roles) not in seen:
            seen.add(said(roles))
            yield Users(roles=roles)


def _changed_people(sides: tuple[Engine, Engine]) -> list[str]:
    """Return the users of whom the two directories say different things."""
    old, new = (side.snapshot.directory.users for side in sides)
    return [] if old == new else [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
