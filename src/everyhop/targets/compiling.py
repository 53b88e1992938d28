# SPDX-License-Identifier: Apache-2.0
"""From a snapshot to the files of one target or several, with everything that the targets do not hold."""

from __future__ import annotations

from collections import defaultdict
from importlib import import_module
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError
from everyhop.policy.targets import ACCEPT, ACCEPTABLE, OPTIONS
from everyhop.targets.intents import Intents
from everyhop.targets.matrix import MATRIX
from everyhop.targets.model import Compilation, Diagnostic, Feature, Fidelity
from everyhop.targets.view import View

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from everyhop.policy.model import Snapshot
    from everyhop.targets.intents import Door
    from everyhop.targets.matrix import Cell
    from everyhop.targets.model import Target

NAMES: Final = tuple(OPTIONS)
"""The targets, in the order in which they are shown."""


def target_of(name: str) -> Target:
    """Return a compiler by the name of its target; raises InputError for a name that is none.

    Each lives in the module ``everyhop.targets.NAME`` (``-`` written ``_``), as its ``TARGET``.
    """
    if name not in OPTIONS:
        raise InputError(f"there is no target {name[:60]!r}", hint="targets: " + ", ".join(NAMES))
    target: Target = import_module(f"everyhop.targets.{name.replace('-', '_')}").TARGET
    return target


def check_beside(names: Iterable[str]) -> None:
    """Raise InputError for a name that stands for nothing which could hold anything on a hop."""
    for name in names:
        if name not in MATRIX:
            raise InputError(
                f"nothing named {name[:60]!r} stands on a hop", hint="known: " + ", ".join(MATRIX)
            )


def compile_policy(
    snapshot: Snapshot, targets: Sequence[str], *, beside: Iterable[str] = ()
) -> tuple[Compilation, ...]:
    """Compile a snapshot to each target; those compiled together stand on the same hops, with ``beside``.

    Raises InputError for an unknown target.
    """
    return compile_intents(Intents(snapshot), targets, beside=beside)


def compile_intents(
    intents: Intents, targets: Sequence[str], *, beside: Iterable[str] = ()
) -> tuple[Compilation, ...]:
    """Do what :func:`compile_policy` does for who goes on with the intents, so that the policy is lowered once."""
    together = (*targets, *beside)
    return tuple(_compiled(target_of(name), View(intents, name, together)) for name in targets)


def _compiled(target: Target, view: View) -> Compilation:
    files, diagnostics = target.compile(view)
    found = [*_held_by_nobody(view), *diagnostics] if target.name in MATRIX else list(diagnostics)
    return Compilation(
        target=target.name,
        files=tuple(sorted(files, key=lambda file: file.path)),
        diagnostics=tuple(dict.fromkeys(found)),
    )


def _held_by_nobody(view: View) -> Iterator[Diagnostic]:
    """Yield what the matrix has to say: an error for each door and feature that nobody holds, a warning for what is narrower."""
    narrower: dict[Feature, list[str]] = defaultdict(list)
    for service in view.intents:
        for door in service.doors:
            missing: dict[Feature, list[str]] = defaultdict(list)
            for grant in door.grants:
                for feature in view.missing(door, grant):
                    missing[feature] += [rule for rule in grant.rules if rule not in missing[feature]]
            for feature, rules in sorted(missing.items()):
                yield _refusal(view, feature, f"{door}", rules, None if door.operation is None else door)
            for feature in door.features:
                if door.grants and view.fidelity(feature).fidelity is Fidelity.NARROWER:
                    narrower[feature].append(str(door))
    for feature in view.intents.features:
        if view.holder(feature) is None:
            yield _refusal(view, feature, "the policy", (), None)
        elif view.fidelity(feature).fidelity is Fidelity.NARROWER:
            narrower[feature].append("the policy")
    for feature, doors in sorted(narrower.items()):
        many = f"{doors[0]} and {len(doors) - 1} more" if len(doors) > 1 else doors[0]
        message = f"{feature.value} is held more narrowly for {many}: {view.fidelity(feature).note}"
        yield view.warning(feature.value, message)


def _refusal(view: View, feature: Feature, where: str, rules: Iterable[str], door: Door | None) -> Diagnostic:
    holders = [name for name, row in MATRIX.items() if name != view.target and _holds(row, feature)]
    message = f"{view.target} cannot hold {feature.value} of {where}: {view.fidelity(feature).note}"
    ways = (
        [f"put one of these on the same hop and name it in `with`: {', '.join(holders)}"] if holders else []
    )
    if feature.value in ACCEPTABLE and ACCEPT in OPTIONS[view.target]:
        ways.append(f"accept: [{feature.value}] if nobody has to hold it")
    return view.error(feature.value, message, door=door, rules=rules, suggestion="; or ".join(ways) or None)


def _holds(row: Mapping[Feature, Cell], feature: Feature) -> bool:
    return feature in row and row[feature].fidelity is not Fidelity.REFUSED
