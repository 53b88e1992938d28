# SPDX-License-Identifier: Apache-2.0
"""The state of a trust domain as commands show it: what is declared, and what agents say of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.core.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from everyhop.control.feed import Truth
    from everyhop.control.messages import AgentReport, InstanceReport
    from everyhop.policy.model import Snapshot


def status_of(
    snapshot: Snapshot, truth: Truth | None, reports: Sequence[AgentReport], *, policy: Mapping[str, object]
) -> dict[str, object]:
    """Return services with their instances, agents and sequences, as plain values; ``policy`` is put in as it is."""
    instances: dict[str, list[dict[str, object]]] = {name: [] for name in snapshot.services}
    for report in reports:
        for instance in report.instances:
            if instance.service in instances:
                instances[instance.service].append(_instance(instance, report.agent))
    return {
        "trust_domain": str(snapshot.trust_domain),
        **policy,
        "bundle_sequence": None if truth is None else truth.bundle_sequence,
        "token_sequence": None if truth is None else truth.token_sequence,
        "agents": [
            {
                "id": r.agent,
                "snapshot": r.snapshot,
                "bundle_sequence": r.bundle_sequence,
                "token_sequence": r.token_sequence,
                "block_sequence": r.block_sequence,
                "spooled_records": r.spooled,
            }
            for r in reports
        ],
        "services": {
            service.name: {"spiffe_id": str(service.spiffe_id), "instances": instances[service.name]}
            for service in snapshot.services.values()
        },
    }


def _instance(i: InstanceReport, agent: str) -> dict[str, object]:
    return {
        "id": i.id,
        "pid": i.pid,
        "ingress": i.ingress,
        "state": i.state,
        "app": i.app,
        "edge": i.edge,
        "svid_expires_at": None if i.svid_expires_at is None else rfc3339(i.svid_expires_at),
        "envoy_pid": i.envoy_pid,
        "envoy_restarts": i.envoy_restarts,
        "snapshot": i.snapshot,
        "agent": agent,
    }
