# SPDX-License-Identifier: Apache-2.0
"""One caller at one pair of doors: for whom, and under which facts, does the answer change?

The engines decide every request that is tried, so a change that is found is real.  What is tried are the values at which
the conditions of either side may turn, alike ones once; where there are more combinations than the bound, those around
the places where a condition holds come first, and that the search was cut is said.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from everyhop.authz.difference import atoms
from everyhop.authz.difference.model import Direction, Example, Users
from everyhop.authz.difference.requests import is_chosen, keys_of, request, shorter
from everyhop.authz.difference.roles import user_classes
from everyhop.policy.facts import NOTHING_KNOWN
from everyhop.policy.model import Mode, UserMode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from everyhop.authz.difference.paths import Pair
    from everyhop.authz.engine import Door, Engine
    from everyhop.conditions import Condition
    from everyhop.core.decision import Decision
    from everyhop.policy.facts import Context
    from everyhop.policy.model import Rule

MAX_REQUESTS: Final = 600
"""Requests that are tried for one caller at one pair of doors, over all classes of users together."""

MAX_BASES: Final = 6
MAX_ITEMS: Final = 4
Chosen = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """One change: for which users (None: whoever), with its example; ``depends`` tells that facts count."""

    direction: Direction
    users: Users | None
    depends: bool
    example: Example


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the search found, how many requests it tried, and why it is not complete (None: it is)."""

    flips: tuple[Flip, ...]
    tried: int
    cut: str | None = None


class Explorer:
    """Looks for changes between two engines."""

    def __init__(self, old: Engine, new: Engine) -> None:
        self._sides = old, new

    def explore(self, pair: Pair, caller: str) -> Found:
        """Return the changes for a caller (SPIFFE ID or ``outside``) at a pair of doors."""
        doors = pair.old, pair.new
        rules = tuple(self._rules(side, door, caller) for side, door in zip(self._sides, doors, strict=True))
        conditions = tuple(
            {
                rule.condition.text: rule.condition
                for side in rules
                for rule in side
                if rule.condition is not None
            }.values()
        )
        asks = any(rule.user is not UserMode.NONE for side in rules for rule in side) or any(
            name.startswith("user.") for condition in conditions for name in condition.variables
        )
        if not conditions and not asks:
            example = self._try(pair, caller, pair.path, NOTHING_KNOWN)
            flips = (
                ()
                if example is None
                else (Flip(direction=_direction(example), users=None, depends=False, example=example),)
            )
            return Found(flips=flips, tried=1)
        return _Search(self, pair, caller, conditions, asks_for_user=asks).run()

    def _rules(self, side: Engine, door: Door | None, caller: str) -> tuple[Rule, ...]:
        name = side.name_of(caller)
        if door is None or name is None:
            return ()
        plain = (door.access.deny.rule_for(name), door.access.allow.rule_for(name))
        further = (rule for rule in door.access.further_for(name) if rule.mode is Mode.ENFORCE)
        with_user = (rule for rule in door.access.with_user if rule.callers is None or name in rule.callers)
        return (*(rule for rule in plain if rule is not None), *further, *with_user)

    def decide(
        self, pair: Pair, caller: str, path: str | None, context: Context
    ) -> tuple[Decision, Decision]:
        """Return both decisions on one request."""
        before, after = (
            side.decide_tcp(caller=caller, target=pair.target, context=context)
            if pair.method is None or path is None
            else side.decide(
                caller=caller, target=pair.target, method=pair.method, path=path, context=context
            )
            for side in self._sides
        )
        return before, after

    def _try(self, pair: Pair, caller: str, path: str | None, context: Context) -> Example | None:
        before, after = self.decide(pair, caller, path, context)
        if before.effect is after.effect:
            return None
        return Example(
            caller=caller,
            target=pair.target,
            method=pair.method,
            path=path,
            context=context,
            before=before,
            after=after,
        )

    def attempt(self, pair: Pair, caller: str, path: str | None, context: Context) -> Example | None:
        """Return the request as an example if its answer changes and it comes to the pair's doors."""
        if pair.method is not None and path is not None and path != pair.path:
            found = tuple(side.find(pair.target, pair.method, path) for side in self._sides)
            if found != (pair.old, pair.new):
                return None
        return self._try(pair, caller, path, context)

    def users(self, pair: Pair, conditions: Sequence[Condition]) -> tuple[tuple[Users, ...], str | None]:
        """Return the classes of users that may get different answers, and whether some were left out."""
        return user_classes(self._sides, pair, conditions)

    def item_ids(self, pair: Pair) -> dict[str, tuple[str, ...]]:
        """Return ids that the directories know, by the path parameter that holds them: those that differ first."""
        kinds = [side.snapshot.directory.resources for side in self._sides]
        found: dict[str, tuple[str, ...]] = {}
        for name in sorted({*kinds[0], *kinds[1]}):
            sides = [kind.get(name) for kind in kinds]
            known = [kind for kind in sides if kind is not None and kind.service == pair.target]
            for kind in known:
                if kind.parameter is None:
                    continue
                items = [{} if side is None else side.items for side in sides]
                ids = sorted({*items[0], *items[1]}, key=lambda i: (items[0].get(i) == items[1].get(i), i))
                found[kind.parameter] = tuple(ids[:MAX_ITEMS])
        return found


