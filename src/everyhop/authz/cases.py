# SPDX-License-Identifier: Apache-2.0
"""One caller at one door: the rules that concern it, and what they say under the facts of a call.

Deny beats allow.  A rule matches when its user is there and permitted and its condition is really true.  A condition
that cannot be evaluated never opens anything: a deny rule with such a condition denies, an allow rule does not allow.
Rules that always count decide before those with conditions, so their answer needs no facts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

from everyhop.conditions import Truth
from everyhop.core.decision import Effect, Reason, Would
from everyhop.policy.access import concerns
from everyhop.policy.model import OUTSIDE, Mode, RuleEffect, UserMode

if TYPE_CHECKING:
    from collections.abc import Callable

    from everyhop.authz.facts import Call, FactSheet
    from everyhop.authz.permissions import Permissions
    from everyhop.policy.access import Access
    from everyhop.policy.model import Rule, Snapshot

PROGRESS: Final = {
    Reason.USER_REQUIRED: 1,
    Reason.USER_NOT_PERMITTED: 2,
    Reason.CONDITION_FALSE: 3,
    Reason.CONDITION_ERROR: 3,
}
SOFT: Final = frozenset(
    {
        Reason.NO_RULE,
        Reason.DENIED_BY_RULE,
        Reason.CONDITION_FALSE,
        Reason.CONDITION_ERROR,
        Reason.USER_NOT_PERMITTED,
        Reason.UNKNOWN_OPERATION,
    }
)
"""Denials that are only recorded where a policy is only watched: questions of permission, not of who and how."""


class Judgement(NamedTuple):
    """Effect, reason and the id of the rule that decided, if one did; ``deciding`` is that rule."""

    effect: Effect
    reason: Reason
    rule: str | None
    deciding: Rule | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """The rules for one caller at one door: ``deny`` and ``allow`` always count, the others under conditions.

    ``allow_also`` always count too: they differ from ``allow`` in whether there must be a user.
    """

    deny: Rule | None
    deny_if: tuple[Rule, ...]
    allow: Rule | None
    allow_if: tuple[Rule, ...]
    probe: str | None
    allow_also: tuple[Rule, ...] = ()

    @property
    def settled(self) -> Judgement | None:
        """Return the answer that holds whatever the facts are, or None where they count.

        The user is not among these facts where the policy asks for no permissions: that there must be one is a
        requirement of its own (:mod:`everyhop.authz.requirements`).
        """
        if self.deny is not None:
            return _denied(self.deny)
        if self.deny_if:
            return None
        if self.probe is not None:
            return Judgement(Effect.ALLOW, Reason.PROBE, self.probe)
        if self.allow is not None and not any(rule.user is not UserMode.NONE for rule in self.allow_if):
            return _allowed(self.allow)
        return None if self.allow_if else _NO_RULE

    @property
    def asks_for_user(self) -> bool:
        """Tell whether some allow rule is about users."""
        return any(rule.user is not UserMode.NONE for rule in self._allowing)

    def settled_with_facts(self) -> Judgement | None:
        """Return the answer that holds whatever the facts are, the user among them."""
        return None if self.asks_for_user and self.deny is None and self.probe is None else self.settled

    def judge(self, call: Call, facts: FactSheet, permissions: Permissions) -> Judgement:
        """Return the answer under the facts of a call."""
        if self.deny is not None:
            return _denied(self.deny)
        for rule in self.deny_if:
            truth = _truth(rule, call, facts)
            if truth is not Truth.FALSE:
                is_true = truth is Truth.TRUE
                reason = Reason.DENIED_BY_RULE if is_true else Reason.CONDITION_ERROR
                return Judgement(Effect.DENY, reason, rule.id, rule)
        if self.probe is not None:
            return Judgement(Effect.ALLOW, Reason.PROBE, self.probe)
        nearest = Reason.NO_RULE
        for rule in self.without_user if call.context.user is None else self.with_user:
            failure = allow_failure(rule, call, facts, permissions)
            if failure is None:
                return _allowed(rule)
            if PROGRESS[failure] > PROGRESS.get(nearest, 0):
                nearest = failure
        # What is named as the rule of a denial is a rule that denied; the nearest allow rule is for explanations.
        return Judgement(Effect.DENY, nearest, None)

    @cached_property
    def without_user(self) -> tuple[Rule, ...]:
        """Return the allow rules in the order in which they are asked about a call without a user."""
        return tuple(sorted(self._allowing, key=lambda rule: rule.user is not UserMode.NONE))

    @cached_property
    def with_user(self) -> tuple[Rule, ...]:
        """Return them for a call with one: rules for users first, for they say whether its claims are believed."""
        return tuple(sorted(self._allowing, key=lambda rule: rule.user is UserMode.NONE))

    @property
    def _allowing(self) -> tuple[Rule, ...]:
        return self.allow_if if self.allow is None else (self.allow, *self.allow_also, *self.allow_if)


class Outcome(NamedTuple):
    """What is enforced, and what would be if what is only watched were in force (None where that is the same)."""

    enforced: Judgement
    would: Would | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """The rules in force, and where something is only watched, those with the watched ones among them."""

    enforced: Case
    watched: Case | None
    is_watched: bool

    @classmethod
    def of(cls, snapshot: Snapshot, access: Access, caller: str, target: str, probe: str | None) -> Cases:
        """Return the cases of a declared caller (or ``outside``) at a door of a target."""
        is_watched = snapshot.is_watched(caller, target)
        has_watched_rule = any(rule.mode is Mode.SHADOW for rule in access.further_for(caller))
        return cls(
            enforced=case_of(access, caller, probe=probe),
            watched=case_of(access, caller, probe=probe, shadow=True) if has_watched_rule else None,
            is_watched=is_watched,
        )

    def settled(self, *, with_facts: bool) -> Outcome | None:
        """Return the outcome that no fact can change; ``with_facts`` counts the user among the facts."""
        enforced = self.enforced.settled_with_facts() if with_facts else self.enforced.settled
        if enforced is None:
            return None
        if self.watched is None:
            return self._outcome(enforced, enforced)
        watched = self.watched.settled_with_facts() if with_facts else self.watched.settled
        return None if watched is None else self._outcome(enforced, watched)

    def judge(self, call: Call, facts: FactSheet, permissions: Permissions) -> Outcome:
        """Return the outcome under the facts of a call."""
        return self.judge_by(lambda case: case.judge(call, facts, permissions))

    def judge_by(self, judge: Callable[[Case], Judgement]) -> Outcome:
        """Return the outcome when each case is judged by a function."""
        enforced = judge(self.enforced)
        watched = enforced if self.watched is None else judge(self.watched)
        return self._outcome(enforced, watched)

    def _outcome(self, enforced: Judgement, watched: Judgement) -> Outcome:
        if self.is_watched and enforced.effect is Effect.DENY and enforced.reason in SOFT:
            enforced = WATCHED
        return Outcome(enforced=enforced, would=would(enforced, watched))


def would(enforced: Judgement, watched: Judgement) -> Would | None:
    """Return the other decision where its effect differs."""
    if enforced.effect is watched.effect:
        return None
    return Would(effect=watched.effect, reason=watched.reason, rule=watched.rule)


WATCHED: Final = Judgement(Effect.ALLOW, Reason.SHADOWED, None)
_NO_RULE: Final = Judgement(Effect.DENY, Reason.NO_RULE, None)


def _denied(rule: Rule) -> Judgement:
    return Judgement(Effect.DENY, Reason.DENIED_BY_RULE, rule.id, rule)


def _allowed(rule: Rule) -> Judgement:
    return Judgement(Effect.ALLOW, Reason.ALLOWED, rule.id, rule)


def case_of(access: Access, caller: str, *, probe: str | None, shadow: bool = False) -> Case:
    """Return the case of a declared caller (or ``outside``); with ``shadow`` as if watched rules were in force.

    ``probe`` is the id of the rule that opens a probe to every declared service, None for other doors.
    """
    rules = [r for r in access.further_for(caller) if shadow or r.mode is Mode.ENFORCE]
    deny = access.deny.rule_for(caller)
    allow = access.allow.rule_for(caller)
    conditional = []
    for rule in rules:
        if rule.when is None and rule.effect is RuleEffect.DENY:
            deny = deny or rule  # a deny rule in shadow without a condition
        elif rule.when is None and rule.mode is Mode.SHADOW and rule.user is UserMode.NONE and allow is None:
            allow = rule  # an allow rule in shadow that no fact can change
        else:
            conditional.append(rule)
    return Case(
        deny=deny,
        deny_if=tuple(rule for rule in conditional if rule.effect is RuleEffect.DENY),
        allow=allow,
        allow_if=tuple(rule for rule in conditional if rule.effect is RuleEffect.ALLOW),
        probe=probe if caller != OUTSIDE else None,
        allow_also=_also(access, caller, allow),
    )


def _also(access: Access, caller: str, allow: Rule | None) -> tuple[Rule, ...]:
    """Return the rules that always count and say something else of the user than the first such rule."""
    found: dict[UserMode, Rule] = {}
    if allow is not None:
        for rule in access.with_user:
            if rule not in access.further and rule.user is not allow.user and concerns(rule, caller):
                found.setdefault(rule.user, rule)
    return tuple(found.values())


def user_failure(rule: Rule, call: Call, facts: FactSheet, permissions: Permissions) -> Reason | None:
    """Return what an allow rule misses in the user of a call, before its condition is looked at; None for nothing."""
    user = call.context.user
    if rule.user is not UserMode.NONE:
        if user is None:
            if rule.user is UserMode.REQUIRED:
                return Reason.USER_REQUIRED
        elif permissions.are_asked and not permissions.permits(
            facts.roles(user), call.target.name, call.door
        ):
            return Reason.USER_NOT_PERMITTED
    return None


def allow_failure(rule: Rule, call: Call, facts: FactSheet, permissions: Permissions) -> Reason | None:
    """Return why an allow rule does not allow a call that it is about, or None where it does."""
    failure = user_failure(rule, call, facts, permissions)
    if failure is not None:
        return failure
    truth = _truth(rule, call, facts)
    if truth is Truth.TRUE:
        return None
    return Reason.CONDITION_FALSE if truth is Truth.FALSE else Reason.CONDITION_ERROR


def _truth(rule: Rule, call: Call, facts: FactSheet) -> Truth:
    if rule.condition is None:
        return Truth.TRUE
    return rule.condition.evaluate(facts.values(rule.condition, call)).truth
