# SPDX-License-Identifier: Apache-2.0
"""The requests that are asked: finite, and linear in what the policy grants.

Each door is asked by everybody whom a rule lets pass there, by strangers, and by representatives of all other declared services;
where the policy is small, by every declared service.  Then one of those who may pass, of each kind of grant, varies one thing at
a time: path, method, port, what is spoken, token, body; and whoever could be taken for them asks in their place.  Facts that
conditions turn on come from the boundary cases of the rules.  Why this is enough is argued in docs/explanation/proving.md.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from everyhop.authz.boundary_cases import boundary_cases
from everyhop.evaluators.model import Wire
from everyhop.policy.facts import NOTHING_KNOWN
from everyhop.policy.model import OUTSIDE, TokenMode
from everyhop.proving.asking import WIRES, Asking
from everyhop.proving.leaving import UNUSED_PORT, bounds, egress
from everyhop.proving.model import Ask, Caller, CallerKind, TokenState
from everyhop.proving.tokens import token_of, token_states
from everyhop.proving.variations import method_variations, path_variations
from everyhop.targets.model import Feature

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from everyhop.authz.boundary_cases import Case
    from everyhop.authz.engine import Engine
    from everyhop.evaluators.model import Workload
    from everyhop.policy.facts import Context
    from everyhop.targets.intents import Door, Grant, Intents, ServiceIntents

EXHAUSTIVE: Final = 4_000
"""Pairs of a declared caller and a door up to which every pair is asked."""

_FEW: Final = 2


class Space:
    """The requests of one snapshot, in the order of services and doors.

    ``dns`` is a pod of the cluster's DNS, given where something isolates pods in both directions: then each service is also asked
    for what it may reach beyond the policy.  ``services`` are those whose doors are asked, all without it.  ``mentioned`` names for a service the declared services that the manifests name in what speaks of it, beyond its callers.
    """

    def __init__(
        self,
        engine: Engine,
        intents: Intents,
        mentioned: Mapping[str, frozenset[str]] | None = None,
        *,
        dns: Workload | None = None,
        services: Iterable[str] | None = None,
    ) -> None:
        self._engine = engine
        self._intents = intents
        self._asking = Asking(intents)
        self._population = self._asking.population
        self._mentioned = mentioned or {}
        self._dns = dns
        self._only = None if services is None else tuple(services)
        self._names = intents.names
        doors = sum(
            len(one.operations) + len(one.probes) + (one.tcp is not None)
            for one in intents.snapshot.services.values()
        )
        self._is_small = doors * len(self._names) <= EXHAUSTIVE
        self._ports = sorted({intents.settings.place(name).port for name in self._names})

    def __iter__(self) -> Iterator[Ask]:
        for name in self._names if self._only is None else self._only:
            yield from self._service(self._intents.of(name))
        yield from self._facts()
        yield from egress(self._intents, self._population)
        if self._dns is not None:
            yield from bounds(self._intents, self._population, self._reached, self._dns)

    @cached_property
    def _edges(self) -> Mapping[str, frozenset[str]]:
        """Return who may pass a door of each service; a probe, which is open to all, counts in a small policy only."""
        return {
            service.name: frozenset(
                grant.caller
                for door in service.doors
                if self._is_small or not door.is_probe
                for grant in door.grants
            )
            for service in self._intents
        }

    @cached_property
    def _reached(self) -> Mapping[str, frozenset[str]]:
        found: dict[str, set[str]] = {}
        for service, callers in self._edges.items():
            for caller in callers:
                found.setdefault(caller, set()).add(service)
        return {caller: frozenset(services) for caller, services in found.items()}

    # -- one service

    def _service(self, service: ServiceIntents) -> Iterator[Ask]:
        if not service.doors:
            yield from self._shut(service)
        reach = self._edges[service.name]
        met: set[str] = set()
        for door in service.doors:
            if self._is_small:
                met.clear()
            yield from self._door(service, door, reach)
            yield from self._posed(service, door, met)
        for other in self._neighbours(service):
            yield from self._misdirected(service, other)

    def _posed(self, service: ServiceIntents, door: Door, met: set[str]) -> Iterator[Ask]:
        """Everybody who may pass some door is posed as there (in a large policy at the first of them), and tries other ports."""
        kinds = {grant.caller for grant in _kinds(door)}
        for grant in door.grants:
            name = grant.caller
            if name in met or name not in self._edges[service.name]:
                continue
            met.add(name)
            caller = self._caller(name)
            if caller is not None and name not in kinds:
                yield from self._impostors(service, door, caller)

    def _neighbours(self, service: ServiceIntents) -> Iterator[ServiceIntents]:
        """Yield services whose rules could come to lie on this one: all in a small policy, else the next of the namespace."""
        if self._is_small:
            names: Sequence[str] = self._names
        else:
            names = (self._next[service.name],)
        for name in names:
            if name != service.name:
                yield self._intents.of(name)

    @cached_property
    def _next(self) -> Mapping[str, str]:
        namespaces: dict[str, list[str]] = {}
        for name in self._names:
            namespaces.setdefault(self._intents.settings.place(name).namespace, []).append(name)
        return {
            name: names[(index + 1) % len(names)]
            for names in namespaces.values()
            for index, name in enumerate(names)
        }

    def _misdirected(self, service: ServiceIntents, other: ServiceIntents) -> Iterator[Ask]:
        """Send what another service permits to this one, as a rule would let it that lost its selector."""
        if (service.service.tcp is None) is not (other.service.tcp is None):
            return  # to a tcp port HTTP is bytes as any, and bytes at HTTP's port are asked anyhow
        for door in other.doors:
            for grant in _kinds(door)[:_FEW]:
                caller = self._caller(grant.caller)
                if caller is None:
                    continue
                meant = self._asking.ask(other, door, caller, aspect=Feature.ROUTE)
                request = replace(
                    meant.request, target=self._population.workload(service.name), port=service.port
                )
                yield replace(
                    meant,
                    service=service.name,
                    door="",
                    operation=None,
                    request=request,
                    variation=f"a call that is meant for {other.name}",
                    rank=4,
                )

    def _shut(self, service: ServiceIntents) -> Iterator[Ask]:
        """Ask a canary, or a service without doors."""
        callers = [self._population.service(name) for name in self._others(service, frozenset())]
        for caller in (*callers, *self._population.strangers(service.place.namespace)):
            request = self._asking.request(service, caller, Wire.HTTP, "GET", "/")
            yield Ask(caller=caller, service=service.name, door="", request=request, aspect=Feature.IDENTITY)

    def _door(self, service: ServiceIntents, door: Door, reach: frozenset[str]) -> Iterator[Ask]:
        grants = {grant.caller: grant for grant in door.grants}
        for caller in self._callers(service, set(grants)):
            aspect = _aspect(caller, grants, reach)
            rank = 0 if caller.kind in {CallerKind.SERVICE, CallerKind.STRANGER} else 1
            yield self._asking.ask(service, door, caller, aspect=aspect, rank=rank)
        kinds = _kinds(door)
        for grant in kinds:
            granted = self._caller(grant.caller)
            if granted is not None:
                yield from self._varied(service, door, granted, grant, is_first=grant is kinds[0])
        if not kinds:
            stranger = self._population.service(self._others(service, frozenset())[0])
            yield from self._varied(service, door, stranger, None, is_first=True)

    def _callers(self, service: ServiceIntents, granted: set[str]) -> Iterator[Caller]:
        for name in sorted(granted if self._is_small else granted & self._edges[service.name]):
            caller = self._caller(name)
            if caller is not None:
                yield caller
        others = self._names if self._is_small else self._others(service, frozenset(granted))
        for name in others:
            if name not in granted:
                yield self._population.service(name)
        if OUTSIDE not in granted and self._population.gateway is not None:
            yield self._population.gateway
        yield from self._population.strangers(service.place.namespace)
        yield from self._population.probes

    def _caller(self, name: str) -> Caller | None:
        return self._population.gateway if name == OUTSIDE else self._population.service(name)

    def _others(self, service: ServiceIntents, granted: frozenset[str]) -> list[str]:
        """Return representatives of the declared services that a door does not know, and those that manifests name."""
        chosen = {service.name}
        chosen.update(self._mentioned.get(service.name, ()))
        chosen.update(name for name in self._edges[service.name] if name != OUTSIDE)
        count = 0
        for name in self._names:
            if count == _FEW:
                break
            if name not in granted and name not in chosen:
                chosen.add(name)
                count += 1
        return sorted(chosen - granted) or [service.name]

    # -- one thing at a time

    def _varied(
        self, service: ServiceIntents, door: Door, caller: Caller, grant: Grant | None, *, is_first: bool
    ) -> Iterator[Ask]:
        """Vary one thing at a time, under facts that let the plain call pass where a rule asks for facts."""
        context = NOTHING_KNOWN if grant is None else self._context(door, grant)
        for ask in self._variations(service, door, caller, is_first=is_first):
            yield ask if context is NOTHING_KNOWN else replace(ask, context=context)

    def _context(self, door: Door, grant: Grant) -> Context:
        needs_nothing = any(not one.needs for one in grant.alternatives) and not grant.denied_if
        if needs_nothing:
            return NOTHING_KNOWN
        for rule in grant.rules:
            found = self._satisfying.get((door.service, door.name, rule))
            if found is not None:
                return found
        return NOTHING_KNOWN

    @cached_property
    def _satisfying(self) -> Mapping[tuple[str, str, str], Context]:
        found: dict[tuple[str, str, str], Context] = {}
        for case in self._cases:
            if case.decision.is_allowed and case.decision.operation is not None:
                found.setdefault((case.target, case.decision.operation, case.rule.id), case.context)
        return found

    @cached_property
    def _cases(self) -> list[Case]:
        return boundary_cases(self._engine)

    def _variations(
        self, service: ServiceIntents, door: Door, caller: Caller, *, is_first: bool
    ) -> Iterator[Ask]:
        yield from self._impostors(service, door, caller)
        operation = door.operation
        if operation is None:
            return
        if operation.body is not None:
            yield self._asking.ask(
                service, door, caller, variation="a body that its schema refuses", rank=3, aspect=Feature.BODY,
                is_body_valid=False,
            )  # fmt: skip
        for state in token_states(operation):
            yield self._asking.ask(
                service, door, caller, rank=3, aspect=_TOKEN_ASPECTS.get(state, Feature.TOKEN), token=state
            )
        yield self._asking.ask(
            service,
            door,
            caller,
            variation="bytes that are no HTTP",
            rank=4,
            aspect=Feature.ROUTE,
            wire=Wire.TCP,
        )
        methods = {one.route.method for one in (*service.service.operations, *service.service.probes)}
        for method, words in method_variations(operation, frozenset(methods)):
            yield self._asking.ask(
                service, door, caller, variation=words, rank=3, aspect=Feature.ROUTE, method=method
            )
        for path, words, aspect in path_variations(operation):
            rank = 4 if aspect is not Feature.AMBIGUOUS_PATHS else 5
            yield self._asking.ask(
                service, door, caller, variation=words, rank=rank, aspect=aspect, path=path
            )
        if is_first and caller.kind is not CallerKind.STRANGER:
            yield from self._probed(service, door)

    def _impostors(self, service: ServiceIntents, door: Door, caller: Caller) -> Iterator[Ask]:
        impostors = () if caller.claims_to_be is None else self._population.impostors(caller.claims_to_be)
        for impostor in impostors:
            aspect = Feature.MTLS if impostor.policy_id is None else Feature.IDENTITY
            yield self._asking.ask(service, door, impostor, aspect=aspect, rank=2)
        for port, words in self._other_ports(service.port):
            yield self._asking.ask(
                service, door, caller, variation=words, rank=3, port=port, aspect=Feature.TCP
            )

    def _probed(self, service: ServiceIntents, door: Door) -> Iterator[Ask]:
        """A network of which probes come reaches a probe at most: ask for what only nearly is one."""
        if door.operation is None or not door.is_probe:
            return
        for caller in self._population.probes:
            for path, words, aspect in path_variations(door.operation):
                yield self._asking.ask(
                    service, door, caller, variation=words, rank=5, aspect=aspect, path=path
                )
            yield self._asking.ask(
                service, door, caller, variation="EVIL", rank=5, aspect=Feature.ROUTE, method="EVIL"
            )

    def _other_ports(self, own: int) -> Iterator[tuple[int, str]]:
        other = next((port for port in self._ports if port != own), None)
        if other is not None:
            yield other, f"port {other}, which is another service's"
        yield UNUSED_PORT, f"port {UNUSED_PORT}"

    # -- what facts decide, and what leaves

    def _facts(self) -> Iterator[Ask]:
        for case in self._cases:
            caller = self._caller(case.caller)
            if caller is None or case.method is None or case.path is None:
                continue
            found = self._engine.find(case.target, case.method, case.path)
            if found is None or found.operation is None:
                continue
            asks = found.operation.token is not TokenMode.NONE
            yield self._with_facts(
                case.target, found.name, caller, case.method, case.path, case.context, asks=asks
            )

    def _with_facts(
        self, target: str, door: str, caller: Caller, method: str, path: str, context: Context, *, asks: bool
    ) -> Ask:
        service = self._intents.of(target)
        operation = next(one.operation for one in service.doors if one.name == door)
        assert operation is not None  # noqa: S101  # tcp doors were left out
        state = TokenState.GOOD if asks else TokenState.NONE
        token = token_of(state, operation, target, caller, self._intents)
        request = self._asking.request(
            service, caller, WIRES[operation.protocol], method, path, token=token, headers=context.headers
        )
        return Ask(
            caller=caller,
            service=target,
            door=door,
            request=request,
            aspect=Feature.USER if context.user is not None else Feature.CONDITION,
            operation=operation,
            variation="" if context == NOTHING_KNOWN else "with facts",
            rank=6,
            token=state,
            context=context,
        )


_TOKEN_ASPECTS: Final = {
    TokenState.OTHER_OPERATION: Feature.TOKEN_OPERATION,
    TokenState.WHOLE_SERVICE: Feature.TOKEN_OPERATION,
    TokenState.ONE_OPERATION: Feature.TOKEN_OPERATION,
    TokenState.STOLEN: Feature.TOKEN_BINDING,
    TokenState.USED: Feature.ONCE,
}


def _aspect(caller: Caller, grants: Mapping[str, Grant], reach: frozenset[str]) -> Feature:
    """Return the feature on which the answer to a plain call turns."""
    if caller.policy_id is None:
        return Feature.PROBES if caller.kind is CallerKind.PROBE else Feature.MTLS
    name = caller.claims_to_be or ""
    grant = grants.get(name)
    if grant is None:
        return Feature.ROUTE if name in reach else Feature.IDENTITY
    if grant.denied_if:
        return Feature.CONDITIONAL_DENY
    needs = min((one.needs for one in grant.alternatives), key=len)
    for feature in (Feature.USER, Feature.ROLES, Feature.CONDITION):
        if feature in needs:
            return feature
    return Feature.OUTSIDE if name == OUTSIDE else Feature.IDENTITY


def _kinds(door: Door) -> list[Grant]:
    """Return one grant of each kind: those that the same rules make are written alike by every compiler."""
    found: dict[object, Grant] = {}
    for grant in door.grants:
        needs = frozenset(one.needs for one in grant.alternatives)
        key = (grant.caller == OUTSIDE, needs, grant.rules, tuple(rule.id for rule in grant.denied_if))
        found.setdefault(key, grant)
    return list(found.values())
