# SPDX-License-Identifier: Apache-2.0
"""Routes to an application, and the few shapes that every route is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.dataplane import _names as names
from everyhop.dataplane._resources import Json, duration
from everyhop.dataplane.paths import template_path_expression
from everyhop.policy.model import Protocol
from everyhop.policy.routes import overlaps, specificity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everyhop.authz.table import ServiceTable
    from everyhop.dataplane.model import Limits
    from everyhop.policy.model import Operation, Route

EVERYTHING: Final[Json] = {"prefix": "/"}
"""What matches every path."""

_UPGRADES: Final = {"name": "upgrade", "present_match": True}
# Two Host headers reach us joined by a comma; which one an application believes is its own matter.  And whoever makes
# an address of a host with a user, a path or a query in it arrives elsewhere.
_NO_HOST: Final = {
    "name": ":authority",
    "string_match": {"safe_regex": {"regex": r".*[^A-Za-z0-9._~%\[\]:-].*"}},
}


def app_routes(table: ServiceTable, limits: Limits) -> list[Json]:
    """Return the routes to the application; where an operation is a WebSocket, and nowhere else, a call may become one."""
    routes = [refuse({**EVERYTHING, "headers": [_NO_HOST]}, 400)]
    routes += [
        _to_app(route, limits, upgrade=upgrade) for route, upgrade in _upgrade_routes(table.operations)
    ]
    if any(operation.protocol is Protocol.GRPC for operation in table.operations):
        routes.append({"match": {**EVERYTHING, "grpc": {}}, "route": forward(names.APP_H2)})
    routes.append({"match": EVERYTHING, "route": forward(names.APP)})
    return routes


def match_of(route: Route, *more: Json) -> Json:
    """Return what matches the requests of a route (besides those of a more specific one)."""
    match: Json = (
        {"path": route.template}
        if route.is_literal
        else {"safe_regex": {"regex": template_path_expression(route)}}
    )
    match["headers"] = [*more, {"name": ":method", "string_match": {"exact": route.method}}]
    return match


def _upgrade_routes(operations: Sequence[Operation]) -> list[tuple[Route, bool]]:
    """Return, the most specific first, the routes that decide where an upgrade is possible.

    A more specific GET that is no WebSocket stands before the WebSocket template that it overlaps.
    """
    sockets = [o for o in operations if o.protocol is Protocol.WEBSOCKET]
    shadowing = [
        o
        for o in operations
        if o.protocol is not Protocol.WEBSOCKET
        and any(o.route.method == s.route.method and overlaps(o.route, s.route) for s in sockets)
    ]
    ordered = sorted([*sockets, *shadowing], key=lambda o: (specificity(o.route), o.route.template))
    return [(o.route, o.protocol is Protocol.WEBSOCKET) for o in ordered]


def _to_app(route: Route, limits: Limits, *, upgrade: bool) -> Json:
    match = match_of(route, _UPGRADES)
    if upgrade:
        return {"match": match, "route": tunnel(names.APP, limits, {"upgrade_type": "websocket"})}
    return {"match": match, "route": forward(names.APP)}


def forward(cluster: str, **more: Any) -> Json:
    """Return a forwarding action without a time-out for the whole answer: idle time and stream age bound it."""
    return {"cluster": cluster, "timeout": "0s", **more}


def tunnel(cluster: str, limits: Limits, upgrade: Json, **more: Any) -> Json:
    """Return an action for what may be silent for long."""
    age = limits.tcp_age if upgrade["upgrade_type"] == "CONNECT" else limits.stream_age
    return forward(
        cluster,
        upgrade_configs=[upgrade],
        idle_timeout=duration(limits.stream_age),
        max_stream_duration={"max_stream_duration": duration(age)},
        **more,
    )


def refuse(match: Json, status: int) -> Json:
    """Return a route that answers with a status."""
    return {"match": match, "direct_response": {"status": status}}
