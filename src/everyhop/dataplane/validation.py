# SPDX-License-Identifier: Apache-2.0
"""Rendered files as one bootstrap that Envoy can check without starting: what it would watch is put in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from everyhop.dataplane._resources import Json, encode
from everyhop.dataplane.render import BOOTSTRAP, CLUSTERS, LISTENERS

if TYPE_CHECKING:
    from collections.abc import Mapping


def validation_bootstrap(files: Mapping[str, bytes]) -> bytes:
    """Return a bootstrap that contains the listeners, clusters, routes and filters of rendered ``files``.

    Give it to :func:`everyhop.dataplane.envoy.validate_configuration`; it is not meant to run.
    """
    document: Json = msgspec.json.decode(files[BOOTSTRAP])
    del document["dynamic_resources"]
    static = document["static_resources"]
    static["clusters"] += [_plain(_with_endpoints(cluster, files)) for cluster in _resources(files[CLUSTERS])]
    static["listeners"] = [_plain(_inlined(listener, files)) for listener in _resources(files[LISTENERS])]
    return encode(document)


def _with_endpoints(cluster: Json, files: Mapping[str, bytes]) -> Json:
    service = cluster.pop("eds_cluster_config")["service_name"]
    assignment = _plain(_resources(files[f"eds/{service}.json"])[0])
    return {**cluster, "type": "STATIC", "load_assignment": {**assignment, "cluster_name": cluster["name"]}}


def _inlined(listener: Json, files: Mapping[str, bytes]) -> Json:
    _nowhere(listener.get("access_log", []))
    for chain in listener["filter_chains"]:
        for network_filter in chain["filters"]:
            config = network_filter["typed_config"]
            _nowhere(config["access_log"])
            if "rds" in config:
                name = config.pop("rds")["route_config_name"]
                config["route_config"] = _plain(_resources(files[f"rds/{name}.json"])[0])
            for http_filter in config.get("http_filters", ()):
                if http_filter.pop("config_discovery", None) is not None:
                    delivered = _resources(files[f"ecds/{http_filter['name']}.json"])[0]
                    http_filter["typed_config"] = delivered["typed_config"]
    return listener


def _nowhere(logs: list[Json]) -> None:
    """Let logs go nowhere: Envoy would open their files even to check them."""
    for log in logs:
        log["typed_config"]["path"] = "/dev/null"


def _resources(content: bytes) -> list[dict[str, Any]]:
    resources: list[dict[str, Any]] = msgspec.json.decode(content)["resources"]
    return resources


def _plain(resource: Json) -> Json:
    return {key: value for key, value in resource.items() if key != "@type"}
