# SPDX-License-Identifier: Apache-2.0
"""One snapshot with what is looked up in it again and again, each built at its first use."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from everyhop.agent import Audience
from everyhop.authz import Engine, Grants, reachable_targets, service_table
from everyhop.authz.requirements import requirement_of
from everyhop.core.errors import NotFound
from everyhop.dataplane.listeners import keeps_streams, streaming_callers
from everyhop.dataplane.placing import Placing
from everyhop.policy.access import AccessIndex
from everyhop.policy.model import OUTSIDE, TokenMode

if TYPE_CHECKING:
    from everyhop.authz import Requirement
    from everyhop.authz.table import OperationEntry
    from everyhop.policy.model import Snapshot


class PolicyView:
    """Questions about one snapshot that the agent asks for each call."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._reach: dict[str, frozenset[str]] = {}
        self._audiences: dict[str, frozenset[Audience]] = {}
        self._tables: dict[str, dict[str, OperationEntry]] = {}
        self._requirements: dict[tuple[str, str, str], Requirement] = {}

    @cached_property
    def index(self) -> AccessIndex:
        """Return the rules by door."""
        return AccessIndex(self.snapshot)

    @cached_property
    def grants(self) -> Grants:
        """Return what tokens may say."""
        return Grants(self.snapshot, self.index)

    @cached_property
    def engine(self) -> Engine:
        """Return what decides where facts count."""
        return Engine(self.snapshot)

    def asks(self, caller: str, target: str, operation: str) -> bool:
        """Tell whether facts of a call decide that no sidecar decides on; ``caller`` is a SPIFFE ID or ``outside``."""
        if not self.index.of(target, operation).further:
            return False
        entry = self._table(target).get(operation)
        if entry is None:
            return True
        verdict = entry.outside if caller == OUTSIDE else entry.verdicts.get(caller)
        return verdict is None or verdict.asks

    def by_facts(self, caller: str, target: str, operation: str) -> bool:
        """Tell whether facts of a call decide at all: for whoever enforces without a sidecar of ours."""
        if not self.index.of(target, operation).further:
            return False
        door, name = self.engine.door(target, operation), self.engine.name_of(caller)
        if door is None or name is None:
            return True
        return door.cases_of(self.snapshot, name).settled(with_facts=False) is None

    def _table(self, service: str) -> dict[str, OperationEntry]:
        """Return what the sidecars of a declared service enforce, by operation."""
        found = self._tables.get(service)
        if found is None:
            table = self._placing.table(service_table(self.snapshot, service, index=self.index))
            found = self._tables[service] = {entry.operation.name: entry for entry in table.entries}
        return found

    @cached_property
    def _placing(self) -> Placing:
        return Placing(self.snapshot)

    def streams(self, service: str) -> frozenset[str]:
        """Return the callers (SPIFFE IDs) that may keep connections or streams open at a service."""
        declared = self.snapshot.services.get(service)
        if declared is None or not keeps_streams(declared):
            return frozenset()
        table = self._placing.table(service_table(self.snapshot, service, index=self.index))
        return streaming_callers(table)

    def audiences(self, service: str) -> frozenset[Audience]:
        """Return the tokens that the calls of a service need; none for one that is not declared."""
        if service not in self._audiences:
            self._audiences[service] = frozenset(
                Audience(
                    target=target,
                    operation=operation,
                    grants=self.grants.operations(service, target) or frozenset(),
                )
                for target, operation in self.grants.audiences(service)
            )
        return self._audiences[service]

    def reach(self, service: str) -> frozenset[str]:
        """Return the services that a service may call; none for one that is not declared."""
        if service not in self._reach:
            known = service in self.snapshot.services
            targets = reachable_targets(self.snapshot, service, index=self.index) if known else []
            self._reach[service] = frozenset(targets)
        return self._reach[service]

    def checks_credentials(self, service: str) -> bool:
        """Tell whether some call of a service may carry a token, a user or another fact that counts."""
        declared = self.snapshot.services.get(service)
        if declared is None:
            return False
        doors = [(o, self.index.of(service, o.name)) for o in (*declared.operations, *declared.probes)]
        if any(operation.token is not TokenMode.NONE or access.with_user for operation, access in doors):
            return True
        is_asked = any(access.further for _, access in doors)
        return is_asked and any(entry.needs_context for entry in self._table(service).values())

    def requirement(self, caller: str, target: str, operation: str) -> Requirement:
        """Return what a permitted call carries; ``caller`` is a SPIFFE ID or ``outside``.

        Raises NotFound for a door or a caller that this snapshot does not declare.
        """
        key = caller, target, operation
        found = self._requirements.get(key)
        if found is None:
            found = self._requirements[key] = self._requirement_of(*key)
        return found

    def _requirement_of(self, caller: str, target: str, operation: str) -> Requirement:
        owner = OUTSIDE if caller == OUTSIDE else getattr(self.snapshot.service_of(caller), "name", None)
        service = self.snapshot.services.get(target)
        doors = () if service is None else (*service.operations, *service.probes)
        door = next((o for o in doors if o.name == operation), None)
        if owner is None or service is None or door is None:
            raise NotFound(
                f"the policy in force does not know {target[:80]}.{operation[:80]} for this caller"
            )
        user = self.index.of(target, operation).user_mode(owner)
        return requirement_of(target, None if door in service.probes else door, user)
