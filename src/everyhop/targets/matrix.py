# SPDX-License-Identifier: Apache-2.0
"""What each target can hold: the one table that compilers, diagnostics and the documentation follow.

A cell says how a target holds a feature, and why.  What is missing in a row is refused.  ``sdk`` and ``authorizer`` are what may
stand on a hop beside a target; both are everyhop's own engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from everyhop.targets.model import LAYER_7, Feature, Fidelity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Cell:
    """How a target holds a feature; ``note`` says by what, or why not.

    ``needs`` is the option without which it holds nothing of it.
    """

    fidelity: Fidelity
    note: str
    needs: str | None = None


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
_REQUESTS: Final = (
    Feature.IDENTITY,
    *LAYER_7,
    Feature.PROBES,
    Feature.TOKEN,
    Feature.TOKEN_OPERATION,
    *_FACTS,
)


def _row(
    cells: Mapping[Feature, Cell], asks: Iterable[Feature] = (), note: str = "everyhop's authorizer decides"
) -> Mapping[Feature, Cell]:
    return MappingProxyType({**{feature: Cell(A, note) for feature in asks}, **cells})


_WAYPOINT: Final = "waypoint"


def _istio(*, is_ambient: bool) -> Mapping[Feature, Cell]:
    """Return the row of Istio; in ambient mode what is of layer 7 needs a waypoint."""
    needs = _WAYPOINT if is_ambient else None
    by = "the waypoint" if is_ambient else "the sidecar"
    cells = {
        Feature.ROUTE: Cell(
            E, f"{by}: methods and paths, judged and forwarded as the mesh normalises them", needs
        ),
        Feature.PARAMETER: Cell(N, "{*}, one segment that is not empty; one with [ or ] is refused", needs),
        Feature.REST: Cell(N, "{**} as last segment; a path with [ or ] is refused", needs),
        Feature.AMBIGUOUS_PATHS: Cell(
            A, "{*} takes a%2fb and a;b too; a CUSTOM policy asks everyhop's authorizer", needs
        ),
        Feature.GRPC: Cell(E, "POST /package.Service/Method", needs),
        Feature.WEBSOCKET: Cell(E, "GET and the path", needs),
        Feature.PROBES: Cell(E, "for services; the kubelet's own do not pass the policy", needs),
        Feature.TOKEN: Cell(
            E, "RequestAuthentication, and the claims iss, client_id, aud and scope; no revocation", needs
        ),
        Feature.TOKEN_OPERATION: Cell(E, "the audience SERVICE#OPERATION", needs),
        **{feature: Cell(A, "a CUSTOM policy asks everyhop's authorizer", needs) for feature in _FACTS},
        Feature.IDENTITY: Cell(E, "full principals"),
        Feature.MTLS: Cell(E, "PeerAuthentication STRICT"),
        Feature.TCP: Cell(E, "ports, without layer 7"),
        Feature.OUTSIDE: Cell(E, "the gateway's principal"),
    }
    if not is_ambient:
        cells[Feature.EGRESS] = Cell(
            N, "REGISTRY_ONLY and ServiceEntry: routing hygiene, no security boundary"
        )
    return MappingProxyType(cells)


_LABELS: Final = "pods by their labels: who may write labels may be the caller"

_OUTER: Final = "an outer bound: the port as a whole"
_PODS_ONLY: Final = "an outer bound: its rules name pods, and deny nobody else"

_NETWORK: Final = MappingProxyType(
    {
        Feature.IDENTITY: Cell(N, _LABELS),
        Feature.TCP: Cell(E, "ports"),
        Feature.PROBES: Cell(E, "the port; a pod's own node is always let in, so the kubelet is"),
        Feature.OUTSIDE: Cell(N, "the gateway's labels"),
        Feature.MTLS: Cell(X, "nothing is authenticated"),
        **dict.fromkeys(
            LAYER_7,
            Cell(X, _OUTER),
        ),
        Feature.EGRESS: Cell(X, "addresses only, no names"),
    }
)

MATRIX: Final[Mapping[str, Mapping[Feature, Cell]]] = MappingProxyType(
    {
        "istio": _istio(is_ambient=False),
        "ambient": _istio(is_ambient=True),
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
                Feature.ROUTE: Cell(E, "anchored, query-safe regular expression; judged and forwarded as Envoy normalises it"),
                Feature.PARAMETER: Cell(E, "anchored, query-safe regular expression"),
                Feature.REST: Cell(E, "anchored, query-safe regular expression"),
                Feature.AMBIGUOUS_PATHS: Cell(E, "the expressions match clean paths only"),
                Feature.GRPC: Cell(E, "POST and the path"),
                Feature.WEBSOCKET: Cell(E, "GET and the path"),
                Feature.TCP: Cell(E, "toPorts"),
                Feature.PROBES: Cell(E, "as routes; the kubelet's come from the host, which is let in by default"),
                Feature.OUTSIDE: Cell(N, "the gateway's labels"),
                Feature.EGRESS: Cell(N, "toFQDNs becomes addresses; another name on the same address is reachable"),
            }
        ),
        "networkpolicy": _NETWORK,
        "clusternetworkpolicy": MappingProxyType(
            {**_NETWORK, **dict.fromkeys((Feature.TCP, Feature.PROBES), Cell(X, _PODS_ONLY))}
        ),
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
                Feature.TCP: Cell(E, "exact names in the handshake, and network RBAC"),
                Feature.PROBES: Cell(E, "as routes"),
                Feature.OUTSIDE: Cell(E, "the gateway's SPIFFE ID"),
                Feature.BODY: Cell(X, "the authorizer looks at no bodies"),
            },
            asks=(*_FACTS, Feature.TOKEN, Feature.TOKEN_OPERATION),
            note="ext_authz asks everyhop's authorizer",
        ),
        "nginx": _row(
            {Feature.MTLS: Cell(E, "ssl_verify_client on"), Feature.TCP: Cell(X, "the authorizer answers HTTP only")},
            asks=_REQUESTS,
            note="auth_request asks everyhop's authorizer",
        ),
        "haproxy": _row(
            {Feature.MTLS: Cell(E, "verify required"), Feature.TCP: Cell(X, "the authorizer answers HTTP only")},
            asks=_REQUESTS,
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
