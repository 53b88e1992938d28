# SPDX-License-Identifier: Apache-2.0
"""Short ways to write manifests of Istio and to ask about them."""

from __future__ import annotations

import json

from everyhop.evaluators.model import Request, Token, Workload
from everyhop.manifests import read_manifests

CHECKOUT = "spiffe://mesh.test/ns/shop/sa/checkout"
ISSUER = "https://issuer.mesh.test"


def manifests(*objects):
    """Return objects given as dictionaries."""
    return read_manifests({"m.yaml": "\n---\n".join(json.dumps(one) for one in objects).encode()})


def security(kind, spec, *, name="p", namespace="shop", annotations=None, created=None):
    """Return an object of security.istio.io."""
    metadata = {"name": name, "namespace": namespace}
    if annotations:
        metadata["annotations"] = annotations
    if created:
        metadata["creationTimestamp"] = created
    return {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def policy(*rules, action="ALLOW", **further):
    """Return an AuthorizationPolicy with rules; further members of its spec and metadata by name."""
    outer = {key: further.pop(key) for key in ("name", "namespace", "annotations") if key in further}
    spec = {"action": action, **further}
    if rules:
        spec["rules"] = list(rules)
    return security("AuthorizationPolicy", spec, **outer)


def rule(source=None, operation=None, when=None):
    """Return a rule with at most one source and one operation."""
    made = {}
    if source is not None:
        made["from"] = [{"source": source}]
    if operation is not None:
        made["to"] = [{"operation": operation}]
    if when is not None:
        made["when"] = when
    return made


def workload(name="payments", namespace="shop", **further):
    """Return a workload whose label app is its name."""
    labels = {"app": name, **further.pop("labels", {})}
    return Workload(name=name, namespace=namespace, service_account=name, labels=labels, **further)


def request(**further):
    """Return a request of checkout to payments, POST /charge, unless said otherwise."""
    held = {
        "source": workload("checkout", ip="10.1.0.9"),
        "target": workload(),
        "port": 8080,
        "peer": CHECKOUT,
        "method": "POST",
        "path": "/charge",
        "host": "payments",
    }
    return Request(**(held | further))


def token(**further):
    """Return a good token of checkout for payments, unless said otherwise."""
    return Token(**({"issuer": ISSUER, "subject": "checkout", "audiences": ("payments",)} | further))
