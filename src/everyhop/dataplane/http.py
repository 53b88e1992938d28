# SPDX-License-Identifier: Apache-2.0
"""What ingress and egress share as HTTP connection managers: no normalisation, limits, stripped headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.dataplane import _names as names
from everyhop.dataplane._resources import Json, duration, extension, from_agent, set_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everyhop.dataplane.model import Limits

_MANAGER: Final = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_EARLY: Final = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"

STRIPPED_PREFIXES: Final = ("x-everyhop-", "x-forwarded-", "x-envoy-", "x-original-")
"""Families of headers in which others could claim an identity, another path or another origin."""

STRIPPED_HEADERS: Final = (
    "forwarded",
    "x-rewrite-url",
    "x-http-method-override",
    "x-method-override",
    "x-http-method",
)

ROUTER: Final = extension(
    "router",
    "envoy.extensions.filters.http.router.v3.Router",
    suppress_envoy_headers=True,
    dynamic_stats=False,  # per-code counters by route: the records say more
)


def strip_headers(also: Sequence[str] = ()) -> list[Json]:
    """Return what happens to the headers of a request before anything else looks at them.

    Whatever a peer says in the stripped families, or in those named ``also``, is gone, and the request gets its
    decision id.
    """
    removed = [{"prefix": prefix} for prefix in STRIPPED_PREFIXES] + [
        {"exact": name} for name in (*STRIPPED_HEADERS, *also)
    ]
    mutations: list[Json] = [{"remove_on_match": {"key_matcher": matcher}} for matcher in removed]
    mutations.append({"append": set_header(names.DECISION_HEADER, "%UNIQUE_ID%")})
    return [extension("envoy.http.early_header_mutation.header_mutation", _EARLY, mutations=mutations)]


def connection_manager(
    name: str,
    filters: list[Json],
    *,
    routes: str,
    access_log: list[Json],
    replies: Json,
    limits: Limits,
    stripped: Sequence[str] = (),
    **more: Any,
) -> Json:
    """Return the HTTP connection manager ``name``, whose routes are the route configuration ``routes``.

    Headers named ``stripped`` are removed as those that nobody may send.

    Paths pass exactly as they came: the bytes that were decided on are the bytes that are forwarded.
    """
    return extension(
        "http",
        _MANAGER,
        stat_prefix=name,
        codec_type="AUTO",
        rds={"route_config_name": routes, "config_source": from_agent()},
        http_filters=[*filters, ROUTER],
        access_log=access_log,
        access_log_options={"flush_log_on_tunnel_successfully_established": True},
        local_reply_config=replies,
        early_header_mutation_extensions=strip_headers(stripped),
        normalize_path=False,
        merge_slashes=False,
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        use_remote_address=True,
        skip_xff_append=True,
        generate_request_id=False,
        server_header_transformation="PASS_THROUGH",
        upgrade_configs=[
            {"upgrade_type": "websocket", "enabled": False},
            {"upgrade_type": "CONNECT", "enabled": False},
        ],
        common_http_protocol_options={
            "headers_with_underscores_action": "REJECT_REQUEST",
            "max_headers_count": limits.header_count,
            "idle_timeout": duration(limits.idle_timeout),
            "max_connection_duration": duration(limits.connection_age),
            "max_stream_duration": duration(limits.stream_age),
        },
        http2_protocol_options={
            "allow_connect": True,  # RFC 8441: WebSocket over HTTP/2; plain CONNECT stays refused by the routes
            "max_concurrent_streams": limits.streams_per_connection,
            "initial_stream_window_size": 256 * 1024,
            "initial_connection_window_size": 1024 * 1024,
            # A malformed request ends itself, not the other requests of its connection.
            "override_stream_error_on_invalid_http_message": True,
        },
        max_request_headers_kb=limits.header_bytes // 1024,
        request_headers_timeout=duration(limits.headers_timeout),
        stream_idle_timeout=duration(limits.idle_timeout),
        **more,
    )


def http1_options(*, absolute_urls: bool) -> Json:
    """Return HTTP/1.1 options; only a proxy takes absolute URLs as request targets (RFC 9112 section 3.2.2)."""
    return {"allow_absolute_url": absolute_urls, "allow_chunked_length": False}
