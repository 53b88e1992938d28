# SPDX-License-Identifier: Apache-2.0
"""Names that occur in more than one file of a sidecar, and in its access log.

A *verdict* is the name of the action that Envoy took: ``SNAPSHOT16|REASON|RULE``.  It travels through
Envoy's dynamic metadata into the access log, so each line says under which snapshot, for which reason and by
which rule it was truly decided.
"""

from __future__ import annotations

from typing import Final

SNAPSHOT_DIGITS: Final = 16
NOTHING: Final = "-"
STRANGER: Final = "?"  # before the name of an operation: its caller is not declared

INGRESS: Final = "ingress"
EGRESS: Final = "egress"
EGRESS_SOCKET: Final = "egress-socket"

AUTHZ: Final = "authz"

SDS_CLUSTER: Final = "sds"
SDS_SVID: Final = "svid"
SDS_BUNDLE: Final = "bundle"

APP: Final = "app"
APP_H2: Final = "app-h2"

DECISION_HEADER: Final = "x-everyhop-decision"
CALLER_HEADER: Final = "x-everyhop-caller"
OPERATION_HEADER: Final = "x-everyhop-operation"

HTTP_RBAC: Final = "envoy.filters.http.rbac"


def verdict(snapshot: str, reason: str, rule: str | None) -> str:
    """Return the name of an action."""
    return f"{snapshot[:SNAPSHOT_DIGITS]}|{reason}|{rule or NOTHING}"


def upstream(target: str) -> str:
    """Return the name of the cluster that leads to a service."""
    return f"to-{target}"
