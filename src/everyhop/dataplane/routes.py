# SPDX-License-Identifier: Apache-2.0
"""Route tables: where a permitted request goes, and from where on it may become a WebSocket or a tunnel.

The name of a route tells the access log the snapshot and the target: ``SNAPSHOT|TARGET``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.dataplane import _names as names
from everyhop.dataplane._resources import Json, discovery_response, set_header, typed
from everyhop.dataplane.app_routes import EVERYTHING, app_routes, forward, match_of, refuse, tunnel
from everyhop.dataplane.checks import enabled_checks, fetched_token, takes_users
from everyhop.policy.model import OUTSIDE, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from everyhop.authz.table import ServiceTable
    from everyhop.dataplane.lanes import Lane, Lanes
    from everyhop.dataplane.model import Sidecar
    from everyhop.policy.model import Service, Snapshot

_ROUTES: Final = "envoy.config.route.v3.RouteConfiguration"
_CONNECT: Final[Json] = {"connect_matcher": {}}
_ENVOYS_OWN: Final = ("x-envoy-external-address", "x-envoy-internal")
_OPERATION: Final = set_header(
    names.OPERATION_HEADER, f"%DYNAMIC_METADATA({names.HTTP_RBAC}:shadow_effective_policy_id)%"
)
# Only what provably never reached the application is sent again.
_RETRY: Final = {
    "retry_on": "connect-failure,refused-stream",
    "num_retries": 2,
    "retry_host_predicate": [
        {
            "name": "previous",
            "typed_config": typed("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
        }
    ],
    "host_selection_retry_max_attempts": 3,
    "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
}


def edge_routes(snapshot: Snapshot, sidecar: Sidecar, table: ServiceTable) -> Json:
    """Return the routes from the edge to the application: a credential of the outside ends here."""
    host = {
        "name": "app",
        "domains": ["*"],
        "routes": _named(snapshot, sidecar.service, app_routes(table, sidecar.limits)),
        "request_headers_to_add": [set_header(names.CALLER_HEADER, OUTSIDE), _OPERATION, *_source(table)],
        "request_headers_to_remove": ["authorization", "dpop", *_ENVOYS_OWN],
    }
    return _file(names.EDGE, [host], snapshot)


def ingress_routes(snapshot: Snapshot, sidecar: Sidecar, table: ServiceTable) -> Json:
    """Return the routes to the application; whether a request may pass is the RBAC filter's matter alone."""
    if table.tcp_verdicts is not None:
        connect = tunnel(names.APP, sidecar.limits, {"upgrade_type": "CONNECT", "connect_config": {}})
        routes = [
            {"match": _CONNECT, "route": connect},
            {"match": EVERYTHING, "direct_response": {"status": 403}},
        ]
    else:
        routes = app_routes(table, sidecar.limits)
    host: Json = {
        "name": "app",
        "domains": ["*"],
        "routes": _named(snapshot, sidecar.service, routes),
        "request_headers_to_add": [
            set_header(names.CALLER_HEADER, "%DOWNSTREAM_PEER_URI_SAN%"),
            _OPERATION,
            *_source(table),
        ],
        "request_headers_to_remove": [*_ENVOYS_OWN],
    }
    if table.needs_context:
        host["typed_per_filter_config"] = enabled_checks()
    if not takes_users(table):
        host["request_headers_to_remove"].append(names.TXN_HEADER)
    return _file(names.INGRESS, [host], snapshot)


def _source(table: ServiceTable) -> list[Json]:
    """Tell an application that checks conditions itself from where a call came; nobody else needs to know."""
    if not any(operation.leaves_resource for operation in table.operations):
        return []
    return [set_header(names.SOURCE_HEADER, "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%")]


def egress_routes(
    snapshot: Snapshot, sidecar: Sidecar, targets: Sequence[Service], lanes: Mapping[str, Lanes]
) -> Json:
    """Return one virtual host per service that this workload may reach; every other destination is refused.

    ``lanes`` has the ways to each target.
    """
    hosts = [_virtual_host(snapshot, sidecar, target, lanes[target.name]) for target in targets]
    refused = [{"name": f"{snapshot.hash}|", **refuse(match, 403)} for match in (_CONNECT, EVERYTHING)]
    hosts.append({"name": "undeclared", "domains": ["*"], "routes": refused})
    return _file(names.EGRESS, hosts, snapshot, ignore_port_in_host_matching=True)


def _named(snapshot: Snapshot, target: str, routes: list[Json]) -> list[Json]:
    return [{"name": f"{snapshot.hash}|{target}", **route} for route in routes]


def _virtual_host(snapshot: Snapshot, sidecar: Sidecar, target: Service, lanes: Lanes) -> Json:
    if target.tcp is not None:
        cluster = lanes.default.cluster
        connect = tunnel(cluster, sidecar.limits, {"upgrade_type": "CONNECT"}, retry_policy=_RETRY)
        routes = [{"match": _CONNECT, "route": connect}, refuse(EVERYTHING, 403)]
    else:
        upgrades = any(operation.protocol is Protocol.WEBSOCKET for operation in target.operations)
        routes = [
            refuse(_CONNECT, 403),
            *(_by_lane(match_of(o.route), lane, upgrades=upgrades) for o, lane in lanes.routes),
            _by_lane(EVERYTHING, lanes.default, upgrades=upgrades),
        ]
    return {
        "name": target.name,
        "domains": [target.name, f"{target.name}.{target.spiffe_id.trust_domain}"],
        "routes": _named(snapshot, target.name, routes),
        # Our decision id travels on: the answer to a failed connection and the log line still need it here.  The
        # next sidecar strips it and gives one of its own.
        "request_headers_to_remove": ["proxy-authorization", "x-forwarded-proto", "x-envoy-internal"],
    }


def _by_lane(match: Json, lane: Lane | None, *, upgrades: bool) -> Json:
    if lane is None:
        return refuse(match, 503)
    route = forward(lane.cluster, retry_policy=_RETRY)
    if upgrades:
        route["upgrade_configs"] = [{"upgrade_type": "websocket"}]
    found: Json = {"match": match, "route": route}
    if lane.fetched is not None and lane.generation is not None:
        found["typed_per_filter_config"] = fetched_token(lane.target, lane.fetched, lane.generation)
    return found


def _file(name: str, hosts: list[Json], snapshot: Snapshot, **more: Any) -> Json:
    config = typed(_ROUTES, name=name, virtual_hosts=hosts, **more)
    return discovery_response(snapshot.hash, [config])
