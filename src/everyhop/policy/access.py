# SPDX-License-Identifier: Apache-2.0
"""Rules spread out over the doors they concern, so that a question is two look-ups and not a scan.

A *door* is an operation, a probe or the tcp port of a service.  Doors that the same rules concern share one
:class:`Access`, so a rule over many callers, targets and operations costs their sum and not their product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.policy.model import OUTSIDE, Mode, RuleEffect, UserMode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from everyhop.policy.model import Rule, Service, Snapshot

TCP: Final = "tcp"
"""The name of a tcp service's only door; no operation of a tcp service can bear it, for it has none."""


@dataclass(frozen=True, slots=True)
class Matches:
    """The rules of one effect that concern a door, by caller: the first rule of the policy's order wins."""

    by_caller: Mapping[str, Rule]
    by_any: Rule | None
    by_outside: Rule | None

    def rule_for(self, caller: str) -> Rule | None:
        """Return the first rule that matches a declared caller (a service name), or ``outside``."""
        if caller == OUTSIDE:
            return self.by_outside
        return self.by_caller.get(caller, self.by_any)


@dataclass(frozen=True, slots=True)
class Access:
    """Who may and who may not use a door.

    ``allow`` and ``deny`` hold the rules that always count; ``further`` holds, in the policy's order, those that count
    only under a condition, for a user with a role, or in shadow.  ``with_user`` holds the enforced allow rules if any
    of them speaks of users.
    """

    allow: Matches
    deny: Matches
    with_user: tuple[Rule, ...] = ()
    further: tuple[Rule, ...] = ()

    def allows(self, caller: str, *, is_probe: bool) -> bool:
        """Tell whether a declared caller can pass, under some condition at least, and whoever the user is."""
        if self.deny.rule_for(caller) is not None:
            return False
        if is_probe:
            return caller != OUTSIDE
        return self.allow.rule_for(caller) is not None or any(
            rule.effect is RuleEffect.ALLOW and rule.mode is Mode.ENFORCE and concerns(rule, caller)
            for rule in self.further
        )

    def further_for(self, caller: str) -> tuple[Rule, ...]:
        """Return those of the further rules that are about a caller."""
        return tuple(rule for rule in self.further if concerns(rule, caller))

    def user_mode(self, caller: str) -> UserMode:
        """Return whether a call of ``caller`` is made for a user, over all allow rules that match it.

        Rules add up: where one allows the call without a user and another with one, a user is optional.
        """
        modes = {rule.user for rule in self.with_user if concerns(rule, caller)}
        return modes.pop() if len(modes) == 1 else UserMode.OPTIONAL if modes else UserMode.NONE


class AccessIndex:
    """All doors of a snapshot with the rules that concern them."""

    def __init__(self, snapshot: Snapshot) -> None:
        concerned: dict[tuple[str, str], tuple[list[int], list[int]]] = {
            (name, door): ([], []) for name, service in snapshot.services.items() for door in doors(service)
        }
        for index, rule in enumerate(snapshot.rules):
            for key in doors_of_rule(rule, snapshot):
                concerned[key][rule.effect is RuleEffect.DENY].append(index)
        shared: dict[tuple[tuple[int, ...], tuple[int, ...]], Access] = {}
        self._access: dict[tuple[str, str], Access] = {}
        for key, (allowing, denying) in concerned.items():
            rules = tuple(allowing), tuple(denying)
            access = shared.get(rules)
            if access is None:
                access = shared[rules] = _access(snapshot, *rules)
            self._access[key] = access

    def of(self, target: str, door: str) -> Access:
        """Return the access of a declared door (KeyError otherwise)."""
        return self._access[target, door]


def _access(snapshot: Snapshot, allowing: tuple[int, ...], denying: tuple[int, ...]) -> Access:
    plain: dict[RuleEffect, list[Rule]] = {RuleEffect.ALLOW: [], RuleEffect.DENY: []}
    further: list[Rule] = []
    for index in (*allowing, *denying):
        rule = snapshot.rules[index]
        (plain[rule.effect] if is_plain(rule, snapshot) else further).append(rule)
    enforced = tuple(r for r in (snapshot.rules[i] for i in allowing) if r.mode is Mode.ENFORCE)
    with_user = enforced if any(rule.user is not UserMode.NONE for rule in enforced) else ()
    return Access(
        _matches(plain[RuleEffect.ALLOW]), _matches(plain[RuleEffect.DENY]), with_user, tuple(further)
    )


def is_plain(rule: Rule, snapshot: Snapshot) -> bool:
    """Tell whether a rule always counts: it is enforced, has no condition, and looks at no roles."""
    is_role_checked = rule.user is not UserMode.NONE and bool(snapshot.roles)
    return rule.mode is Mode.ENFORCE and rule.when is None and not is_role_checked


def doors(service: Service) -> tuple[str, ...]:
    """Return the names of a service's doors: operations, then probes, or ``tcp``."""
    if service.tcp is not None:
        return (TCP,)
    return tuple(operation.name for operation in (*service.operations, *service.probes))


def doors_of_rule(rule: Rule, snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Yield ``(service, door)`` for every door that a rule concerns.

    A rule without operations concerns all of them; a deny rule then covers probes and tcp too, an allow rule
    tcp only where it names the service: ``to: any`` never opens a raw port.
    """
    is_deny = rule.effect is RuleEffect.DENY
    for name in snapshot.services if rule.targets is None else sorted(rule.targets):
        service = snapshot.services[name]
        if service.tcp is not None:
            if rule.operations is None and (is_deny or rule.targets is not None):
                yield name, TCP
            continue
        for operation in service.operations:
            if rule.operations is None or operation.name in rule.operations:
                yield name, operation.name
        if is_deny and rule.operations is None:
            for probe in service.probes:
                yield name, probe.name


def _matches(rules: Sequence[Rule]) -> Matches:
    by_caller: dict[str, Rule] = {}
    by_any: Rule | None = None
    for rule in rules:
        if by_any is not None:
            break  # whatever follows is never first
        if rule.callers is None:
            by_any = rule
            continue
        for caller in rule.callers:
            by_caller.setdefault(caller, rule)
    by_outside = next((rule for rule in rules if concerns(rule, OUTSIDE)), None)
    return Matches(by_caller, by_any, by_outside)


def concerns(rule: Rule, caller: str) -> bool:
    """Tell whether a rule is about a caller; ``any`` means the outside in deny rules only."""
    if rule.callers is None:
        return caller != OUTSIDE or rule.effect is RuleEffect.DENY
    return caller in rule.callers
