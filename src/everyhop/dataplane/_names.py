# SPDX-License-Identifier: Apache-2.0
"""Names that occur in more than one file of a sidecar, and in its access log.

A *verdict* is the name of the action that Envoy took: ``SNAPSHOT16|REASON|RULE``.  It travels through
Envoy's dynamic metadata into the access log, so each line says under which snapshot, for which reason and by
which rule it was truly decided.  Where the call needs credentials besides, the reason is followed by ``+`` and
letters that say which: ``s`` a token for the service, ``o`` one for the operation, ``x`` single use, ``u`` a user
may and ``U`` a user must be carried, ``c`` facts of the call that a condition or a role looks at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from everyhop.core.decision import Reason

if TYPE_CHECKING:
    from everyhop.anomaly.model import Subject
    from everyhop.core.decision import Decision

SNAPSHOT_DIGITS: Final = 16
NOTHING: Final = "-"
STRANGER: Final = "?"  # before the name of an operation: its caller is not declared

INGRESS: Final = "ingress"
EGRESS: Final = "egress"
EGRESS_SOCKET: Final = "egress-socket"

EDGE: Final = "edge"

AUTHZ: Final = "authz"
EDGE_AUTHZ: Final = "authz-edge"
BLOCKED: Final = "blocked"
EDGE_BLOCKED: Final = "blocked-edge"
EGRESS_BLOCKED: Final = "blocked-egress"
MEMORY: Final = "memory"
CHECKS: Final = "checks"
CHECKS_CLUSTER: Final = "checks"

SDS_CLUSTER: Final = "sds"
SDS_SVID: Final = "svid"
SDS_BUNDLE: Final = "bundle"

APP: Final = "app"
APP_H2: Final = "app-h2"

DECISION_HEADER: Final = "x-everyhop-decision"
CALLER_HEADER: Final = "x-everyhop-caller"
SOURCE_HEADER: Final = "x-everyhop-source"
OPERATION_HEADER: Final = "x-everyhop-operation"

USER_HEADER: Final = "x-everyhop-user"
TXN_HEADER: Final = "txn-token"

HTTP_RBAC: Final = "envoy.filters.http.rbac"
EXT_AUTHZ: Final = "envoy.filters.http.ext_authz"
OURS: Final = "everyhop"

# Members of the dynamic metadata that the check answers with.
UNTIL: Final = "until"
HEADERS: Final = "headers"
SUBJECT: Final = "user"
API_KEY: Final = "key"
CODE: Final = "code"
TITLE: Final = "title"
WHY: Final = "why"

FACTS: Final = "c"


def verdict(snapshot: str, reason: str, rule: str | None, needs: str = "") -> str:
    """Return the name of an action; ``needs`` holds the letters of what the call needs besides."""
    return f"{snapshot[:SNAPSHOT_DIGITS]}|{reason}{'+' if needs else ''}{needs}|{rule or NOTHING}"


def why(decision: Decision, facts: str) -> str:
    """Return what the record says of a decision that facts decided: ``REASON|RULE|WOULD|REASON|RULE|FACTS``.

    The three in the middle are empty where nothing in shadow would decide otherwise; ``facts`` is text for people.
    """
    other = decision.would
    would = ("", "", "") if other is None else (other.effect.value, other.reason.value, other.rule or NOTHING)
    return "|".join((decision.reason.value, decision.rule or NOTHING, *would, facts))


def why_blocked(subject: Subject) -> str:
    """Return what the record says, in place of :func:`why`, of a call that the agent refused for a block."""
    return f"{Reason.BLOCKED.value}|{NOTHING}||||{subject.kind.value} {quote(subject.value, safe='')}"


def asks_for_facts(name: str) -> bool:
    """Tell whether the name of an action says that facts of the call decide; a name that is none says so too."""
    parts = name.split("|")
    if len(parts) != 3:  # noqa: PLR2004  # snapshot, reason, rule
        return True
    return FACTS in parts[1].partition("+")[2]


UPSTREAM: Final = "to-"


def upstream(target: str) -> str:
    """Return the name of the cluster that leads to a service without a token; its endpoints bear it too."""
    return UPSTREAM + target
