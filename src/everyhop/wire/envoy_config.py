# SPDX-License-Identifier: Apache-2.0
"""Envoy's aggregated discovery, incremental: our messages with Envoy's field numbers, under Envoy's names on the wire."""

from __future__ import annotations

from typing import Final

from everyhop.wire.envoy_xds_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource, Status

__all__ = [
    "DELTA_RESOURCES",
    "DeltaDiscoveryRequest",
    "DeltaDiscoveryResponse",
    "Node",
    "Resource",
    "Status",
]

DELTA_RESOURCES: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
"""Path of the method."""
