# SPDX-License-Identifier: Apache-2.0
"""Linkerd: a Server and its routes for every service, and the identities that each set of routes is open to.

Linkerd adds up what is allowed at the Namespace, the Server and the route, so nothing is ever allowed at more than one of them:
an HTTP service at its routes, a tcp service at its Server.  Of two routes that match alike the older one decides, so ours never
match the same request (:mod:`everyhop.targets.regions`).  Linkerd matches the path as it is on the wire, without its query.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.targets.linkerd.namespace import namespace_documents
from everyhop.targets.objects import yaml_file

if TYPE_CHECKING:
    from everyhop.targets.model import Diagnostic, File
    from everyhop.targets.view import View

__all__ = ["TARGET", "Linkerd"]

_APPLY: Final = (
    "Pods take the annotation of their namespace over when they start: restart them once after the first apply.",
    "Linkerd never asks for an authorization on connections from localhost inside of a pod.",
)


class Linkerd:
    """The compiler; one file for each namespace."""

    name = "linkerd"
    summary = "Linkerd policy: Server, HTTPRoute, AuthorizationPolicy, MeshTLSAuthentication, EgressNetwork"

    def compile(self, view: View) -> tuple[list[File], list[Diagnostic]]:
        """Return ``linkerd/NAMESPACE.yaml`` for every namespace in which a service stands, and what Linkerd does not hold."""
        files: list[File] = []
        found: list[Diagnostic] = []
        for namespace in view.intents.namespaces:
            documents, diagnostics = namespace_documents(view, namespace)
            files.append(yaml_file(view, f"linkerd/{namespace}.yaml", documents, *_APPLY))
            found += diagnostics
        return files, list(dict.fromkeys(found))


TARGET: Final = Linkerd()
