# SPDX-License-Identifier: Apache-2.0
"""What a change of policy changes, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from everyhop.core.decision import Decision
    from everyhop.policy.facts import Context


class Direction(StrEnum):
    """What becomes of an answer."""

    GAINED = "gained"  # it was denied and will be allowed
    LOST = "lost"


class Weight(StrEnum):
    """Whether a change that is no answer lets more in."""

    LOOSER = "looser"
    TIGHTER = "tighter"
    UNSURE = "unsure"  # it cannot be told, so it counts as looser


class Group(StrEnum):
    """Which callers a change is about."""

    SERVICES = "services"  # those that are named
    OTHERS = "others"  # any other declared service
    ADDED = "added"  # services that only the new policy declares
    REMOVED = "removed"  # services that only the old policy declares
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """Callers that get the same answers at a door: how many, and the names of some (at most 20), sorted."""

    group: Group
    names: tuple[str, ...]
    count: int

    def __str__(self) -> str:
        if self.group is Group.OUTSIDE:
            return "outside"
        shown = ", ".join(self.names[:3]) + (f" and {self.count - 3} more" if self.count > 3 else "")  # noqa: PLR2004
        if self.group is Group.OTHERS and self.count > 1:
            return f"any other declared service ({self.count}, e.g. {self.names[0]})"
        return {
            Group.ADDED: f"{shown} (new)",
            Group.REMOVED: f"{shown} (no longer declared)",
        }.get(self.group, shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """For whom a call is made: nobody, or a user with all of ``roles``; ``alike`` are names that stand for the same.

    ``id`` is set for one user of the directory.
    """

    roles: tuple[str, ...] = ()
    alike: tuple[str, ...] = ()
    is_nobody: bool = False
    is_anybody: bool = False  # roles count for nothing here
    id: str | None = None

    def __str__(self) -> str:
        if self.is_nobody:
            return "without a user"
        if self.id is not None:
            return f"for the user {self.id}"
        if self.is_anybody:
            return "for a user"
        if not self.roles:
            return "for a user without a role here"
        names = " or ".join((*self.roles, *self.alike)) if len(self.roles) == 1 else " and ".join(self.roles)
        return f"for a user with role {names}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One request whose answer changes, as both engines decided it.

    ``method`` and ``path`` are None for a connection to a tcp service; ``caller`` is a SPIFFE ID or ``outside``.
    """

    caller: str
    target: str
    method: str | None
    path: str | None
    context: Context
    before: Decision
    after: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Answers that change alike.

    ``before`` and ``after`` name the operation that the request comes to under each policy (None: none).  ``users`` of
    None means whoever the user is.  ``depends`` tells that the answer hangs on facts that the example states.
    """

    direction: Direction
    callers: Callers
    target: str
    before: str | None
    after: str | None
    users: Users | None
    depends: bool
    example: Example

    @property
    def door(self) -> str:
        """Return the operation as a reader of the new policy knows it."""
        return self.after or self.before or "(no operation)"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteChange:
    """A request that comes to another operation than before; None is none."""

    target: str
    method: str
    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TermChange:
    """What a call must carry, who is believed, or how a workload is recognised, if that changes.

    ``subject`` is ``service.operation``, a service or an issuer; ``what`` one of ``token``, ``once``, ``body``,
    ``protocol``, ``user``, ``workload``, ``issuer``, ``readers``; ``before`` and ``after`` are for people.  ``callers`` is set for
    ``user`` only.
    """

    subject: str
    what: str
    before: str
    after: str
    weight: Weight
    callers: Callers | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unexplored:
    """Where the search for a difference was cut, and why; there may be changes that the plan does not name."""

    target: str
    door: str
    callers: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The difference between two snapshots.

    ``changes`` holds what is gained first; ``compared`` counts the doors, ``explored`` those that were not equal by
    value, ``evaluated`` the requests that were decided under both.
    """

    before: str
    after: str
    changes: tuple[Change, ...]
    routes: tuple[RouteChange, ...]
    terms: tuple[TermChange, ...]
    unexplored: tuple[Unexplored, ...]
    compared: int
    explored: int
    evaluated: int

    @property
    def gained(self) -> tuple[Change, ...]:
        """Return what will be allowed and was not."""
        return tuple(change for change in self.changes if change.direction is Direction.GAINED)

    @property
    def lost(self) -> tuple[Change, ...]:
        """Return what will be denied and was not."""
        return tuple(change for change in self.changes if change.direction is Direction.LOST)

    @property
    def is_wider(self) -> bool:
        """Tell whether more may be let in: an answer, a looser term, or a place that could not be explored."""
        return bool(self.gained or self.unexplored) or any(
            term.weight is not Weight.TIGHTER for term in self.terms
        )

    @property
    def is_same(self) -> bool:
        """Tell whether nothing changes for any call."""
        return not (self.changes or self.routes or self.terms or self.unexplored)
