# SPDX-License-Identifier: Apache-2.0
"""Cilium and Linkerd over generated policies: what must hold whatever is written."""

import json
from itertools import product

from hypothesis import given, settings, strategies as st
from tests.support.meshes import call, outside, peer_of, pod, tcp

from everyhop.evaluators.cilium import CiliumEvaluator
from everyhop.evaluators.linkerd import LinkerdEvaluator
from everyhop.manifests import read_manifests

APPS = ("a", "b", "c")
PODS = {(space, app): pod(app, space) for space in ("x", "y") for app in APPS}
SOURCES = [*PODS.values(), outside()]
TARGET = PODS["x", "a"]
REQUESTS = [("GET", "/a"), ("POST", "/a"), ("GET", "/a/b"), ("GET", "/ab?q=1")]


def read(documents):
    return read_manifests(
        {f"{number:03}.json": json.dumps(one).encode() for number, one in enumerate(documents)}
    )


def passed(evaluator):
    """Return what reaches the target: requests by source, port, method and path, and bare connections."""
    found = set()
    for (number, source), port in product(enumerate(SOURCES), (80, 81)):
        peer = peer_of(source) if source.namespace else None
        for method, path in REQUESTS:
            if evaluator.evaluate(call(source, TARGET, method, path, port=port, peer=peer)).allowed:
                found.add((number, port, method, path))
        if evaluator.evaluate(tcp(source, TARGET, port, peer=peer)).allowed:
            found.add((number, port, "", ""))
    return found


labels = st.one_of(
    st.just({}),
    st.sampled_from(APPS).map(lambda app: {"matchLabels": {"app": app}}),
    st.sampled_from("xy").map(lambda space: {"matchLabels": {"k8s:io.kubernetes.pod.namespace": space}}),
    st.sampled_from(APPS).map(lambda app: {"matchLabels": {"io.cilium.k8s.policy.serviceaccount": app}}),
)
peers = st.one_of(
    st.just({}),
    st.lists(labels, max_size=2).map(lambda found: {"fromEndpoints": found}),
    st.sampled_from(["all", "world", "cluster"]).map(lambda entity: {"fromEntities": [entity]}),
    st.just({"fromCIDR": ["203.0.113.0/24"]}),
)
http = st.lists(
    st.sampled_from(
        [{"method": "GET"}, {"path": "/a.*"}, {"path": "/a|/ab\\?q=1"}, {"method": "POST", "path": "/a"}, {}]
    ),
    max_size=2,
)


@st.composite
def cilium_rules(draw, *, layer_7=True):
    rule = dict(draw(peers))
    port = draw(st.sampled_from([None, "80", "81"]))
    if port is not None:
        entry = {"ports": [{"port": port, "protocol": "TCP"}]}
        if layer_7 and draw(st.booleans()):
            entry["rules"] = {"http": draw(http)}
        rule["toPorts"] = [entry]
    return rule


@st.composite
def cilium_policies(draw):
    spec = {
        "endpointSelector": draw(
            st.sampled_from([{}, {"matchLabels": {"app": "a"}}, {"matchLabels": {"app": "b"}}])
        )
    }
    spec["ingress"] = draw(st.lists(cilium_rules(), max_size=2))
    if draw(st.booleans()):
        spec["ingressDeny"] = draw(st.lists(cilium_rules(layer_7=False), max_size=1))
    if draw(st.booleans()):
        spec["enableDefaultDeny"] = {"ingress": draw(st.booleans())}
    return spec


