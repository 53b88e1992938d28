# SPDX-License-Identifier: Apache-2.0
"""A snapshot and a sidecar in, the files of its Envoy out.  Pure: the same input gives the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.authz.table import reachable_targets, service_table
from everyhop.dataplane import _names as names
from everyhop.dataplane._resources import (
    OWNER_ONLY,
    Json,
    discovery_response,
    encode,
    extension,
    from_agent,
    pipe,
)
from everyhop.dataplane.blocking import nobody_blocked
from everyhop.dataplane.clusters import (
    app_clusters,
    app_endpoints,
    checks_cluster,
    sds_cluster,
    service_endpoints,
    upstream_cluster,
)
from everyhop.dataplane.enforcement import (
    edge_authorization,
    filter_file,
    http_authorization,
    tcp_authorization,
)
from everyhop.dataplane.lanes import lanes_to
from everyhop.dataplane.listeners import edge_listener, egress_listeners, ingress_listener
from everyhop.dataplane.placing import Placing
from everyhop.dataplane.routes import edge_routes, egress_routes, ingress_routes
from everyhop.dataplane.token_memory import memory_filter, no_memory
from everyhop.dataplane.transport import agent_service
from everyhop.policy.access import AccessIndex

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.authz.table import ServiceTable
    from everyhop.dataplane.lanes import Carried, Lanes
    from everyhop.dataplane.model import Endpoint, Sidecar
    from everyhop.policy.model import Service, Snapshot

BOOTSTRAP: Final = "bootstrap.json"
LISTENERS: Final = "xds/lds.json"
CLUSTERS: Final = "xds/cds.json"
_MAX_EXPRESSION: Final = 100_000
# Counting what nobody reads took a tenth of a request.
_STATS: Final = ("server.", "listener_manager.", "cluster_manager.", "control_plane.", "sds.", "cluster.sds.")
_OTHER_CONNECTIONS: Final = 1024  # of the egress; the ingress has its own limit


def render_sidecar(
    snapshot: Snapshot,
    sidecar: Sidecar,
    endpoints: Mapping[str, tuple[Endpoint, ...]],
    *,
    index: AccessIndex | None = None,
    epoch: str = "",
    carried: Carried | None = None,
) -> dict[str, bytes]:
    """Return every file of a sidecar by its path below ``sidecar.directory``, as JSON.

    ``endpoints`` says where the sidecars of each service listen; services that are missing there have none.
    Give ``index`` when rendering many sidecars of one snapshot.  A policy edit changes ``ecds`` and ``rds``;
    ``xds/cds.json`` when a reachable service comes or goes; ``xds/lds.json`` only when a tcp target does, or when
    permissions change under which connections stay open for long.  ``epoch`` is a text that differs whenever keys
    or revocations of tokens differ: what was verified under another one counts no more.
    ``carried`` is what calls can carry now (:func:`~everyhop.dataplane.lanes.carried_by`).  Raises NotFound for an undeclared service.
    """
    index = index or AccessIndex(snapshot)
    table = Placing(snapshot).table(service_table(snapshot, sidecar.service, index=index))
    targets = [snapshot.services[name] for name in reachable_targets(snapshot, sidecar.service, index=index)]
    files = {BOOTSTRAP: _bootstrap(sidecar), "eds/app.json": app_endpoints(sidecar)}
    for target in targets:
        files[f"eds/{names.upstream(target.name)}.json"] = service_endpoints(
            target.name, endpoints.get(target.name, ())
        )
    lanes = {target.name: _lanes(index, sidecar.service, target, carried) for target in targets}
    files[CLUSTERS] = _clusters(sidecar, targets, lanes)
    files |= _filters(snapshot, sidecar, table, epoch)
    files["rds/ingress.json"] = ingress_routes(snapshot, sidecar, table)
    if sidecar.edge is not None and table.tcp_verdicts is None:
        files["rds/edge.json"] = edge_routes(snapshot, sidecar, table)
    files["rds/egress.json"] = egress_routes(snapshot, sidecar, targets, lanes)
    files[LISTENERS] = _listeners(sidecar, table, targets)
    return {name: encode(content) for name, content in files.items()}


def _filters(snapshot: Snapshot, sidecar: Sidecar, table: ServiceTable, epoch: str) -> dict[str, Json]:
    if table.tcp_verdicts is not None:
        filters = {names.AUTHZ: tcp_authorization(snapshot, table.tcp_verdicts)}
    else:
        memory = memory_filter(snapshot.hash, epoch) if table.needs_context else no_memory()
        filters = {names.AUTHZ: http_authorization(snapshot, table), names.MEMORY: memory}
        if sidecar.edge is not None:
            filters[names.EDGE_AUTHZ] = edge_authorization(snapshot, table)
    files = {
        f"ecds/{name}.json": filter_file(name, config, snapshot.hash) for name, config in filters.items()
    }
    in_front = [names.BLOCKED, names.EGRESS_BLOCKED]
    if sidecar.edge is not None and table.tcp_verdicts is None:
        in_front.append(names.EDGE_BLOCKED)
    # Blocks are laid over it, and are of no policy.
    return files | {f"ecds/{name}.json": filter_file(name, nobody_blocked(), "") for name in in_front}


def _lanes(index: AccessIndex, caller: str, target: Service, carried: Carried | None) -> Lanes:
    """Return the ways to a target for those of its operations that the caller may call."""
    permitted = [
        operation
        for operations, is_probe in ((target.operations, False), (target.probes, True))
        for operation in operations
        if index.of(target.name, operation.name).allows(caller, is_probe=is_probe)
    ]
    return lanes_to(target.name, permitted, carried)


def _clusters(sidecar: Sidecar, targets: list[Service], lanes: Mapping[str, Lanes]) -> Json:
    upstream = [upstream_cluster(sidecar, t, lane) for t in targets for lane in lanes[t.name].distinct]
    return discovery_response("", app_clusters(sidecar) + upstream)


def _listeners(sidecar: Sidecar, table: ServiceTable, targets: list[Service]) -> Json:
    tcp_targets = [target for target in targets if target.tcp is not None]
    listeners = [ingress_listener(sidecar, table)]
    if sidecar.edge is not None and table.tcp_verdicts is None:
        listeners.append(edge_listener(sidecar, sidecar.edge, table))
    listeners += egress_listeners(sidecar, table.service.spiffe_id, tcp_targets)
    return discovery_response("", listeners)


def _bootstrap(sidecar: Sidecar) -> Json:
    connections, limit = sidecar.limits.connections, {"connection_limit": sidecar.limits.connections}
    bounded = [names.INGRESS] if sidecar.edge is None else [names.INGRESS, names.EDGE]
    monitor = extension(
        "envoy.resource_monitors.global_downstream_max_connections",
        "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=connections * len(bounded) + _OTHER_CONNECTIONS,
    )
    layer = {
        "envoy": {"resource_limits": {"listener": dict.fromkeys(bounded, limit)}},
        # The expression of a WebSocket's template is as long as its path; Envoy would refuse the whole route table.
        "re2": {"max_program_size": {"error_level": _MAX_EXPRESSION, "warn_level": _MAX_EXPRESSION}},
    }
    return {
        "node": {"id": sidecar.instance, "cluster": sidecar.service, "metadata": {"node": sidecar.node}},
        "admin": {"address": pipe(sidecar.admin_socket, mode=OWNER_ONLY)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [agent_service()],
            },
            "lds_config": from_agent(),
            "cds_config": from_agent(),
        },
        "static_resources": {"clusters": [sds_cluster(sidecar), checks_cluster(sidecar)]},
        "overload_manager": {"resource_monitors": [monitor]},
        "stats_config": {"stats_matcher": {"inclusion_list": {"patterns": [{"prefix": p} for p in _STATS]}}},
        "layered_runtime": {"layers": [{"name": "limits", "static_layer": layer}]},
    }
