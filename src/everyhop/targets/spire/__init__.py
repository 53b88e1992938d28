# SPDX-License-Identifier: Apache-2.0
"""SPIRE: who gets which SPIFFE ID, as entries and as ClusterSPIFFEIDs, and a server with agents that give them out."""

from everyhop.targets.spire.target import TARGET

__all__ = ["TARGET"]
