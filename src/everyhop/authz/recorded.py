# SPDX-License-Identifier: Apache-2.0
"""Why was a recorded call decided so: from the record and the policy of then, and from nothing else.

The facts of a call (a user's roles, the time, headers) are not kept, only what the clauses of the deciding condition saw.
So where facts decided, the decision is not made again: it is told as it was recorded, with the rules that it was about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.authz._explain_facts import cite
from everyhop.authz.considered import is_about
from everyhop.authz.explanation import Explanation
from everyhop.core.decision import Decision, Effect, Reason, Would
from everyhop.policy.access import TCP
from everyhop.policy.model import OUTSIDE, Mode, RuleEffect, UserMode

if TYPE_CHECKING:
    from everyhop.authz.engine import Door, Engine
    from everyhop.policy.model import Rule

BY_FACTS: Final = frozenset(
    {Reason.CONDITION_FALSE, Reason.CONDITION_ERROR, Reason.USER_REQUIRED, Reason.USER_NOT_PERMITTED}
)
_REASONS: Final = frozenset(reason.value for reason in Reason)
_EFFECTS: Final = frozenset(effect.value for effect in Effect)
_MISSED: Final = {
    Reason.CONDITION_FALSE: "the condition under which {who} may {door} did not hold",
    Reason.CONDITION_ERROR: "the condition under which {who} may {door} could not be evaluated",
    Reason.USER_REQUIRED: "{who} may {door} only for a user, and the call carried none",
    Reason.USER_NOT_PERMITTED: "no role of the user granted {permission}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A decision as it was recorded.

    ``caller`` is a SPIFFE ID or ``outside``; ``method`` and ``path`` are None for a connection; ``facts`` is what the
    clauses saw, "" where none was looked at; ``user`` the verified user's id; ``reason`` and ``would_reason`` may be
    codes that are none of :class:`Reason` (a credential was refused).
    """

    caller: str
    target: str
    effect: str
    reason: str
    rule: str | None = None
    operation: str | None = None
    method: str | None = None
    path: str | None = None
    facts: str = ""
    user: str | None = None
    would: str | None = None
    would_reason: str | None = None
    would_rule: str | None = None


def explain_recorded(engine: Engine, seen: Recorded) -> tuple[Explanation | None, bool]:
    """Return the explanation of a recorded decision, and whether it could be derived again from the policy of then.

    ``engine`` holds the snapshot that the record names.  None where a credential was refused and facts would have decided
    the rest: what they were is not known.
    """
    if seen.method is not None and seen.path is not None:
        derived = engine.explain(caller=seen.caller, target=seen.target, method=seen.method, path=seen.path)
    else:
        derived = engine.explain_tcp(caller=seen.caller, target=seen.target)
    if seen.reason not in _REASONS:
        return (None if derived.decision.reason in BY_FACTS else derived), True
    made = derived.decision
    is_same = (made.effect.value, made.reason.value, made.rule) == (seen.effect, seen.reason, seen.rule)
    if is_same and not seen.facts and _is_settled(engine, seen):
        return derived, True
    return _as_recorded(engine, seen), False


def _is_settled(engine: Engine, seen: Recorded) -> bool:
    """Tell whether no fact could have changed the answer, that of the policy in shadow included."""
    door = None if seen.operation is None else engine.door(seen.target, seen.operation)
    caller = engine.name_of(seen.caller)
    if door is None or caller is None:
        return True
    return door.cases_of(engine.snapshot, caller).settled(with_facts=False) is not None


def _as_recorded(engine: Engine, seen: Recorded) -> Explanation:
    decision = _decision(engine, seen)
    door = None if seen.operation is None else engine.door(seen.target, seen.operation)
    rule = None if seen.rule is None else engine.rule(seen.rule)
    nearest = _nearest(engine, seen, door) if decision.reason in BY_FACTS and rule is None else ()
    return Explanation(
        decision=decision,
        summary=_summary(engine, decision, rule, door),
        rule=None if rule is None else cite(rule),
        nearest=cite(nearest[0]) if len(nearest) == 1 else None,
        notes=_notes(engine, seen, decision, nearest),
    )


