# SPDX-License-Identifier: Apache-2.0
"""One CiliumNetworkPolicy for each service, and a default deny for each namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.policy.model import OUTSIDE
from everyhop.policy.routes import guarded_characters
from everyhop.targets.cilium.egress import egress_rules
from everyhop.targets.cilium.expressions import MAX_PROGRAM, path_expression
from everyhop.targets.cilium.ingress import NOTHING, ingress_rules, is_encrypted
from everyhop.targets.cilium.overlaps import without_overlaps
from everyhop.targets.cilium.selectors import endpoint_selector
from everyhop.targets.meshes import no_waypoint
from everyhop.targets.model import LAYER_7, Feature
from everyhop.targets.objects import obj, object_name, yaml_file
from everyhop.targets.reach import Reach, dns_peer, isolated_gateway, opened, peer, services_of
from everyhop.targets.yaml import Document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everyhop.targets.intents import ServiceIntents
    from everyhop.targets.model import Diagnostic, File
    from everyhop.targets.reach import Opened, Peer
    from everyhop.targets.view import View

_API: Final = "cilium.io/v2"
_KIND: Final = "CiliumNetworkPolicy"
_LAYER_7: Final = frozenset({*LAYER_7, Feature.PROBES})
_PROBES: Final = (
    "The kubelet's probes come from the host, which Cilium lets in by default (allow-localhost); they need no rule.",
    "Path expressions are for RE2 on the whole :path; Envoy normalises it first (http-normalize-path, on by default).",
)


class Cilium:
    """The compiler to Cilium."""

    name = "cilium"
    summary = "CiliumNetworkPolicy with HTTP rules, default deny both ways, DNS names"

    def compile(self, view: View) -> tuple[list[File], list[Diagnostic]]:
        """Return ``cilium/NAMESPACE.yaml`` for each namespace with services.

        Diagnostics of its own: ``overlap`` (a route contains a more specific one), ``regex-size``, ``encrypted`` (a mesh hides HTTP
        from Cilium), ``egress-aliasing``, ``gateway``, ``gateway-namespace``, ``waypoint``, ``dns-label``.
        """
        doors, said = opened(view)
        kept: dict[str, list[Opened]] = {}
        for service in view.intents:
            left, more = _kept(view, service, doors.get(service.name, []))
            said += more
            if left:
                kept[service.name] = left
        reach = Reach(view, kept)
        dns, more = dns_peer(view)
        said += [*more, *isolated_gateway(view), *no_waypoint(view), *_around(view)]
        is_superset = is_encrypted(view) and reach.has_http
        files = [
            yaml_file(
                view,
                f"cilium/{namespace}.yaml",
                _documents(view, reach, namespace, dns),
                *_PROBES,
                is_superset=is_superset,
            )
            for namespace in view.intents.namespaces
        ]
        return files, said


def _kept(view: View, service: ServiceIntents, doors: list[Opened]) -> tuple[list[Opened], list[Diagnostic]]:
    """Return what Cilium can tell apart of the doors that may be opened."""
    if service.service.tcp is not None:
        return doors, []
    if is_encrypted(view):
        return _held_beside(view, doors)
    left, said = without_overlaps(view, service.doors, doors)
    fitting, more = _fitting(view, service, left)
    return fitting, [*said, *more]


def _held_beside(view: View, doors: list[Opened]) -> tuple[list[Opened], list[Diagnostic]]:
    kept, said = [], []
    for door, grants in doors:
        lacking = sorted(one for one in door.features & _LAYER_7 if view.held_beside(one) is None)
        if lacking:
            message = f"{door} is encrypted on its way, so Cilium sees no HTTP, and nobody beside it holds {', '.join(lacking)}"
            hint = "name the mesh that encrypts in `with`"
            said.append(view.error("encrypted", message, door=door, suggestion=hint))
        else:
            kept.append((door, grants))
    return kept, said


def _fitting(
    view: View, service: ServiceIntents, doors: list[Opened]
) -> tuple[list[Opened], list[Diagnostic]]:
    guarded = _guarded(service)
    kept: list[Opened] = []
    said: list[Diagnostic] = []
    for door, grants in doors:
        if door.operation is None:
            raise AssertionError(f"{door} has no route")  # pragma: no cover  # tcp services do not come here
        expression = path_expression(door.operation.route, guarded)
        if not expression.fits:
            message = f"the path of {door} is an expression of {expression.size} instructions, and {MAX_PROGRAM} are safe: with one that Envoy refuses, Cilium loses the whole policy"
            hint = "fewer parameters, or shorter texts behind the first"
            said.append(view.error("regex-size", message, door=door, suggestion=hint))
            continue
        if not expression.takes_encoded:
            message = f"the expression for {door} would be too large with percent-encoded bytes in its parameters: such paths are refused"
            said.append(view.warning("regex-size", message, door=door))
        kept.append((door, grants))
    return kept, said


def _guarded(service: ServiceIntents) -> frozenset[str]:
    one = service.service
    return guarded_characters(tuple(each.route for each in (*one.operations, *one.probes)))


def _around(view: View) -> Iterator[Diagnostic]:
    mesh = view.held_beside(Feature.MTLS)
    if mesh is not None and mesh != "sdk" and not is_encrypted(view):
        message = f"{mesh} encrypts these hops, so Cilium's proxy would see TLS in place of HTTP and refuse every call"
        hint = "write `traffic: encrypted` under targets: cilium, for the outer bound of ports"
        yield view.warning("encrypted", message, suggestion=hint)
    for egress in view.intents.settings.egress:
        message = f"egress {egress.name}: {egress.host} is held by its addresses and by the name in TLS (SNI): who serves another name at the same address may answer for it"
        yield view.warning("egress-aliasing", message)


def _documents(view: View, reach: Reach, namespace: str, dns: Peer | None) -> Iterator[Document]:
    yield Document(
        _policy(view, object_name("deny", "default"), namespace, {}, [], []),
        ("Nothing comes in and nothing goes out but by the policies below.",),
    )
    for service in services_of(view, namespace):
        name = service.name
        rules = ingress_rules(view, service, reach.doors(name), _guarded(service))
        egress = egress_rules(view, reach, name, dns)
        selector = endpoint_selector(peer(view, name))
        span = service.service.span
        yield Document(
            _policy(view, object_name("calls", name), namespace, selector, rules, egress),
            (f"{name}, at {span.file}:{span.line}",),
        )
    yield from _gateway(view, reach, namespace, dns)


def _gateway(view: View, reach: Reach, namespace: str, dns: Peer | None) -> Iterator[Document]:
    """Yield what the gateway needs where the default deny of a namespace shuts it in."""
    gateway = view.intents.settings.gateway
    if gateway is None or gateway.namespace != namespace:
        return
    egress = egress_rules(view, reach, OUTSIDE, dns)
    if egress:
        selector = endpoint_selector(peer(view, OUTSIDE))
        name = object_name("gateway", gateway.service_account)
        yield Document(
            _policy(view, name, namespace, selector, [], egress), ("The gateway's way to services.",)
        )


def _policy(
    view: View, name: str, namespace: str, selector: dict[str, Any], ingress: list[Any], egress: list[Any]
) -> dict[str, Any]:
    spec = {
        "endpointSelector": selector,
        "enableDefaultDeny": {"ingress": True, "egress": True},
        "ingress": ingress or list(NOTHING),
        "egress": egress or list(NOTHING),
    }
    return obj(view, _API, _KIND, name, namespace, spec)
