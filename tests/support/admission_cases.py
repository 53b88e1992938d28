# SPDX-License-Identifier: Apache-2.0
"""Objects with what is wrong with them: one table for the webhook's rules, the guard rails in CEL, and Gatekeeper's Rego."""

import yaml

ISTIO = "security.istio.io/v1"
POD = {"containers": [{"name": "a", "image": "a:1"}]}


def peer(spec):
    return {
        "apiVersion": ISTIO,
        "kind": "PeerAuthentication",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": spec,
    }


def istio(spec):
    return {
        "apiVersion": ISTIO,
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": spec,
    }


def linkerd(kind, spec):
    return {
        "apiVersion": "policy.linkerd.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": spec,
    }


def network(spec):
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": spec,
    }


def cilium(spec):
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": spec,
    }


def deployment(pod):
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "shop"},
        "spec": {"template": {"spec": pod}},
    }


def container(**more):
    return {"containers": [{"name": "a", "image": "a:1", **more}]}


def rule(**more):
    return {"from": [{"source": {"principals": ["td/ns/shop/sa/a"]}}], **more}


BOUND = {"selector": {"matchLabels": {"app": "a"}}}
REF = {"targetRef": {"group": "policy.linkerd.io", "kind": "HTTPRoute", "name": "r"}}
AUTH = {"requiredAuthenticationRefs": [{"kind": "MeshTLSAuthentication", "name": "m"}]}

