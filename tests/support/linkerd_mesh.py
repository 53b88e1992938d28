# SPDX-License-Identifier: Apache-2.0
"""What Linkerd's policy controller and inbound proxy do with policy objects, as little of it as our tests need.

Written from their sources (edge-26.8: ``policy-controller/k8s/index/src/inbound/index.rs``, ``linkerd2-proxy``'s
``linkerd/http/route`` and ``linkerd/proxy/server-policy``), not from the compiler.  ``order`` turns the order of routes around,
which in a cluster is their age: nothing may hang on it.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

GROUP = "policy.linkerd.io"


@dataclass(frozen=True, kw_only=True)
class Client:
    """Who connects: the name in the certificate (None without mutual TLS), and from where."""

    identity: str | None
    ip: str = "192.168.7.7"


ANYWHERE = ("0.0.0.0/0", "::/0")


class LinkerdMesh:
    """Pods under a set of objects."""

    def __init__(
        self,
        objects: list[dict[str, Any]],
        *,
        is_reversed: bool = False,
        declared_probes: tuple[str, ...] = ("/healthz",),
    ) -> None:
        self._objects = objects[::-1] if is_reversed else objects
        self._probes = declared_probes

    def _kind(self, kind: str, namespace: str) -> list[dict[str, Any]]:
        return [
            one
            for one in self._objects
            if one["kind"] == kind and one["metadata"].get("namespace") == namespace
        ]

    def _server(self, namespace: str, labels: dict[str, str], port: int) -> dict[str, Any] | None:
        for server in self._kind("Server", namespace):
            spec = server["spec"]
            wanted = spec["podSelector"]["matchLabels"]
            if spec["port"] == port and all(labels.get(key) == value for key, value in wanted.items()):
                return server
        return None

    def admits_call(
        self, namespace: str, labels: dict[str, str], port: int, client: Client, method: str, path: str
    ) -> bool:
        """Tell whether an HTTP request reaches the application."""
        server = self._server(namespace, labels, port)
        if server is None:
            raise AssertionError("the default policy of the cluster would decide")
        if server["spec"]["proxyProtocol"] not in {"unknown", "HTTP/1", "HTTP/2"}:
            raise AssertionError("no HTTPRoute is looked at here")
        bare = path.partition("?")[0]
        best: tuple[Any, list[Any]] | None = None
        for matches, authorizations in self._routes(namespace, server):
            found = [summary for match in matches if (summary := _summary(match, method, bare)) is not None]
            if found and (best is None or max(found) > best[0]):  # of equals the first one stays
                best = max(found), authorizations
        if best is None:
            return False
        return any(
            _passes(one, client) for one in (*best[1], *self._authorizations(namespace, "Server", server))
        )

    def admits_connection(self, namespace: str, labels: dict[str, str], port: int, client: Client) -> bool:
        """Tell whether an opaque connection reaches the application."""
        server = self._server(namespace, labels, port)
        if server is None or server["spec"]["proxyProtocol"] != "opaque":
            raise AssertionError("the port is not opaque")
        return any(_passes(one, client) for one in self._authorizations(namespace, "Server", server))

    def _routes(self, namespace: str, server: dict[str, Any]) -> list[tuple[list[Any], list[Any]]]:
        found = []
        for route in self._kind("HTTPRoute", namespace):
            parents = [(p.get("group"), p["kind"], p["name"]) for p in route["spec"]["parentRefs"]]
            if (GROUP, "Server", server["metadata"]["name"]) in parents:
                authorizations = self._authorizations(namespace, "HTTPRoute", route)
                found += [(rule["matches"], authorizations) for rule in route["spec"]["rules"]]
        if found:
            return found
        probes = [{"path": {"type": "Exact", "value": path}, "method": "GET"} for path in self._probes]
        return [([{"path": {"type": "PathPrefix", "value": "/"}}], []), (probes, [(None, ANYWHERE)])]

    def _authorizations(self, namespace: str, kind: str, target: dict[str, Any]) -> list[tuple[Any, Any]]:
        found = []
        for policy in self._kind("AuthorizationPolicy", namespace):
            reference = policy["spec"]["targetRef"]
            if kind == "Server" and (reference["kind"] == "Namespace" or server_level(reference, target)):
                found.append(self._authorization(namespace, policy))
            if kind == "HTTPRoute" and (reference["kind"], reference["name"]) == (
                kind,
                target["metadata"]["name"],
            ):
                found.append(self._authorization(namespace, policy))
        return [one for one in found if one is not None]

    def _authorization(self, namespace: str, policy: dict[str, Any]) -> tuple[Any, Any] | None:
        """Identities and networks of which one each has to fit; None for identities is everybody, without TLS too."""
        identities: list[str] | None = None
        networks: list[str] = list(ANYWHERE)
        for reference in policy["spec"]["requiredAuthenticationRefs"]:
            there = self._kind(reference["kind"], reference.get("namespace", namespace))
            named = [one for one in there if one["metadata"]["name"] == reference["name"]]
            if not named:
                return None  # the whole authorization is ignored
            if reference["kind"] == "MeshTLSAuthentication":
                identities = named[0]["spec"]["identities"]
            else:
                networks = [one["cidr"] for one in named[0]["spec"]["networks"]]
        return identities, networks


def server_level(reference: dict[str, Any], server: dict[str, Any]) -> bool:
    return (reference["kind"], reference["name"]) == ("Server", server["metadata"]["name"])


def _passes(authorization: tuple[Any, Any], client: Client) -> bool:
    identities, networks = authorization
    address = ipaddress.ip_address(client.ip)
    if not any(address in ipaddress.ip_network(one) for one in networks):
        return False
    if identities is None:
        return True
    return client.identity is not None and any(_is(client.identity, one) for one in identities)


def _is(identity: str, wanted: str) -> bool:
    return wanted in ("*", identity) or (wanted.startswith("*.") and identity.endswith(wanted[1:]))


@lru_cache(maxsize=4096)
def _regex(value: str) -> re.Pattern[str]:
    return re.compile(value)


def _summary(match: dict[str, Any], method: str, path: str) -> tuple[int, int, int, bool] | None:
    """How specific a match is (path, headers, query, method), or None where it does not match."""
    if "method" in match and match["method"] != method:
        return None
    wanted = match.get("path", {"type": "PathPrefix", "value": "/"})
    length = _length(wanted["type"], wanted["value"], path)
    return None if length is None else (length, 0, 0, "method" in match)


def _length(kind: str, value: str, path: str) -> int | None:
    if kind == "Exact":
        return len(path) if path == value else None
    if kind == "RegularExpression":
        found = _regex(value).search(path)
        spans = found is not None and (found.start(), found.end()) == (0, len(path))
        return len(path) if spans else None
    if value == "/":
        return 1
    prefix, rest = value.rstrip("/"), path.rstrip("/")
    is_below = rest.startswith(prefix) and rest[len(prefix) :][:1] in {"", "/"}
    return len(prefix) if is_below else None
