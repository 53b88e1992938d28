# SPDX-License-Identifier: Apache-2.0
"""What the policy in force says about tokens: questions to one snapshot, asked by name or by SPIFFE ID."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from everyhop.policy.model import OUTSIDE, RuleEffect, TokenMode, UserMode

if TYPE_CHECKING:
    from everyhop.policy.model import Snapshot


class Granting(Protocol):
    """The question that the decision point answers (``authz.Grants`` does)."""

    def operations(self, caller: str, target: str) -> frozenset[str] | None:
        """Return the operations of ``target`` that ``caller`` may call; None when either is not declared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """An audience with the widest scope that a caller may have there, as ``service.operation``."""

    audience: str
    scope: frozenset[str]


class PolicyView:
    """One snapshot with its grants.  Immutable in effect; build one per snapshot."""

    def __init__(self, snapshot: Snapshot, grants: Granting) -> None:
        self.snapshot = snapshot
        self._grants = grants
        self.answers: dict[tuple[str, str, str | None], Granted] = {}
        """What was granted so far, by caller, target and operation; kept by ``granting``."""
        self._granted: dict[tuple[str, str], frozenset[str] | None] = {}
        self._modes = {
            (name, operation.name): operation.token
            for name, service in snapshot.services.items()
            for operation in service.operations
        }
        self._with_users = frozenset(
            name
            for name in snapshot.services
            if any(
                rule.effect is RuleEffect.ALLOW
                and rule.user is not UserMode.NONE
                and (rule.targets is None or name in rule.targets)
                for rule in snapshot.rules
            )
        )

        self._edge_scopes = frozenset(
            f"{target}.{operation}"
            for target in snapshot.services
            for operation in self.granted(OUTSIDE, target)
        )

    def service_of(self, spiffe_id: str) -> str | None:
        """Return the service that owns a SPIFFE ID, or None when the policy declares none."""
        service = self.snapshot.service_of(spiffe_id)
        return None if service is None else service.name

    def declares(self, service: str) -> bool:
        """Tell whether the policy declares a service of this name."""
        return service in self.snapshot.services

    def granted(self, service: str, target: str) -> frozenset[str]:
        """Return the operations of ``target`` that a declared service, or ``outside``, may call."""
        if target not in self.snapshot.services:
            return frozenset()
        key = (service, target)
        if key not in self._granted:
            self._granted[key] = self._grants.operations(service, target)
        return self._granted[key] or frozenset()

    def mode(self, target: str, operation: str) -> TokenMode | None:
        """Return which token an operation takes, or None when there is no such operation."""
        return self._modes.get((target, operation))

    def service_wide(self, target: str, operations: frozenset[str]) -> frozenset[str]:
        """Return those operations that a token for the whole service is good for."""
        return frozenset(
            name for name in operations if self.mode(target, name) in {TokenMode.NONE, TokenMode.SERVICE}
        )

    def admits_outside(self, service: str) -> bool:
        """Tell whether callers from outside may call a service: it is at the edge."""
        return bool(self.granted(OUTSIDE, service))

    def receives_users(self, service: str) -> bool:
        """Tell whether a call to a service may be made for a user, so that it may see who that is."""
        return service in self._with_users or self.admits_outside(service)

    def edge_scopes(self) -> frozenset[str]:
        """Return what callers from outside may call anywhere, as ``service.operation``."""
        return self._edge_scopes

    def is_operation(self, text: str) -> bool:
        """Tell whether a scope names an operation of a declared service (``service.operation``)."""
        service, dot, _ = text.partition(".")
        return bool(dot) and service in self.snapshot.services
