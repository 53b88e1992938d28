# SPDX-License-Identifier: Apache-2.0
"""The rules of :mod:`everyhop.admission` in CEL, as a ValidatingAdmissionPolicy evaluates them: true admits.

Written a second time and not derived, because a cluster without our webhook evaluates nothing else; tests ask both about the same
objects.  ``has`` guards each optional field, because a missing one is an error in CEL.
"""

from __future__ import annotations

from typing import Final

from everyhop.admission.meshes import EVERYWHERE, FROM_OF_CILIUM, POSITIVE
from everyhop.admission.model import Code
from everyhop.admission.workloads import CONTAINERS, SENSITIVE_NAME
from everyhop.manifests.pods import template_path

_ALLOW: Final = "(has(object.spec) && (!has(object.spec.action) || object.spec.action == 'ALLOW') && has(object.spec.rules))"
_NAMED: Final = ("principals", "requestPrincipals", "namespaces", "serviceAccounts")


def _pod(kind: str) -> str:
    return ".".join(("object", *template_path(kind), "spec"))


def _bound(spec: str) -> str:
    parts = (
        f"has({spec}.selector) && has({spec}.selector.matchLabels) && size({spec}.selector.matchLabels) > 0",
        f"has({spec}.targetRef)",
        f"has({spec}.targetRefs) && size({spec}.targetRefs) > 0",
    )
    return "(" + " || ".join(f"({part})" for part in parts) + ")"


def _some(place: str) -> str:
    return f"(has({place}) && size({place}) > 0)"


def _permissive() -> tuple[str, ...]:
    ports = "object.spec.portLevelMtls"
    return (
        "!has(object.spec) || !has(object.spec.mtls) || !has(object.spec.mtls.mode) || object.spec.mtls.mode == 'STRICT'",
        f"!has(object.spec) || !has({ports}) || {ports}.all(p, !has({ports}[p].mode) || {ports}[p].mode == 'STRICT')",
    )


def _open_istio() -> tuple[str, ...]:
    positive = " || ".join(_some(f"f.source.{name}") for name in POSITIVE)
    return (
        f"!{_ALLOW} || size(object.spec.rules) == 0 || {_bound('object.spec')}",
        f"!{_ALLOW} || object.spec.rules.all(r, {_some('r.from')} && r.from.all(f, has(f.source) && ({positive})))",
    )


def _open_network() -> tuple[str, ...]:
    blocks = ", ".join(f"'{block}'" for block in EVERYWHERE)
    peers = f"r.from.all(p, !has(p.ipBlock) || !(p.ipBlock.cidr in [{blocks}]))"
    return (f"!has(object.spec.ingress) || object.spec.ingress.all(r, {_some('r.from')} && {peers})",)


def _open_cilium() -> tuple[str, ...]:
    ingress = "!has(object.spec) || !has(object.spec.ingress) || object.spec.ingress.all"
    named = " || ".join(_some(f"r.{name}") for name in FROM_OF_CILIUM)
    return (
        f"{ingress}(r, !has(r.fromEntities) || !('all' in r.fromEntities))",
        f"{ingress}(r, !{_some('r.toPorts')} || {named})",
    )


def _wildcard_istio() -> tuple[str, ...]:
    fields = " && ".join(
        f"(!has(f.source.{name}) || f.source.{name}.all(x, !x.contains('*')))" for name in _NAMED
    )
    return (
        f"!{_ALLOW} || object.spec.rules.all(r, !has(r.from) || r.from.all(f, !has(f.source) || ({fields})))",
    )


def _secret(kind: str) -> tuple[str, ...]:
    pod = _pod(kind)
    variable = (
        "!(has(v.valueFrom) && has(v.valueFrom.secretKeyRef)) && "
        f"!(has(v.value) && v.value != '' && v.name.matches('{SENSITIVE_NAME}'))"
    )
    container = f"(!has(c.env) || c.env.all(v, {variable})) && (!has(c.envFrom) || c.envFrom.all(s, !has(s.secretRef)))"
    return tuple(f"!has({pod}.{name}) || {pod}.{name}.all(c, {container})" for name in CONTAINERS)


def _automounted(kind: str) -> tuple[str, ...]:
    if kind == "ServiceAccount":
        return ("has(object.automountServiceAccountToken) && object.automountServiceAccountToken == false",)
    field = f"{_pod(kind)}.automountServiceAccountToken"
    return (f"!has({field}) || {field} == false",)


def _default_deny(kind: str, name: str) -> str:
    spec = f"{name}.spec"
    if kind == "AuthorizationPolicy":
        return (
            f"((!has({spec}.action) || {spec}.action == 'ALLOW') && !{_bound(spec)} && "
            f"(!has({spec}.rules) || size({spec}.rules) == 0))"
        )
    selector = f"{spec}.podSelector"
    return (
        f"(!{_some(f'{selector}.matchLabels')} && !{_some(f'{selector}.matchExpressions')} && "
        f"(!{_some(f'{spec}.policyTypes')} || 'Ingress' in {spec}.policyTypes) && "
        f"(!has({spec}.ingress) || size({spec}.ingress) == 0))"
    )


def expressions(code: Code, group: str, kind: str) -> tuple[str, ...]:
    """Return what has to be true of an object of a kind for a rule; of ``default-deny-removed``, of its change or removal."""
    if code is Code.PERMISSIVE_MTLS:
        return _permissive()
    if code is Code.AUTOMOUNTED_TOKEN:
        return _automounted(kind)
    if code is Code.SECRET_IN_ENV:
        return _secret(kind)
    if code is Code.DEFAULT_DENY_REMOVED:
        old, new = _default_deny(kind, "oldObject"), _default_deny(kind, "object")
        return (f"!{old} || (request.operation != 'DELETE' && {new})",)
    if code is Code.WILDCARD_PRINCIPAL:
        if kind == "MeshTLSAuthentication":
            return ("!has(object.spec.identities) || object.spec.identities.all(x, !x.contains('*'))",)
        return _wildcard_istio()
    return _OPEN[group, kind]


_OPEN: Final = {
    ("security.istio.io", "AuthorizationPolicy"): _open_istio(),
    ("policy.linkerd.io", "AuthorizationPolicy"): (
        "!has(object.spec.targetRef) || object.spec.targetRef.kind != 'Namespace'",
        _some("object.spec.requiredAuthenticationRefs"),
    ),
    ("policy.linkerd.io", "Server"): (
        "!has(object.spec.accessPolicy) || object.spec.accessPolicy == 'deny'",
    ),
    ("policy.linkerd.io", "ServerAuthorization"): (
        "!has(object.spec.client) || !has(object.spec.client.unauthenticated) || object.spec.client.unauthenticated == false",
    ),
    ("networking.k8s.io", "NetworkPolicy"): _open_network(),
    ("cilium.io", "CiliumNetworkPolicy"): _open_cilium(),
}