CASES = {
    "strict": (peer({"mtls": {"mode": "STRICT"}}), ()),
    "inherits": (peer({}), ()),
    "permissive": (peer({"mtls": {"mode": "PERMISSIVE"}}), ("permissive-mtls",)),
    "disabled": (peer({"mtls": {"mode": "DISABLE"}}), ("permissive-mtls",)),
    "unset": (peer({"mtls": {"mode": "UNSET"}}), ("permissive-mtls",)),
    "permissive port": (
        peer({**BOUND, "mtls": {"mode": "STRICT"}, "portLevelMtls": {"8080": {"mode": "PERMISSIVE"}}}),
        ("permissive-mtls",),
    ),
    "strict port": (
        peer({**BOUND, "mtls": {"mode": "STRICT"}, "portLevelMtls": {"8080": {"mode": "STRICT"}}}),
        (),
    ),
    "deny all": (istio({}), ()),
    "allow one": (istio({**BOUND, "rules": [rule()]}), ()),
    "allow by waypoint": (istio({"targetRefs": [{"kind": "Service", "name": "a"}], "rules": [rule()]}), ()),
    "allow all": (istio({"rules": [{}]}), ("open-allow",)),
    "allow everybody on a workload": (istio({**BOUND, "rules": [{}]}), ("open-allow",)),
    "allow a path to everybody": (
        istio({**BOUND, "rules": [{"to": [{"operation": {"paths": ["/x"]}}]}]}),
        ("open-allow",),
    ),
    "selector-less": (istio({"rules": [rule()]}), ("open-allow",)),
    "empty source": (istio({**BOUND, "rules": [{"from": [{"source": {}}]}]}), ("open-allow",)),
    "only who it is not": (
        istio({**BOUND, "rules": [{"from": [{"source": {"notNamespaces": ["a"]}}]}]}),
        ("open-allow",),
    ),
    "second rule open": (
        istio({**BOUND, "rules": [rule(), {"when": [{"key": "source.ip", "values": ["1.2.3.4"]}]}]}),
        ("open-allow",),
    ),
    "a deny for everybody is fine": (istio({"action": "DENY", "rules": [{}]}), ()),
    "explicit action": (istio({"action": "ALLOW", "rules": [rule()]}), ("open-allow",)),
    "any principal": (
        istio({**BOUND, "rules": [{"from": [{"source": {"principals": ["*"]}}]}]}),
        ("wildcard-principal",),
    ),
    "prefix principal": (
        istio({**BOUND, "rules": [{"from": [{"source": {"principals": ["td/ns/shop/*"]}}]}]}),
        ("wildcard-principal",),
    ),
    "any token": (
        istio({**BOUND, "rules": [{"from": [{"source": {"requestPrincipals": ["*"]}}]}]}),
        ("wildcard-principal",),
    ),
    "wildcard in a second source": (
        istio(
            {
                **BOUND,
                "rules": [{"from": [{"source": {"principals": ["a"]}}, {"source": {"namespaces": ["*"]}}]}],
            }
        ),
        ("wildcard-principal",),
    ),
    "a denied pattern is fine": (
        istio({**BOUND, "action": "DENY", "rules": [{"from": [{"source": {"principals": ["*"]}}]}]}),
        (),
    ),
    "linkerd route": (linkerd("AuthorizationPolicy", {**REF, **AUTH}), ()),
    "linkerd without authentication": (
        linkerd("AuthorizationPolicy", {**REF, "requiredAuthenticationRefs": []}),
        ("open-allow",),
    ),
    "linkerd namespace": (
        linkerd("AuthorizationPolicy", {**AUTH, "targetRef": {"kind": "Namespace", "name": "shop"}}),
        ("open-allow",),
    ),
    "linkerd server": (linkerd("Server", {"podSelector": {}, "port": 80}), ()),
    "linkerd open server": (
        linkerd("Server", {"podSelector": {}, "port": 80, "accessPolicy": "all-unauthenticated"}),
        ("open-allow",),
    ),
    "linkerd legacy": (
        linkerd("ServerAuthorization", {"client": {"unauthenticated": True}}),
        ("open-allow",),
    ),
    "linkerd legacy closed": (
        linkerd("ServerAuthorization", {"client": {"meshTLS": {"identities": ["a"]}}}),
        (),
    ),
    "linkerd identities": (linkerd("MeshTLSAuthentication", {"identities": ["a.b.serviceaccount"]}), ()),
    "linkerd any identity": (
        linkerd("MeshTLSAuthentication", {"identities": ["*"]}),
        ("wildcard-principal",),
    ),
    "linkerd suffix": (
        linkerd("MeshTLSAuthentication", {"identities": ["a", "*.shop.serviceaccount"]}),
        ("wildcard-principal",),
    ),
    "network deny all": (network({"podSelector": {}, "policyTypes": ["Ingress"]}), ()),
    "network named": (
        network({"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}]}),
        (),
    ),
    "network open": (network({"podSelector": {}, "ingress": [{}]}), ("open-allow",)),
    "network open port": (
        network({"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}),
        ("open-allow",),
    ),
    "network everywhere": (
        network({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]}),
        ("open-allow",),
    ),
    "network everywhere by IPv6": (
        network({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "::/0"}}]}]}),
        ("open-allow",),
    ),
    "cilium named": (
        cilium(
            {
                "endpointSelector": {},
                "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "a"}}], "toPorts": [{}]}],
            }
        ),
        (),
    ),
    "cilium all": (cilium({"endpointSelector": {}, "ingress": [{"fromEntities": ["all"]}]}), ("open-allow",)),
    "cilium open port": (
        cilium({"endpointSelector": {}, "ingress": [{"toPorts": [{"ports": [{"port": "80"}]}]}]}),
        ("open-allow",),
    ),
    "account": (
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "a"},
            "automountServiceAccountToken": False,
        },
        (),
    ),
    "account by default": (
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}},
        ("automounted-token",),
    ),
    "account written": (
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "a"},
            "automountServiceAccountToken": True,
        },
        ("automounted-token",),
    ),
    "plain deployment": (deployment(POD), ()),
    "deployment with a token": (
        deployment({**POD, "automountServiceAccountToken": True}),
        ("automounted-token",),
    ),
    "pod with a token": (
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "a"},
            "spec": {**POD, "automountServiceAccountToken": True},
        },
        ("automounted-token",),
    ),
    "job with a token": (
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": "a"},
            "spec": {
                "jobTemplate": {"spec": {"template": {"spec": {**POD, "automountServiceAccountToken": True}}}}
            },
        },
        ("automounted-token",),
    ),
    "plain variable": (deployment(container(env=[{"name": "LOG_LEVEL", "value": "info"}])), ()),
    "secret by reference": (
        deployment(container(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}])),
        ("secret-in-env",),
    ),
    "secrets from": (deployment(container(envFrom=[{"secretRef": {"name": "s"}}])), ("secret-in-env",)),
    "config from": (deployment(container(envFrom=[{"configMapRef": {"name": "s"}}])), ()),
    "field by reference": (
        deployment(
            container(env=[{"name": "TOKEN", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}])
        ),
        (),
    ),
    "literal password": (
        deployment(container(env=[{"name": "DB_PASSWORD", "value": "x"}])),
        ("secret-in-env",),
    ),
    "literal in lower case": (
        deployment(container(env=[{"name": "stripe_api_key", "value": "x"}])),
        ("secret-in-env",),
    ),
    "empty password": (deployment(container(env=[{"name": "DB_PASSWORD", "value": ""}])), ()),
    "a file's name is no secret": (deployment(container(env=[{"name": "TOKENIZER", "value": "x"}])), ()),
    "secret of an init container": (
        deployment({**POD, "initContainers": [{"name": "i", "env": [{"name": "X_TOKEN", "value": "x"}]}]}),
        ("secret-in-env",),
    ),
    "an unknown kind": (
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "b"}},
        (),
    ),
    "the same kind of another group": (
        {**peer({"mtls": {"mode": "PERMISSIVE"}}), "apiVersion": "example.org/v1"},
        (),
    ),
}
"""Name to object and the codes that it deserves."""

DEFAULT_DENIES = {
    "istio": istio({}),
    "istio, spelt out": istio({"action": "ALLOW", "rules": []}),
    "network": network({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
    "network by default type": network({"podSelector": {}}),
}
NO_DEFAULT_DENIES = {
    "istio bound": istio(BOUND),
    "istio deny": istio({"action": "DENY", "rules": [{}]}),
    "istio allow": istio({"rules": [{}]}),
    "network egress only": network({"podSelector": {}, "policyTypes": ["Egress"]}),
    "network of some pods": network({"podSelector": {"matchLabels": {"app": "a"}}}),
    "network with a rule": network({"podSelector": {}, "ingress": [{}]}),
}


def as_yaml(*objects):
    return yaml.safe_dump_all(objects, sort_keys=False).encode()
