# SPDX-License-Identifier: Apache-2.0
"""A snapshot as every compiler reads it: doors, who may pass each, and what a call must carry there.

Rules that deny without a condition are taken off here, so what is left are permissions that add up.  Whatever is only watched
(shadow) is not enforced anywhere else either: rules in shadow are left out, and an edge or a policy in shadow is a feature of
its own, which no other system holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from everyhop.authz.cases import Case, case_of
from everyhop.core.decision import Effect
from everyhop.policy.access import AccessIndex
from everyhop.policy.model import OUTSIDE, Mode, Protocol, RuleEffect, SegmentKind, TokenMode, UserMode
from everyhop.targets.model import Feature

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from everyhop.policy.access import Access
    from everyhop.policy.model import Operation, Rule, Service, Snapshot
    from everyhop.policy.targets import Placement, TargetSettings

TCP: Final = "tcp"
_PROTOCOLS: Final = {Protocol.GRPC: Feature.GRPC, Protocol.WEBSOCKET: Feature.WEBSOCKET}
_SEGMENTS: Final = {SegmentKind.PARAMETER: Feature.PARAMETER, SegmentKind.REST: Feature.REST}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One rule that opens a door to a caller, and the features that it needs beside identity, route and the door's own."""

    rule: Rule | None  # None: a probe, which no rule opens
    needs: frozenset[Feature]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One caller at one door: any of the alternatives opens it, as long as no conditional deny rule speaks against it.

    ``caller`` is a service's name or ``outside``.  ``case`` has the rules with their conditions.
    """

    caller: str
    alternatives: tuple[Alternative, ...]
    denied_if: tuple[Rule, ...]
    case: Case

    @property
    def rules(self) -> tuple[str, ...]:
        """Return the ids of the rules, for comments."""
        return tuple(one.rule.id for one in self.alternatives if one.rule is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """One operation, probe, or the tcp port of a service; ``grants`` are ordered by caller.

    ``features`` are those of the door itself, which every call there needs.
    """

    service: str
    name: str
    operation: Operation | None  # None: bytes on the tcp port
    is_probe: bool
    features: frozenset[Feature]
    grants: tuple[Grant, ...]

    def __str__(self) -> str:
        return f"{self.service}.{self.name}"


@dataclass(frozen=True, kw_only=True)
class ServiceIntents:
    """One service with its doors: operations in the policy's order, then probes, or the one tcp door."""

    service: Service
    place: Placement
    doors: tuple[Door, ...]

    @property
    def name(self) -> str:
        """Return its name."""
        return self.service.name

    @property
    def port(self) -> int:
        """Return the port that its pods listen on."""
        return self.place.port if self.service.tcp is None else self.service.tcp

    @cached_property
    def callers(self) -> tuple[str, ...]:
        """Return everybody who may pass some door, sorted; ``outside`` among them."""
        return tuple(sorted({grant.caller for door in self.doors for grant in door.grants}))


