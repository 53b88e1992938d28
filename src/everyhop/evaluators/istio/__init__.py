# SPDX-License-Identifier: Apache-2.0
"""Istio's decisions: sidecar, gateway, waypoint and ztunnel.

Written from the semantics of istio/istio 1.30 (pilot/pkg/security/authz, pilot/pkg/security/trustdomain, pilot/pkg/security/authn,
pilot/pkg/model/policyattachment.go, pilot/pkg/serviceregistry/ambient/authorization.go, pkg/config/validation) and of
istio/ztunnel (src/rbac.rs).  :class:`Istio` is a workload with a sidecar, or a gateway; :class:`Ambient` is one behind ztunnel, with
or without a waypoint.
"""

from everyhop.evaluators.envoy_paths import Normalization
from everyhop.evaluators.istio.ambient import Ambient
from everyhop.evaluators.istio.sidecar import Istio
from everyhop.evaluators.istio.waypoints import Waypoint

__all__ = ["Ambient", "Istio", "Normalization", "Waypoint"]
