# SPDX-License-Identifier: Apache-2.0
"""Linkerd: what its inbound proxies admit, and what leaves through EgressNetworks.

Written from linkerd/linkerd2 (policy-controller/k8s/index/src/inbound: how objects become a server's policy; runtime/src/admission:
what is rejected) and linkerd/linkerd2-proxy (linkerd/http/route, linkerd/proxy/server-policy, linkerd/app/inbound/src/policy: how
a request is matched and authorized).
"""

from everyhop.evaluators.linkerd.evaluator import LinkerdEvaluator
from everyhop.evaluators.linkerd.identity import Mesh

__all__ = ["LinkerdEvaluator", "Mesh"]