def cilium(specs):
    return CiliumEvaluator(
        read(
            [
                {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": f"p{n}", "namespace": "x"}, "spec": spec}
                for n, spec in enumerate(specs)
            ]
        )
    )  # fmt: skip


def deny(rule):
    return {"endpointSelector": {}, "ingressDeny": [rule], "enableDefaultDeny": {"ingress": False}}


def allow(rule):
    return {"endpointSelector": {}, "ingress": [rule], "enableDefaultDeny": {"ingress": False}}


@settings(max_examples=30, deadline=None)
@given(st.lists(cilium_policies(), max_size=3), cilium_rules(layer_7=False))
def test_a_cilium_deny_always_wins(specs, rule):
    denied = {one for one in passed(cilium([])) if one not in passed(cilium([deny(rule)]))}
    assert passed(cilium([*specs, deny(rule)])) == passed(cilium(specs)) - denied


@settings(max_examples=30, deadline=None)
@given(st.lists(cilium_policies(), max_size=3), cilium_rules(layer_7=False))
def test_one_cilium_allow_of_layer_4_more_never_narrows(specs, rule):
    # Not so for one with layer 7 where nothing isolates: there it binds what it fits, even with default deny off.
    assert passed(cilium([*specs, allow(rule)])) >= passed(cilium(specs))


@settings(max_examples=30, deadline=None)
@given(st.lists(cilium_policies(), max_size=3), cilium_rules())
def test_one_cilium_allow_more_never_narrows_a_pod_that_is_isolated(specs, rule):
    isolated = [*specs, {"endpointSelector": {}, "ingress": [{}]}]
    assert passed(cilium([*isolated, allow(rule)])) >= passed(cilium(isolated))


@settings(max_examples=20, deadline=None)
@given(st.lists(cilium_policies(), min_size=2, max_size=3))
def test_the_order_of_cilium_policies_does_not_matter(specs):
    assert passed(cilium(specs)) == passed(cilium(specs[::-1]))


IDENTITY = "{}.{}.serviceaccount.identity.linkerd.cluster.local"
names = st.one_of(
    st.just("*"),
    st.sampled_from("xy").map(lambda space: "*." + IDENTITY.format("", space)[1:]),
    st.tuples(st.sampled_from(APPS), st.sampled_from("xy")).map(lambda one: IDENTITY.format(*one)),
)
paths = st.sampled_from(
    [
        {"type": "Exact", "value": "/a"},
        {"type": "PathPrefix", "value": "/a"},
        {"type": "RegularExpression", "value": "/a|/ab"},
        {"type": "RegularExpression", "value": "/ab?"},
    ]
)


def linkerd_object(kind, name, spec, version="v1alpha1"):
    return {
        "apiVersion": f"policy.linkerd.io/{version}",
        "kind": kind,
        "metadata": {"name": name, "namespace": "x"},
        "spec": spec,
    }


@st.composite
def linkerd_meshes(draw):
    """A Server on port 80 of the target with some routes, and clients of either."""
    server = {
        "podSelector": {"matchLabels": {"app": "a"}},
        "port": 80,
        "accessPolicy": draw(st.sampled_from(["deny", "deny", "all-authenticated"])),
        "proxyProtocol": draw(st.sampled_from(["unknown", "HTTP/1", "opaque"])),
    }
    found = [linkerd_object("Server", "s", server, "v1beta3")]
    routes = draw(st.integers(0, 3))
    for number in range(routes):
        match = {"path": draw(paths)} | ({"method": "GET"} if draw(st.booleans()) else {})
        parents = [{"group": "policy.linkerd.io", "kind": "Server", "name": "s"}]
        found.append(
            linkerd_object(
                "HTTPRoute", f"r{number}", {"parentRefs": parents, "rules": [{"matches": [match]}]}, "v1beta3"
            )
        )
    for number in range(draw(st.integers(0, 3))):
        found += draw(authorizations(f"p{number}", routes))
    return found, routes


@st.composite
def authorizations(draw, name, routes):
    targets = [
        {"group": "policy.linkerd.io", "kind": "Server", "name": "s"},
        {"kind": "Namespace", "name": "x"},
    ]
    targets += [
        {"group": "policy.linkerd.io", "kind": "HTTPRoute", "name": f"r{number}"} for number in range(routes)
    ]
    found, refs = [], []
    if draw(st.booleans()):
        found.append(
            linkerd_object(
                "MeshTLSAuthentication", name, {"identities": draw(st.lists(names, min_size=1, max_size=2))}
            )
        )
        refs.append({"group": "policy.linkerd.io", "kind": "MeshTLSAuthentication", "name": name})
    if draw(st.booleans()):
        cidr = draw(st.sampled_from(["10.0.0.0/8", "203.0.113.0/24"]))
        found.append(linkerd_object("NetworkAuthentication", name, {"networks": [{"cidr": cidr}]}))
        refs.append({"group": "policy.linkerd.io", "kind": "NetworkAuthentication", "name": name})
    policy = {"targetRef": draw(st.sampled_from(targets)), "requiredAuthenticationRefs": refs}
    return [*found, linkerd_object("AuthorizationPolicy", name, policy)]


def linkerd(documents):
    return LinkerdEvaluator(read(documents), default_inbound_policy="deny")


@settings(max_examples=30, deadline=None)
@given(linkerd_meshes(), st.data())
def test_one_linkerd_authorization_more_never_narrows(mesh, data):
    found, routes = mesh
    more = data.draw(authorizations("more", routes))
    assert passed(linkerd([*found, *more])) >= passed(linkerd(found))


@settings(max_examples=30, deadline=None)
@given(linkerd_meshes())
def test_a_required_authentication_that_is_gone_never_widens(mesh):
    found, _ = mesh
    gone = [one for one in found if one["kind"] != "MeshTLSAuthentication"]
    assert passed(linkerd(gone)) <= passed(linkerd(found))


@settings(max_examples=20, deadline=None)
@given(linkerd_meshes())
def test_the_order_of_linkerd_objects_does_not_matter(mesh):
    found, _ = mesh
    assert passed(linkerd(found)) == passed(linkerd(found[::-1]))
