# SPDX-License-Identifier: Apache-2.0
"""Who may edit what the policy compiles to: one group, and nobody beside it by anything written here.

Whoever may write accounts, labels or policy objects decides who is who.  The rules name every resource and verb; ``impersonate``,
``bind``, ``escalate`` and ``serviceaccounts/token`` are not among them, nor pods: who deploys is not who writes policy.  RBAC only
adds, so what other roles give is not taken away (the built-in ``edit`` and ``admin`` write accounts, pods and NetworkPolicies).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.targets.model import Target
from everyhop.targets.objects import obj, object_name, yaml_file
from everyhop.targets.yaml import Document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from everyhop.targets.model import Diagnostic, File
    from everyhop.targets.view import View

__all__ = ["TARGET"]

_API: Final = "rbac.authorization.k8s.io/v1"
_GROUP: Final = "rbac.authorization.k8s.io"
_READ: Final = ("get", "list", "watch")
_WRITE: Final = ("create", "update", "patch", "delete")
_EVERYBODY: Final = "system:authenticated"

NAMESPACED: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("serviceaccounts",),
    "networking.k8s.io": ("networkpolicies",),
    "cilium.io": ("ciliumnetworkpolicies",),
    "security.istio.io": ("authorizationpolicies", "peerauthentications", "requestauthentications"),
    "networking.istio.io": ("destinationrules", "serviceentries", "sidecars", "virtualservices"),
    "policy.linkerd.io": (
        "authorizationpolicies",
        "egressnetworks",
        "httproutes",
        "meshtlsauthentications",
        "networkauthentications",
        "servers",
    ),
    "gateway.networking.k8s.io": ("grpcroutes", "httproutes"),
    "cert-manager.io": ("certificates",),
}
"""The kinds of objects that we write into namespaces and that identities and permissions hang on, by API group."""

CLUSTER: Final[Mapping[str, tuple[str, ...]]] = {
    "policy.networking.k8s.io": ("clusternetworkpolicies",),
    "spire.spiffe.io": ("clusterspiffeids",),
    "admissionregistration.k8s.io": ("validatingadmissionpolicies", "validatingadmissionpolicybindings"),
    "templates.gatekeeper.sh": ("constrainttemplates",),
    "constraints.gatekeeper.sh": (
        "everyhopautomountedtoken",
        "everyhopopenallow",
        "everyhoppermissivemtls",
        "everyhopsecretinenv",
        "everyhopwildcardprincipal",
    ),
}
"""The same of the whole cluster."""


class Rbac:
    """The compiler to roles and their bindings."""

    name = "rbac"
    summary = "roles for who may edit policy objects: one group; all others read"

    def compile(self, view: View) -> tuple[list[File], list[Diagnostic]]:
        """Return ``rbac/cluster.yaml`` and ``rbac/NAMESPACE.yaml`` for each namespace with services.

        Diagnostics of its own: ``group`` (a group to which everybody belongs), ``additive`` (what RBAC cannot take away).
        """
        group = view.option("group")
        if group.startswith("system:"):
            message = f"the group {group!r} belongs to Kubernetes: it would make everybody in it an editor of policy"
            return [], [view.error("group", message, suggestion="a group of your identity provider")]
        message = "RBAC only adds: the built-in roles edit and admin, where they are bound, write accounts, pods and NetworkPolicies as well"
        said = [view.warning("additive", message, suggestion="bind roles without them in these namespaces")]
        cluster = yaml_file(view, "rbac/cluster.yaml", _cluster(view, group))
        return [cluster, *(_namespace(view, one, group) for one in view.intents.namespaces)], said


TARGET: Final[Target] = Rbac()
"""The target as :mod:`everyhop.targets.compiling` finds it."""


def _cluster(view: View, group: str) -> list[Document]:
    return [
        _role(view, "editor", NAMESPACED, (*_READ, *_WRITE), "Bound in the namespaces of services only."),
        _role(view, "viewer", NAMESPACED, _READ, "Bound in the namespaces of services only."),
        _role(view, "clustereditor", CLUSTER, (*_READ, *_WRITE), "Objects of the whole cluster."),
        _role(view, "clusterviewer", CLUSTER, _READ, "Objects of the whole cluster."),
        _binding(view, "clustereditor", None, group),
        _binding(view, "clusterviewer", None, _EVERYBODY),
    ]


def _namespace(view: View, namespace: str, group: str) -> File:
    documents = [
        _binding(view, "editor", namespace, group),
        _binding(view, "viewer", namespace, _EVERYBODY),
    ]
    return yaml_file(view, f"rbac/{namespace}.yaml", documents)


def _role(
    view: View, word: str, kinds: Mapping[str, tuple[str, ...]], verbs: Sequence[str], note: str
) -> Document:
    rules: list[dict[str, Any]] = [
        {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}
        for group, resources in kinds.items()
    ]
    return Document(obj(view, _API, "ClusterRole", _name(word), None, None, rules=rules), (note,))


def _binding(view: View, word: str, namespace: str | None, group: str) -> Document:
    kind = "ClusterRoleBinding" if namespace is None else "RoleBinding"
    made = obj(
        view,
        _API,
        kind,
        _name(word),
        namespace,
        None,
        roleRef={"apiGroup": _GROUP, "kind": "ClusterRole", "name": _name(word)},
        subjects=[{"apiGroup": _GROUP, "kind": "Group", "name": group}],
    )
    return Document(made)


def _name(word: str) -> str:
    return object_name("everyhop", word)
