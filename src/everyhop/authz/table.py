# SPDX-License-Identifier: Apache-2.0
"""What a compiler needs to enforce one service exactly as :class:`everyhop.authz.engine.Engine` decides it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from everyhop.authz.engine import Door
from everyhop.authz.routing import RouteTrie
from everyhop.core.decision import Effect, Reason
from everyhop.core.errors import NotFound
from everyhop.policy.access import TCP, AccessIndex
from everyhop.policy.model import OUTSIDE, Operation, TokenMode, UserMode
from everyhop.policy.routes import guarded_characters, specificity

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from everyhop.authz.cases import Cases
    from everyhop.policy.model import Service, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer for one caller at one door; ``rule`` is the id of the deciding rule, if there is one.

    ``user`` says whether a call that is allowed is made for a user.  ``asks`` tells that facts of the call decide: it
    is allowed so far, and whoever knows the facts has the last word.  ``cases`` holds the rules that then count.
    """

    effect: Effect
    reason: Reason
    rule: str | None
    user: UserMode = UserMode.NONE
    asks: bool = False
    cases: Cases | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationEntry:
    """One operation or probe, and the verdict for every declared service by its SPIFFE ID (text).

    A caller that is not in ``verdicts`` is unknown and denied.  ``outside`` is the verdict for callers at the edge.
    """

    operation: Operation
    is_probe: bool
    verdicts: Mapping[str, Verdict]
    outside: Verdict

    @property
    def needs_context(self) -> bool:
        """Tell whether a call may carry more than a certificate that counts: a token, or a user."""
        return self.operation.token is not TokenMode.NONE or any(
            verdict.asks or verdict.user is not UserMode.NONE for verdict in self.verdicts.values()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTable:
    """One service, complete.

    ``guarded``: the characters that a path must not carry percent-encoded (see ``authz.paths``).
    ``entries``: operations by name, then probes.  ``tcp_verdicts``: None for an HTTP service.
    ``literal_index``: for each path that some route spells out, the operation per method, over all routes that
    match this path, templates too; a method that is missing there is unknown at that path.
    ``templates``: every operation whose route has a parameter, so ordered that the first one with the
    method that matches a path (which is not in ``literal_index``) is the one it belongs to.
    ``chosen_headers``: those that conditions may read.  ``watched``: the SPIFFE IDs of callers on whose way here the
    policy is only watched, so that operations which it does not know pass too.
    """

    service: Service
    guarded: frozenset[str]
    entries: tuple[OperationEntry, ...]
    tcp_verdicts: Mapping[str, Verdict] | None
    literal_index: Mapping[str, Mapping[str, Operation]]
    templates: tuple[Operation, ...]
    chosen_headers: tuple[str, ...] = ()
    watched: frozenset[str] = frozenset()

    @property
    def needs_context(self) -> bool:
        """Tell whether some call of this service may carry a token or a user that counts."""
        return any(entry.needs_context for entry in self.entries)

    @property
    def has_edge(self) -> bool:
        """Tell whether callers from outside may call something here."""
        return any(entry.outside.effect is Effect.ALLOW for entry in self.entries)

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Return all operations and probes."""
        return tuple(entry.operation for entry in self.entries)

    def verdicts(self, operation: str) -> Mapping[str, Verdict]:
        """Return the verdicts of an operation or probe by name (KeyError for another name)."""
        for entry in self.entries:
            if entry.operation.name == operation:
                return entry.verdicts
        raise KeyError(operation)


def service_table(
    snapshot: Snapshot,
    name: str,
    *,
    index: AccessIndex | None = None,
    callers: Collection[str] | None = None,
) -> ServiceTable:
    """Return the table of a service; give ``index`` when asking for many services of one snapshot.

    ``callers`` are the names of the declared services that are worth a verdict (None: all); the others are unknown,
    and nobody is watched.
    Raises NotFound for a service that the snapshot does not declare.
    """
    service = snapshot.services.get(name)
    if service is None:
        raise NotFound(f"the policy declares no service {name!r}")
    index = index or AccessIndex(snapshot)
    entries = tuple(
        _entry(
            snapshot,
            Door(
                service,
                operation.name,
                index.of(name, operation.name),
                is_probe=is_probe,
                operation=operation,
            ),
            operation,
            callers,
        )
        for operations, is_probe in ((service.operations, False), (service.probes, True))
        for operation in operations
    )
    operations = tuple(entry.operation for entry in entries)
    tcp = None
    if service.tcp is not None:
        tcp = _verdicts(snapshot, Door(service, TCP, index.of(name, TCP), is_probe=False), callers)
    return ServiceTable(
        service=service,
        guarded=guarded_characters(tuple(operation.route for operation in operations)),
        entries=entries,
        tcp_verdicts=tcp,
        literal_index=_literal_index(operations),
        templates=tuple(
            sorted(
                (o for o in operations if not o.route.is_literal),
                key=lambda o: (specificity(o.route), o.route.template, o.route.method),
            )
        ),
        chosen_headers=snapshot.attributes.headers,
        watched=frozenset(
            str(caller.spiffe_id)
            for caller in snapshot.services.values()
            if snapshot.is_watched(caller.name, name)
        )
        if callers is None and snapshot.has_shadow
        else frozenset(),
    )


def reachable_targets(snapshot: Snapshot, caller: str, *, index: AccessIndex | None = None) -> list[str]:
    """Return the services, sorted, of which a caller may pass at least one door (probes count), or is only watched.

    ``caller`` is a SPIFFE ID in normal form or a service name; a stranger reaches nothing.
    """
    owner = snapshot.service_of(caller) or snapshot.services.get(caller)
    if owner is None:
        return []
    index = index or AccessIndex(snapshot)
    return [
        name
        for name, service in sorted(snapshot.services.items())
        if snapshot.is_watched(owner.name, name) or _reaches(service, owner.name, index)
    ]


def callers_of(snapshot: Snapshot, target: str, *, index: AccessIndex | None = None) -> list[str]:
    """Return the declared services, sorted, that may pass at least one door of ``target``, or are only watched there."""
    index = index or AccessIndex(snapshot)
    service = snapshot.services[target]
    return [
        name
        for name in sorted(snapshot.services)
        if name != target and (snapshot.is_watched(name, target) or _reaches(service, name, index))
    ]


def _reaches(service: Service, caller: str, index: AccessIndex) -> bool:
    if service.tcp is not None:
        return index.of(service.name, TCP).allows(caller, is_probe=False)
    return any(
        index.of(service.name, operation.name).allows(caller, is_probe=is_probe)
        for operations, is_probe in ((service.operations, False), (service.probes, True))
        for operation in operations
    )


def _entry(
    snapshot: Snapshot, door: Door, operation: Operation, callers: Collection[str] | None
) -> OperationEntry:
    return OperationEntry(
        operation=operation,
        is_probe=door.is_probe,
        verdicts=_verdicts(snapshot, door, callers),
        outside=_verdict(snapshot, door, OUTSIDE),
    )


def _verdicts(snapshot: Snapshot, door: Door, callers: Collection[str] | None) -> dict[str, Verdict]:
    services = (
        snapshot.services.values()
        if callers is None
        else [snapshot.services[name] for name in callers if name in snapshot.services]
    )
    return {str(service.spiffe_id): _verdict(snapshot, door, service.name) for service in services}


def _verdict(snapshot: Snapshot, door: Door, caller: str) -> Verdict:
    cases = door.cases_of(snapshot, caller)
    outcome = cases.settled(with_facts=False)
    user = door.access.user_mode(caller)
    if outcome is None:
        return Verdict(
            effect=Effect.ALLOW, reason=Reason.ALLOWED, rule=None, user=user, asks=True, cases=cases
        )
    found = outcome.enforced
    return Verdict(
        effect=found.effect,
        reason=found.reason,
        rule=found.rule,
        user=user if found.effect is Effect.ALLOW else UserMode.NONE,
    )


def _literal_index(operations: tuple[Operation, ...]) -> dict[str, dict[str, Operation]]:
    trie = RouteTrie[Operation]()
    for operation in operations:
        trie.add(operation.route, operation)
    methods = sorted({operation.route.method for operation in operations})
    return {
        path: {m: o for m in methods if (o := trie.find(m, path[1:].split("/"))) is not None}
        for path in sorted({o.route.template for o in operations if o.route.is_literal})
    }
