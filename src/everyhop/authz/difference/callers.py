# SPDX-License-Identifier: Apache-2.0
"""The callers of both policies, and which of them a door cannot tell apart.

A caller is a SPIFFE ID: a service that keeps its name and gets another ID is another caller.  Ten thousand services that no
rule of a door names are one class there, of which one is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from everyhop.authz.difference.model import Callers, Group
from everyhop.policy.model import OUTSIDE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from everyhop.policy.access import Access
    from everyhop.policy.model import Service, Snapshot

MAX_NAMES: Final = 20
MAX_APART: Final = 200
"""Callers that are asked one by one where a condition reads a caller's name."""


@dataclass(frozen=True, slots=True)
class Known:
    """One caller, as each policy declares it (None: it does not)."""

    spiffe_id: str
    old: Service | None
    new: Service | None

    @property
    def name(self) -> str:
        """Return its name, as the new policy has it if it does."""
        service = self.new or self.old
        return self.spiffe_id if service is None else service.name

    @property
    def group(self) -> Group:
        """Return whether it is declared by both."""
        return Group.ADDED if self.old is None else Group.REMOVED if self.new is None else Group.OTHERS

    @property
    def is_steady(self) -> bool:
        """Tell whether both policies know the same of it."""
        return (
            self.old is not None
            and self.new is not None
            and self.old.name == self.new.name
            and self.old.attributes == self.new.attributes
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerClass:
    """Callers that one is asked for; ``ask`` is its SPIFFE ID, or ``outside``."""

    ask: str
    callers: Callers


class Population:
    """All callers of two snapshots."""

    def __init__(self, old: Snapshot, new: Snapshot) -> None:
        sides = [{str(s.spiffe_id): s for s in side.services.values()} for side in (old, new)]
        self._known = {
            key: Known(key, sides[0].get(key), sides[1].get(key)) for key in sorted({*sides[0], *sides[1]})
        }
        self._of_name = [{service.name: key for key, service in side.items()} for side in sides]
        self._parts: dict[frozenset[str], dict[object, list[Known]]] = {}

    @cached_property
    def unsteady(self) -> list[Known]:
        """Return the callers of which the two policies know different things."""
        return [known for known in self._known.values() if not known.is_steady]

    def ids(self, old_names: Iterable[str], new_names: Iterable[str]) -> set[str]:
        """Return the SPIFFE IDs of services that are named under either policy."""
        sides = zip(self._of_name, (old_names, new_names), strict=True)
        return {by_name[name] for by_name, names in sides for name in names if name in by_name}

    def classes(
        self, named: set[str], reads: frozenset[str], *, steady: bool
    ) -> tuple[list[CallerClass], str | None]:
        """Return the classes of callers at a door, and why some were left out, if so.

        ``named`` are those whom its rules name, ``reads`` what its conditions read of a caller.  Without ``steady``
        only those of whom the two policies know different things are asked.
        """
        found = (
            [CallerClass(ask=OUTSIDE, callers=Callers(group=Group.OUTSIDE, names=(OUTSIDE,), count=1))]
            if steady
            else []
        )
        for key in sorted(named):
            known = self._known[key]
            if steady or not known.is_steady:
                group = Group.SERVICES if known.group is Group.OTHERS else known.group
                found.append(_class([known], group))
        cut = None
        for members in self._partition(reads, steady=steady).values():
            others = [known for known in members if known.spiffe_id not in named] if named else members
            if not others:
                continue
            if reads & {"caller.name", "caller.spiffe_id"}:
                if len(others) > MAX_APART:
                    cut = f"{len(others)} callers whose names a condition reads, of which {MAX_APART} were asked"
                found += [_class([known], known.group) for known in others[:MAX_APART]]
            else:
                found.append(_class(others, others[0].group))
        return found, cut

    def _partition(self, reads: frozenset[str], *, steady: bool) -> Mapping[object, list[Known]]:
        key = reads if steady else reads | {"-unsteady"}
        parts = self._parts.get(key)
        if parts is None:
            parts = self._parts[key] = {}
            attributes = sorted(name.removeprefix("caller.") for name in reads)
            for known in self._known.values() if steady else self.unsteady:
                values = tuple(
                    repr(None if side is None else side.attributes.get(name))
                    for name in attributes
                    for side in (known.old, known.new)
                )
                # One that got another name is no "other": rules of the two sides name it differently.
                renamed = known.spiffe_id if known.group is Group.OTHERS and not _keeps_name(known) else None
                parts.setdefault((known.group, renamed, values), []).append(known)
        return parts


def _keeps_name(known: Known) -> bool:
    return known.old is not None and known.new is not None and known.old.name == known.new.name


def _class(members: list[Known], group: Group) -> CallerClass:
    names = tuple(known.name for known in members[:MAX_NAMES])
    return CallerClass(
        ask=members[0].spiffe_id, callers=Callers(group=group, names=names, count=len(members))
    )


def named_at(access: Access | None, edges: Iterable[frozenset[str] | None]) -> frozenset[str]:
    """Return the names that the rules of a door, and the edges that are only watched there, give to callers."""
    found: set[str] = set()
    if access is not None:
        for matches in (access.allow, access.deny):
            found.update(matches.by_caller)
        for rule in (*access.further, *access.with_user):
            found.update(rule.callers or ())
    for callers in edges:
        found.update(callers or ())
    return frozenset(found - {OUTSIDE})
