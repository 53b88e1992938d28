# SPDX-License-Identifier: Apache-2.0
"""For people: where each clause of each rule is decided, and why not in Envoy.

Who calls which operation of whom is always decided by Envoy.  A rule with a condition, or for users, may have to be
decided by the agent; then all of its case is (:mod:`everyhop.dataplane.placing`).  What a proxy never knows is left to
enforcement points inside applications: at a sidecar it cannot be evaluated, and that denies.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from everyhop.authz.table import service_table
from everyhop.conditions import ast
from everyhop.conditions.rendering import render as text_of
from everyhop.dataplane.conditions import Lowering, NotLoweredError, Place
from everyhop.dataplane.placing import PlacedVerdict, Placing
from everyhop.policy.access import AccessIndex, doors
from everyhop.policy.model import OUTSIDE, UserMode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everyhop.authz.table import ServiceTable, Verdict
    from everyhop.conditions import Condition
    from everyhop.policy.model import Operation, Rule, Snapshot

_LOGIC: Final = frozenset({ast.AND, ast.OR, ast.NOT})
MAX_REASONS: Final = 3


class Where(StrEnum):
    """Who decides."""

    ENVOY = "envoy"
    AGENT = "agent"
    APPLICATION = "application"  # nobody on the way knows the fact
    REFUSED = "refused"  # a connection that only the agent could decide, which is not asked about connections


@dataclass(slots=True)
class _Clause:
    text: str
    where: Where = Where.ENVOY
    why: dict[str, None] = field(default_factory=dict)

    def take(self, where: Where, why: str) -> None:
        """Note a place where Envoy does not decide it; the application is the last resort."""
        self.where = where if self.where is not Where.APPLICATION else self.where
        self.why.setdefault(why)

    def to_dict(self) -> dict[str, Any]:
        return {"clause": self.text, "where": self.where.value, "why": list(self.why)[:MAX_REASONS]}


@dataclass(slots=True)
class _Placed:
    """One rule: its clauses, and who decides the cases (callers at doors) that it is part of."""

    rule: Rule
    clauses: list[_Clause]
    nodes: list[tuple[ast.Node, _Clause]]
    cases: Counter[Where] = field(default_factory=Counter)
    why: dict[str, None] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "rule": self.rule.id,
            "at": str(self.rule.span),
            "effect": self.rule.effect.value,
            "mode": self.rule.mode.value,
            "cases": {where.value: self.cases[where] for where in Where if self.cases[where]},
            "why": list(self.why)[:MAX_REASONS],
            "clauses": [clause.to_dict() for clause in self.clauses],
        }


def describe(snapshot: Snapshot) -> dict[str, Any]:
    """Return the placement as a JSON object: ``rules``, each with its clauses.

    ``cases`` counts callers at doors by who decides them; ``why`` says at most three reasons, at the rule why its cases
    are left to the agent as a whole, at a clause why Envoy does not evaluate it.
    """
    placed = {rule.id: _placed(rule) for rule in snapshot.rules}
    index, placing, lowering = AccessIndex(snapshot), Placing(snapshot), Lowering(snapshot)
    for name, service in snapshot.services.items():
        if any(index.of(name, door).further for door in doors(service)):
            table = placing.table(service_table(snapshot, name, index=index))
            for place, verdict in _open_cases(snapshot, table):
                _note(placed, placing, lowering, place, verdict, snapshot)
    return {"snapshot": snapshot.hash, "rules": [rule.to_dict() for rule in placed.values()]}


def render(shown: dict[str, Any]) -> str:
    """Return what :func:`describe` says as text, without a final newline."""
    lines = [f"snapshot  {shown['snapshot']}"]
    for rule in shown["rules"]:
        decided = ", ".join(f"{where} ({count})" for where, count in rule["cases"].items()) or "envoy"
        lines += ["", f"{rule['rule']}  {rule['effect']}  {rule['at']}  decided by {decided}"]
        lines += [f"  as a whole: {why}" for why in rule["why"]]
        width = max(len(clause["clause"]) for clause in rule["clauses"])
        for clause in rule["clauses"]:
            why = f"  {'; '.join(clause['why'])}" if clause["why"] else ""
            lines.append(f"  {clause['clause']:<{width}}  {clause['where']}{why}")
    return "\n".join(lines)


def _placed(rule: Rule) -> _Placed:
    clauses = [_Clause(_subject(rule))]
    if rule.user is not UserMode.NONE:
        users = _Clause(f"user: {rule.user.value}")
        users.take(Where.AGENT, "the agent verifies users")
        clauses.append(users)
    nodes = [] if rule.condition is None else [(n, _Clause(text_of(n))) for n in _split(rule.condition.tree)]
    return _Placed(rule=rule, clauses=[*clauses, *(clause for _, clause in nodes)], nodes=nodes)


def _subject(rule: Rule) -> str:
    def names(some: frozenset[str] | None, every: str) -> str:
        return every if some is None else ", ".join(sorted(some))

    called = names(rule.operations, "all")
    return f"from {names(rule.callers, 'any')} to {names(rule.targets, 'any')}: {called}"


def _split(tree: ast.Node) -> Iterator[ast.Node]:
    """Yield the parts between ``&&``, ``||`` and ``!``, from left to right."""
    if isinstance(tree, ast.Call) and tree.function in _LOGIC:
        for argument in tree.args:
            yield from _split(argument)
    else:
        yield tree


def _open_cases(snapshot: Snapshot, table: ServiceTable) -> Iterator[tuple[Place, Verdict]]:
    """Yield the cases of a service that facts decide."""
    rows: list[tuple[Operation | None, dict[str, Verdict]]] = [
        (entry.operation, {**entry.verdicts, OUTSIDE: entry.outside}) for entry in table.entries
    ]
    if table.tcp_verdicts is not None:
        rows.append((None, dict(table.tcp_verdicts)))
    for operation, verdicts in rows:
        for caller, verdict in verdicts.items():
            if verdict.cases is not None:
                where = snapshot.service_of(caller)
                yield Place(caller=where, target=table.service, operation=operation), verdict


def _note(
    placed: dict[str, _Placed],
    placing: Placing,
    lowering: Lowering,
    place: Place,
    verdict: Verdict,
    snapshot: Snapshot,
) -> None:
    """Note for the rules of one case who decides it, and for their clauses why Envoy does not."""
    if verdict.cases is None:
        return
    case = verdict.cases.watched or verdict.cases.enforced
    where = Where.ENVOY if isinstance(verdict, PlacedVerdict) else Where.AGENT
    if where is Where.AGENT and place.operation is None:
        where = Where.REFUSED
    whole = None
    if where is not Where.ENVOY:
        try:
            placing.steps(place, verdict.cases)
            whole = "there are too many conditions at this door"
        except NotLoweredError as error:
            whole = error.why if error.node is None else None
    always = () if case.allow is None else (case.allow,)
    for rule in (*case.deny_if, *always, *case.allow_if):
        found = placed[rule.id]
        found.cases[where] += 1
        if whole is not None:
            found.why.setdefault(whole)
        elif where is not Where.ENVOY and (rule.condition is None or _is_lowered(placing, rule, place)):
            found.why.setdefault("another rule for the same callers is not Envoy's")
        for node, clause in found.nodes:
            if rule.condition is not None:
                _note_clause(lowering, rule.condition, node, clause, place, snapshot)


def _is_lowered(placing: Placing, rule: Rule, place: Place) -> bool:
    try:
        placing.step(rule, place)
    except NotLoweredError:
        return False
    return True


def _note_clause(
    lowering: Lowering,
    condition: Condition,
    node: ast.Node,
    clause: _Clause,
    place: Place,
    snapshot: Snapshot,
) -> None:
    try:
        lowering.clause(condition, node, place)
    except NotLoweredError as error:
        roots = {n.name.partition(".")[0] for n in ast.walk(node) if isinstance(n, ast.Variable)}
        if "device" in roots or ("resource" in roots and not _knows_resources(snapshot, place)):
            unknown = "device" if "device" in roots else "resource"
            clause.take(Where.APPLICATION, f"no proxy knows the {unknown}")
        else:
            clause.take(Where.REFUSED if place.operation is None else Where.AGENT, error.why)


def _knows_resources(snapshot: Snapshot, place: Place) -> bool:
    """Tell whether the agent finds the resource of a call: the directory knows it, and the path names it."""
    return any(
        kind.service == place.target.name and kind.parameter is not None
        for kind in snapshot.directory.resources.values()
    )
