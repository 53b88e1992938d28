# SPDX-License-Identifier: Apache-2.0
"""Time limits and further attempts, which the callers' proxies see to: routes of the Kubernetes Service of the same name.

Only requests that are safe to repeat (RFC 9110 section 9.2.1) are repeated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.targets.linkerd.clients import V1BETA3
from everyhop.targets.objects import obj, object_name
from everyhop.targets.yaml import Document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everyhop.targets.intents import ServiceIntents
    from everyhop.targets.view import View

SAFE: Final = ("GET", "HEAD", "OPTIONS")


def resilience_documents(view: View, service: ServiceIntents) -> Iterator[Document]:
    """Yield the routes of an HTTP service with a limit or attempts; the one for every method, then the one for safe ones."""
    place = service.place
    if service.service.tcp is not None or (place.timeout is None and not place.retries):
        return
    yield Document(_route(view, service, "calls", {}, None), (f"Calls of {service.name}, at the callers.",))
    if place.retries:
        annotations = {
            "retry.linkerd.io/http": "gateway-error",
            "retry.linkerd.io/limit": str(place.retries),
        }
        yield Document(
            _route(view, service, "retries", annotations, SAFE), ("Only safe methods are repeated.",)
        )


def _route(
    view: View,
    service: ServiceIntents,
    prefix: str,
    annotations: dict[str, str],
    methods: tuple[str, ...] | None,
) -> dict[str, Any]:
    path = {"path": {"type": "PathPrefix", "value": "/"}}
    rule: dict[str, Any] = {"matches": [{**path, "method": m} for m in methods] if methods else [path]}
    if service.place.timeout is not None:
        rule["timeouts"] = {"request": f"{service.place.timeout}s"}
    spec = {
        "parentRefs": [{"group": "core", "kind": "Service", "name": service.name}],
        "rules": [rule],
    }
    name = object_name(prefix, service.name)
    return obj(view, V1BETA3, "HTTPRoute", name, service.place.namespace, spec, annotations=annotations)
