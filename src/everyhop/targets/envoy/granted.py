# SPDX-License-Identifier: Apache-2.0
"""The table of a service as a standalone Envoy may open it: what the view grants, and who has to be asked besides.

The data plane's renderers read such tables.  A verdict that allows is here only for a grant which the view opens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from everyhop.authz.table import OperationEntry, ServiceTable, Verdict, service_table
from everyhop.core.decision import Effect, Reason
from everyhop.policy.model import OUTSIDE, UserMode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.policy.access import AccessIndex
    from everyhop.targets.intents import Door, Grant, ServiceIntents
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

SDK: Final = "sdk"
_REFUSED: Final = Verdict(effect=Effect.DENY, reason=Reason.NO_RULE, rule=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A service's table, whether its calls may bring a transaction token, and what could not be opened."""

    table: ServiceTable
    takes_users: bool
    diagnostics: tuple[Diagnostic, ...]


def granted(view: View, service: ServiceIntents, index: AccessIndex) -> Granted:
    """Return what may be opened of a service."""
    return _Granting(view, service, index).granted()


class _Granting:
    def __init__(self, view: View, service: ServiceIntents, index: AccessIndex) -> None:
        self._view = view
        self._service = service
        self._table = service_table(view.intents.snapshot, service.name, index=index, callers=service.callers)
        self._grants = {(door.name, door.is_probe): view.grants(door) for door in service.doors}
        self._diagnostics: list[Diagnostic] = []
        # Where nobody behind this Envoy verifies users, none is let through: an application might believe it.
        self._takes_users = (view.has_authorizer or SDK in view.beside) and any(
            _takes_user(grant) for grants in self._grants.values() for grant in grants
        )

    def granted(self) -> Granted:
        doors = {(door.name, door.is_probe): door for door in self._service.doors}
        entries = tuple(
            self._entry(entry, doors[entry.operation.name, entry.is_probe]) for entry in self._table.entries
        )
        tcp = self._table.tcp_verdicts
        if tcp is not None:
            tcp = self._tcp(self._service.doors[0], tcp)
        return Granted(
            table=replace(self._table, entries=entries, tcp_verdicts=tcp, watched=frozenset()),
            takes_users=self._takes_users,
            diagnostics=tuple(self._diagnostics),
        )

    def _entry(self, entry: OperationEntry, door: Door) -> OperationEntry:
        verdicts: dict[str, Verdict] = {}
        for grant in self._grants[door.name, door.is_probe]:
            caller = self._identity(door, grant, asks=self._view.asks(door, grant))
            if caller is not None:
                found = entry.outside if grant.caller == OUTSIDE else entry.verdicts[caller]
                verdicts[caller] = self._verdict(door, grant, found)
        return replace(entry, verdicts=verdicts, outside=_REFUSED)

    def _tcp(self, door: Door, found: Mapping[str, Verdict]) -> dict[str, Verdict]:
        verdicts: dict[str, Verdict] = {}
        for grant in self._grants[door.name, door.is_probe]:
            caller = self._identity(door, grant, asks=False)
            if caller is not None:
                outside = replace(_REFUSED, effect=Effect.ALLOW, reason=Reason.ALLOWED)
                verdicts[caller] = self._verdict(door, grant, found.get(caller, outside))
        return verdicts

    def _verdict(self, door: Door, grant: Grant, found: Verdict) -> Verdict:
        """Return the verdict of a grant; one that facts decide elsewhere is that of its first rule."""
        rule = found.rule or next(iter(grant.rules), None)
        reason = found.reason if found.effect is Effect.ALLOW else Reason.ALLOWED
        user = found.user if self._takes_users else UserMode.NONE
        asks = self._view.asks(door, grant)
        return Verdict(effect=Effect.ALLOW, reason=reason, rule=rule, user=user, asks=asks)

    def _identity(self, door: Door, grant: Grant, *, asks: bool) -> str | None:
        """Return the SPIFFE ID of a grant's caller; None, and a diagnostic, where callers from outside have none."""
        intents = self._view.intents
        if grant.caller != OUTSIDE:
            return str(intents.snapshot.services[grant.caller].spiffe_id)
        if intents.settings.gateway is None:
            self._refuse(
                "outside", door, grant, "callers from outside come through a gateway, and none is named"
            )
        elif intents.trust_domain != intents.snapshot.trust_domain.name:
            self._refuse("outside", door, grant, "the gateway is of another trust domain")
        elif asks:
            self._refuse(
                "outside", door, grant, "the authorizer knows no gateway, so it is not asked about one"
            )
        else:
            return intents.mesh_identity(OUTSIDE)
        return None

    def _refuse(self, code: str, door: Door, grant: Grant, why: str) -> None:
        message = f"{self._view.target} does not open {door} to {grant.caller}: {why}"
        self._diagnostics.append(
            self._view.error(code, message, door=None if door.operation is None else door, rules=grant.rules)
        )


def _takes_user(grant: Grant) -> bool:
    return any(one.rule is not None and one.rule.user is not UserMode.NONE for one in grant.alternatives)