class Intents:
    """Every service of a snapshot, lowered when it is asked for; canaries have no doors."""

    def __init__(self, snapshot: Snapshot, index: AccessIndex | None = None) -> None:
        """``index`` is the snapshot's, where somebody has it already."""
        self.snapshot: Final = snapshot
        self._index = index or AccessIndex(snapshot)
        self._done: dict[str, ServiceIntents] = {}

    @property
    def settings(self) -> TargetSettings:
        """Return the chapter ``targets``."""
        return self.snapshot.targets

    @property
    def trust_domain(self) -> str:
        """Return the trust domain of identities in the mesh."""
        return self.settings.trust_domain or self.snapshot.trust_domain.name

    @property
    def features(self) -> frozenset[Feature]:
        """Return the features of the whole policy."""
        found = {Feature.EGRESS} if self.settings.egress else set[Feature]()
        if self.snapshot.mode is Mode.SHADOW or self.snapshot.shadow_edges:
            found.add(Feature.SHADOW)
        return frozenset(found)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the services, sorted."""
        return tuple(sorted(self.snapshot.services))

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Return the namespaces in which services stand, sorted."""
        return tuple(sorted({self.settings.place(name).namespace for name in self.snapshot.services}))

    def __iter__(self) -> Iterator[ServiceIntents]:
        return (self.of(name) for name in self.names)

    def of(self, name: str) -> ServiceIntents:
        """Return a declared service (KeyError otherwise)."""
        found = self._done.get(name)
        if found is None:
            found = self._done[name] = self._lowered(self.snapshot.services[name])
        return found

    def mesh_identity(self, caller: str) -> str:
        """Return the SPIFFE ID that Istio's form gives a service, or the gateway for ``outside`` (KeyError without one)."""
        if caller == OUTSIDE:
            gateway = self.settings.gateway
            if gateway is None:
                raise KeyError(caller)
            return f"spiffe://{self.trust_domain}/ns/{gateway.namespace}/sa/{gateway.service_account}"
        place = self.settings.place(caller)
        return f"spiffe://{self.trust_domain}/ns/{place.namespace}/sa/{place.service_account}"

    def targets_of(self, caller: str) -> tuple[str, ...]:
        """Return the services of which a caller may pass some door, sorted."""
        return self._reachable.get(caller, ())

    @cached_property
    def by_namespace(self) -> Mapping[str, tuple[ServiceIntents, ...]]:
        """Return the services of each namespace, in the order of their names."""
        found: dict[str, list[ServiceIntents]] = {}
        for service in self:
            found.setdefault(service.place.namespace, []).append(service)
        return {namespace: tuple(found[namespace]) for namespace in sorted(found)}

    @cached_property
    def _reachable(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for service in self:
            for caller in service.callers:
                found.setdefault(caller, []).append(service.name)
        return {caller: tuple(names) for caller, names in found.items()}

    def _lowered(self, service: Service) -> ServiceIntents:
        doors: list[Door] = []
        if service.tcp is not None:
            doors.append(self._door(service, TCP, None, is_probe=False))
        for operations, is_probe in ((service.operations, False), (service.probes, True)):
            doors += [self._door(service, one.name, one, is_probe=is_probe) for one in operations]
        return ServiceIntents(service=service, place=self.settings.place(service.name), doors=tuple(doors))

    def _door(self, service: Service, name: str, operation: Operation | None, *, is_probe: bool) -> Door:
        access = self._index.of(service.name, name)
        probe = f"services.{service.name}.{name}" if is_probe else None
        grants = (
            self._grant(access, caller, probe) for caller in self._candidates(access, is_probe=is_probe)
        )
        return Door(
            service=service.name,
            name=name,
            operation=operation,
            is_probe=is_probe,
            features=frozenset(_features(operation, is_probe=is_probe)),
            grants=tuple(grant for grant in grants if grant is not None),
        )

    def _candidates(self, access: Access, *, is_probe: bool) -> list[str]:
        """Return those whom some rule could let pass: few of thousands, unless a rule says any."""
        further = [rule for rule in access.further if rule.effect is RuleEffect.ALLOW]
        if is_probe or access.allow.by_any is not None or any(rule.callers is None for rule in further):
            callers = {name for name, one in self.snapshot.services.items() if not one.is_canary}
        else:
            callers = set(access.allow.by_caller).union(*(rule.callers or () for rule in further))
        if access.allow.by_outside is not None or any(OUTSIDE in (rule.callers or ()) for rule in further):
            callers.add(OUTSIDE)
        return sorted(callers)

    def _grant(self, access: Access, caller: str, probe: str | None) -> Grant | None:
        case = case_of(access, caller, probe=probe)
        if case.deny is not None:
            return None
        settled = case.settled
        if settled is not None and settled.effect is Effect.DENY:
            return None
        if case.probe is not None:
            alternatives: tuple[Alternative, ...] = (Alternative(rule=None, needs=frozenset()),)
        else:
            alternatives = tuple(
                Alternative(rule=rule, needs=frozenset(self._needs(rule))) for rule in case.without_user
            )
        if not alternatives:
            return None
        return Grant(caller=caller, alternatives=alternatives, denied_if=case.deny_if, case=case)

    def _needs(self, rule: Rule) -> Iterator[Feature]:
        if rule.user is UserMode.REQUIRED:
            yield Feature.USER
        if rule.user is not UserMode.NONE and self.snapshot.roles:
            yield Feature.ROLES
        if rule.when is not None:
            yield Feature.CONDITION


def _features(operation: Operation | None, *, is_probe: bool) -> Iterator[Feature]:
    yield from (Feature.IDENTITY, Feature.MTLS)
    if is_probe:
        yield Feature.PROBES
    if operation is None:
        yield Feature.TCP
        return
    yield Feature.ROUTE
    if not operation.route.is_literal:
        yield Feature.AMBIGUOUS_PATHS  # a path that is compared as a whole has no second spelling to refuse
    if operation.protocol in _PROTOCOLS:
        yield _PROTOCOLS[operation.protocol]
    for segment in operation.route.segments:
        if segment.kind in _SEGMENTS:
            yield _SEGMENTS[segment.kind]
    if operation.token is not TokenMode.NONE:
        yield from (Feature.TOKEN, Feature.TOKEN_BINDING)
    if operation.token is TokenMode.OPERATION:
        yield Feature.TOKEN_OPERATION
    if operation.once:
        yield Feature.ONCE
    if operation.body is not None:
        yield Feature.BODY
    if operation.leaves_resource:
        yield Feature.RESOURCE
