# SPDX-License-Identifier: Apache-2.0
"""The payment example by hand in four systems, and every widening that the notes list: each changes an answer.

checkout may call payment-processor with POST /v1/payments, and nobody may do anything else.
"""

from itertools import product

import pytest
from tests.support.meshes import call, manifests, outside, peer_of, pod, tcp

from everyhop.evaluators.cilium import CiliumEvaluator
from everyhop.evaluators.istio import Istio
from everyhop.evaluators.linkerd import LinkerdEvaluator
from everyhop.evaluators.network_policy import NetworkPolicyEvaluator

CHECKOUT, OTHER, PAY = pod("checkout"), pod("other"), pod("payment-processor")
FAR = pod("checkout", "far")
THIEF = pod("checkout", account="thief")  # the labels of checkout, another account
WORLD = outside()
CALLERS = {
    "checkout": (CHECKOUT, peer_of(CHECKOUT)),
    "checkout in plaintext": (CHECKOUT, None),
    "another service": (OTHER, peer_of(OTHER)),
    "another namespace": (FAR, peer_of(FAR)),
    "labels alone": (THIEF, peer_of(THIEF)),
    "a foreign trust domain": (WORLD, "spiffe://evil.example/ns/shop/sa/checkout"),
    "the world": (WORLD, None),
}
CALLS = [
    (one, path)
    for one, path in product(
        ("POST", "GET"), ("/v1/payments", "/v1/payments?q=/1", "/v1/paymentsx", "/v1/payments/7", "/")
    )
]
PORTS = (8080, 9090)


def passed(evaluator):
    """Return everything that comes through to payment-processor."""
    found = set()
    for (name, (source, peer)), port in product(CALLERS.items(), PORTS):
        for method, path in CALLS:
            if evaluator.evaluate(call(source, PAY, method, path, port=port, peer=peer)).allowed:
                found.add((name, port, method, path))
        if evaluator.evaluate(tcp(source, PAY, port, peer=peer)).allowed:
            found.add((name, port, "", ""))
    return found


def evaluators(system, text):
    read = manifests(text)
    match system:
        case "istio":
            return Istio(read, trust_domain="cluster.local")
        case "linkerd":
            return LinkerdEvaluator(read, default_inbound_policy="deny")
        case "cilium":
            return CiliumEvaluator(read)
        case _:
            return NetworkPolicyEvaluator(read)


ISTIO = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny-all, namespace: shop}
spec: {}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: pay, namespace: shop}
spec:
  action: ALLOW
  selector: {matchLabels: {app: payment-processor}}
  rules:
    - from: [{source: {principals: [cluster.local/ns/shop/sa/checkout]}}]
      to: [{operation: {methods: [POST], paths: [/v1/payments], ports: ["8080"]}}]
"""
LINKERD = """
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: pay, namespace: shop}
spec: {podSelector: {matchLabels: {app: payment-processor}}, port: 8080, proxyProtocol: HTTP/1, accessPolicy: deny}
---
apiVersion: policy.linkerd.io/v1beta3
kind: HTTPRoute
metadata: {name: charge, namespace: shop}
spec:
  parentRefs: [{group: policy.linkerd.io, kind: Server, name: pay}]
  rules: [{matches: [{path: {type: Exact, value: /v1/payments}, method: POST}]}]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: MeshTLSAuthentication
metadata: {name: checkout, namespace: shop}
spec: {identities: [checkout.shop.serviceaccount.identity.linkerd.cluster.local]}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: charge, namespace: shop}
spec:
  targetRef: {group: policy.linkerd.io, kind: HTTPRoute, name: charge}
  requiredAuthenticationRefs: [{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: checkout}]
"""
CILIUM = r"""
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: pay, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: payment-processor}}
  ingress:
    - fromEndpoints: [{matchLabels: {app: checkout, io.cilium.k8s.policy.serviceaccount: checkout}}]
      toPorts:
        - ports: [{port: "8080", protocol: TCP}]
          rules: {http: [{method: POST, path: '^/v1/payments(\?.*)?$'}]}
