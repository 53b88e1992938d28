# SPDX-License-Identifier: Apache-2.0
"""The server's face: the Envoy that is the only thing of the control plane that listens on TCP.

It has nothing of the policy in it.  It ends TLS with the server's own SVID, believes a client certificate only when
it is of the trust domain, tells the server who that was, and bounds what a stranger can make anybody hold.  Clients
without a certificate are let through: they prove who they are to the endpoint that they ask, or read what is public.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from everyhop.dataplane import _names as names
from everyhop.dataplane._resources import (
    OWNER_ONLY,
    Json,
    duration,
    encode,
    extension,
    load_assignment,
    pipe,
    set_header,
    socket_address,
)
from everyhop.dataplane.http import connection_manager, http1_options
from everyhop.dataplane.local_replies import ingress_replies
from everyhop.dataplane.model import Endpoint, Limits
from everyhop.dataplane.transport import server_tls

FACE: Final = "face"
"""Name of the listener, and of the node towards the server that gives it its secrets."""

MAX_BODY_BYTES: Final = 64 * 1024
SOURCE_HEADER: Final = "x-everyhop-source"
"""The address that connected, set by the face and by nobody else."""

REQUEST_SECONDS: Final = 15.0
ANSWER_SECONDS: Final = 30.0

_HTTP: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_SERVER: Final = "server"
_UNCLEAN: Final = "unclean"
_TWO_HOSTS: Final = {"name": ":authority", "string_match": {"contains": ","}}
_SEGMENT: Final = r"\.?[A-Za-z0-9_~-][A-Za-z0-9._~-]*"
# Every path of ours is spelt with unreserved characters, so nothing else has to be understood.
_CLEAN: Final = rf"/|(?:/{_SEGMENT})+"
_STATS: Final = ("server.", "listener_manager.", "cluster_manager.", "sds.", "cluster.sds.")
# What has not reached the server is sent again; so its restart is an answer that takes longer.
_RETRY: Final = {
    "retry_on": "connect-failure",
    "num_retries": 6,
    "retry_back_off": {"base_interval": "0.1s", "max_interval": "0.5s"},
}
# Shorter than the server's own, so that a request never meets a connection that is just being closed.
_UPSTREAM_IDLE: Final = "2s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """One face: where it listens, where the server is, where its files lie.  Paths are absolute."""

    listen: Endpoint
    directory: Path
    upstream_socket: Path
    sds_socket: Path
    admin_socket: Path
    limits: Limits = field(default_factory=Limits)
    large_bodies: tuple[tuple[str, int], ...] = ()
    """Paths whose requests may be larger than 64 KiB, with their limits in bytes."""
    requests_a_second: int = 500
    """Of everybody together; more are refused with 429, so that strangers cannot keep the server from its agents."""


def render_face(face: Face) -> bytes:
    """Return ``bootstrap.json``: all of the configuration but key and bundle, which come over the SDS socket."""
    return encode(
        {
            "node": {"id": FACE, "cluster": FACE},
            "admin": {"address": pipe(face.admin_socket, mode=OWNER_ONLY)},
            "static_resources": {"listeners": [_listener(face)], "clusters": [_sds(face), _server(face)]},
            "overload_manager": {"resource_monitors": [_connections(face)]},
            "stats_config": {
                "stats_matcher": {"inclusion_list": {"patterns": [{"prefix": p} for p in _STATS]}}
            },
        }
    )


def _listener(face: Face) -> Json:
    chain = {
        "filters": [_manager(face)],
        "transport_socket": _tls(),
        "transport_socket_connect_timeout": duration(face.limits.handshake_timeout),
    }
    return {
        "name": FACE,
        "address": socket_address(*face.listen),
        "filter_chains": [chain],
        "per_connection_buffer_limit_bytes": face.limits.buffer_bytes,
        "enable_reuse_port": False,
    }


def _tls() -> Json:
    """Return the TLS of an ingress that asks for a client certificate and takes none for an answer."""
    socket = server_tls(("h2", "http/1.1"))
    return {**socket, "typed_config": {**socket["typed_config"], "require_client_certificate": False}}


def _manager(face: Face) -> Json:
    whole_body = extension(
        "whole-body", "envoy.extensions.filters.http.buffer.v3.Buffer", max_request_bytes=MAX_BODY_BYTES
    )
    manager = connection_manager(
        FACE,
        [_rate(face), whole_body],
        routes=FACE,
        access_log=[],
        replies=ingress_replies(also_ambiguous=[f"xds.route_name == '{_UNCLEAN}'"]),
        limits=face.limits,
        http_protocol_options=http1_options(absolute_urls=False),
        forward_client_cert_details="SANITIZE_SET",
        set_current_client_cert_details={"uri": True},
        request_timeout=duration(REQUEST_SECONDS),
    )
    config: dict[str, Any] = manager["typed_config"]
    del config["rds"]  # nothing here changes while it runs
    return {**manager, "typed_config": {**config, "route_config": _routes(face)}}


def _rate(face: Face) -> Json:
    bucket = {
        "max_tokens": 2 * face.requests_a_second,
        "tokens_per_fill": max(1, face.requests_a_second // 10),
        "fill_interval": "0.1s",
    }
    everybody = {
        "default_value": {"numerator": 100, "denominator": "HUNDRED"},
        "runtime_key": "everyhop.none",
    }
    return extension(
        "rate",
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        stat_prefix=FACE,
        token_bucket=bucket,
        filter_enabled=everybody,
        filter_enforced=everybody,
    )


def _routes(face: Face) -> Json:
    forward = {"cluster": _SERVER, "timeout": duration(ANSWER_SECONDS), "retry_policy": _RETRY}
    return {
        "name": FACE,
        "virtual_hosts": [
            {
                "name": _SERVER,
                "domains": ["*"],
                "routes": [
                    {"match": {"prefix": "/", "headers": [_TWO_HOSTS]}, "direct_response": {"status": 400}},
                    *(
                        {"match": {"path": path}, "route": forward, "typed_per_filter_config": _body(limit)}
                        for path, limit in face.large_bodies
                    ),
                    {"match": {"safe_regex": {"regex": _CLEAN}}, "route": forward},
                    {"name": _UNCLEAN, "match": {"prefix": "/"}, "direct_response": {"status": 400}},
                ],
                "request_headers_to_remove": [
                    "x-envoy-external-address",
                    "x-envoy-internal",
                    "x-forwarded-for",
                    "x-forwarded-proto",
                ],
                "request_headers_to_add": [
                    set_header(SOURCE_HEADER, "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%")
                ],
            }
        ],
    }


def _body(limit: int) -> Json:
    kind = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute"
    return {"whole-body": {"@type": kind, "buffer": {"max_request_bytes": limit}}}


def _server(face: Face) -> Json:
    return {
        "name": _SERVER,
        "type": "STATIC",
        "connect_timeout": duration(face.limits.connect_timeout),
        "per_connection_buffer_limit_bytes": face.limits.buffer_bytes,
        "typed_extension_protocol_options": {
            _HTTP: {
                "@type": "type.googleapis.com/" + _HTTP,
                "explicit_http_config": {"http_protocol_options": {}},
                "common_http_protocol_options": {"idle_timeout": _UPSTREAM_IDLE},
            }
        },
        "load_assignment": load_assignment(_SERVER, [pipe(face.upstream_socket)]),
    }


def _sds(face: Face) -> Json:
    return {
        "name": names.SDS_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            _HTTP: {
                "@type": "type.googleapis.com/" + _HTTP,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": load_assignment(names.SDS_CLUSTER, [pipe(face.sds_socket)]),
    }


def _connections(face: Face) -> Json:
    return extension(
        "envoy.resource_monitors.global_downstream_max_connections",
        "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=face.limits.connections,
    )