def _decision(engine: Engine, seen: Recorded) -> Decision:
    would = None
    if seen.would in _EFFECTS and seen.would_reason in _REASONS:
        would = Would(effect=Effect(seen.would), reason=Reason(seen.would_reason), rule=seen.would_rule)
    return Decision(
        effect=Effect(seen.effect),
        reason=Reason(seen.reason),
        caller=seen.caller,
        target=seen.target,
        operation=seen.operation,
        rule=seen.rule,
        snapshot=engine.snapshot.hash,
        would=would,
    )


def _summary(engine: Engine, decision: Decision, rule: Rule | None, door: Door | None) -> str:
    name = engine.name_of(decision.caller) or decision.caller
    who = "a client from outside" if name == OUTSIDE else name
    where = f"call {decision.operation} on {decision.target}"
    if decision.operation == TCP:
        where = f"connect to {decision.target} (tcp)"
    elif door is None:
        where = f"call an operation of {decision.target} that the policy does not know"
    if rule is not None and decision.reason is Reason.CONDITION_ERROR:
        return f"a condition of {rule.id} could not be evaluated, which denied {who} to {where}"
    if decision.reason in _MISSED:
        permission = f"{decision.target}.{decision.operation}"
        return _MISSED[decision.reason].format(who=who, door=where, permission=permission)
    if decision.reason is Reason.SHADOWED:
        return f"{who} was let through to {decision.target}: the policy was only watched there"
    return f"{who} was {'let' if decision.is_allowed else 'not let'} {where}"


def _nearest(engine: Engine, seen: Recorded, door: Door | None) -> tuple[Rule, ...]:
    """Return the enforced allow rules that were about the call and could have failed for the recorded reason."""
    caller = engine.name_of(seen.caller)
    if door is None or caller is None:
        return ()
    call = engine.call(door, seen.caller, None, None, None)
    return tuple(
        rule
        for rule in engine.snapshot.rules
        if rule.effect is RuleEffect.ALLOW
        and rule.mode is Mode.ENFORCE
        and is_about(engine, rule, caller, call)
        and _could_fail(rule, seen.reason)
    )


def _could_fail(rule: Rule, reason: str) -> bool:
    if reason in {Reason.CONDITION_FALSE, Reason.CONDITION_ERROR}:
        return rule.when is not None
    if reason == Reason.USER_REQUIRED:
        return rule.user is UserMode.REQUIRED
    return rule.user is not UserMode.NONE


def _notes(engine: Engine, seen: Recorded, decision: Decision, nearest: tuple[Rule, ...]) -> tuple[str, ...]:
    notes = [f"seen then: {part}" for part in seen.facts.split("; ") if part]
    if seen.user is not None:
        notes.append(f"the call was made for the user {seen.user!r}")
    if len(nearest) > 1:
        places = ", ".join(f"{rule.id} at {rule.span}" for rule in nearest)
        notes.append(f"rules that could have allowed it: {places}")
    if decision.reason in {Reason.USER_REQUIRED, Reason.USER_NOT_PERMITTED} and engine.permissions.are_asked:
        names = sorted(engine.permissions.granting(seen.target, str(seen.operation)))
        notes.append(f"roles that may: {', '.join(names)}" if names else "no role grants this operation")
        if decision.reason is Reason.USER_NOT_PERMITTED:
            notes.append(
                f"what was missing: a grant of {seen.target}.{seen.operation} to a role of the user; "
                "which roles they had is not recorded"
            )
    if decision.would is not None:
        other = decision.would
        by = f" by {other.rule}" if other.rule else ""
        notes.append(f"in shadow: what was only watched would {other.effect} it{by} [{other.reason}]")
    return tuple(notes)
