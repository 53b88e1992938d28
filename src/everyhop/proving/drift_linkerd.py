# SPDX-License-Identifier: Apache-2.0
"""Objects of Linkerd that widen beside the compiled ones.

Semantics (linkerd2, policy-controller ``index.rs``; field notes section 2): what is authorized at a Server, or at its namespace, is
authorized at every route of it; an AuthorizationPolicy without authentications lets everybody in; a Server without ``deny`` lets in
whom its accessPolicy names; ports without a Server follow the annotation ``config.linkerd.io/default-inbound-policy``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.proving.drift_model import Finding, Severity
from everyhop.proving.drift_scope import LINKERD, Scope, finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from everyhop.manifests import Manifest

_INBOUND: Final = "config.linkerd.io/default-inbound-policy"
_ROUTES: Final = frozenset({"HTTPRoute", "GRPCRoute"})


def look(scope: Scope, others: Sequence[Manifest], in_force: Sequence[Manifest]) -> Iterator[Finding]:
    """Yield what is to be said of ``others`` (foreign or changed objects) among all that are in force."""
    for one in others:
        if one.kind == "Namespace":
            policy = one.annotations.get(_INBOUND)
            if policy != "deny":
                message = f"{_INBOUND} is {policy or 'not set'}: ports without a Server are open"
                yield finding(one, "linkerd.default-inbound", Severity.WIDENS, message)
        elif one.group == LINKERD and one.kind == "AuthorizationPolicy":
            yield from _authorization(one)
        elif one.group == LINKERD and one.kind == "ServerAuthorization":
            message = "it lets its clients in at every route of its Servers"
            yield finding(one, "linkerd.server-authorization", Severity.WIDENS, message)
        elif one.group == LINKERD and one.kind == "Server":
            yield from _server(scope, one)
        elif one.kind in _ROUTES and _parents(one) & _servers(in_force, one.namespace):
            message = "it takes requests of a Server from the policy's own routes"
            yield finding(one, "linkerd.extra-route", Severity.WIDENS, message)
        elif one.kind == "EgressNetwork" and one.spec.get("trafficPolicy") != "Deny":
            yield finding(one, "linkerd.egress", Severity.WIDENS, "it lets traffic leave")


def _authorization(one: Manifest) -> Iterator[Finding]:
    reference = one.spec.get("targetRef")
    kind = reference.get("kind") if isinstance(reference, dict) else None
    if not one.spec.get("requiredAuthenticationRefs"):
        message = "it asks for no authentication: everybody is let in, from anywhere"
        yield finding(one, "linkerd.no-authentication", Severity.WIDENS, message)
    elif kind == "Server":
        message = "it is bound to a Server: its clients are let in at every route of it"
        yield finding(one, "linkerd.server-level", Severity.WIDENS, message)
    elif kind == "Namespace":
        message = "it is bound to a namespace: its clients are let in at every route of every Server there"
        yield finding(one, "linkerd.namespace-level", Severity.WIDENS, message)
    else:
        yield finding(one, "linkerd.extra-allow", Severity.WIDENS, "what it allows is added to the policy")


def _server(scope: Scope, one: Manifest) -> Iterator[Finding]:
    access = one.spec.get("accessPolicy", "deny")
    if access == "audit":
        yield finding(
            one,
            "linkerd.dry-run",
            Severity.WIDENS,
            "accessPolicy audit: everybody is let in, and it is logged",
        )
    elif access != "deny":
        yield finding(
            one,
            "linkerd.access-policy",
            Severity.WIDENS,
            f"accessPolicy {access}: they are let in everywhere",
        )
    selector = one.spec.get("podSelector")
    labels = selector.get("matchLabels") if isinstance(selector, dict) else None
    services = scope.selected(one, labels if isinstance(labels, dict) else None)
    if not services and access == "deny":
        yield finding(one, "linkerd.unknown-workload", Severity.DRIFTS, "it selects no service of the policy")
    elif access == "deny":
        message = "pods and port may have another Server then, whose policies count in place of these"
        yield finding(one, "linkerd.extra-server", Severity.DRIFTS, message, services)


def _parents(one: Manifest) -> set[str]:
    parents = one.spec.get("parentRefs")
    return {
        str(item.get("name"))
        for item in parents or ()
        if isinstance(item, dict) and item.get("kind") == "Server"
    }


def _servers(in_force: Sequence[Manifest], namespace: str) -> set[str]:
    return {one.name for one in in_force if one.kind == "Server" and one.namespace == namespace}
