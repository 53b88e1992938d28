# SPDX-License-Identifier: Apache-2.0
"""What recorded traffic says about a policy: grants that nobody used, rules wider than their use, edges that were refused.

Narrowing may be done by a patch; what would open something is a candidate for a person.  Nothing is proposed that a deny
rule speaks of, for the outside, or for callers who were only seen trying what no honest client sends.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from everyhop.authz._suggest import suggest_rule
from everyhop.authz.traffic import explain_seen, name_of_caller, unwatched
from everyhop.core.clock import rfc3339
from everyhop.core.decision import Reason
from everyhop.policy.access import concerns, doors_of_rule
from everyhop.policy.model import OUTSIDE, Mode, RuleEffect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from everyhop.authz.engine import Engine
    from everyhop.authz.explanation import Suggestion
    from everyhop.authz.traffic import Seen
    from everyhop.core.problems import Span
    from everyhop.policy.model import Role, Rule

ATTACKS: Final = frozenset({"ambiguous-path", "ambiguous-host", "malformed-request"})
"""Reasons of refusals that no honest client meets."""

UNDECLARED: Final = "undeclared-destination"
_REFUSED: Final = frozenset({Reason.NO_RULE.value, Reason.UNKNOWN_OPERATION.value, UNDECLARED})

Triple = tuple[str, str, str]  # caller, target, door


@dataclass(slots=True)
class Use:
    """How often something was used, and from when to when."""

    count: int = 0
    first: datetime | None = None
    last: datetime | None = None

    def add(self, seen: Seen) -> None:
        """Count calls."""
        self.count += seen.count
        self.first = seen.first if self.first is None else min(self.first, seen.first)
        self.last = seen.last if self.last is None else max(self.last, seen.last)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        moments = {"first": self.first, "last": self.last}
        return {
            "count": self.count,
            **{name: None if at is None else rfc3339(at) for name, at in moments.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """A rule, or a grant of a role, that is wider than its use; ``keep`` says what is used, by key, {} for nothing at all.

    For a rule the keys are ``from``, ``to`` and ``operations``; for a grant ``grants``.
    """

    rule: Rule | None
    role: Role | None
    grant: str | None
    keep: dict[str, tuple[str, ...]]
    use: Use
    message: str

    @property
    def span(self) -> Span:
        """Return where the rule or the role stands."""
        about = self.rule or self.role
        assert about is not None  # noqa: S101  # it is about one of them
        return about.span

    @property
    def is_unused(self) -> bool:
        """Tell whether nothing of it was used."""
        return not self.use.count

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "kind": "unused" if self.is_unused else "too-wide",
            "rule": None if self.rule is None else self.rule.id,
            "role": None if self.role is None else self.role.name,
            "grant": self.grant,
            "keep": {key: list(values) for key, values in self.keep.items()},
            "file": self.span.file,
            "line": self.span.line,
            "message": self.message,
            **self.use.to_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Calls that were refused and that a change would let in; ``suggestion`` is None where ``note`` says why there is none."""

    seen: Seen
    caller: str
    suggestion: Suggestion | None
    note: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            **self.seen.evidence(),
            "from": self.caller,
            "reason": self.seen.reason,
            "suggestion": None if self.suggestion is None else self.suggestion.to_dict(),
            "note": self.note,
        }


def uses_of(engine: Engine, groups: Iterable[Seen]) -> tuple[dict[Triple, Use], dict[Triple, Use]]:
    """Return what was used: by caller, target and door, of all calls, and of those that were made for users.

    Calls that passed only because the policy is watched there used nothing of it.
    """
    every: dict[Triple, Use] = defaultdict(Use)
    for_users: dict[Triple, Use] = defaultdict(Use)
    for seen in groups:
        caller = name_of_caller(engine, seen)
        if not seen.is_allowed or seen.point == "egress" or seen.reason == Reason.SHADOWED:
            continue
        if caller is None or seen.target is None or seen.operation is None:
            continue
        every[caller, seen.target, seen.operation].add(seen)
        if seen.user:
            for_users[caller, seen.target, seen.operation].add(seen)
    return dict(every), dict(for_users)


