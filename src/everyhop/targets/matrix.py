# SPDX-License-Identifier: Apache-2.0
"""What each target can hold: the one table that compilers, diagnostics and the documentation follow.

A cell says how a target holds a feature, and why.  What is missing in a row is refused.  ``sdk`` and ``authorizer`` are what may
stand on a hop beside a target; both are everyhop's own engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from everyhop.targets.model import Feature, Fidelity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Cell:
    """How a target holds a feature; ``note`` says by what, or why not."""

    fidelity: Fidelity
    note: str


E: Final = Fidelity.EXACT
N: Final = Fidelity.NARROWER
X: Final = Fidelity.REFUSED
A: Final = Fidelity.ASKS

_FACTS: Final = (
    Feature.TOKEN_BINDING,
    Feature.ONCE,
    Feature.USER,
    Feature.ROLES,
    Feature.CONDITION,
    Feature.CONDITIONAL_DENY,
)


def _row(
    cells: Mapping[Feature, Cell], asks: Iterable[Feature] = (), note: str = "everyhop's authorizer decides"
) -> Mapping[Feature, Cell]:
    return MappingProxyType({**{feature: Cell(A, note) for feature in asks}, **cells})


_ISTIO: Final = _row(
    {
        Feature.IDENTITY: Cell(E, "full principals"),
        Feature.MTLS: Cell(E, "PeerAuthentication STRICT"),
        Feature.ROUTE: Cell(E, "methods and paths"),
        Feature.PARAMETER: Cell(E, "{*}, one non-empty segment"),
        Feature.REST: Cell(E, "{**} as last segment"),
        Feature.AMBIGUOUS_PATHS: Cell(N, "paths are normalised mesh-wide; a rule matches plain paths only"),
        Feature.GRPC: Cell(E, "POST /package.Service/Method"),
        Feature.WEBSOCKET: Cell(E, "GET and the path"),
        Feature.TCP: Cell(E, "ports, without layer 7"),
        Feature.PROBES: Cell(E, "for services; the kubelet's are rewritten by the sidecar"),
        Feature.OUTSIDE: Cell(E, "the gateway's principal"),
        Feature.TOKEN: Cell(E, "RequestAuthentication, requestPrincipals and audiences"),
        Feature.TOKEN_OPERATION: Cell(E, "the audience SERVICE#OPERATION"),
        Feature.EGRESS: Cell(N, "REGISTRY_ONLY and ServiceEntry: routing hygiene, no security boundary"),
    },
    asks=_FACTS,
    note="a CUSTOM policy asks everyhop's authorizer",
)

_NO_LAYER_7: Final = "there is no layer 7"
_LABELS: Final = "pods by their labels: who may write labels may be the caller"

_NETWORK: Final = MappingProxyType(
    {
        Feature.IDENTITY: Cell(N, _LABELS),
        Feature.TCP: Cell(E, "ports"),
        Feature.PROBES: Cell(X, _NO_LAYER_7),
        Feature.MTLS: Cell(X, "nothing is authenticated"),
        Feature.ROUTE: Cell(X, "an outer bound: the port as a whole"),
        Feature.EGRESS: Cell(X, "addresses only, no names"),
    }
)

MATRIX: Final[Mapping[str, Mapping[Feature, Cell]]] = MappingProxyType(
    {
        "istio": _ISTIO,
        "ambient": _ISTIO,
        "linkerd": _row(
            {
                Feature.IDENTITY: Cell(E, "MeshTLSAuthentication"),
                Feature.MTLS: Cell(E, "a MeshTLSAuthentication for each client set"),
                Feature.ROUTE: Cell(E, "HTTPRoute with method and exact path"),
                Feature.PARAMETER: Cell(E, "anchored regular expression, without what more specific routes take"),
                Feature.REST: Cell(E, "anchored regular expression"),
                Feature.AMBIGUOUS_PATHS: Cell(E, "no route matches them"),
                Feature.GRPC: Cell(E, "POST and the path"),
                Feature.WEBSOCKET: Cell(E, "GET and the path"),
                Feature.TCP: Cell(E, "Server with an opaque protocol"),
                Feature.PROBES: Cell(E, "explicit routes"),
                Feature.OUTSIDE: Cell(E, "the gateway's identity"),
                Feature.EGRESS: Cell(N, "EgressNetwork: at the caller's proxy, and only for a namespace as a whole"),
            }
        ),
        "cilium": _row(
            {
                Feature.IDENTITY: Cell(N, _LABELS),
                Feature.MTLS: Cell(X, "mutual authentication there is not per session"),
                Feature.ROUTE: Cell(E, "anchored, query-safe regular expression"),
                Feature.PARAMETER: Cell(E, "anchored, query-safe regular expression"),
                Feature.REST: Cell(E, "anchored, query-safe regular expression"),
                Feature.AMBIGUOUS_PATHS: Cell(N, "a rule matches plain paths only"),
                Feature.GRPC: Cell(E, "POST and the path"),
                Feature.WEBSOCKET: Cell(E, "GET and the path"),
                Feature.TCP: Cell(E, "toPorts"),
                Feature.PROBES: Cell(E, "as routes"),
                Feature.OUTSIDE: Cell(N, "the gateway's labels"),
                Feature.EGRESS: Cell(N, "toFQDNs becomes addresses; another name on the same address is reachable"),
            }
        ),
        "networkpolicy": _NETWORK,
        "clusternetworkpolicy": _NETWORK,
        "envoy": _row(
            {
                Feature.IDENTITY: Cell(E, "URI SAN"),
                Feature.MTLS: Cell(E, "require_client_certificate"),
                Feature.ROUTE: Cell(E, "matcher tree"),
                Feature.PARAMETER: Cell(E, "matcher tree"),
                Feature.REST: Cell(E, "matcher tree"),
                Feature.AMBIGUOUS_PATHS: Cell(E, "refused with 400"),
                Feature.GRPC: Cell(E, "POST and the path"),
                Feature.WEBSOCKET: Cell(E, "upgrade on the route"),
                Feature.TCP: Cell(E, "network RBAC"),
                Feature.PROBES: Cell(E, "as routes"),
            },
            asks=(*_FACTS, Feature.TOKEN, Feature.TOKEN_OPERATION, Feature.BODY, Feature.OUTSIDE),
            note="ext_authz asks everyhop's authorizer",
        ),
        "nginx": _row(
            {Feature.MTLS: Cell(E, "ssl_verify_client on"), Feature.TCP: Cell(X, "the authorizer answers HTTP only")},
            asks=(
                Feature.IDENTITY, Feature.ROUTE, Feature.PARAMETER, Feature.REST, Feature.AMBIGUOUS_PATHS, Feature.GRPC, Feature.WEBSOCKET, Feature.PROBES, Feature.TOKEN,
                Feature.TOKEN_OPERATION, *_FACTS,
            ),
            note="auth_request asks everyhop's authorizer",
        ),
        "haproxy": _row(
            {Feature.MTLS: Cell(E, "verify required"), Feature.TCP: Cell(X, "the authorizer answers HTTP only")},
            asks=(
                Feature.IDENTITY, Feature.ROUTE, Feature.PARAMETER, Feature.REST, Feature.AMBIGUOUS_PATHS, Feature.GRPC, Feature.WEBSOCKET, Feature.PROBES, Feature.TOKEN,
                Feature.TOKEN_OPERATION, *_FACTS,
            ),
            note="a Lua action asks everyhop's authorizer",
        ),
        "opa": _row(
            {
                Feature.IDENTITY: Cell(E, "input.caller, which the enforcement point verified"),
                Feature.ROUTE: Cell(E, "data"),
                Feature.PARAMETER: Cell(E, "data"),
                Feature.REST: Cell(E, "data"),
                Feature.AMBIGUOUS_PATHS: Cell(E, "refused with status 400"),
                Feature.GRPC: Cell(E, "data"),
                Feature.WEBSOCKET: Cell(E, "data"),
                Feature.TCP: Cell(E, "input.connection"),
                Feature.PROBES: Cell(E, "data"),
                Feature.OUTSIDE: Cell(E, "input.caller is outside"),
                Feature.TOKEN: Cell(E, "input.token, which the enforcement point verified"),
                Feature.TOKEN_OPERATION: Cell(E, "its audience SERVICE#OPERATION"),
                Feature.TOKEN_BINDING: Cell(E, "its thumbprint is input.thumbprint"),
                Feature.ONCE: Cell(X, "a decision point keeps no memory of tokens"),
                Feature.USER: Cell(E, "input.user, whom the enforcement point verified"),
                Feature.ROLES: Cell(E, "data"),
                Feature.CONDITION: Cell(E, "Rego; a condition without a form there is refused by name"),
                Feature.CONDITIONAL_DENY: Cell(E, "Rego; a condition without a form there is refused by name"),
                Feature.MTLS: Cell(X, "a decision point sees no connections"),
                Feature.BODY: Cell(X, "a decision point sees no bodies"),
            }
        ),
        "sdk": MappingProxyType({feature: Cell(E, "everyhop's engine") for feature in Feature if feature is not Feature.EGRESS}),
        "authorizer": MappingProxyType(
            {
                feature: Cell(E, "everyhop's engine")
                for feature in Feature
                if feature not in {Feature.EGRESS, Feature.MTLS, Feature.RESOURCE, Feature.BODY, Feature.TCP, Feature.SHADOW}
            }
        ),
    }
)  # fmt: skip
"""Cells by target and feature."""


def cell(target: str, feature: Feature) -> Cell:
    """Return the cell of an enforcing target (KeyError for another); refused where nothing is said."""
    return MATRIX[target].get(feature, Cell(X, "there is no such thing"))
