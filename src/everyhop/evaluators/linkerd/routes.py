# SPDX-License-Identifier: Apache-2.0
"""Routes as objects: HTTPRoute of Linkerd or of the Gateway API, GRPCRoute, and what is attached to a parent.

Defaults are those of the definitions: a route without ``rules`` matches every path, a match without a path too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError
from everyhop.evaluators.fields import Fields, spec_of
from everyhop.evaluators.linkerd.clients import GATEWAY, GROUP, Ref, check_version
from everyhop.evaluators.linkerd.matching import (
    EVERY_PATH,
    AnyCall,
    GrpcMatch,
    HttpMatch,
    Kind,
    Match,
    Path,
    Route,
    Text,
)
from everyhop.evaluators.regex import FirstMatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from everyhop.manifests.model import Manifest, Manifests

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
_VERSIONS: Final = {
    (GROUP, "HTTPRoute"): ("v1beta3", "v1beta2", "v1beta1", "v1alpha1"),
    (GATEWAY, "HTTPRoute"): ("v1", "v1beta1"),
    (GATEWAY, "GRPCRoute"): ("v1", "v1alpha2"),
    (GATEWAY, "TLSRoute"): ("v1", "v1alpha3", "v1alpha2"),
    (GATEWAY, "TCPRoute"): ("v1alpha2", "v1"),
}
_HARMLESS: Final = frozenset({"RequestHeaderModifier", "ResponseHeaderModifier"})


@dataclass(frozen=True, slots=True)
class Parent:
    """What a route is attached to; ``port`` and ``namespace`` where they are written."""

    kind: str
    name: str
    namespace: str
    port: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """A route with what it is attached to; ``made`` is when, "" unknown."""

    ref: Ref
    kind: str
    namespace: str
    made: str
    parents: tuple[Parent, ...]
    route: Route
    backends: tuple[Ref, ...] = ()

    @property
    def order(self) -> tuple[bool, str, str, str, str]:
        """Return the place among equals: the oldest first, those of unknown age last, then by name."""
        return (not self.made, self.made, self.ref.name, self.ref.group, self.kind)


def read_routes(manifests: Manifests) -> tuple[Attached, ...]:
    """Read every route, in the order of precedence."""
    found = [_attached(one) for (group, kind) in _VERSIONS for one in manifests.of(kind, group)]
    return tuple(sorted(found, key=lambda one: one.order))


def attached_routes(routes: Iterable[Attached]) -> Mapping[tuple[str, str], list[Attached]]:
    """Return the routes of each Server, by its namespace and name; raises InputError for kinds that none has."""
    found: dict[tuple[str, str], list[Attached]] = {}
    for one in routes:
        servers = {parent.name for parent in one.parents if parent.kind == "Server"}
        if servers and one.kind not in {"HTTPRoute", "GRPCRoute"}:
            raise InputError(f"{one.route.name}: a Server has no routes of this kind")
        for name in sorted(servers):
            found.setdefault((one.namespace, name), []).append(one)
    return found


def _attached(manifest: Manifest) -> Attached:
    group = manifest.group
    check_version(manifest, *_VERSIONS[group, manifest.kind])
    backends: list[Ref] = []
    with spec_of(manifest) as spec:
        parents = spec.each("parentRefs", lambda one: _parent(one, manifest)) or ()
        hosts = () if manifest.kind == "TCPRoute" else spec.texts("hostnames") or ()
        spec.skip("useDefaultGateways")
        rules = spec.each("rules", lambda one: _rule(one, manifest.kind, backends))
    if rules is None:
        rules = ((HttpMatch(),),)
    made = manifest.metadata.get("creationTimestamp")
    return Attached(
        ref=Ref(group.lower(), manifest.kind.lower(), manifest.name),
        kind=manifest.kind,
        namespace=manifest.namespace,
        made="" if made is None else str(made),
        parents=tuple(one for one in parents if one is not None),
        route=Route(name=str(manifest), hosts=hosts, rules=rules),
        backends=tuple(backends),
    )


def _parent(fields: Fields, manifest: Manifest) -> Parent | None:
    default = GROUP if manifest.group == GROUP else GATEWAY
    group, kind = fields.text("group"), fields.text("kind") or "Gateway"
    name, namespace = fields.needed_text("name"), fields.text("namespace")
    port, section = fields.number("port", 1, 65535), fields.text("sectionName")
    if (default if group is None else group).lower() != GROUP or kind not in {"Server", "EgressNetwork"}:
        return None
    if section is not None:
        raise InputError(f"{fields.where}: a parent by the name of a section")
    if namespace not in {None, manifest.namespace}:
        raise InputError(f"{fields.where}: a parent in another namespace")
    if (port is None) != (kind == "Server"):
        raise InputError(
            f"{fields.where}: a Server is no parent by its port, an EgressNetwork by nothing else"
        )
    return Parent(kind, name, manifest.namespace, port)


def _rule(fields: Fields, kind: str, backends: list[Ref]) -> tuple[Match, ...]:
    fields.skip("name", "timeouts", "retry", "sessionPersistence")
    backends += fields.each("backendRefs", _backend) or ()
    if kind in {"TLSRoute", "TCPRoute"}:
        return (AnyCall(),)
    for one in fields.each("filters", _filter) or ():
        if one not in _HARMLESS:
            raise InputError(f"{fields.where}.filters: {one} is not read here")
    if kind == "GRPCRoute":
        return fields.each("matches", _grpc_match) or (AnyCall(),)
    return fields.each("matches", _http_match) or (HttpMatch(),)


def _backend(fields: Fields) -> Ref:
    group, kind = fields.text("group") or "core", fields.text("kind") or "Service"
    fields.skip("port", "weight", "filters")
    return Ref(group.lower(), kind.lower(), fields.needed_text("name"), fields.text("namespace"))


def _filter(fields: Fields) -> str:
    fields.skip("requestHeaderModifier", "responseHeaderModifier", "requestRedirect", "urlRewrite")
    fields.skip("requestMirror", "extensionRef", "cors", "externalAuth")
    return fields.needed_text("type")


def _http_match(fields: Fields) -> HttpMatch:
    path = fields.inner("path")
    return HttpMatch(
        path=EVERY_PATH if path is None else _path(path),
        method=fields.one_of("method", *METHODS),
        headers=tuple((name.lower(), text) for name, text in fields.each("headers", _named) or ()),
        query=fields.each("queryParams", _named) or (),
    )


def _path(path: Fields) -> Path:
    with path:
        kind = Kind(path.one_of("type", *Kind) or Kind.PREFIX)
        value = path.text("value")
    text = "/" if value is None else value
    if kind is Kind.REGEX:
        return Path(kind, text, FirstMatch(text))
    if not text.startswith("/"):
        raise InputError(f"{path.where}: a path starts with a slash")
    return Path(kind, text)


def _named(fields: Fields) -> tuple[str, Text]:
    kind = fields.one_of("type", Kind.EXACT, Kind.REGEX)
    name, value = fields.needed_text("name"), fields.text("value") or ""
    return name, Text(regex=FirstMatch(value)) if kind == Kind.REGEX else Text(exact=value)


def _grpc_match(fields: Fields) -> GrpcMatch:
    method = fields.inner("method")
    if method is None:
        raise InputError(f"{fields.where}: Linkerd's proxies take no match without a method")
    with method:
        if method.one_of("type", Kind.EXACT, Kind.REGEX) == Kind.REGEX:
            raise InputError(f"{method.where}: Linkerd matches methods of gRPC by their names alone")
        service, name = method.text("service") or "", method.text("method") or ""
    headers = fields.each("headers", _named) or ()
    return GrpcMatch(service, name, tuple((key.lower(), text) for key, text in headers))
