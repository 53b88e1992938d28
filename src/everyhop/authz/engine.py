# SPDX-License-Identifier: Apache-2.0
"""The decision: may this caller do this here?

Order of the reasons: unknown service, wrong protocol, ambiguous path, unknown operation, unknown caller, denied by
rule, allowed, no rule.  The answer depends on nothing but the snapshot and the arguments, and costs the same for
ten rules and for a hundred thousand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.authz.explain import explain_http, explain_tcp
from everyhop.authz.paths import clean_pattern
from everyhop.authz.requirements import Requirement, requirement_of
from everyhop.authz.routing import RouteTrie
from everyhop.core.decision import Decision, Effect, Reason
from everyhop.core.errors import NotFound
from everyhop.policy.access import TCP, AccessIndex
from everyhop.policy.model import OUTSIDE, UserMode
from everyhop.policy.routes import guarded_characters

if TYPE_CHECKING:
    from everyhop.authz.explanation import Explanation
    from everyhop.policy.access import Access
    from everyhop.policy.model import Operation, Service, Snapshot


class Door:
    """One operation, probe or tcp port, and the decisions made at it so far, by caller.

    A decision names no path, so it is made once per declared caller and door and then only looked up.
    """

    __slots__ = ("access", "decisions", "is_probe", "name", "operation", "target")

    def __init__(
        self, target: str, name: str, access: Access, *, is_probe: bool, operation: Operation | None = None
    ) -> None:
        self.target = target
        self.name = name
        self.operation = operation
        self.access = access
        self.is_probe = is_probe
        self.decisions: dict[str, Decision] = {}


class _Target:
    """One service, ready to be asked."""

    __slots__ = ("ambiguous", "doors", "is_clean", "literals", "tcp", "trie", "unknown")

    def __init__(self, service: Service, index: AccessIndex) -> None:
        routes = tuple(operation.route for operation in (*service.operations, *service.probes))
        self.is_clean: Final = clean_pattern(guarded_characters(routes)).match
        self.trie: Final = RouteTrie[Door]()
        self.tcp = (
            Door(service.name, TCP, index.of(service.name, TCP), is_probe=False) if service.tcp else None
        )
        self.doors: dict[str, Door] = {}
        self.ambiguous: dict[str, Decision] = {}
        self.unknown: dict[str, Decision] = {}
        for operations, is_probe in ((service.operations, False), (service.probes, True)):
            for operation in operations:
                access = index.of(service.name, operation.name)
                door = self.doors[operation.name] = Door(
                    service.name, operation.name, access, is_probe=is_probe, operation=operation
                )
                self.trie.add(operation.route, door)
        methods = sorted({route.method for route in routes})
        self.literals: Final = {
            path: {m: d for m in methods if (d := self.trie.find(m, path[1:].split("/"))) is not None}
            for path in {route.template for route in routes if route.is_literal}
        }


class Engine:
    """Decides calls under one snapshot.  Immutable in effect, and safe to share between threads."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot: Final = snapshot
        index = AccessIndex(snapshot)
        self._targets = {name: _Target(service, index) for name, service in snapshot.services.items()}

    def decide(self, *, caller: str, target: str, method: str, path: str) -> Decision:
        """Decide an HTTP, gRPC or WebSocket request.

        ``caller`` is a verified SPIFFE ID in normal form (or ``outside``, which is none), ``target`` a service
        name, ``method`` and ``path``
        are as on the wire (``path`` up to or with its query).  Never raises on any text.
        """
        compiled = self._targets.get(target)
        if compiled is None:
            return self._deny(Reason.UNKNOWN_SERVICE, caller, target)
        if compiled.tcp is not None:
            return self._deny(Reason.WRONG_PROTOCOL, caller, target)
        cut = path.find("?")
        if cut >= 0:
            path = path[:cut]
        methods = compiled.literals.get(path)
        if methods is not None:  # a literal path is clean, so it need not be examined
            door = methods.get(method)
        elif compiled.is_clean(path):
            door = compiled.trie.find(method, path[1:].split("/"))
        else:
            return compiled.ambiguous.get(caller) or self._refuse(
                compiled.ambiguous, Reason.AMBIGUOUS_PATH, caller, target
            )
        if door is None:
            return compiled.unknown.get(caller) or self._refuse(
                compiled.unknown, Reason.UNKNOWN_OPERATION, caller, target
            )
        return door.decisions.get(caller) or self._at(door, caller)

    def decide_tcp(self, *, caller: str, target: str) -> Decision:
        """Decide a connection to a tcp service; ``caller`` is a verified SPIFFE ID in normal form."""
        compiled = self._targets.get(target)
        if compiled is None:
            return self._deny(Reason.UNKNOWN_SERVICE, caller, target)
        if compiled.tcp is None:
            return self._deny(Reason.WRONG_PROTOCOL, caller, target)
        return compiled.tcp.decisions.get(caller) or self._at(compiled.tcp, caller)

    def decide_door(self, *, caller: str, target: str, door: str) -> Decision:
        """Decide a door by name (an operation, ``probes[N]`` or ``tcp``), past all questions of its path."""
        compiled = self._targets.get(target)
        if compiled is None:
            return self._deny(Reason.UNKNOWN_SERVICE, caller, target)
        found = compiled.tcp if compiled.tcp is not None and door == TCP else compiled.doors.get(door)
        if found is None:
            return self._deny(Reason.UNKNOWN_OPERATION, caller, target)
        return found.decisions.get(caller) or self._at(found, caller)

    def explain(self, *, caller: str, target: str, method: str, path: str) -> Explanation:
        """Decide, and say why: the deciding or the nearest rule, what differs, what would allow it."""
        decision = self.decide(caller=caller, target=target, method=method, path=path)
        return explain_http(self.snapshot, decision, method=method, path=path)

    def explain_tcp(self, *, caller: str, target: str) -> Explanation:
        """Decide a connection, and say why."""
        return explain_tcp(self.snapshot, self.decide_tcp(caller=caller, target=target))

    def requirement(self, *, caller: str, target: str, operation: str) -> Requirement:
        """Return what a permitted call carries; ``caller`` as for :meth:`decide`, the others are declared names.

        Raises NotFound for a service or an operation that is not declared.
        """
        compiled = self._targets.get(target)
        door = None if compiled is None else compiled.doors.get(operation)
        if door is None:
            raise NotFound(f"the policy declares no operation {target[:80]}.{operation[:80]}")
        name = OUTSIDE if caller == OUTSIDE else self._name_of(caller)
        user = UserMode.NONE if name is None else door.access.user_mode(name)
        return requirement_of(target, door.operation, user)

    def _name_of(self, spiffe_id: str) -> str | None:
        owner = self.snapshot.service_of(spiffe_id)
        return None if owner is None else owner.name

    def _deny(self, reason: Reason, caller: str, target: str) -> Decision:
        return Decision(
            effect=Effect.DENY,
            reason=reason,
            caller=caller,
            target=target,
            operation=None,
            rule=None,
            snapshot=self.snapshot.hash,
        )

    def _refuse(self, kept: dict[str, Decision], reason: Reason, caller: str, target: str) -> Decision:
        """Deny, and keep the answer for declared callers (strangers are without number)."""
        decision = self._deny(reason, caller, target)
        if self.snapshot.service_of(caller) is not None:
            kept[caller] = decision
        return decision

    def _at(self, door: Door, caller: str) -> Decision:
        """Decide at a door, and keep the answer as :meth:`_refuse` does."""
        owner = OUTSIDE if caller == OUTSIDE else self._name_of(caller)
        if owner is None:
            effect, reason, rule = Effect.DENY, Reason.UNKNOWN_CALLER, None
        else:
            effect, reason, rule = judge(door, owner)
        decision = Decision(
            effect=effect,
            reason=reason,
            caller=caller,
            target=door.target,
            operation=door.name,
            rule=rule,
            snapshot=self.snapshot.hash,
        )
        if owner is not None:
            door.decisions[caller] = decision
        return decision


def judge(door: Door, caller: str) -> tuple[Effect, Reason, str | None]:
    """Return effect, reason and rule id for a declared caller (or ``outside``) at a door: deny beats allow."""
    denying = door.access.deny.rule_for(caller)
    if denying is not None:
        return Effect.DENY, Reason.DENIED_BY_RULE, denying.id
    if door.is_probe and caller != OUTSIDE:
        return Effect.ALLOW, Reason.PROBE, f"services.{door.target}.{door.name}"
    allowing = door.access.allow.rule_for(caller)
    if allowing is not None:
        return Effect.ALLOW, Reason.ALLOWED, allowing.id
    return Effect.DENY, Reason.NO_RULE, None
