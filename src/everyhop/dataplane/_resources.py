# SPDX-License-Identifier: Apache-2.0
"""Envoy's resources as plain JSON values: the few shapes that every file of a sidecar is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

Json = dict[str, Any]

_TYPE: Final = "type.googleapis.com/"
OWNER_ONLY: Final = 0o600


def typed(message: str, **fields: Any) -> Json:
    """Return a ``google.protobuf.Any`` in JSON: the full name of the message and its fields."""
    return {"@type": _TYPE + message, **fields}


def type_url(message: str) -> str:
    """Return the type URL of a message."""
    return _TYPE + message


def extension(name: str, message: str, **fields: Any) -> Json:
    """Return a named extension (a filter, a transport socket, an input) with its typed configuration."""
    return {"name": name, "typed_config": typed(message, **fields)}


def duration(seconds: float) -> str:
    """Return a ``google.protobuf.Duration``, e.g. ``2s`` or ``0.25s``."""
    return f"{seconds:g}s"


def from_agent() -> Json:
    """Return the configuration source of everything that may change: the agent's stream (:mod:`.ads`).

    Nothing starts before the first content is there, however long that takes: an absent resource must not
    mean an absent check.
    """
    return {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}


def discovery_response(version: str, resources: list[Json]) -> Json:
    """Return the content of a file: resources of one type."""
    return {"version_info": version, "resources": resources}


def socket_address(host: str, port: int) -> Json:
    """Return the address of a TCP socket."""
    return {"socket_address": {"address": host, "port_value": port}}


def pipe(path: Path, *, mode: int | None = None) -> Json:
    """Return the address of a Unix socket; ``mode`` is set on a socket that Envoy creates."""
    return {"pipe": {"path": str(path)} if mode is None else {"path": str(path), "mode": mode}}


def load_assignment(cluster: str, addresses: list[Json]) -> Json:
    """Return the endpoints of a cluster."""
    endpoints = [{"endpoint": {"address": address}} for address in addresses]
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": endpoints}] if endpoints else []}


def set_header(name: str, value: str) -> Json:
    """Return a header mutation that replaces whatever is there."""
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def encode(document: Json) -> bytes:
    """Return JSON that a person can read: one space a level, keys in the order in which they were built."""
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
