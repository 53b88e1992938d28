# SPDX-License-Identifier: Apache-2.0
"""The listeners of a sidecar.  They hold nothing of the policy that changes often, so an edit does not drain them."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any, Final

from everyhop.core.decision import Effect
from everyhop.dataplane import _names as names
from everyhop.dataplane._resources import (
    OWNER_ONLY,
    Json,
    duration,
    extension,
    pipe,
    socket_address,
    typed,
)
from everyhop.dataplane.access_log import (
    edge_log,
    egress_http_log,
    egress_tcp_log,
    handshake_log,
    ingress_log,
)
from everyhop.dataplane.checks import edge_check, egress_check, ingress_checks
from everyhop.dataplane.enforcement import KEY_FILTER, delivered_filter
from everyhop.dataplane.http import connection_manager, http1_options
from everyhop.dataplane.local_replies import egress_replies, ingress_replies
from everyhop.dataplane.model import LOOPBACK
from everyhop.dataplane.transport import public_tls, server_tls
from everyhop.policy.model import OUTSIDE, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from everyhop.authz.table import ServiceTable, Verdict
    from everyhop.dataplane.model import Endpoint, Limits, Sidecar
    from everyhop.policy.model import Service
    from everyhop.spiffe.ids import SpiffeId

_LISTENER: Final = "envoy.config.listener.v3.Listener"
_LONG_LIVED: Final = frozenset({Protocol.WEBSOCKET, Protocol.GRPC})


def ingress_listener(sidecar: Sidecar, table: ServiceTable) -> Json:
    """Return the only listener on a network address: mutual TLS, policy, then the application."""
    limits = sidecar.limits
    is_tcp = table.tcp_verdicts is not None
    chain = {
        # Its name is all that changes when a long-lived connection may have lost its permission; Envoy then
        # ends the connections of the old chain within the drain time.
        "name": f"{names.INGRESS}-{_long_lived_edges(table)}",
        "filters": [_ingress(sidecar, table)],
        "transport_socket": server_tls(("h2",) if is_tcp else ("h2", "http/1.1")),
        "transport_socket_connect_timeout": duration(limits.handshake_timeout),
    }
    return _listener(
        names.INGRESS,
        socket_address(*sidecar.ingress),
        chain,
        limits,
        enable_reuse_port=False,
        access_log=handshake_log(sidecar),
    )


def edge_listener(sidecar: Sidecar, edge: Endpoint, table: ServiceTable) -> Json:
    """Return the listener for clients from outside: no client certificate, a credential with every request."""
    limits = sidecar.limits
    chain = {
        "name": f"{names.EDGE}-{_long_lived_edges(table, from_outside=True)}",
        "filters": [_edge(sidecar, table)],
        "transport_socket": public_tls(sidecar.edge_certificate),
        "transport_socket_connect_timeout": duration(limits.handshake_timeout),
    }
    return _listener(
        names.EDGE,
        socket_address(*edge),
        chain,
        limits,
        enable_reuse_port=False,
        access_log=handshake_log(sidecar, "edge-tls"),
    )


def egress_listeners(sidecar: Sidecar, caller: SpiffeId, tcp_targets: Iterable[Service]) -> list[Json]:
    """Return the workload's ways out: the HTTP proxy, its Unix socket, and a Unix socket per tcp service."""
    proxy = _listener(
        names.EGRESS,
        socket_address(LOOPBACK, sidecar.egress_port),
        {"filters": [_egress_http(sidecar, caller, names.EGRESS, [_proxy_secret(sidecar)])]},
        sidecar.limits,
        enable_reuse_port=False,
    )
    local = _listener(
        names.EGRESS_SOCKET,
        pipe(sidecar.egress_socket, mode=OWNER_ONLY),
        {"filters": [_egress_http(sidecar, caller, names.EGRESS_SOCKET, [])]},
        sidecar.limits,
    )
    return [proxy, local, *(_egress_tcp(sidecar, caller, target) for target in tcp_targets)]


def _listener(name: str, address: Json, chain: Json, limits: Limits, **more: Any) -> Json:
    return typed(
        _LISTENER,
        name=name,
        address=address,
        filter_chains=[chain],
        per_connection_buffer_limit_bytes=limits.buffer_bytes,
        **more,
    )


def _ingress(sidecar: Sidecar, table: ServiceTable) -> Json:
    """Return the ingress; a tcp service is reached by HTTP/2 CONNECT.

    A network filter would not do: Envoy connects the application before it asks such a filter, so a refused
    caller that stays silent still reads whatever the application says first.
    """
    policy, blocked = delivered_filter(names.AUTHZ), delivered_filter(names.BLOCKED)
    is_tcp = table.tcp_verdicts is not None
    return connection_manager(
        names.INGRESS,
        [blocked, policy]
        if is_tcp
        else [blocked, KEY_FILTER, policy, *ingress_checks(sidecar, table.chosen_headers)],
        routes=names.INGRESS,
        access_log=ingress_log(sidecar),
        replies=ingress_replies(),
        limits=sidecar.limits,
        http_protocol_options=http1_options(absolute_urls=False),
        forward_client_cert_details="SANITIZE_SET",
        set_current_client_cert_details={"uri": True},
    )


