# SPDX-License-Identifier: Apache-2.0
"""Every rule that concerns a call, with what it says of it: the whole story behind one decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from everyhop.authz._explain_facts import cite
from everyhop.authz.cases import allow_failure
from everyhop.conditions import Truth
from everyhop.policy.access import concerns, doors_of_rule
from everyhop.policy.model import OUTSIDE, RuleEffect

if TYPE_CHECKING:
    from everyhop.authz.engine import Engine
    from everyhop.authz.explanation import Cited
    from everyhop.authz.facts import Call
    from everyhop.conditions import Clause
    from everyhop.policy.model import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """One rule and what it says of a call.

    ``verdict`` is ``allows``, ``denies``, ``does not apply``, or the reason code for which it does not allow.
    """

    rule: Rule
    cited: Cited
    verdict: str
    clauses: tuple[Clause, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        clauses = [
            {
                "text": clause.text,
                "value": clause.truth.value,
                "inputs": dict(clause.inputs),
                "error": clause.error,
            }
            for clause in self.clauses
        ]
        return {
            **self.cited.to_dict(),
            "mode": self.rule.mode.value,
            "verdict": self.verdict,
            "clauses": clauses,
        }

    def render(self) -> list[str]:
        """Return lines for people."""
        lines = [f"  {self.cited.id} at {self.cited.span}: {self.verdict}", f"    {self.cited.text}"]
        for clause in self.clauses:
            seen = ", ".join(f"{name} = {value}" for name, value in clause.inputs.items())
            error = f": {clause.error}" if clause.error else ""
            lines.append(f"    {clause.truth.value:<5} {clause.text}{f'  ({seen})' if seen else ''}{error}")
        return lines


def considered(engine: Engine, call: Call) -> tuple[Considered, ...]:
    """Return the rules that are about this caller at this door, deny rules first, each in the policy's order."""
    caller = OUTSIDE if call.caller is None else call.caller.name
    found = [rule for rule in engine.snapshot.rules if is_about(engine, rule, caller, call)]
    ordered = sorted(found, key=lambda rule: rule.effect is not RuleEffect.DENY)
    return tuple(
        Considered(
            rule=rule,
            cited=cite(rule),
            verdict=verdict_of(engine, rule, call),
            clauses=()
            if rule.condition is None
            else rule.condition.explain(engine.facts.values(rule.condition, call)),
        )
        for rule in ordered
    )


def is_about(engine: Engine, rule: Rule, caller: str, call: Call) -> bool:
    """Tell whether a rule concerns a caller at the door of a call."""
    if not concerns(rule, caller) or (rule.targets is not None and call.target.name not in rule.targets):
        return False
    return (call.target.name, call.door) in doors_of_rule(rule, engine.snapshot)


def verdict_of(engine: Engine, rule: Rule, call: Call) -> str:
    """Return what one rule says of a call that it is about."""
    if rule.effect is RuleEffect.ALLOW:
        failure = allow_failure(rule, call, engine.facts, engine.permissions)
        if failure is None:
            return "allows"
        return failure.value
    truth = truth_of(engine, rule, call)
    if truth is Truth.FALSE:
        return "does not apply"
    return "denies" if truth is Truth.TRUE else "condition-error, which denies"


def truth_of(engine: Engine, rule: Rule, call: Call) -> Truth:
    """Return what a rule's condition is for a call; one without is always true."""
    if rule.condition is None:
        return Truth.TRUE
    return rule.condition.evaluate(engine.facts.values(rule.condition, call)).truth
