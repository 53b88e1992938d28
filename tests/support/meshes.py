# SPDX-License-Identifier: Apache-2.0
"""Short ways to say a manifest, a pod and a request, for the tests of evaluators."""

from textwrap import dedent

from everyhop.evaluators.model import Request, Wire, Workload
from everyhop.manifests import read_manifests

TRUST_DOMAIN = "cluster.local"


def manifests(*texts):
    """Read YAML texts, each as a file of its own."""
    return read_manifests({f"{number:03}.yaml": dedent(text).encode() for number, text in enumerate(texts)})


def pod(name, namespace="shop", *, labels=None, account=None, team=None, **more):
    """Return a pod that is labelled with its name and runs under it."""
    return Workload(
        name=name,
        namespace=namespace,
        service_account=name if account is None else account,
        labels={"app": name} if labels is None else labels,
        namespace_labels={"kubernetes.io/metadata.name": namespace} | ({"team": team} if team else {}),
        **more,
    )


def outside(ip="203.0.113.9", name="outside"):
    """Return a client or a host that is no pod."""
    return Workload(name=name, namespace="", service_account="", labels={}, ip=ip)


def peer_of(workload, trust_domain=TRUST_DOMAIN):
    """Return the SPIFFE ID that a mesh gives to a pod."""
    return f"spiffe://{trust_domain}/ns/{workload.namespace}/sa/{workload.service_account}"


def call(source, target, method="GET", path="/", *, port=8080, peer="own", wire=Wire.HTTP, **more):
    """Return a request with the source's own identity, unless ``peer`` is another or None."""
    return Request(
        source=source,
        target=target,
        port=port,
        peer=peer_of(source) if peer == "own" else peer,
        wire=wire,
        method=method,
        path=path,
        **more,
    )


def tcp(source, target, port=8080, **more):
    """Return a connection of which nothing is read."""
    return call(source, target, "", "", port=port, wire=Wire.TCP, **more)
