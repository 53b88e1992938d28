# SPDX-License-Identifier: Apache-2.0
"""Istio in sidecar mode: default deny, allow rules by full principals, and what else a mesh needs to hold the policy."""

from everyhop.targets.istio.sidecar import TARGET

__all__ = ["TARGET"]
