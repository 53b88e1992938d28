# SPDX-License-Identifier: Apache-2.0
"""The bootstrap of one service: the data plane's policy filter and routes, standing still.

Paths are not normalised but refused where they have a second reading, as the policy's engine does: with ``normalize_path`` a
call of ``/public/../admin`` would be decided, and forwarded, as another one than was sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from everyhop.dataplane import _names as names
from everyhop.dataplane._resources import (
    Json,
    duration,
    extension,
    load_assignment,
    set_header,
    socket_address,
    typed,
)
from everyhop.dataplane.access_log import ingress_fields
from everyhop.dataplane.app_routes import app_routes
from everyhop.dataplane.enforcement import (
    CALLER,
    KEY_FILTER,
    by_value,
    http_authorization,
    named_action,
)
from everyhop.dataplane.http import connection_manager, http1_options
from everyhop.dataplane.local_replies import CHECK_REFUSED, ingress_replies, passed_on
from everyhop.dataplane.model import Limits
from everyhop.dataplane.token_memory import program
from everyhop.dataplane.transport import exactly
from everyhop.targets.envoy.transport import client_tls, server_tls, within

if TYPE_CHECKING:
    from everyhop.policy.model import Snapshot
    from everyhop.targets._standalone import Address
    from everyhop.targets.envoy.granted import Granted

AUTHORIZER: Final = "authorizer"
SERVICE_EXTENSION: Final = "everyhop_service"
"""What tells the authorizer which service it is asked about; nothing of the request does."""

NEEDS_NOTHING: Final = r"[0-9a-f]{16}\|[a-z-]+\|.*"
"""The verdicts after which nobody is asked: they say no letters of what a call needs besides (``dataplane._names``)."""

_USERS: Final = f"""\
-- The letters u and U of a verdict: a user may, or must, be carried; c: facts decide, which may be the user's.
function envoy_on_request(handle)
  local decided = handle:streamInfo():dynamicMetadata():get("{names.HTTP_RBAC}")
  local verdict = decided and decided.enforced_effective_policy_id or ""
  if not string.find(verdict, "^%x+|[a-z-]+%+[a-zA-Z]*[uUc]") then handle:headers():remove("{names.TXN_HEADER}") end
end
"""
_ASK_SECONDS: Final = 2.0
_HTTP: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_EXT_AUTHZ: Final = "envoy.extensions.filters.http.ext_authz.v3."
_STDOUT: Final = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
_NETWORK_FILTER: Final = "envoy.extensions.filters.network.rbac.v3.RBAC"
_MAX_EXPRESSION: Final = 100_000
_MAX_CONCURRENT: Final = 4096
_ENVOYS_OWN: Final = ("x-envoy-external-address", "x-envoy-internal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an Envoy stands: its listener, the directory of its files, the application, and whom it asks.

    ``authorizer_id`` is the SPIFFE ID that an authorizer on TCP shows.
    """

    listen: tuple[str, int]
    directory: str
    upstream: Address
    authorizer: Address | None
    authorizer_id: str | None = None
    limits: Limits = field(default_factory=Limits)


def bootstrap(snapshot: Snapshot, granted: Granted, place: Place, about: Json) -> Json:
    """Return the bootstrap of a service; ``about`` is metadata of the node, which nothing reads but people."""
    table = granted.table
    is_tcp = table.tcp_verdicts is not None
    clusters = [_app(place, names.APP, None if is_tcp else {"http_protocol_options": {}})]
    if not is_tcp:
        clusters.append(_app(place, names.APP_H2, {"http2_protocol_options": {}}))
    if not is_tcp and place.authorizer is not None:
        clusters.append(_authorizer(place, place.authorizer))
    return {
        "node": {"id": table.service.name, "cluster": table.service.name, "metadata": {"everyhop": about}},
        "static_resources": {"listeners": [_listener(snapshot, granted, place)], "clusters": clusters},
        "overload_manager": {"resource_monitors": [_connections(place.limits)]},
        "layered_runtime": {"layers": [{"name": "limits", "static_layer": _layer(place.limits)}]},
        # Without an admin endpoint nobody can read or change this Envoy; add one on a Unix socket where it is needed.
    }


