# SPDX-License-Identifier: Apache-2.0
"""What a sidecar lets out: the nearest Sidecar counts, and without any everything is."""

import pytest
from tests.support.istio_world import manifests, workload

from everyhop.core.errors import InputError
from everyhop.evaluators.istio import Ambient, Istio
from everyhop.evaluators.model import Request, Wire, Workload


def networking(kind, spec, name="n", namespace="shop"):
    """Return an object of networking.istio.io."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def sidecar(hosts=("./*",), *, mode="REGISTRY_ONLY", labels=None, **place):
    """Return a Sidecar."""
    spec = {"outboundTrafficPolicy": {} if mode is None else {"mode": mode}}
    if hosts is not None:
        spec["egress"] = [{"hosts": list(hosts)}]
    if labels is not None:
        spec["workloadSelector"] = {"labels": labels}
    return networking("Sidecar", spec, **place)


def entry(host="api.example", port=443, exports=(".",), **place):
    """Return a ServiceEntry."""
    ports = [{"number": port, "name": "tls", "protocol": "TLS"}]
    spec = {
        "hosts": [host],
        "ports": ports,
        "location": "MESH_EXTERNAL",
        "resolution": "DNS",
        "exportTo": list(exports),
    }
    return networking("ServiceEntry", spec, **place)


def allowed(objects, host="api.example", port=443, **settings):
    """Tell whether checkout gets out to a host."""
    outside = Workload(name=host, namespace="", service_account="", labels={})
    asked = Request(
        source=workload("checkout"),
        target=outside,
        port=port,
        peer=None,
        wire=Wire.TCP,
        host=host,
        dns_name=host,
    )
    return Istio(manifests(*objects), trust_domain="mesh.test", **settings).evaluate(asked).allowed


def test_without_a_sidecar_everything_is_let_out_unless_the_mesh_is_closed():
    assert allowed([])
    assert allowed([entry()])
    assert not allowed([], registry_only=True)
    assert allowed([entry()], registry_only=True)


@pytest.mark.parametrize(
    ("objects", "passes"),
    [
        ([sidecar()], False),
        ([sidecar(mode=None)], False),
        ([sidecar(mode="ALLOW_ANY")], True),
        ([sidecar(), entry()], True),
        ([sidecar(), entry(port=80)], False),
        ([sidecar(), entry(host="other.example")], False),
        ([sidecar(), entry(host="*.example")], True),
        ([sidecar(), entry(host="*")], True),
        ([sidecar(["./other.example"]), entry()], False),
        ([sidecar(["./api.example"]), entry()], True),
        ([sidecar(["other/*"]), entry()], False),
        ([sidecar(["~/*"]), entry()], False),
        ([sidecar(["*/*.example"]), entry()], True),
        ([sidecar(hosts=None), entry()], True),
        ([sidecar(["*/*"]), entry(namespace="other")], False),
        ([sidecar(["*/*"]), entry(namespace="other", exports=["*"])], True),
        ([sidecar(["*/*"]), entry(namespace="other", exports=["shop"])], True),
        ([sidecar(["*/*"]), entry(exports=["~"])], False),
        ([sidecar(labels={"app": "checkout"})], False),
        ([sidecar(labels={"app": "other"})], True),
        ([sidecar(mode="ALLOW_ANY"), sidecar(labels={"app": "checkout"}, name="own")], False),
        ([sidecar(namespace="istio-system")], False),
        ([sidecar(namespace="istio-system"), sidecar(mode="ALLOW_ANY")], True),
        ([sidecar(namespace="other")], True),
    ],
)
def test_the_nearest_sidecar_counts(objects, passes):
    assert allowed(objects) is passes


@pytest.mark.parametrize(
    ("protocol", "resolution", "addresses", "leads_anywhere"),
    [
        ("TCP", "NONE", [], True),
        ("TCP", None, [], True),
        ("TCP", "NONE", ["192.0.2.1"], False),
        ("TCP", "DNS", [], False),
        ("TLS", "NONE", [], False),
    ],
)
def test_bytes_without_a_name_go_anywhere_where_nobody_resolves(
    protocol, resolution, addresses, leads_anywhere
):
    made = entry()
    made["spec"]["ports"][0]["protocol"] = protocol
    made["spec"] |= {"resolution": resolution} if resolution else {}
    if resolution is None:
        del made["spec"]["resolution"]
    made["spec"] |= {"addresses": addresses} if addresses else {}
    assert allowed([sidecar(), made], host="evil.example") is leads_anywhere


def test_a_listener_of_one_port_imports_for_that_port():
    made = sidecar()
    made["spec"]["egress"][0]["port"] = {"number": 443, "name": "tls", "protocol": "TLS"}
    assert allowed([made, entry()])
    assert not allowed([made, entry(port=8443)], port=8443)


def test_ztunnel_holds_nobody_back():
    outside = Workload(name="x", namespace="", service_account="", labels={})
    asked = Request(
        source=workload(), target=outside, port=443, peer=None, wire=Wire.TCP, dns_name="x.example"
    )
    assert Ambient(manifests(sidecar()), trust_domain="mesh.test").evaluate(asked).allowed


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (networking("Sidecar", {"egres": []}), "unknown field"),
        (networking("Sidecar", {"egress": []}), "empty"),
        (networking("Sidecar", {"egress": [{}]}), "hosts are missing"),
        (networking("Sidecar", {"egress": [{"hosts": ["a.example"]}]}), "NAMESPACE/HOST"),
        (networking("Sidecar", {"outboundTrafficPolicy": {"mode": "CLOSED"}}), "mode is not"),
        (networking("Sidecar", {"workloadSelector": {"matchLabels": {}}}), "unknown field"),
        (networking("ServiceEntry", {"ports": []}), "hosts are missing"),
        (networking("ServiceEntry", {"hosts": ["a"], "ports": [{"number": "443"}]}), "number"),
        (networking("ServiceEntry", {"hosts": ["a"], "port": []}), "unknown field"),
        (networking("ServiceEntry", {"hosts": ["a"], "location": "OUTSIDE"}), "location is not"),
        (networking("ServiceEntry", {"hosts": ["a"], "resolution": "dns"}), "resolution is not"),
        (
            networking("ServiceEntry", {"hosts": ["a"], "ports": [{"number": 1, "protocol": "TLS"}]}),
            "has a name",
        ),
        (
            networking(
                "ServiceEntry", {"hosts": ["a"], "ports": [{"number": 1, "name": "a", "protocol": "SSL"}]}
            ),
            "no protocol",
        ),
    ],
)
def test_what_istio_would_reject_is_an_error(wrong, said):
    with pytest.raises(InputError, match=said):
        allowed([wrong])
