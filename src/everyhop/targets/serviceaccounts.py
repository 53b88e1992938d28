# SPDX-License-Identifier: Apache-2.0
"""An account for each service, without a token that is good for the API server, and bound tokens for who needs one.

A token of a pod's account is mounted by default and good for the API server.  Here it is not mounted.  A service that needs access
tokens gets one whose only audience is the trust domain's token endpoint: it says to who attests workloads there which account the pod
has, and is good for nothing else.  Sidecars of meshes get tokens of their own from their injectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.policy.model import TokenMode
from everyhop.targets.model import Target
from everyhop.targets.objects import MANAGED_BY, SNAPSHOT, obj, yaml_file
from everyhop.targets.reach import services_of
from everyhop.targets.yaml import Document, Noted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everyhop.targets.intents import ServiceIntents
    from everyhop.targets.model import Diagnostic, File
    from everyhop.targets.view import View

__all__ = ["TARGET"]

_SHORTEST: Final = 600
_ENDPOINT: Final = "/oauth/token"
_VOLUME: Final = "everyhop-token"
_DIRECTORY: Final = "/var/run/secrets/everyhop"
_FILE: Final = "token"
_WORKLOADS: Final = "Deployment|StatefulSet|DaemonSet"
_NOTES: Final = (
    "Patches are for the workload with the service's name, and the container of the same name in it.",
    "A patch that finds no workload does nothing and says nothing: look at what comes out.",
)
_PURPOSE: Final = (
    "The token says to the token endpoint which account the pod has; no API server and no other service takes it.",
)


class ServiceAccounts:
    """The compiler to accounts and patches of workloads."""

    name = "serviceaccounts"
    summary = "ServiceAccount with automounting off, and projected tokens bound to an audience"

    def compile(self, view: View) -> tuple[list[File], list[Diagnostic]]:
        """Return a kustomize component: ``accounts/NAMESPACE.yaml``, ``patches/NAMESPACE/SERVICE.yaml``, ``kustomization.yaml``.

        Diagnostics of its own: ``token-seconds`` (Kubernetes gives no shorter ones), ``tokens`` (no token endpoint is named).
        """
        said = list(_said(view))
        if any(one.is_error for one in said):
            return [], said
        callers = _callers(view)
        services = [one for namespace in view.intents.namespaces for one in services_of(view, namespace)]
        files = [
            yaml_file(
                view,
                f"serviceaccounts/accounts/{namespace}.yaml",
                (_account(view, one) for one in services_of(view, namespace)),
            )
            for namespace in view.intents.namespaces
        ]
        audience = _audience(view)
        for one in services:
            needed = audience if one.name in callers else None
            patch = Document(_patch(view, one, needed), _PURPOSE if needed else ())
            files.append(yaml_file(view, f"serviceaccounts/{_path(one)}", [patch]))
        return [
            *files,
            yaml_file(view, "serviceaccounts/kustomization.yaml", [_component(view, services)], *_NOTES),
        ], said


TARGET: Final[Target] = ServiceAccounts()
"""The target as :mod:`everyhop.targets.compiling` finds it."""


def _said(view: View) -> Iterator[Diagnostic]:
    seconds = view.option("token_seconds")
    if seconds < _SHORTEST:
        message = f"token_seconds is {seconds}; Kubernetes gives no token for less than {_SHORTEST} seconds"
        yield view.error("token-seconds", message)
    if _audience(view) is None and _callers(view):
        message = (
            "operations ask for tokens, and no issuer is named: no pod gets a token for its token endpoint"
        )
        yield view.warning("tokens", message, suggestion="name it: targets: tokens")


def _audience(view: View) -> str | None:
    tokens = view.intents.settings.tokens
    return None if tokens is None else tokens.issuer.rstrip("/") + _ENDPOINT


def _callers(view: View) -> frozenset[str]:
    """Return the services that call an operation which asks for a token."""
    return frozenset(
        grant.caller
        for service in view.intents
        for door in service.doors
        if door.operation is not None and door.operation.token is not TokenMode.NONE
        for grant in door.grants
    )


def _account(view: View, service: ServiceIntents) -> Document:
    place, span = service.place, service.service.span
    made = obj(
        view,
        "v1",
        "ServiceAccount",
        place.service_account,
        place.namespace,
        None,
        automountServiceAccountToken=False,
    )
    return Document(made, (f"{service.name}, at {span.file}:{span.line}",))


def _path(service: ServiceIntents) -> str:
    return f"patches/{service.place.namespace}/{service.name}.yaml"


def _patch(view: View, service: ServiceIntents, audience: str | None) -> dict[str, Any]:
    """Return a strategic merge patch; it names no label, as those of a workload are not ours."""
    pod: dict[str, Any] = {
        "serviceAccountName": service.place.service_account,
        "automountServiceAccountToken": False,
    }
    if audience is not None:
        source = {
            "audience": audience,
            "expirationSeconds": view.option("token_seconds"),
            "path": _FILE,
        }
        pod["containers"] = [
            {
                "name": service.name,
                "volumeMounts": [{"name": _VOLUME, "mountPath": _DIRECTORY, "readOnly": True}],
            }
        ]
        pod["volumes"] = [{"name": _VOLUME, "projected": {"sources": [{"serviceAccountToken": source}]}}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": service.name, "namespace": service.place.namespace},
        "spec": {"template": {"spec": pod}},
    }


def _component(view: View, services: list[ServiceIntents]) -> Document:
    patches = [
        Noted(
            {
                "path": _path(one),
                "target": {
                    "group": "apps",
                    "kind": _WORKLOADS,
                    "name": one.name,
                    "namespace": one.place.namespace,
                },
            },
            one.name,
        )
        for one in services
    ]
    value: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "metadata": {
            "name": "everyhop-serviceaccounts",
            "labels": {MANAGED_BY: "everyhop"},
            "annotations": {SNAPSHOT: view.intents.snapshot.hash[:16]},
        },
        "resources": [f"accounts/{namespace}.yaml" for namespace in view.intents.namespaces],
    }
    return Document(value | ({"patches": patches} if patches else {}))