def narrowings(engine: Engine, groups: Sequence[Seen]) -> list[Narrowing]:
    """Return the enforced allow rules and the grants that are wider than what was used, in the order of the text.

    Empty where nothing at all was recorded: that says nothing about any rule.
    """
    every, for_users = uses_of(engine, groups)
    if not every:
        return []
    found = [n for rule in engine.snapshot.rules if (n := _of_rule(engine, rule, every)) is not None]
    found += _of_roles(engine, for_users) if for_users else []
    return sorted(found, key=lambda n: (n.span.file, n.span.line, n.span.column, n.grant or ""))


def _of_rule(engine: Engine, rule: Rule, uses: dict[Triple, Use]) -> Narrowing | None:
    if rule.effect is not RuleEffect.ALLOW or rule.mode is not Mode.ENFORCE:
        return None
    doors = set(doors_of_rule(rule, engine.snapshot))
    used = {key: use for key, use in uses.items() if key[1:] in doors and concerns(rule, key[0])}
    total = _total(used.values())
    if not used:
        message = f"{rule.id} was not used"
        return Narrowing(rule=rule, role=None, grant=None, keep={}, use=total, message=message)
    callers = {name for name in (*engine.snapshot.services, OUTSIDE) if concerns(rule, name)}
    keep = {
        "from": _narrower(callers, {key[0] for key in used}),
        "to": _narrower({target for target, _ in doors}, {key[1] for key in used}),
    }
    if engine.snapshot.services[next(iter(used))[1]].tcp is None:
        keep["operations"] = _narrower({door for _, door in doors}, {key[2] for key in used})
    narrower = {key: values for key, values in keep.items() if values}
    if not narrower:
        return None
    shown = "; ".join(f"{key} only {', '.join(values)}" for key, values in narrower.items())
    return Narrowing(
        rule=rule, role=None, grant=None, keep=narrower, use=total, message=f"{rule.id}: used was {shown}"
    )


def _narrower(granted: set[str], used: set[str]) -> tuple[str, ...]:
    """Return what was used where that is less than what is granted, else nothing."""
    return tuple(sorted(used)) if used < granted else ()


def _of_roles(engine: Engine, uses: dict[Triple, Use]) -> Iterator[Narrowing]:
    """Yield the grants of which users used nothing, or not all; an operation is asked about whoever called it."""
    by_door: dict[tuple[str, str], Use] = defaultdict(Use)
    for (_, target, door), use in uses.items():
        by_door[target, door] = _total((by_door[target, door], use))
    for role in engine.snapshot.roles.values():
        for service, operation in sorted(role.grants, key=str):
            names = (
                [operation]
                if operation is not None
                else [o.name for o in engine.snapshot.services[service].operations]
            )
            used = [name for name in names if (service, name) in by_door]
            if len(used) == len(names):
                continue
            grant = f"{service}.{operation or '*'}"
            kept = tuple(f"{service}.{name}" for name in used)
            message = f"role {role.name}: no user called {grant}"
            if used:
                message = f"role {role.name}: of {grant}, users called {', '.join(kept)} only"
            yield Narrowing(
                rule=None,
                role=role,
                grant=grant,
                keep={"grants": kept} if used else {},
                use=_total(by_door[service, name] for name in used),
                message=message,
            )


def _total(uses: Iterable[Use]) -> Use:
    total = Use()
    for use in uses:
        if use.first is None or use.last is None:
            continue
        total.count += use.count
        total.first = use.first if total.first is None else min(total.first, use.first)
        total.last = use.last if total.last is None else max(total.last, use.last)
    return total


