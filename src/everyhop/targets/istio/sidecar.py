# SPDX-License-Identifier: Apache-2.0
"""The compiler for Istio with a sidecar at every pod: one file for each namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.targets.istio import policies, traffic
from everyhop.targets.istio.ground import Ground
from everyhop.targets.istio.rules import Opened, callers, opened
from everyhop.targets.istio.tokens import token_warnings
from everyhop.targets.objects import yaml_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from everyhop.targets.model import Diagnostic, File
    from everyhop.targets.view import View
    from everyhop.targets.yaml import Document


class Istio:
    """``istio``: see ``docs/reference/targets-istio.md``."""

    name: Final = "istio"
    summary: Final = "Istio with sidecars: default deny, allow rules by principal, tokens, egress"

    def compile(self, view: View) -> tuple[Sequence[File], Sequence[Diagnostic]]:
        """Return ``istio/NAMESPACE.yaml`` for each namespace with services."""
        ground = Ground(view)
        found = {
            service.name: opened(ground, service, service.doors, with_ports=True)
            for namespace in ground.namespaces
            for service in ground.services(namespace)
        }
        diagnostics = [
            *ground.diagnostics(),
            *(one for service in found.values() for one in service.diagnostics),
            *token_warnings(view, found),
        ]
        reachable = reachable_of(found)
        files = [
            yaml_file(
                view,
                f"istio/{namespace}.yaml",
                list(_documents(ground, namespace, found, reachable)),
                *ground.notes,
            )
            for namespace in ground.namespaces
        ]
        return files, diagnostics


def reachable_of(found: Mapping[str, Opened]) -> Mapping[str, tuple[str, ...]]:
    """Return the services of which some door is opened, by caller, sorted."""
    names: dict[str, list[str]] = {}
    for name in sorted(found):
        for caller in callers(found[name]):
            names.setdefault(caller, []).append(name)
    return {caller: tuple(targets) for caller, targets in names.items()}


def _documents(
    ground: Ground, namespace: str, found: Mapping[str, Opened], reachable: Mapping[str, tuple[str, ...]]
) -> Iterator[Document]:
    view = ground.view
    yield policies.peer_authentication(view, namespace)
    yield policies.deny_all(view, namespace)
    for service in ground.services(namespace):
        where: dict[str, Any] = {"selector": {"matchLabels": dict(sorted(service.place.labels.items()))}}
        yield from policies.of_service(ground, found[service.name], where)
        yield traffic.destination_rule(view, service)
        timing = traffic.virtual_service(view, service)
        if timing is not None:
            yield timing
        asks = any(one.asks for one in found[service.name].doors)
        yield traffic.sidecar(ground, service, reachable.get(service.name, ()), asks=asks)
    yield from traffic.service_entries(view, namespace)


TARGET: Final = Istio()