"""
NETWORK = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: pay, namespace: shop}
spec:
  podSelector: {matchLabels: {app: payment-processor}}
  policyTypes: [Ingress]
  ingress:
    - from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}, podSelector: {matchLabels: {app: checkout}}}]
      ports: [{port: 8080, protocol: TCP}]
"""
TEXTS = {"istio": ISTIO, "linkerd": LINKERD, "cilium": CILIUM, "networkpolicy": NETWORK}
EXACT = {("checkout", 8080, "POST", "/v1/payments"), ("checkout", 8080, "POST", "/v1/payments?q=/1")}
AGAIN = "---\n"

WIDENINGS = [
    # what is written, what is written in its place
    ("istio", "mode: STRICT", "mode: PERMISSIVE", "principals: [cluster.local/ns/shop/sa/checkout]", "notNamespaces: [evil]"),
    ("istio", "methods: [POST], ", ""),
    ("istio", "paths: [/v1/payments], ", ""),
    ("istio", "paths: [/v1/payments]", "paths: [/v1/payments*]"),
    ("istio", ', ports: ["8080"]', ""),
    ("istio", "principals: [cluster.local/ns/shop/sa/checkout]", 'principals: ["*"]'),
    ("istio", "principals: [cluster.local/ns/shop/sa/checkout]", "namespaces: [shop]"),
    ("istio", "principals: [cluster.local/ns/shop/sa/checkout]", 'principals: ["*/sa/checkout"]'),
    ("istio", "principals: [cluster.local/ns/shop/sa/checkout]", "notPrincipals: [cluster.local/ns/shop/sa/other]"),
    ("istio", "      to: [{operation", "    - to: [{operation"),  # one dash more (pain 1)
    ("istio", "spec: {}", "spec: {rules: [{}]}"),
    ("istio", "action: ALLOW", "action: AUDIT", "spec: {}", "spec: {action: AUDIT, rules: [{}]}"),
    ("linkerd", "Exact, value: /v1/payments}", "PathPrefix, value: /v1/payments}"),
    ("linkerd", "Exact, value: /v1/payments}", "RegularExpression, value: '/v1/payments.*'}"),
    ("linkerd", ", method: POST", ""),
    ("linkerd", "{path: {type: Exact, value: /v1/payments}, method: POST}", ""),
    ("linkerd", "checkout.shop.serviceaccount.identity.linkerd.cluster.local", "'*'"),
    ("linkerd", "checkout.shop.serviceaccount.identity.linkerd.cluster.local", "'*.shop.serviceaccount.identity.linkerd.cluster.local'"),
    ("linkerd", "checkout.shop.serviceaccount.identity.linkerd.cluster.local", "'*.cluster.local'"),
    ("linkerd", "[{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: checkout}]", "[]"),
    ("linkerd", "accessPolicy: deny", "accessPolicy: all-authenticated"),
    ("linkerd", "accessPolicy: deny", "accessPolicy: audit"),
    ("linkerd", "kind: HTTPRoute, name: charge", "kind: Server, name: pay", "name: pay}]\n  rules", "name: other}]\n  rules"),
    ("linkerd", "port: 8080", "port: 8080", AGAIN, "---\napiVersion: policy.linkerd.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: wide, namespace: shop}\nspec: {targetRef: {kind: Namespace, name: shop}, requiredAuthenticationRefs: [{kind: ServiceAccount, name: other}]}\n---\n"),
    ("linkerd", "proxyProtocol: HTTP/1", "proxyProtocol: opaque", "accessPolicy: deny", "accessPolicy: all-authenticated"),
    ("linkerd", AGAIN, "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {config.linkerd.io/default-inbound-policy: all-authenticated}}\n---\n"),
    ("linkerd", AGAIN, "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {config.linkerd.io/skip-inbound-ports: '8080'}}\n---\n"),
    ("cilium", "method: POST, ", ""),
    ("cilium", ", path: '^/v1/payments(\\?.*)?$'", ""),
    ("cilium", "^/v1/payments(\\?.*)?$", "/v1/payments.*"),
    ("cilium", "[{method: POST, path: '^/v1/payments(\\?.*)?$'}]", "[]"),
    ("cilium", "\n          rules: {http: [{method: POST, path: '^/v1/payments(\\?.*)?$'}]}", ""),
    ("cilium", ", io.cilium.k8s.policy.serviceaccount: checkout", ""),
    ("cilium", "app: checkout, io.cilium", "io.cilium", "serviceaccount: checkout", "serviceaccount: other"),
    ("cilium", "{matchLabels: {app: checkout, io.cilium.k8s.policy.serviceaccount: checkout}}", "{}"),
    ("cilium", "fromEndpoints: [{matchLabels: {app: checkout, io.cilium.k8s.policy.serviceaccount: checkout}}]", "fromEntities: [world, cluster]"),
    ("cilium", "- fromEndpoints: [{matchLabels: {app: checkout, io.cilium.k8s.policy.serviceaccount: checkout}}]\n      toPorts", "- toPorts"),
    ("cilium", "      toPorts:", "    - toPorts:"),  # one dash more
    ("cilium", 'port: "8080", protocol', 'port: "8080", endPort: 9090, protocol'),
    ("cilium", "  ingress:", "  enableDefaultDeny: {ingress: false}\n  ingress:"),
    ("cilium", "  ingress:\n", "  ingress:\n    - fromEndpoints: [{matchLabels: {app: checkout}}]\n"),
    ("networkpolicy", ", podSelector: {matchLabels: {app: checkout}}", ""),
    ("networkpolicy", "namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}, ", "namespaceSelector: {}, "),
    ("networkpolicy", "}}, podSelector: {matchLabels: {app: checkout", "}}}, {podSelector: {matchLabels: {app: checkout"),  # pain 17
    ("networkpolicy", "    - from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}, podSelector: {matchLabels: {app: checkout}}}]\n      ports", "    - ports"),
    ("networkpolicy", "      ports: [{port: 8080, protocol: TCP}]", ""),
    ("networkpolicy", "port: 8080,", "port: 8080, endPort: 9090,"),
    ("networkpolicy", "policyTypes: [Ingress]", "policyTypes: [Egress]", "  ingress:", "  egress: [{}]\n  ingress:"),
    ("networkpolicy", "  ingress:\n", "  ingress:\n    - {}\n"),
    ("networkpolicy", "matchLabels: {app: payment-processor}", "matchLabels: {app: payment}"),
]  # fmt: skip


@pytest.mark.parametrize("system", ["istio", "linkerd", "cilium"])
def test_what_is_written_by_hand_is_exactly_meant(system):
    found = passed(evaluators(system, TEXTS[system]))
    # Cilium knows no certificate: checkout's own pod is checkout, however it speaks.
    plain = {("checkout in plaintext", *rest) for _, *rest in EXACT}
    assert found == (EXACT | plain if system == "cilium" else EXACT)


def test_a_network_policy_is_an_outer_bound():
    found = passed(evaluators("networkpolicy", NETWORK))
    assert found > EXACT
    assert {(name, port) for name, port, _, _ in found} == {
        ("checkout", 8080), ("checkout in plaintext", 8080), ("labels alone", 8080),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("system", "changes"),
    [(one[0], one[1:]) for one in WIDENINGS],
    ids=[f"{number:02}-{one[0]}" for number, one in enumerate(WIDENINGS)],
)
def test_a_widening_lets_more_pass(system, changes):
    text = TEXTS[system]
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in text
        text = text.replace(old, new, 1)
    before, after = passed(evaluators(system, TEXTS[system])), passed(evaluators(system, text))
    assert after - before, "nothing more comes through"