def _edge(sidecar: Sidecar, table: ServiceTable) -> Json:
    """Return the edge: what the trust domain says inside is removed before the credential is looked at."""
    return connection_manager(
        names.EDGE,
        [
            delivered_filter(names.EDGE_BLOCKED),
            KEY_FILTER,
            delivered_filter(names.EDGE_AUTHZ),
            edge_check(sidecar, table.chosen_headers),
        ],
        routes=names.EDGE,
        access_log=edge_log(sidecar),
        replies=ingress_replies(),
        limits=sidecar.limits,
        stripped=(names.TXN_HEADER,),
        http_protocol_options=http1_options(absolute_urls=False),
        forward_client_cert_details="SANITIZE",
    )


def _egress_http(sidecar: Sidecar, caller: SpiffeId, name: str, filters: list[Json]) -> Json:
    return connection_manager(
        name,
        [*filters, delivered_filter(names.EGRESS_BLOCKED), egress_check(sidecar)],
        routes=names.EGRESS,
        access_log=egress_http_log(sidecar, str(caller)),
        replies=egress_replies(),
        limits=sidecar.limits,
        http_protocol_options=http1_options(absolute_urls=True),
        forward_client_cert_details="SANITIZE",
    )


def _egress_tcp(sidecar: Sidecar, caller: SpiffeId, target: Service) -> Json:
    cluster, limits = names.upstream(target.name), sidecar.limits
    proxy = extension(
        "tcp",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix=cluster,
        cluster=cluster,
        tunneling_config={"hostname": f"{target.name}:{target.tcp}"},
        access_log=egress_tcp_log(sidecar, str(caller), target.name),
        access_log_options={"flush_access_log_on_connected": True},
        idle_timeout=duration(limits.stream_age),
        max_downstream_connection_duration=duration(limits.tcp_age),
    )
    address = pipe(sidecar.tcp_socket(target.name), mode=OWNER_ONLY)
    return _listener(f"tcp-{target.name}", address, {"filters": [proxy]}, limits)


def _proxy_secret(sidecar: Sidecar) -> Json:
    """Return the filter that asks for the service's name and the launch's secret; the file holds a digest only.

    The secret is random and long, so the digest (the one form that Envoy reads, of SHA-1) gives nothing away.
    """
    digest = hashlib.sha1(sidecar.egress_secret.reveal(), usedforsecurity=False).digest()
    user = f"{sidecar.service}:{{SHA}}{base64.b64encode(digest).decode('ascii')}"
    return extension(
        "secret",
        "envoy.extensions.filters.http.basic_auth.v3.BasicAuth",
        users={"inline_string": user},
        authentication_header="proxy-authorization",
    )


def _long_lived_edges(table: ServiceTable, *, from_outside: bool = False) -> str:
    """Return a digest of who may open, and when, what stays open: tcp connections, WebSockets and gRPC streams."""
    edges: list[tuple[str, str, str]] = []
    if table.tcp_verdicts is not None:
        edges = _edges("tcp", table.tcp_verdicts)
    for entry in table.entries:
        if entry.operation.protocol in _LONG_LIVED:
            verdicts = {OUTSIDE: entry.outside} if from_outside else entry.verdicts
            edges += _edges(str(entry.operation.route), verdicts)
    return hashlib.sha256(repr(sorted(edges)).encode()).hexdigest()[:16]


def keeps_streams(service: Service) -> bool:
    """Tell whether anything may stay open at a service for long."""
    return service.tcp is not None or any(o.protocol in _LONG_LIVED for o in service.operations)


def streaming_callers(table: ServiceTable) -> frozenset[str]:
    """Return the callers (SPIFFE IDs) that may keep something open at a service for long."""
    doors = [e.verdicts for e in table.entries if e.operation.protocol in _LONG_LIVED]
    doors += [] if table.tcp_verdicts is None else [table.tcp_verdicts]
    return frozenset(c for verdicts in doors for c, v in verdicts.items() if v.effect is Effect.ALLOW)


def _edges(door: str, verdicts: Mapping[str, Verdict]) -> list[tuple[str, str, str]]:
    """Return the callers that may pass a door, each with the conditions under which it may."""
    return [(door, caller, _conditions(v)) for caller, v in verdicts.items() if v.effect is Effect.ALLOW]


def _conditions(verdict: Verdict) -> str:
    if verdict.cases is None:
        return ""
    case = verdict.cases.enforced
    return repr([(rule.effect.value, rule.when) for rule in (*case.deny_if, *case.allow_if)])