def _listener(snapshot: Snapshot, granted: Granted, place: Place) -> Json:
    table = granted.table
    trust_domain = snapshot.trust_domain.name
    if table.tcp_verdicts is None:
        tls = server_tls(place.directory, ("h2", "http/1.1"), [within(trust_domain)])
        filters = [_manager(snapshot, granted, place)]
    else:
        # Envoy connects the application before it asks a network filter, so a refused caller that stays silent would
        # read what the application says first.  Hence whoever may not connect does not end the handshake.
        callers = [exactly(caller) for caller in table.tcp_verdicts] or [exactly(f"spiffe://{trust_domain}")]
        tls = server_tls(place.directory, (), callers)
        filters = [_network_policy(snapshot, granted), _tcp_proxy(place)]
    chain = {
        "filters": filters,
        "transport_socket": tls,
        "transport_socket_connect_timeout": duration(place.limits.handshake_timeout),
    }
    return {
        "name": names.INGRESS,
        "address": socket_address(*place.listen),
        "filter_chains": [chain],
        "per_connection_buffer_limit_bytes": place.limits.buffer_bytes,
        "enable_reuse_port": False,  # a second Envoy must not take half of the connections
        "access_log": [_log_of_handshakes(table.service.name)],
    }


# -- HTTP


def _manager(snapshot: Snapshot, granted: Granted, place: Place) -> Json:
    table = granted.table
    policy = {
        "name": names.AUTHZ,
        "typed_config": http_authorization(snapshot, table, marks_strangers=False),
    }
    filters = [KEY_FILTER, policy, *([_users_where_taken()] if granted.takes_users else [])]
    if place.authorizer is not None:
        filters.append(_asking())
    manager = connection_manager(
        names.INGRESS,
        filters,
        routes=names.INGRESS,
        access_log=[_stdout(ingress_fields(table.service.name))],
        replies=_replies(),
        limits=place.limits,
        stripped=() if granted.takes_users else (names.TXN_HEADER,),
        http_protocol_options=http1_options(absolute_urls=False),
        forward_client_cert_details="SANITIZE_SET",
        set_current_client_cert_details={"uri": True},
    )
    config: dict[str, Any] = manager["typed_config"]
    del config["rds"]  # nothing changes while it runs
    # The policy's filter refuses these too; here it is said where those who audit Envoys look for it.
    config["path_with_escaped_slashes_action"] = "REJECT_REQUEST"
    return {**manager, "typed_config": {**config, "route_config": _routes(snapshot, granted, place)}}


def _routes(snapshot: Snapshot, granted: Granted, place: Place) -> Json:
    table = granted.table
    operation = f"%DYNAMIC_METADATA({names.HTTP_RBAC}:shadow_effective_policy_id)%"
    host: Json = {
        "name": "app",
        "domains": ["*"],
        "routes": [
            {"name": f"{snapshot.hash}|{table.service.name}", **route}
            for route in app_routes(table, place.limits)
        ],
        "request_headers_to_add": [
            set_header(names.CALLER_HEADER, "%DOWNSTREAM_PEER_URI_SAN%"),
            set_header(names.OPERATION_HEADER, operation),
        ],
        "request_headers_to_remove": list(_ENVOYS_OWN),
    }
    if place.authorizer is not None:
        about = {"context_extensions": {SERVICE_EXTENSION: table.service.name}}
        host["typed_per_filter_config"] = {
            names.CHECKS: typed(_EXT_AUTHZ + "ExtAuthzPerRoute", check_settings=about)
        }
    return {"name": names.INGRESS, "virtual_hosts": [host]}


def _users_where_taken() -> Json:
    """Return the filter that takes a user's token from calls which the policy does not let be made for a user."""
    return {"name": "users", "typed_config": program(_USERS)}


def _asking() -> Json:
    """Return the filter that asks the authorizer, unless the policy's filter said that nothing is left to ask.

    Without a word of that filter it asks: the match is inverted.
    """
    spared = {
        "filter": names.HTTP_RBAC,
        "path": [{"key": "enforced_effective_policy_id"}],
        "value": {"string_match": {"safe_regex": {"regex": NEEDS_NOTHING}}},
        "invert": True,
    }
    return extension(
        names.CHECKS,
        _EXT_AUTHZ + "ExtAuthz",
        transport_api_version="V3",
        grpc_service={"envoy_grpc": {"cluster_name": AUTHORIZER}, "timeout": duration(_ASK_SECONDS)},
        failure_mode_allow=False,
        status_on_error={"code": "ServiceUnavailable"},
        include_peer_certificate=True,
        encode_raw_headers=True,
        clear_route_cache=False,
        validate_mutations=True,
        filter_enabled_metadata=spared,
    )


