# SPDX-License-Identifier: Apache-2.0
"""Clusters and their endpoints: the application behind the ingress, and the services that the egress reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.dataplane import _names as names
from everyhop.dataplane._resources import (
    Json,
    discovery_response,
    duration,
    extension,
    from_agent,
    load_assignment,
    pipe,
    socket_address,
    typed,
)
from everyhop.dataplane.model import LOOPBACK, AppPort, AppSocket
from everyhop.dataplane.transport import client_tls, secret

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everyhop.dataplane.lanes import Lane
    from everyhop.dataplane.model import Endpoint, Sidecar
    from everyhop.policy.model import Service

_CLUSTER: Final = "envoy.config.cluster.v3.Cluster"
_HTTP: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_ASSIGNMENT: Final = "envoy.config.endpoint.v3.ClusterLoadAssignment"
_CODEC: Final = extension("codec", "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec")
_MAX_CONCURRENT: Final = 4096
_LARGE_WINDOWS: Final = {
    "initial_stream_window_size": 4 * 1024 * 1024,
    "initial_connection_window_size": 8 * 1024 * 1024,
}


def sds_cluster(sidecar: Sidecar) -> Json:
    """Return the agent's socket, for configuration and secrets."""
    return {
        "name": names.SDS_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": _speaks({"http2_protocol_options": _LARGE_WINDOWS}),
        "load_assignment": load_assignment(names.SDS_CLUSTER, [pipe(sidecar.sds_socket)]),
    }


def checks_cluster(sidecar: Sidecar) -> Json:
    """Return the agent's socket for checks of credentials."""
    return {
        "name": names.CHECKS_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": _speaks({"http2_protocol_options": {}}),
        "load_assignment": load_assignment(names.CHECKS_CLUSTER, [pipe(sidecar.checks_socket)]),
    }


def app_clusters(sidecar: Sidecar) -> list[Json]:
    """Return the application's clusters: HTTP/1.1 (or bytes), and HTTP/2 without TLS for gRPC."""
    return [
        _cluster(sidecar, names.APP, names.APP, {"http_protocol_options": {}}),
        _cluster(sidecar, names.APP_H2, names.APP, {"http2_protocol_options": {}}),
    ]


def upstream_cluster(sidecar: Sidecar, target: Service, lane: Lane) -> Json:
    """Return the cluster of a lane to a service: HTTP/2 under mutual TLS with exactly its SPIFFE ID.

    WebSockets and tcp connections are CONNECT streams of it (RFC 8441, RFC 9113 section 8.5).  A token is put into
    the request by the connection pool, behind everything that could show it to anybody else.
    """
    http2 = {"allow_connect": True, "connection_keepalive": {"interval": "30s", "timeout": "5s"}}
    return _cluster(
        sidecar,
        lane.cluster,
        names.upstream(target.name),
        {"http2_protocol_options": http2},
        filters=[] if lane.token is None else [_carries(lane.token), _CODEC],
        transport_socket=client_tls(str(target.spiffe_id), ("h2",), svid=lane.svid),
    )


def _carries(token: str) -> Json:
    """Return the filter that puts a token into every request; without one, nothing goes out."""
    generic = extension(
        "envoy.http.injected_credentials.generic",
        "envoy.extensions.http.injected_credentials.generic.v3.Generic",
        credential=secret(token),
        header="authorization",
    )
    return extension(
        "token",
        "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
        credential=generic,
        overwrite=True,
    )


def app_endpoints(sidecar: Sidecar) -> Json:
    """Return where the application listens; nowhere until it does."""
    addresses = []
    if isinstance(sidecar.app, AppSocket):
        addresses = [pipe(sidecar.app.path)]
    elif isinstance(sidecar.app, AppPort):
        addresses = [socket_address(LOOPBACK, sidecar.app.port)]
    return _endpoints(names.APP, addresses)


def service_endpoints(target: str, endpoints: Sequence[Endpoint]) -> Json:
    """Return where the sidecars of a service listen."""
    return _endpoints(
        names.upstream(target), [socket_address(host, port) for host, port in sorted(set(endpoints))]
    )


def _cluster(
    sidecar: Sidecar,
    name: str,
    endpoints: str,
    protocol: Json,
    *,
    filters: Sequence[Json] = (),
    **more: Any,
) -> Json:
    limit = {"max_connections": _MAX_CONCURRENT, "max_pending_requests": _MAX_CONCURRENT}
    return typed(
        _CLUSTER,
        name=name,
        type="EDS",
        eds_cluster_config={"eds_config": from_agent(), "service_name": endpoints},
        connect_timeout=duration(sidecar.limits.connect_timeout),
        per_connection_buffer_limit_bytes=sidecar.limits.buffer_bytes,
        circuit_breakers={"thresholds": [{**limit, "max_requests": _MAX_CONCURRENT, "max_retries": 64}]},
        typed_extension_protocol_options=_speaks(protocol, filters),
        **more,
    )


def _speaks(protocol: Json, filters: Sequence[Json] = ()) -> Json:
    more = {"http_filters": list(filters)} if filters else {}
    return {_HTTP: typed(_HTTP, explicit_http_config=protocol, **more)}


def _endpoints(name: str, addresses: list[Json]) -> Json:
    assignment = typed(_ASSIGNMENT, **load_assignment(name, addresses))
    return discovery_response("", [assignment])
