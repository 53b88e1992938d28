# SPDX-License-Identifier: Apache-2.0
"""Cilium: CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy, and the NetworkPolicies of the same cluster.

Written from cilium/cilium: pkg/policy/api (rules and their validation), pkg/k8s/apis/cilium.io/utils (how a namespace is added to
selectors), pkg/envoy (what becomes of HTTP rules) and Documentation/security/policy.
"""

from everyhop.evaluators.cilium.evaluator import CiliumEvaluator

__all__ = ["CiliumEvaluator"]
