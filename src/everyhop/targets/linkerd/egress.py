# SPDX-License-Identifier: Apache-2.0
"""Hosts outside of the cluster: an EgressNetwork that refuses, and a route for each host that a whole namespace may call.

Linkerd knows a caller of the outside by its namespace only, and decides at the caller's own proxy.  So a host is opened in a
namespace where every service may call it; where only some may, nothing is opened, unless another target on the same hops tells
them apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.targets.linkerd.clients import GROUP, V1ALPHA1
from everyhop.targets.model import Feature
from everyhop.targets.objects import obj, object_name
from everyhop.targets.yaml import Document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everyhop.policy.targets import Egress
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

TLS_ROUTE: Final = "gateway.networking.k8s.io/v1alpha2"
NETWORK: Final = "everyhop-egress"


class Egresses:
    """What one namespace may call outside."""

    def __init__(self, view: View, namespace: str) -> None:
        self.diagnostics: Final[list[Diagnostic]] = []
        self._view = view
        self._namespace = namespace
        settings = view.intents.settings
        services = view.intents.snapshot.services.values()
        here = [one.name for one in services if settings.place(one.name).namespace == namespace]
        self._services = frozenset(here) - {one.name for one in services if one.is_canary}
        self._open = [one for one in settings.egress if self._opens(one)]

    def documents(self) -> Iterator[Document]:
        """Yield the network and its routes; nothing where the policy says nothing of egress."""
        if not self._view.intents.settings.egress:
            return
        spec = {"trafficPolicy": "Deny"}
        made = obj(self._view, V1ALPHA1, "EgressNetwork", NETWORK, self._namespace, spec)
        yield Document(made, ("Everything outside of the cluster that no route opens is refused.",))
        for egress in self._open:
            place = "" if egress.span is None else f" at {egress.span.file}:{egress.span.line}"
            yield Document(self._route(egress), (f"targets: egress: {egress.name}{place}",))

    def _route(self, egress: Egress) -> dict[str, Any]:
        network = {"group": GROUP, "kind": "EgressNetwork", "name": NETWORK}
        spec = {
            "hostnames": [egress.host],
            "parentRefs": [{**network, "namespace": self._namespace, "port": egress.port}],
            "rules": [{"backendRefs": [network]}],
        }
        return obj(
            self._view, TLS_ROUTE, "TLSRoute", object_name("egress", egress.name), self._namespace, spec
        )

    def _opens(self, egress: Egress) -> bool:
        here = self._services.intersection(egress.callers)
        others = self._services.difference(egress.callers)
        if not here or not others:
            return bool(here)
        if self._view.held_beside(Feature.EGRESS) is not None:
            return True
        message = (
            f"linkerd cannot open {egress.host} to {', '.join(sorted(here))} alone: it knows callers by their namespace, "
            f"and {', '.join(sorted(others))} would have it too"
        )
        hint = "put those who may call it into a namespace of their own"
        self.diagnostics.append(self._view.error("egress-callers", message, suggestion=hint))
        return False
