# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a policy although every test of it passes: too open, never reached, or never true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.authz._boundaries import try_for_truth
from everyhop.core.decision import Effect
from everyhop.core.problems import Problem
from everyhop.policy.access import concerns, doors_of_rule
from everyhop.policy.lint import lint
from everyhop.policy.model import OUTSIDE, Mode, RuleEffect, TokenMode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everyhop.authz.engine import Door, Engine
    from everyhop.core.problems import Span
    from everyhop.policy.model import Rule

_OF_LINT: Final = frozenset({"unreachable", "shadowed", "redundant", "no-effect", "useless-grant", "no-role"})


def gaps_of(engine: Engine) -> list[Problem]:
    """Return the gaps, in the order of the text."""
    found = [
        *(problem for problem in lint(engine.snapshot) if problem.code in _OF_LINT),
        *_open_doors(engine),
        *_hopeless_rules(engine),
    ]
    return sorted(found, key=lambda p: (p.span.file, p.span.line, p.span.column, p.code))


def _gap(code: str, span: Span, message: str, suggestion: str | None = None) -> Problem:
    return Problem(code=code, span=span, message=message, suggestion=suggestion, is_warning=True)


def _open_doors(engine: Engine) -> Iterator[Problem]:
    """Operations that every declared service may call whatever the facts, or anybody outside without a credential."""
    snapshot = engine.snapshot
    for service in snapshot.services.values():
        for operation in service.operations:
            door = engine.door(service.name, operation.name)
            assert door is not None  # noqa: S101  # it is declared
            where = f"{service.name}.{operation.name}"
            others = [name for name in snapshot.services if name != service.name]
            if (
                door.access.allow.by_any is not None
                and others
                and all(_is_open(engine, door, n) for n in others)
            ):
                message = f"every declared service may call {where}, without a condition"
                yield _gap("open-to-all", door.access.allow.by_any.span, message, "name the callers")
            if operation.token is TokenMode.NONE and _is_open(engine, door, OUTSIDE):
                message = f"anybody outside may call {where}, without a token or a user"
                yield _gap("open-outside", operation.span, message)


def _is_open(engine: Engine, door: Door, caller: str) -> bool:
    outcome = door.cases_of(engine.snapshot, caller).settled(with_facts=True)
    return outcome is not None and outcome.enforced.effect is Effect.ALLOW


def _hopeless_rules(engine: Engine) -> Iterator[Problem]:
    """Rules whose condition seems to hold for nothing, and deny rules about what nobody may do anyway."""
    for rule in engine.snapshot.rules:
        doors = list(doors_of_rule(rule, engine.snapshot))
        if not doors:
            continue  # lint says so
        if rule.effect is RuleEffect.DENY and not any(_allows(engine, rule, door) for door in doors):
            message = f"{rule.id} denies what no rule allows"
            yield _gap("denies-nothing", rule.span, message)
        if rule.condition is not None:
            is_true, tried = try_for_truth(rule.condition)
            if not is_true:
                message = f"the condition of {rule.id} is not true for any of {tried} combinations of boundary values"
                yield _gap("never-true", rule.span, message, "it may be that nothing fulfils it")


def _allows(engine: Engine, rule: Rule, door: tuple[str, str]) -> bool:
    """Tell whether some caller of a deny rule may pass a door by some allow rule, in force or in shadow."""
    found = engine.door(*door)
    if found is None:
        return False
    for caller in (*engine.snapshot.services, OUTSIDE):
        if not concerns(rule, caller):
            continue
        if found.is_probe and caller != OUTSIDE:
            return True
        if found.access.allow.rule_for(caller) is not None:
            return True
        if any(r.effect is RuleEffect.ALLOW for r in found.access.further_for(caller)):
            return True
    return engine.snapshot.mode is Mode.SHADOW