def candidates(engine: Engine, groups: Sequence[Seen]) -> tuple[list[Candidate], list[str]]:
    """Return refused calls that a change of the policy would let in, most often seen first, and callers left out.

    That an edge is only watched lets calls in for a while only, so it is looked past.
    """
    engine = unwatched(engine)
    hostile = _hostile(engine, groups)
    probing = searches(groups)
    found = []
    for seen in groups:
        caller = name_of_caller(engine, seen)
        if seen.is_allowed or seen.reason not in _REFUSED or caller is None or caller == OUTSIDE:
            continue
        if caller in hostile:
            continue
        if seen.reason == Reason.UNKNOWN_OPERATION and (seen.caller, seen.target) in probing:
            continue  # so many paths were tried that this looks like a search
        if (candidate := _candidate(engine, seen, caller)) is not None:
            found.append(candidate)
    return sorted(found, key=lambda c: (-c.seen.count, c.caller, c.seen.what)), sorted(hostile)


def searches(groups: Iterable[Seen]) -> set[tuple[str | None, str | None]]:
    """Return the callers and targets between which more calls of no operation were seen than are told apart."""
    return {(seen.caller, seen.target) for seen in groups if seen.operation is None and seen.call is None}


def _hostile(engine: Engine, groups: Sequence[Seen]) -> set[str]:
    """Return the callers that were seen with attacks and never with a call that was allowed."""
    attacking: set[str] = set()
    good: set[str] = set()
    for seen in groups:
        caller = name_of_caller(engine, seen)
        if caller is None or caller == OUTSIDE:
            continue
        if seen.is_allowed and seen.reason != Reason.SHADOWED:
            good.add(caller)
        elif seen.reason in ATTACKS or seen.would_reason in ATTACKS:
            attacking.add(caller)
    return attacking - good


def _candidate(engine: Engine, seen: Seen, caller: str) -> Candidate | None:
    if seen.target not in engine.snapshot.services:
        note = f"{seen.target} is no service of this policy"
        return Candidate(seen=seen, caller=caller, suggestion=None, note=note)
    explanation = explain_seen(engine, seen)
    if explanation is None or explanation.decision.is_allowed:
        return None  # too many to be told apart, or let in by now
    decision = explanation.decision
    target = decision.target
    if decision.operation is not None and (rule := _deny(engine, caller, target, decision.operation)):
        return Candidate(seen=seen, caller=caller, suggestion=None, note=f"{rule.id} speaks against it")
    if decision.reason not in {Reason.NO_RULE, Reason.UNKNOWN_OPERATION}:
        note = f"a rule lets it in, but not as it came [{decision.reason}]"
        return Candidate(seen=seen, caller=caller, suggestion=None, note=note)
    suggestion = explanation.suggestion or _for_users(engine, seen, caller, decision.operation)
    missing = None if suggestion else "no change lets in this and nothing else"
    return Candidate(seen=seen, caller=caller, suggestion=suggestion, note=missing)


def _for_users(engine: Engine, seen: Seen, caller: str, operation: str | None) -> Suggestion | None:
    """Return the rule for calls that were made for users, whatever roles they have."""
    if not seen.user or operation is None:
        return None
    return suggest_rule(engine.snapshot, caller, str(seen.target), operation, has_user=True)


def _deny(engine: Engine, caller: str, target: str, door: str) -> Rule | None:
    """Return a deny rule, in force or in shadow, under whatever condition, that speaks of a caller at a door."""
    found = engine.door(target, door)
    if found is None:
        return None
    plain = found.access.deny.rule_for(caller)
    further = (r for r in found.access.further_for(caller) if r.effect is RuleEffect.DENY)
    return plain or next(further, None)


def is_let_in(seen: Seen, engine: Engine) -> bool:
    """Tell whether such calls would be let in, as far as a text can say: which roles users have is not for it to say."""
    explanation = explain_seen(unwatched(engine), seen)
    if explanation is None:
        return False
    reason = explanation.decision.reason
    return explanation.decision.is_allowed or (seen.user and reason is Reason.USER_NOT_PERMITTED)
