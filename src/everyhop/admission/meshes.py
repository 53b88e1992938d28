# SPDX-License-Identifier: Apache-2.0
"""Rules about policies of meshes and networks: nothing that opens to everybody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.admission.model import Code, Document, Kinds, Rule, items, mapping

if TYPE_CHECKING:
    from collections.abc import Iterator

ISTIO: Final = "security.istio.io"
LINKERD: Final = "policy.linkerd.io"
CILIUM: Final = "cilium.io"
NETWORKING: Final = "networking.k8s.io"
EVERYWHERE: Final = ("0.0.0.0/0", "::/0")
POSITIVE: Final = (
    "principals",
    "requestPrincipals",
    "namespaces",
    "serviceAccounts",
    "ipBlocks",
    "remoteIpBlocks",
)
FROM_OF_CILIUM: Final = (
    "fromEndpoints",
    "fromEntities",
    "fromCIDR",
    "fromCIDRSet",
    "fromRequires",
    "fromNodes",
    "fromGroups",
)
_NAMED: Final = ("principals", "requestPrincipals", "namespaces", "serviceAccounts")


def _permissive(document: Document) -> Iterator[tuple[str, str]]:
    spec = mapping(document.get("spec"), "spec")
    mode = mapping(spec.get("mtls"), "spec.mtls").get("mode", "STRICT")
    if mode != "STRICT":
        yield "spec.mtls.mode", f"{mode} lets plaintext in; write STRICT"
    for port, one in mapping(spec.get("portLevelMtls"), "spec.portLevelMtls").items():
        mode = mapping(one, f"spec.portLevelMtls.{port}").get("mode", "STRICT")
        if mode != "STRICT":
            yield f"spec.portLevelMtls.{port}.mode", f"{mode} lets plaintext in; write STRICT"


def _open(document: Document) -> Iterator[tuple[str, str]]:
    group = str(document.get("apiVersion", "")).rpartition("/")[0]
    spec = mapping(document.get("spec"), "spec")
    kind = document.get("kind")
    if group == ISTIO:
        yield from _open_istio(spec)
    elif kind == "AuthorizationPolicy":
        yield from _open_linkerd(spec)
    elif kind == "Server":
        if spec.get("accessPolicy", "deny") != "deny":
            yield (
                "spec.accessPolicy",
                "a server's default opens it to more than its policies name; write deny",
            )
    elif kind == "ServerAuthorization":
        client = mapping(spec.get("client"), "spec.client")
        if client.get("unauthenticated") is True:
            yield "spec.client.unauthenticated", "everybody may call"
    elif kind == "NetworkPolicy":
        yield from _open_network(spec)
    else:
        yield from _open_cilium(spec)


def _open_istio(spec: Document) -> Iterator[tuple[str, str]]:
    if spec.get("action", "ALLOW") != "ALLOW":
        return
    rules = items(spec.get("rules"), "spec.rules")
    if rules and not is_bound(spec):
        yield "spec.selector", "an ALLOW without selector or targetRefs opens every workload of the namespace"
    for index, rule in enumerate(rules):
        path = f"spec.rules[{index}]"
        sources = items(mapping(rule, path).get("from"), f"{path}.from")
        if not sources:
            yield f"{path}.from", "whoever comes is allowed: name the callers"
        for place, one in enumerate(sources):
            where = f"{path}.from[{place}].source"
            source = mapping(mapping(one, where).get("source"), where)
            if not any(source.get(name) for name in POSITIVE):
                yield where, "it names nobody, or only who it is not: plaintext callers match"


def is_bound(spec: Document) -> bool:
    """Tell whether an Istio policy is about some workloads of its namespace only; an empty selector is about all."""
    labels = mapping(
        mapping(spec.get("selector"), "spec.selector").get("matchLabels"), "spec.selector.matchLabels"
    )
    return bool(labels or spec.get("targetRef") or spec.get("targetRefs"))


def _open_linkerd(spec: Document) -> Iterator[tuple[str, str]]:
    if mapping(spec.get("targetRef"), "spec.targetRef").get("kind") == "Namespace":
        yield "spec.targetRef", "a policy on a namespace widens every route in it: name a Server or a route"
    if not items(spec.get("requiredAuthenticationRefs"), "spec.requiredAuthenticationRefs"):
        yield "spec.requiredAuthenticationRefs", "without a reference everybody may call, unauthenticated"


def _open_network(spec: Document) -> Iterator[tuple[str, str]]:
    for index, rule in enumerate(items(spec.get("ingress"), "spec.ingress")):
        path = f"spec.ingress[{index}].from"
        peers = items(mapping(rule, path).get("from"), path)
        if not peers:
            yield path, "every pod and every address may connect: name the peers"
        for place, peer in enumerate(peers):
            block = mapping(mapping(peer, path).get("ipBlock"), f"{path}[{place}].ipBlock")
            if block.get("cidr") in EVERYWHERE:
                yield f"{path}[{place}].ipBlock.cidr", "every address may connect"


def _open_cilium(spec: Document) -> Iterator[tuple[str, str]]:
    for index, rule in enumerate(items(spec.get("ingress"), "spec.ingress")):
        path = f"spec.ingress[{index}]"
        fields = mapping(rule, path)
        if "all" in items(fields.get("fromEntities"), f"{path}.fromEntities"):
            yield f"{path}.fromEntities", "all means everybody, the world too"
        if fields.get("toPorts") and not any(fields.get(name) for name in FROM_OF_CILIUM):
            yield path, "a rule with ports and without peers opens them to everybody"


def _wildcard(document: Document) -> Iterator[tuple[str, str]]:
    spec = mapping(document.get("spec"), "spec")
    if document.get("kind") == "MeshTLSAuthentication":
        for index, name in enumerate(items(spec.get("identities"), "spec.identities")):
            if "*" in str(name):
                yield f"spec.identities[{index}]", f"{str(name)[:120]!r} names more than one identity"
        return
    if spec.get("action", "ALLOW") != "ALLOW":
        return
    for index, rule in enumerate(items(spec.get("rules"), "spec.rules")):
        path = f"spec.rules[{index}]"
        for place, one in enumerate(items(mapping(rule, path).get("from"), f"{path}.from")):
            where = f"{path}.from[{place}].source"
            source = mapping(mapping(one, where).get("source"), where)
            for key in _NAMED:
                for name in items(source.get(key), f"{where}.{key}"):
                    if "*" in str(name):
                        yield f"{where}.{key}", f"{str(name)[:120]!r} names more than one identity"


MESH_RULES: Final = (
    Rule(
        Code.PERMISSIVE_MTLS,
        "no PeerAuthentication lets plaintext in",
        (Kinds(ISTIO, {"PeerAuthentication": "peerauthentications"}),),
        _permissive,
    ),
    Rule(
        Code.OPEN_ALLOW,
        "no policy opens to everybody, or every workload",
        (
            Kinds(ISTIO, {"AuthorizationPolicy": "authorizationpolicies"}),
            Kinds(
                LINKERD,
                {
                    "AuthorizationPolicy": "authorizationpolicies",
                    "Server": "servers",
                    "ServerAuthorization": "serverauthorizations",
                },
            ),
            Kinds(CILIUM, {"CiliumNetworkPolicy": "ciliumnetworkpolicies"}),
            Kinds(NETWORKING, {"NetworkPolicy": "networkpolicies"}),
        ),
        _open,
    ),
    Rule(
        Code.WILDCARD_PRINCIPAL,
        "no allowed identity is a pattern",
        (
            Kinds(ISTIO, {"AuthorizationPolicy": "authorizationpolicies"}),
            Kinds(LINKERD, {"MeshTLSAuthentication": "meshtlsauthentications"}),
        ),
        _wildcard,
    ),
)