def _replies() -> Json:
    replies = ingress_replies()
    return {**replies, "mappers": [passed_on(CHECK_REFUSED), *replies["mappers"]]}


# -- tcp


def _network_policy(snapshot: Snapshot, granted: Granted) -> Json:
    """Return the network filter; a certificate with two names is nobody's here."""
    verdicts = granted.table.tcp_verdicts or {}
    refused = named_action(names.verdict(snapshot.hash, "no-rule", None), allow=False)
    allowed = {
        caller: named_action(names.verdict(snapshot.hash, verdict.reason, verdict.rule), allow=True)
        for caller, verdict in verdicts.items()
    }
    matcher = (
        by_value(CALLER, allowed, refused) if allowed else by_value(CALLER, {names.NOTHING: refused}, refused)
    )
    return extension(names.AUTHZ, _NETWORK_FILTER, stat_prefix=names.AUTHZ, matcher=matcher["matcher"])


def _tcp_proxy(place: Place) -> Json:
    fields = {
        "kind": "tcp-in",
        "caller": "%DOWNSTREAM_PEER_URI_SAN%",
        "detail": "%CONNECTION_TERMINATION_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%6fZ)%",
        "ms": "%DURATION%",
        "in": "%BYTES_RECEIVED%",
        "out": "%BYTES_SENT%",
    }
    return extension(
        "tcp",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix=names.APP,
        cluster=names.APP,
        access_log=[_stdout(fields)],
        idle_timeout=duration(place.limits.stream_age),
        max_downstream_connection_duration=duration(place.limits.tcp_age),
    )


# -- around it


def _app(place: Place, name: str, protocol: Json | None) -> Json:
    limit = {"max_connections": _MAX_CONCURRENT, "max_pending_requests": _MAX_CONCURRENT}
    options: Json = {} if protocol is None else {"typed_extension_protocol_options": _speaks(protocol)}
    return {
        **_cluster(name, place.upstream, place.limits),
        "circuit_breakers": {"thresholds": [{**limit, "max_requests": _MAX_CONCURRENT}]},
        **options,
    }


def _authorizer(place: Place, address: Address) -> Json:
    cluster = _cluster(AUTHORIZER, address, place.limits)
    cluster["typed_extension_protocol_options"] = _speaks({"http2_protocol_options": {}})
    if place.authorizer_id is not None:
        cluster["transport_socket"] = client_tls(place.directory, ("h2",), place.authorizer_id)
    return cluster


def _cluster(name: str, address: Address, limits: Limits) -> Json:
    where = (
        {"pipe": {"path": address.socket}}
        if address.socket is not None
        else socket_address(address.host, address.port)
    )
    return {
        "name": name,
        "type": "STRICT_DNS" if address.is_name else "STATIC",
        "connect_timeout": duration(limits.connect_timeout),
        "per_connection_buffer_limit_bytes": limits.buffer_bytes,
        "load_assignment": load_assignment(name, [where]),
    }


def _speaks(protocol: Json) -> Json:
    return {_HTTP: typed(_HTTP, explicit_http_config=protocol)}


def _stdout(fields: Json) -> Json:
    return extension("stdout", _STDOUT, log_format={"json_format": fields})


def _log_of_handshakes(service: str) -> Json:
    fields = {
        "kind": "tls",
        "target": service,
        "failure": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
        "host": "%DOWNSTREAM_REMOTE_ADDRESS%",
        "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%6fZ)%",
    }
    failed = extension(
        "envoy.access_loggers.extension_filters.cel",
        "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
        expression="connection.transport_failure_reason != ''",
    )
    return {**_stdout(fields), "filter": {"extension_filter": failed}}


def _connections(limits: Limits) -> Json:
    return extension(
        "envoy.resource_monitors.global_downstream_max_connections",
        "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=limits.connections,
    )


def _layer(limits: Limits) -> Json:
    return {
        "envoy": {"resource_limits": {"listener": {names.INGRESS: {"connection_limit": limits.connections}}}},
        # The expression of a WebSocket's template is as long as its path; Envoy would refuse the whole route table.
        "re2": {"max_program_size": {"error_level": _MAX_EXPRESSION, "warn_level": _MAX_EXPRESSION}},
    }
