# SPDX-License-Identifier: Apache-2.0
"""The schemas refuse what an API server would; a checker that lets everything pass would prove nothing."""

import copy

import pytest
from tests.support.crds import Definitions, objects_of

POLICY = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "a", "namespace": "shop"},
    "spec": {
        "action": "ALLOW",
        "selector": {"matchLabels": {"app": "a"}},
        "rules": [{"to": [{"operation": {"ports": ["8080"]}}]}],
    },
}


@pytest.fixture(scope="module")
def definitions(shared_material):
    return Definitions(shared_material / "schemas", "istio", "cilium", "cert-manager", "linkerd")


def _changed(path, value):
    document = copy.deepcopy(POLICY)
    *way, last = path
    held = document
    for step in way:
        held = held[step]
    held[last] = value
    return document


@pytest.mark.parametrize(
    "document",
    [
        _changed(["spec", "action"], "Allow"),
        _changed(["spec", "rule"], []),
        _changed(["spec", "rules", 0, "to", 0, "operation", "port"], ["8080"]),
        _changed(["spec", "rules", 0, "to", 0, "operation", "ports"], [8080]),
        _changed(["spec", "rules"], {}),
        _changed(["status2"], {}),
        _changed(["metadata", "name"], "Not_A_Name"),
        _changed(["metadata", "labels"], {"a b": "c"}),
        _changed(["metadata", "annotations"], {"a": 1}),
        _changed(["apiVersion"], "security.istio.io/v3"),
        _changed(["kind"], "AuthorizationPolicies"),
    ],
    ids=[
        "enum", "unknown", "deep-unknown", "type", "shape", "root", "name", "label", "annotation", "version", "kind",
    ],
)  # fmt: skip
def test_a_bad_object_is_refused(definitions, document):
    assert definitions.problem(document)


def test_a_good_object_passes(definitions):
    assert definitions.problem(POLICY) is None
    assert definitions.problem(_changed(["spec"], {})) is None


def test_catalogues_and_other_meshes_are_known(definitions):
    for version, kind in [
        ("cilium.io/v2", "CiliumNetworkPolicy"),
        ("cert-manager.io/v1", "Certificate"),
        ("policy.linkerd.io/v1beta3", "Server"),
    ]:
        assert definitions.knows({"apiVersion": version, "kind": kind})


def test_objects_are_read_by_another_reader():
    assert list(objects_of([b"# c\n---\na: 1\n---\nb: n\n", b""])) == [{"a": 1}, {"b": "n"}]
