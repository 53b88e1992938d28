# SPDX-License-Identifier: Apache-2.0
"""The service context: what one workload's own code needs to decide as its sidecar does (JSON, format 1).

It is public within the service: doors and who may use them, the keys and revocations that tokens are checked
with, and the services that this one may call.  It holds no secret.  Where facts of a call decide, or the application
checks conditions on resources, it holds the rules of the service's own doors as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from everyhop.anomaly.blocks_codec import encode_blocks
from everyhop.authz import Grants, service_table
from everyhop.core.decision import Effect
from everyhop.policy.access import AccessIndex
from everyhop.policy.codec import encode_snapshot
from everyhop.policy.excerpt import excerpt
from everyhop.policy.model import OUTSIDE, TokenMode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.anomaly.model import Blocks
    from everyhop.authz import OperationEntry, ServiceTable, Verdict
    from everyhop.control.messages import TokenTruthDocument
    from everyhop.policy.model import Operation, Snapshot

    _Static = tuple[list[dict[str, Any]], dict[str, dict[str, Any]], dict[str, Any] | None]

FORMAT: Final = 1
_TOKEN_MODES: Final = {
    TokenMode.NONE: "none",
    TokenMode.SERVICE: "service",
    TokenMode.OPERATION: "operation",
}


class ServiceContexts:
    """Builds contexts; what depends on the policy alone is built once per service and snapshot."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._index: AccessIndex | None = None
        self._static: dict[str, _Static] = {}

    def document(
        self,
        snapshot: Snapshot,
        service: str,
        truth: TokenTruthDocument,
        endpoints: Mapping[str, tuple[tuple[str, int], ...]],
        blocks: Blocks | None = None,
    ) -> bytes:
        """Return the context of a declared service as JSON; the same facts give the same bytes."""
        blocked = {}
        if blocks is not None and blocks.by_subject:
            blocked = {"blocks": msgspec.Raw(encode_blocks(blocks))}
        operations, targets, rules = self._static_of(snapshot, service)
        return msgspec.json.encode(
            {
                "format": FORMAT,
                "service": service,
                "spiffe_id": str(snapshot.services[service].spiffe_id),
                "trust_domain": str(snapshot.trust_domain),
                "issuer": truth.issuer,
                "snapshot": snapshot.hash,
                "sequence": truth.sequence,
                "jwks": truth.jwks,
                "revoked": truth.revoked,
                "operations": operations,
                "rules": rules,
                "targets": {
                    name: {**target, "ingress": [f"{host}:{port}" for host, port in endpoints.get(name, ())]}
                    for name, target in targets.items()
                },
                **blocked,
            }
        )

    def _static_of(self, snapshot: Snapshot, service: str) -> _Static:
        if self._snapshot is not snapshot:
            self._snapshot, self._index, self._static = snapshot, AccessIndex(snapshot), {}
        if service not in self._static:
            table = service_table(snapshot, service, index=self._index)
            operations = [_own_operation(entry) for entry in table.entries]
            targets = _targets(snapshot, service, self._index)
            self._static[service] = operations, targets, _rules(snapshot, service, table)
        return self._static[service]


def _own_operation(entry: OperationEntry) -> dict[str, Any]:
    body = entry.operation.body
    verdicts = {**entry.verdicts, OUTSIDE: entry.outside}
    return {
        **_operation(entry.operation),
        "protocol": entry.operation.protocol.value,
        "probe": entry.is_probe,
        "body": None if body is None else msgspec.Raw(body.document),
        "resource": "application" if entry.operation.leaves_resource else None,
        "callers": {who: _rule(v) for who, v in verdicts.items() if v.effect is Effect.ALLOW and not v.asks},
        # Apart from the others: a reader that does not know this member refuses those whom facts decide about.
        "deciding": {who: _rule(v) for who, v in verdicts.items() if v.effect is Effect.ALLOW and v.asks},
    }


def _rules(snapshot: Snapshot, service: str, table: ServiceTable) -> dict[str, Any] | None:
    """Return the rules by which the service itself decides, where facts decide or it checks resources; else None."""
    is_asked = any(
        one.operation.leaves_resource or any(v.asks for v in (*one.verdicts.values(), one.outside))
        for one in table.entries
    )
    if not is_asked:
        return None
    part = excerpt(snapshot, service)
    return {"policy": msgspec.Raw(encode_snapshot(part.snapshot)), "ids": dict(part.rule_ids)}


def _rule(verdict: Verdict) -> dict[str, str | None]:
    return {"rule": verdict.rule, "user": verdict.user.value}


def _operation(operation: Operation) -> dict[str, Any]:
    return {
        "name": operation.name,
        "method": operation.route.method,
        "path": operation.route.template,
        "token": _TOKEN_MODES[operation.token],
        "once": operation.once,
    }


def _targets(snapshot: Snapshot, caller: str, index: AccessIndex | None) -> dict[str, dict[str, Any]]:
    grants = Grants(snapshot, index)
    found = {}
    for name, service in sorted(snapshot.services.items()):
        granted = grants.operations(caller, name) or frozenset()
        operations = [_operation(o) for o in service.operations if o.name in granted]
        if operations:
            found[name] = {"spiffe_id": str(service.spiffe_id), "operations": operations}
    return found
