# SPDX-License-Identifier: Apache-2.0
"""One line per decision: the format that Envoy writes.  :mod:`everyhop.dataplane.log_lines` reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.dataplane import _names as names
from everyhop.dataplane._resources import Json, extension
from everyhop.policy.model import OUTSIDE

if TYPE_CHECKING:
    from everyhop.dataplane.model import Sidecar

# Each field costs a call about a quarter of a microsecond, so there is none that no record needs.
_COMMON: Final = {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%6fZ)%",
    "ms": "%DURATION%",
    "type": "%ACCESS_LOG_TYPE%",
}
_CONNECTION: Final = {
    **_COMMON,
    "flags": "%RESPONSE_FLAGS%",
    "in": "%BYTES_RECEIVED%",
    "out": "%BYTES_SENT%",
}
_REQUEST: Final = {
    "id": "%REQ(X-EVERYHOP-DECISION):64%",
    "method": "%REQ(:METHOD):64%",
    "path": "%PATH(NQ:PATH):4096%",
    "trace": "%REQ(TRACEPARENT):64%",
    "status": "%RESPONSE_CODE%",
    "detail": "%RESPONSE_CODE_DETAILS%",
}
_CODE: Final = f"%DYNAMIC_METADATA({names.EXT_AUTHZ}:{names.CODE})%"
_WHY: Final = f"%DYNAMIC_METADATA({names.EXT_AUTHZ}:{names.WHY})%"


def ingress_fields(service: str) -> dict[str, str]:
    """Return the line of a request that arrives at a service, by field."""
    return {
        "kind": "in",
        "route": "%ROUTE_NAME%",
        "caller": "%DOWNSTREAM_PEER_URI_SAN%",
        "target": service,
        "verdict": _metadata("enforced_effective_policy_id"),
        "operation": _metadata("shadow_effective_policy_id"),
        "user": f"%REQ({names.USER_HEADER.upper()}):256%",
        "code": _CODE,
        "why": _WHY,
        **_REQUEST,
        **_COMMON,
    }


def ingress_log(sidecar: Sidecar) -> list[Json]:
    """Return the log of requests and connections that arrive."""
    return _file(sidecar, ingress_fields(sidecar.service))


def edge_log(sidecar: Sidecar) -> list[Json]:
    """Return the log of requests from outside."""
    fields = {
        "kind": "edge",
        "route": "%ROUTE_NAME%",
        "caller": OUTSIDE,
        "host": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "target": sidecar.service,
        "verdict": _metadata("enforced_effective_policy_id"),
        "operation": _metadata("shadow_effective_policy_id"),
        "user": f"%DYNAMIC_METADATA({names.EXT_AUTHZ}:{names.SUBJECT})%",
        "key": f"%DYNAMIC_METADATA({names.EXT_AUTHZ}:{names.API_KEY})%",
        "code": _CODE,
        "why": _WHY,
        **_REQUEST,
        **_COMMON,
    }
    return _file(sidecar, fields)


def handshake_log(sidecar: Sidecar, kind: str = "tls") -> list[Json]:
    """Return the log of connections that never became requests: no certificate, or one that is not believed."""
    fields = {
        "kind": kind,
        "target": sidecar.service,
        "failure": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
        "host": "%DOWNSTREAM_REMOTE_ADDRESS%",
        **_COMMON,
    }
    failed = extension(
        "envoy.access_loggers.extension_filters.cel",
        "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
        expression="connection.transport_failure_reason != ''",
    )
    return [{**log, "filter": {"extension_filter": failed}} for log in _file(sidecar, fields)]


def egress_http_log(sidecar: Sidecar, caller: str) -> list[Json]:
    """Return the log of requests that the workload sends."""
    fields = {
        "kind": "out",
        "caller": caller,
        "host": "%REQ(:AUTHORITY):256%",
        "route": "%ROUTE_NAME%",
        "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
        "code": _CODE,
        **_REQUEST,
        **_COMMON,
    }
    return _file(sidecar, fields)


def egress_tcp_log(sidecar: Sidecar, caller: str, target: str) -> list[Json]:
    """Return the log of connections that the workload opens to a tcp service by its Unix socket."""
    fields = {
        "kind": "tcp-out",
        "caller": caller,
        "target": target,
        "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
        "detail": "%CONNECTION_TERMINATION_DETAILS%",
        **_CONNECTION,
    }
    return _file(sidecar, fields)


def _metadata(key: str) -> str:
    return f"%DYNAMIC_METADATA({names.HTTP_RBAC}:{key})%"


def _file(sidecar: Sidecar, fields: dict[str, str]) -> list[Json]:
    return [
        extension(
            "file",
            "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            path=str(sidecar.access_log),
            log_format={"json_format": fields},
        )
    ]