def _direction(example: Example) -> Direction:
    return Direction.GAINED if example.after.is_allowed else Direction.LOST


class _Search:
    def __init__(
        self,
        explorer: Explorer,
        pair: Pair,
        caller: str,
        conditions: tuple[Condition, ...],
        *,
        asks_for_user: bool,
    ) -> None:
        self._explorer = explorer
        self._pair = pair
        self._caller = caller
        self._conditions = conditions
        self._atoms = tuple(atom for condition in conditions for atom in atoms.atoms_of(condition))
        self._keys = keys_of(conditions)
        self._kept_whole: set[str] = set()
        self._values = self._dimensions()
        self._users, self._cut = (
            explorer.users(pair, conditions) if asks_for_user else ((Users(is_nobody=True),), None)
        )
        self._tried = 0

    def run(self) -> Found:
        total = math.prod(len(values) for values in self._values.values())
        each = max(40, MAX_REQUESTS // len(self._users))
        cut = self._cut
        if total > each:
            cut = f"{total} combinations of facts, of which {each} were tried"
        elif cut is None and any(atoms.is_sampled(condition) for condition in self._conditions):
            cut = "a condition compares what is not known beforehand (a pattern, or two names); its values were sampled"
        choices = list(self._all() if total <= each else itertools.islice(self._around(), each))
        flips = [flip for users in self._users for flip in self._for(users, choices)]
        return Found(flips=self._merged(flips), tried=self._tried, cut=cut)

    def _for(self, users: Users, choices: Sequence[Chosen]) -> Iterator[Flip]:
        found: dict[Direction, Example] = {}
        results = set()
        for chosen in choices:
            path, context = request(self._pair, users, chosen, self._keys)
            self._tried += 1
            example = self._explorer.attempt(self._pair, self._caller, path, context)
            results.add(None if example is None else _direction(example))
            if example is not None:
                found.setdefault(_direction(example), example)
            if len(found) == len(Direction):
                break
        for direction, example in sorted(found.items()):
            yield Flip(
                direction=direction,
                users=users,
                depends=len(results) > 1,
                example=self._shortest(example, direction),
            )

    def _shortest(self, example: Example, direction: Direction) -> Example:
        """Return the example without the facts that it does not need."""
        is_smaller = True
        while is_smaller:
            is_smaller = False
            for context in shorter(example.context):
                found = self._explorer.attempt(self._pair, self._caller, example.path, context)
                if found is not None and _direction(found) is direction:
                    example, is_smaller = found, True
                    break
        return example

    def _merged(self, flips: list[Flip]) -> tuple[Flip, ...]:
        """Return one change in place of several where it is the same whoever the user is."""
        merged: list[Flip] = []
        for direction in Direction:
            alike = [flip for flip in flips if flip.direction is direction]
            if alike and len(alike) == len(self._users) and len({flip.depends for flip in alike}) == 1:
                merged.append(replace(alike[0], users=None))
            else:
                merged += alike
        return tuple(merged)

    # -- the values that are tried

    def _dimensions(self) -> dict[str, list[object]]:
        found: dict[str, dict[str, object]] = {}
        for condition in self._conditions:
            for name, values in atoms.samples_of(condition).items():
                if is_chosen(name):
                    kept = found.setdefault(name, {repr(None): None})
                    kept.update((repr(value), value) for value in values)
        dimensions = {name: list(kept.values()) for name, kept in sorted(found.items())}
        if any(name.startswith("resource.") for name in dimensions):
            self._add_items(dimensions)
        return {
            name: sample if name in self._kept_whole else atoms.unlike(name, sample, self._atoms)
            for name, sample in dimensions.items()
        }

    def _add_items(self, values: dict[str, list[object]]) -> None:
        for parameter, ids in self._explorer.item_ids(self._pair).items():
            name = f"request.path_params['{parameter}']"
            self._keys.setdefault(name, ("request.path_params", parameter))
            values.setdefault(name, [None]).extend(ids)
            self._kept_whole.add(name)

    def _all(self) -> Iterator[Chosen]:
        for combination in itertools.product(*self._values.values()):
            yield dict(zip(self._values, combination, strict=True))

    def _around(self) -> Iterator[Chosen]:
        """Yield choices around those where conditions hold: one and then two values changed; then the others."""
        seen: set[tuple[str, ...]] = set()
        bases = self._bases()
        for width in (0, 1, 2):
            for base in bases:
                for names in itertools.combinations(self._values, width):
                    for values in itertools.product(*(self._values[name] for name in names)):
                        chosen = base | dict(zip(names, values, strict=True))
                        key = tuple(repr(chosen[name]) for name in self._values)
                        if key not in seen:
                            seen.add(key)
                            yield chosen
        yield from self._all()

    def _bases(self) -> list[Chosen]:
        """Return for each condition a choice under which as many of its parts hold as a climb can reach."""
        first: Chosen = {name: values[0] for name, values in self._values.items()}
        bases = [first]
        for condition in self._conditions[: MAX_BASES - 1]:
            parts = atoms.atoms_of(condition)
            chosen = dict(first)
            for name, values in self._values.items():
                held = [atoms.truths(parts, chosen | {name: value}) for value in values]
                chosen[name] = values[held.index(max(held))]
            bases.append(chosen)
        return bases
