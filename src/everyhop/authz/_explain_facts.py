# SPDX-License-Identifier: Apache-2.0
"""Why the facts of a call did not do: the condition with what each clause saw, the user and what they lack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.authz.cases import allow_failure
from everyhop.authz.explanation import Cited, Edit, Explanation, Suggestion
from everyhop.authz.permissions import grants_of
from everyhop.core.decision import Reason
from everyhop.policy.access import concerns
from everyhop.policy.model import OUTSIDE, Mode, RuleEffect, UserMode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.authz.engine import Engine
    from everyhop.authz.facts import Call
    from everyhop.conditions import Clause
    from everyhop.core.decision import Decision
    from everyhop.policy.model import Role, Rule


def cite(rule: Rule) -> Cited:
    """Return a rule in words."""
    callers = "any" if rule.callers is None else ", ".join(sorted(rule.callers))
    targets = "any" if rule.targets is None else ", ".join(sorted(rule.targets))
    doors = "" if rule.operations is None else ": " + ", ".join(sorted(rule.operations))
    user = "" if rule.user is UserMode.NONE else f", user {rule.user}"
    when = "" if rule.when is None else f", when {rule.when}"
    mode = "" if rule.mode is Mode.ENFORCE else ", in shadow"
    text = f"{rule.effect} from {callers} to {targets}{doors}{user}{when}{mode}"
    return Cited(id=rule.id, text=text, span=rule.span, reason=rule.reason)


def explain_facts(engine: Engine, decision: Decision, door: str, call: Call) -> Explanation:
    """Explain a denial in which rules concern the call, and the facts did not fulfil them."""
    if decision.rule is not None:
        rule = engine.rule(decision.rule)
        assert rule is not None  # noqa: S101  # decisions name rules of their own snapshot
        summary = f"a condition of {rule.id} cannot be evaluated, which denies {_who(call)} to {door}"
        return Explanation(
            decision=decision, summary=summary, rule=cite(rule), clauses=_clauses(engine, rule, call)
        )
    rule = _nearest(engine, decision, call)
    clauses = _clauses(engine, rule, call)
    notes: tuple[str, ...] = ()
    suggestion: Suggestion | None = None
    if decision.reason is Reason.USER_REQUIRED:
        summary = f"{_who(call)} may {door} only for a user, and the call carries none"
        notes = (_who_may(engine, call),) if engine.permissions.are_asked else ()
    elif decision.reason is Reason.USER_NOT_PERMITTED:
        user = call.context.user
        held = engine.facts.roles(user)
        permission = f"{call.target.name}.{call.door}"
        summary = f"no role of the user {'' if user is None else user.id!r} grants {permission}"
        notes = (f"the user has {', '.join(held) if held else 'no roles'}", _who_may(engine, call))
        suggestion = missing_grant(engine, held, permission)
    elif decision.reason is Reason.CONDITION_ERROR:
        summary = f"the condition under which {_who(call)} may {door} cannot be evaluated"
    else:
        summary = f"the condition under which {_who(call)} may {door} does not hold"
    return Explanation(
        decision=decision,
        summary=summary,
        nearest=cite(rule),
        clauses=clauses,
        notes=notes,
        suggestion=suggestion,
    )


def _nearest(engine: Engine, decision: Decision, call: Call) -> Rule:
    """Return the first allow rule that failed for the reason of the decision."""
    rules = [r for r in engine.snapshot.rules if r.effect is RuleEffect.ALLOW and _concerns(r, call)]
    for rule in rules:
        if allow_failure(rule, call, engine.facts, engine.permissions) is decision.reason:
            return rule
    return rules[
        0
    ]  # an operation that leaves the resource open may have another reason than one that does not


def _concerns(rule: Rule, call: Call) -> bool:
    caller = OUTSIDE if call.caller is None else call.caller.name
    is_target = rule.targets is None or call.target.name in rule.targets
    return concerns(rule, caller) and is_target and (rule.operations is None or call.door in rule.operations)


def _clauses(engine: Engine, rule: Rule, call: Call) -> tuple[Clause, ...]:
    if rule.condition is None:
        return ()
    return rule.condition.explain(engine.facts.values(rule.condition, call))


def _who(call: Call) -> str:
    return "a client from outside" if call.caller is None else call.caller.name


def _who_may(engine: Engine, call: Call) -> str:
    names = sorted(engine.permissions.granting(call.target.name, call.door))
    return f"roles that may: {', '.join(names)}" if names else "no role grants this operation"


def missing_grant(engine: Engine, held: tuple[str, ...], permission: str) -> Suggestion | None:
    """Return the grant to add to one of the user's roles: to the one that grants least, to open least."""
    roles = engine.snapshot.roles
    own = [role for role in roles.values() if role.name in held or role.groups & set(held)]
    if not own:
        return None
    role = min(own, key=lambda r: (len(grants_of(roles, r.name)), r.name))
    path = ("roles", role.name) if _is_list(role) else ("roles", role.name, "grants")
    service, _, operation = permission.partition(".")
    having = {(service, operation), (service, None)}
    others = sorted(
        r.name
        for r in roles.values()
        if r is not role and _includes(roles, r, role.name) and not having & grants_of(roles, r.name)
    )
    return Suggestion(edits=(Edit(path=path, yaml=permission, span=role.span),), also_opens=tuple(others))


def _is_list(role: Role) -> bool:
    return not role.includes and not role.groups


def _includes(roles: Mapping[str, Role], role: Role, name: str) -> bool:
    seen: set[str] = set()
    waiting = [role.name]
    while waiting:
        current = roles[waiting.pop()]
        if current.name not in seen:
            seen.add(current.name)
            waiting += current.includes
    return name in seen
