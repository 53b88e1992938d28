# SPDX-License-Identifier: Apache-2.0
"""Policies for the compilers: what the other strategies make, with tokens, callers from outside, and places in meshes."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from tests.strategies import fact_documents, policy_documents, to_files

from everyhop.core.errors import PolicyError
from everyhop.policy import Snapshot, parse_policy

NAMESPACES = ("default", "shop", "shop-x", "edge")
TOKENS = {"issuer": "https://issuer.shop.example", "jwks_uri": "https://issuer.shop.example/jwks"}


@st.composite
def target_documents(draw: st.DrawFn, *, facts: bool = True) -> dict[str, Any]:
    """A valid policy with a chapter of targets; without ``facts`` every mesh can hold it but for its tokens."""
    document = draw(fact_documents() if facts and draw(st.booleans()) else policy_documents())
    _with_tokens(draw, document)
    chapter: dict[str, Any] = {"services": _places(draw, document)}
    if draw(st.booleans()):
        chapter["trust_domain"] = "cluster.local"
    if draw(st.booleans()):
        chapter["tokens"] = TOKENS
    if draw(st.booleans()):
        chapter["probe_networks"] = ["192.0.2.0/24"]
    if draw(st.booleans()):
        chapter["gateway"] = {"namespace": "edge", "service_account": "gateway"}
        _from_outside(draw, document)
    if draw(st.integers(0, 3)) == 3:
        callers = draw(st.lists(st.sampled_from(sorted(document["services"])), min_size=1, unique=True))
        chapter["egress"] = {"stripe": {"host": "api.stripe.com", "from": sorted(callers)}}
    for target in ("istio", "ambient"):
        chapter[target] = {"authorizer": "everyhop"} if draw(st.booleans()) else {}
    if draw(st.booleans()):
        chapter["ambient"] = {**chapter["ambient"], "waypoint": "waypoint"}
    for target in ("istio", "ambient", "linkerd", "cilium", "networkpolicy", "clusternetworkpolicy"):
        accepted = draw(st.lists(st.sampled_from(("mtls", "token-binding")), unique=True))
        if accepted:
            chapter[target] = {**chapter.get(target, {}), "accept": sorted(accepted)}
    document["targets"] = {key: value for key, value in chapter.items() if value}
    return document


def _with_tokens(draw: st.DrawFn, document: dict[str, Any]) -> None:
    for service in document["services"].values():
        for name, operation in list(service.get("operations", {}).items()):
            kind = draw(st.sampled_from(("none", "none", "required", "operation")))
            if kind == "none":
                continue
            entry = {"route": operation} if isinstance(operation, str) else dict(operation)
            entry["token"] = kind
            if draw(st.integers(0, 3)) == 3:
                entry["once"] = True
            service["operations"][name] = entry


def _places(draw: st.DrawFn, document: dict[str, Any]) -> dict[str, Any]:
    """Return places that no mesh confuses: accounts and labels are of one service each."""
    places: dict[str, Any] = {}
    for name in sorted(document["services"]):
        entry: dict[str, Any] = {}
        if draw(st.booleans()):
            entry["namespace"] = draw(st.sampled_from(NAMESPACES))
        if draw(st.integers(0, 2)) == 2:
            entry["service_account"] = draw(st.sampled_from((f"{name}-sa", f"{name}.v1", f"x-{name}")))
        if draw(st.integers(0, 2)) == 2:
            entry["labels"] = {"app.kubernetes.io/name": name, "app": f"{name}-pods"}
        if draw(st.booleans()):
            entry["port"] = draw(st.sampled_from((80, 3000, 9090, 65535)))
        if entry:
            places[name] = entry
    return places


def _from_outside(draw: st.DrawFn, document: dict[str, Any]) -> None:
    for name, service in document["services"].items():
        known = sorted(service.get("operations", {}))
        if known and draw(st.booleans()):
            chosen = draw(st.lists(st.sampled_from(known), min_size=1, unique=True))
            rule = {"from": "outside", "to": name, "operations": sorted(chosen)}
            document["allow"] = [*document.get("allow", []), rule]


def target_policies(*, facts: bool = True) -> st.SearchStrategy[Snapshot]:
    """Checked snapshots; the few documents that the language refuses (a header read of a tcp service) are left out."""
    return target_documents(facts=facts).map(_parsed).filter(lambda found: found is not None)


def _parsed(document: dict[str, Any]) -> Snapshot | None:
    try:
        return parse_policy(to_files(document))
    except PolicyError:
        return None
