# SPDX-License-Identifier: Apache-2.0
"""Which resources may be seen: the decision at a door with the resource left open.

What is known (caller, user, time, request) is decided now, by the same rules and the same evaluation as everywhere;
what a rule says of the resource remains as a predicate.  A :class:`Filter` allows a resource exactly when
:meth:`everyhop.authz.engine.Engine.decide_door` does with that resource in its context.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from everyhop.authz.cases import PROGRESS, SOFT, WATCHED, Case, Judgement, user_failure
from everyhop.conditions import Truth, ValueType, predicates as p
from everyhop.conditions.partial import converted, reduce
from everyhop.core.decision import Effect, Reason
from everyhop.core.errors import InputError
from everyhop.policy.facts import NOTHING_KNOWN, Resource
from everyhop.policy.model import RuleEffect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from everyhop.authz.engine import Engine
    from everyhop.authz.facts import Call, FactSheet
    from everyhop.authz.permissions import Permissions
    from everyhop.conditions import Condition
    from everyhop.policy.facts import Context
    from everyhop.policy.model import Rule, Snapshot

PREFIX: Final = "resource."
ID: Final = "resource.id"
TYPE: Final = "resource.type"
MAX_KNOWN: Final = 200
"""Resources of one type that the directory may know with attributes, for a filter to take them into account."""


class Extent(StrEnum):
    """How many resources a filter allows, as far as it can be told without looking at them."""

    NONE = "none"
    SOME = "some"
    ALL = "all"  # every one whose attributes are of their declared types


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """What one rule says of a resource, the rest of the call being what it is.

    ``rule`` and ``text`` (the condition, None without one) are for people.  ``reads`` are all attributes of resources
    that the condition names: where one has a value that is not of its type, the condition is an error, whether or not
    ``predicate`` still looks at it.
    """

    rule: str
    text: str | None
    predicate: p.Predicate
    reads: Mapping[str, p.Attribute] = field(default_factory=lambda: MappingProxyType({}))
    condition: Condition | None = field(default=None, repr=False, compare=False)

    def truth(self, values: Mapping[str, object]) -> Truth:
        """Return what the rule's condition says of a resource's values (dotted name -> value)."""
        if self.condition is None:
            return p.evaluate(self.predicate, {})
        given = converted(self.condition, values, self.reads)
        return Truth.ERROR if given is None else p.evaluate(self.predicate, given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """The resources of one type that a call may be about: some ``allow`` clause is true and every ``deny`` one false.

    ``type`` is that type (None: resources without one).  ``known`` holds a filter of its own for each resource, by id,
    of which the policy's directory states attributes: they go before what the application says.  ``judgement`` is the
    answer where no resource is allowed, else an allowing one, with the first allow rule that may apply.
    """

    type: str | None
    allow: tuple[Clause, ...]
    deny: tuple[Clause, ...]
    judgement: Judgement
    known: Mapping[str, Filter] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def extent(self) -> Extent:
        """Tell whether it allows none, some or all."""
        found = {self._own, *(one.extent for one in self.known.values())}
        return found.pop() if len(found) == 1 else Extent.SOME

    @property
    def clauses(self) -> tuple[Clause, ...]:
        """Return all clauses."""
        return (*self.allow, *self.deny)

    def allows(self, resource: Resource) -> bool:
        """Tell whether a resource is allowed; never one of another type."""
        if resource.type != self.type:
            return False
        known = self.known.get(resource.id or "")
        if known is not None:
            return known.allows(resource)
        values = {ID: resource.id, **{PREFIX + name: value for name, value in resource.attributes.items()}}
        return any(one.truth(values) is Truth.TRUE for one in self.allow) and all(
            one.truth(values) is Truth.FALSE for one in self.deny
        )

    @property
    def _own(self) -> Extent:
        if not self.allow:
            return Extent.NONE
        never = all(one.predicate == p.FALSE for one in self.deny)
        is_all = never and any(one.predicate == p.TRUE for one in self.allow)
        return Extent.ALL if is_all else Extent.SOME


class Reduced(NamedTuple):
    """A case with the resource left open."""

    allow: tuple[Clause, ...]
    deny: tuple[Clause, ...]
    judgement: Judgement


def filter_resources(
    engine: Engine,
    *,
    caller: str,
    target: str,
    operation: str,
    context: Context | None = None,
    resource_type: str | None = None,
    method: str | None = None,
    path: str | None = None,
) -> Filter:
    """Return which resources of a type a call at a door may be about.

    ``caller`` is a verified SPIFFE ID in normal form or ``outside``, ``operation`` the door's name, ``method`` and
    ``path`` are those of the call where there is one.  What ``context`` says of a resource is not looked at.  Raises
    InputError where the directory states attributes of more than 200 resources of the type.
    """
    owner, door = engine.name_of(caller), engine.door(target, operation)
    if door is None or owner is None:
        reason = Reason.UNKNOWN_CALLER if door is not None else Reason.UNKNOWN_OPERATION
        return Filter(type=resource_type, allow=(), deny=(), judgement=Judgement(Effect.DENY, reason, None))
    cases = door.cases_of(engine.snapshot, owner)
    snapshot = engine.snapshot

    def of(identifier: str | None) -> Filter:
        stated = Resource(type=resource_type, id=identifier)
        facts = replace(context or NOTHING_KNOWN, resource=stated)
        call = engine.call(door, caller, facts, method, path)
        reduced = reduce_case(
            cases.enforced,
            call,
            engine.facts,
            engine.permissions,
            unknown_of(snapshot, stated, directory(identifier)),
        )
        judged = reduced.judgement
        if cases.is_watched and judged.effect is Effect.DENY and judged.reason in SOFT:
            judged = WATCHED
        if cases.is_watched and judged.effect is Effect.ALLOW:
            # Where the policy is only watched, no condition on a resource denies.
            everything = Clause(rule=judged.rule or "shadow", text=None, predicate=p.TRUE)
            return Filter(type=resource_type, allow=(everything,), deny=(), judgement=judged)
        return Filter(type=resource_type, allow=reduced.allow, deny=reduced.deny, judgement=judged)

    kind = snapshot.directory.resources.get(resource_type or "")
    items = {} if kind is None else {name: values for name, values in kind.items.items() if values}

    def directory(identifier: str | None) -> Mapping[str, object]:
        return items.get(identifier or "", {})

    if len(items) > MAX_KNOWN:
        raise InputError(
            f"the directory knows attributes of more than {MAX_KNOWN} resources of type {resource_type}",
            hint="attributes that the application holds do not belong into the directory",
        )
    found = of(None)
    known = {} if not _looks_at_attributes(cases.enforced) else {name: of(name) for name in items}
    return replace(found, known=MappingProxyType(known))


def enumerate_allowed(
    engine: Engine,
    *,
    caller: str,
    target: str,
    operation: str,
    context: Context | None = None,
    resources: Iterable[Resource],
    method: str | None = None,
    path: str | None = None,
) -> Iterator[Resource]:
    """Yield those of some resources that a call may be about, in their order, each decided by the engine itself.

    Lazily, so ``resources`` may be endless; where nothing can be allowed it is not looked at.  Arguments as for
    :func:`filter_resources`.
    """
    door, owner = engine.door(target, operation), engine.name_of(caller)
    if door is None or owner is None:
        return
    known = context or NOTHING_KNOWN
    case = door.cases_of(engine.snapshot, owner)
    if case.enforced.deny is not None and not case.is_watched:
        return
    for resource in resources:
        facts = replace(known, resource=resource)
        decision = engine.decide_door(
            caller=caller, target=target, door=operation, context=facts, method=method, path=path
        )
        if decision.is_allowed:
            yield resource


def unknown_of(
    snapshot: Snapshot, stated: Resource | None, directory: Mapping[str, object]
) -> dict[str, p.Attribute]:
    """Return what is open about a resource: what is neither stated nor in the directory, by dotted name.

    Without a resource its type is open too; with one, its type is what it says, also where it says none.
    """
    found = {
        PREFIX + name: p.Attribute(PREFIX + name, attribute.type, _plain(attribute.default))
        for name, attribute in snapshot.attributes.of("resource").items()
        if name not in directory
    }
    if stated is None or stated.id is None:
        found[ID] = p.Attribute(ID, ValueType.STRING)
    if stated is None:
        found[TYPE] = p.Attribute(TYPE, ValueType.STRING)
    return found


def reduce_case(
    case: Case,
    call: Call,
    facts: FactSheet,
    permissions: Permissions,
    unknown: Mapping[str, p.Attribute],
) -> Reduced:
    """Return a case with the resource left open; the judgement denies where no resource can be allowed."""
    if case.deny is not None:
        return Reduced((), (), Judgement(Effect.DENY, Reason.DENIED_BY_RULE, case.deny.id, case.deny))
    deny: list[Clause] = []
    for rule in case.deny_if:
        clause = _clause(rule, call, facts, unknown)
        if not p.can_be(Truth.FALSE, clause.predicate):
            is_true = clause.predicate == p.TRUE
            reason = Reason.DENIED_BY_RULE if is_true else Reason.CONDITION_ERROR
            return Reduced((), (), Judgement(Effect.DENY, reason, rule.id, rule))
        if clause.predicate != p.FALSE or clause.reads:
            deny.append(clause)
    if case.probe is not None:
        everything = Clause(rule=case.probe, text=None, predicate=p.TRUE)
        return Reduced((everything,), tuple(deny), Judgement(Effect.ALLOW, Reason.PROBE, case.probe))
    allow: list[Clause] = []
    first: Rule | None = None
    nearest = Reason.NO_RULE
    for rule in case.without_user if call.context.user is None else case.with_user:
        failure = user_failure(rule, call, facts, permissions)
        if failure is None:
            clause = _clause(rule, call, facts, unknown)
            if p.can_be(Truth.TRUE, clause.predicate):
                first = first or rule
                allow.append(clause)
                continue
            is_false = clause.predicate == p.FALSE
            failure = Reason.CONDITION_FALSE if is_false else Reason.CONDITION_ERROR
        if PROGRESS[failure] > PROGRESS.get(nearest, 0):
            nearest = failure
    if first is None:
        return Reduced((), tuple(deny), Judgement(Effect.DENY, nearest, None))
    is_certain = not deny and any(one.predicate == p.TRUE and not one.reads for one in allow)
    reason = Reason.ALLOWED if is_certain else Reason.APPLICATION_DECIDES
    return Reduced(tuple(allow), tuple(deny), Judgement(Effect.ALLOW, reason, first.id, first))


def _clause(rule: Rule, call: Call, facts: FactSheet, unknown: Mapping[str, p.Attribute]) -> Clause:
    condition = rule.condition
    if condition is None:
        return Clause(rule=rule.id, text=rule.when, predicate=p.TRUE)
    reads = {name: one for name, one in unknown.items() if name in condition.variables}
    predicate = reduce(condition, facts.values(condition, call), reads)
    return Clause(
        rule=rule.id,
        text=rule.when,
        predicate=predicate,
        reads=MappingProxyType(reads),
        condition=condition,
    )


def _looks_at_attributes(case: Case) -> bool:
    rules = (*case.deny_if, *(rule for rule in case.allow_if if rule.effect is RuleEffect.ALLOW))
    return any(
        name.startswith(PREFIX) and name not in {ID, TYPE}
        for rule in rules
        if rule.condition is not None
        for name in rule.condition.variables
    )


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
