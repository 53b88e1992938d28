# SPDX-License-Identifier: Apache-2.0
"""What the tests of a policy try of it, and what nobody needs to try: doors and rules that cannot mean what they say.

A rule is covered by a test in which it holds: it is about the call, its user is there and permitted, its condition is true.
A clause of a condition is covered by a test in which it is true, and by one in which it is false.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from everyhop.authz._gaps import gaps_of
from everyhop.authz.cases import allow_failure
from everyhop.authz.checks import resolve_caller
from everyhop.authz.considered import truth_of
from everyhop.authz.engine import Engine
from everyhop.conditions import Truth
from everyhop.policy.access import TCP, concerns, doors_of_rule
from everyhop.policy.model import RuleEffect

if TYPE_CHECKING:
    from everyhop.authz.facts import Call
    from everyhop.core.problems import Problem
    from everyhop.policy.model import PolicyTest, Rule, Snapshot


@dataclass(slots=True)
class ClauseCoverage:
    """One clause of a condition, and whether some test saw it true, and some test false."""

    text: str
    is_true: bool = False
    is_false: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {"text": self.text, "true": self.is_true, "false": self.is_false}


@dataclass(slots=True)
class RuleCoverage:
    """One rule, in how many tests it holds, and its clauses."""

    rule: Rule
    tests: int = 0
    clauses: list[ClauseCoverage] = field(default_factory=list)

    @property
    def parts(self) -> tuple[int, int]:
        """Return how many of its parts are covered, and how many there are: itself, each clause true and false."""
        covered = bool(self.tests) + sum(clause.is_true + clause.is_false for clause in self.clauses)
        return covered, 1 + 2 * len(self.clauses)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        span = self.rule.span
        return {
            "id": self.rule.id,
            "file": span.file,
            "line": span.line,
            "tests": self.tests,
            "clauses": [clause.to_dict() for clause in self.clauses],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What the tests cover: by rule, the operations that no test calls, and gaps that no test can close."""

    rules: tuple[RuleCoverage, ...]
    untested: tuple[str, ...]
    gaps: tuple[Problem, ...]

    @property
    def percent(self) -> float:
        """Return the covered part of rules and clauses, 0 to 100; 100 where there is nothing to cover."""
        counts = [rule.parts for rule in self.rules]
        total = sum(parts for _, parts in counts)
        return 100.0 if not total else 100.0 * sum(covered for covered, _ in counts) / total

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "percent": round(self.percent, 1),
            "rules": [rule.to_dict() for rule in self.rules],
            "untested_operations": list(self.untested),
            "gaps": [gap.to_dict() for gap in self.gaps],
        }


def coverage_of(snapshot: Snapshot, engine: Engine | None = None) -> Coverage:
    """Return what the tests of a policy cover."""
    engine = engine or Engine(snapshot)
    found = {rule.id: _fresh(rule) for rule in snapshot.rules}
    by_door: dict[tuple[str, str], list[Rule]] = defaultdict(list)
    for rule in snapshot.rules:
        for door in doors_of_rule(rule, snapshot):
            by_door[door].append(rule)
    called: set[tuple[str, str]] = set()
    for test in snapshot.tests:
        asked = _call(engine, test)
        if asked is None:
            continue
        caller, call = asked
        called.add((call.target.name, call.door))
        for rule in by_door[call.target.name, call.door]:
            if concerns(rule, caller):
                _note(engine, found[rule.id], call)
    untested = tuple(
        f"{service.name}.{operation.name}"
        for service in snapshot.services.values()
        for operation in service.operations
        if (service.name, operation.name) not in called
    )
    return Coverage(rules=tuple(found.values()), untested=untested, gaps=tuple(gaps_of(engine)))


def _fresh(rule: Rule) -> RuleCoverage:
    clauses = () if rule.condition is None else rule.condition.explain({})
    return RuleCoverage(rule, clauses=[ClauseCoverage(clause.text) for clause in clauses])


def _call(engine: Engine, test: PolicyTest) -> tuple[str, Call] | None:
    """Return the caller's name and the call that a test tries, or None where it comes to no door, or from a stranger."""
    caller = resolve_caller(engine.snapshot, test.caller)
    name = engine.name_of(caller)
    if test.method is None or test.path is None:
        door = engine.door(test.target, TCP)
    else:
        door = engine.find(test.target, test.method, test.path)
    if door is None or name is None:
        return None
    return name, engine.call(door, caller, test.context, test.method, test.path)


def _note(engine: Engine, found: RuleCoverage, call: Call) -> None:
    rule = found.rule
    if rule.effect is RuleEffect.ALLOW:
        found.tests += allow_failure(rule, call, engine.facts, engine.permissions) is None
    else:
        found.tests += truth_of(engine, rule, call) is Truth.TRUE
    if rule.condition is None:
        return
    clauses = rule.condition.explain(engine.facts.values(rule.condition, call))
    for covered, clause in zip(found.clauses, clauses, strict=True):
        covered.is_true |= clause.truth is Truth.TRUE
        covered.is_false |= clause.truth is Truth.FALSE
