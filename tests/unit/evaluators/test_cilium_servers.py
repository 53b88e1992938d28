# SPDX-License-Identifier: Apache-2.0
"""Cilium's ``serverNames``: TLS that leaves a pod has to ask for one of them."""

import pytest
from tests.support.meshes import manifests, outside, pod, tcp

from everyhop.core.errors import InputError
from everyhop.evaluators.cilium import CiliumEvaluator

A = pod("a")
SAME = {"api.example": ["198.51.100.7"], "evil.example": ["198.51.100.7"]}


def asks(name, ports, **settings):
    head = (
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: shop}\n"
        "spec:\n  endpointSelector: {matchLabels: {app: a}}\n  egress:\n"
        "    - {toFQDNs: [{matchName: api.example}], toPorts: [PORTS]}\n"
        "    - {toEntities: [cluster], toPorts: [{ports: [{port: '53'}], rules: {dns: [{matchPattern: '*'}]}}]}\n"
    )
    evaluator = CiliumEvaluator(manifests(head.replace("PORTS", ports)), **settings)
    return evaluator.evaluate(tcp(A, outside("198.51.100.7", name), 443, dns_name=name)).allowed


@pytest.mark.parametrize(
    ("ports", "message"),
    [
        ("{ports: [{port: '443'}], serverNames: []}", "one at least"),
        ("{ports: [{port: '443'}], serverNames: ['']}", "exact names"),
        ("{ports: [{port: '443'}], serverNames: ['*.example']}", "exact names"),
        ("{ports: [{port: '443', protocol: TCP}], serverNames: [a], rules: {http: [{}]}}", "without rules"),
    ],
)
def test_what_is_not_read_is_refused(ports, message):
    with pytest.raises(InputError, match=message):
        asks("api.example", ports)


def test_another_name_at_the_same_address_is_refused():
    ports = "{ports: [{port: '443'}]}"
    assert asks("evil.example", ports, addresses=SAME)
    assert not asks("evil.example", ports.replace("}]}", "}], serverNames: [api.example]}"), addresses=SAME)


def test_the_name_itself_passes():
    assert asks("api.example", "{ports: [{port: '443'}], serverNames: [API.example]}")
    assert not asks("api.example", "{ports: [{port: '443'}], serverNames: [other.example]}")
