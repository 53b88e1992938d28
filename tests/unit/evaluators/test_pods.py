# SPDX-License-Identifier: Apache-2.0
"""What pod templates say: ports, probes, annotations, the host's network."""

import pytest
from tests.support.meshes import manifests, pod

from everyhop.core.errors import InputError
from everyhop.evaluators.networks import read_networks
from everyhop.evaluators.pods import Pods

TEMPLATE = """
metadata: {labels: {app: a}, annotations: {x: "1"}}
spec:
  serviceAccountName: a
  containers:
    - ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]
      readinessProbe: {httpGet: {port: http}}
      startupProbe: {exec: {command: [x]}}
  initContainers:
    - ports: [{name: http, containerPort: 8081}, {name: broken, containerPort: x}]
      livenessProbe: {httpGet: {path: "/live?q", port: 8081}}
"""


def indented(by):
    return TEMPLATE.replace("\n", "\n" + " " * by)


FORMS = {
    "Pod": "apiVersion: v1\nkind: Pod\n"
    + TEMPLATE.replace("metadata: {", "metadata: {name: a, namespace: shop, "),
    "Deployment": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a, namespace: shop}\nspec:\n  template:"
    + indented(4),
    "CronJob": (
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: a, namespace: shop}\nspec:\n  jobTemplate:\n    spec:\n      template:"
        + indented(8)
    ),
}


@pytest.mark.parametrize("kind", FORMS)
def test_a_template_says_ports_probes_and_annotations(kind):
    pods = Pods(manifests(FORMS[kind]))
    workload = pod("a")
    assert pods.numbers(workload, "http", "here") == {8080, 8081}
    assert pods.numbers(workload, "dns", "here") == set()
    assert pods.numbers(workload, "broken", "here") == set()
    assert (pods.probes(workload, 8080), pods.probes(workload, 8081), pods.probes(workload, 1)) == (
        {"/"},
        {"/live"},
        set(),
    )
    assert (pods.annotation(workload, "x"), pods.annotation(workload, "y")) == ("1", None)
    assert not pods.uses_host_network(workload)


def test_a_template_is_of_workloads_with_its_labels_account_and_namespace():
    pods = Pods(manifests(FORMS["Deployment"]))
    assert pods.of(pod("a", labels={"app": "a", "more": "1"}))
    for other in (pod("b"), pod("a", "far"), pod("a", account="thief")):
        assert not pods.of(other)
        with pytest.raises(InputError, match="nothing says which number"):
            pods.numbers(other, "http", "here")


def test_a_template_without_labels_is_of_nobody():
    bare = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a, namespace: shop}\nspec: {template: {spec: {hostNetwork: true}}}\n"
    assert not Pods(manifests(bare)).uses_host_network(pod("a"))


def test_what_is_no_address_is_refused():
    with pytest.raises(InputError, match="no address"):
        assert "ten" in read_networks(["10.0.0.0/8"], "here")[0]
