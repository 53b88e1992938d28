# SPDX-License-Identifier: Apache-2.0
"""Where pods' templates are."""

import pytest
import yaml

from everyhop.manifests import read_manifests
from everyhop.manifests.pods import CONTROLLERS, inner, template_of, template_path

TEMPLATE = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": []}}


def manifest(kind, document, api_version="v1"):
    whole = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}, **document}
    return read_manifests({"a.yaml": yaml.safe_dump(whole).encode()}).objects[0]


@pytest.mark.parametrize(
    ("kind", "api_version"),
    [("ConfigMap", "v1"), ("Pod", "example.org/v1"), ("Rollout", "argoproj.io/v1alpha1")],
)
def test_what_makes_no_pods_has_no_template(kind, api_version):
    assert template_of(manifest(kind, {"spec": {"template": TEMPLATE}}, api_version)) is None


@pytest.mark.parametrize("document", [{}, {"spec": {}}, {"spec": []}, {"spec": {"template": "x"}}], ids=str)
def test_a_template_that_is_missing_or_no_mapping_is_empty(document):
    assert template_of(manifest("Deployment", document)) == {}


def test_each_kind_has_it_in_its_place():
    for kind in sorted(CONTROLLERS):
        assert template_of(manifest(kind, {"spec": {"template": TEMPLATE}})) == TEMPLATE
    nested = {"spec": {"jobTemplate": {"spec": {"template": TEMPLATE}}}}
    assert template_of(manifest("CronJob", nested)) == TEMPLATE
    assert template_of(manifest("Pod", {"spec": TEMPLATE["spec"]}))["spec"] == TEMPLATE["spec"]
    assert (
        template_of(manifest("Rollout", {"spec": {"template": TEMPLATE}}), frozenset({"Rollout"})) == TEMPLATE
    )
    assert (template_path("Pod"), template_path("Job")) == ((), ("spec", "template"))


def test_what_is_missing_on_the_way_is_empty():
    assert inner({"a": {"b": {"c": 1}}}, "a", "b") == {"c": 1}
    assert inner({"a": []}, "a", "b") == {}
    assert inner(None) == {}
