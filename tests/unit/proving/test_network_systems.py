# SPDX-License-Identifier: Apache-2.0
"""What compiles to the network is proven as it stands, and a widened line of it is found."""

import pytest

from everyhop.manifests import read_manifests
from everyhop.policy import parse_policy
from everyhop.proving import Verdict, prove_policy
from everyhop.targets import compile_policy

SERVICES = """
version: 1
trust_domain: shop.example
services:
  web: {operations: {home: GET /}}
  pay:
    operations:
      charge: POST /v1/payments
      read: GET /v1/payments/{id}
    probes: [GET /healthz]
  db: {tcp: 5432}
allow:
  - {from: web, to: pay, operations: [charge, read]}
  - {from: pay, to: db}
  - {from: outside, to: web, operations: [home]}
"""
PLACES = """
targets:
  namespace: shop
  gateway: {namespace: edge, service_account: gate}
  probe_networks: [192.0.2.0/24]
"""
CILIUM = (
    SERVICES + PLACES + "  egress: {maps: {host: maps.example, from: [web]}}\n  cilium: {accept: [mtls]}\n"
)
NETWORK = SERVICES + PLACES + "  networkpolicy: {with: [sdk]}\n"


def proof(policy, target, was="", becomes=""):
    snapshot = parse_policy({"everyhop.yaml": policy.encode()})
    manifests = None
    if was:
        (compilation,) = compile_policy(snapshot, [target])
        files = {file.path: file.content.decode() for file in compilation.files}
        assert any(was in text for text in files.values()), was
        manifests = {path: text.replace(was, becomes).encode() for path, text in files.items()}
        assert len(read_manifests(manifests)) > 0
    return prove_policy(snapshot, [target], manifests=manifests).targets[target]


def test_cilium_is_equal_with_probes_and_hosts_outside():
    report = proof(CILIUM, "cilium")
    assert report.wider == ()
    assert report.unannounced == ()
    assert report.verdict is Verdict.EQUAL


WIDENED = {
    "a port without its HTTP rules": (
        ('          rules:\n            http:\n              # pay.probes[0]: probe at everyhop.yaml:10\n'
        '              - method: "^GET$"\n                path: "^/healthz(?:\\\\?[!-~]*)?$"\n'),
        "",
    ),
    "any method": ('method: "^POST$"', 'method: ""'),
    "a prefix": ("/v1/payments(?:", "/v1/payments.*(?:"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(WIDENED))
def test_a_widened_line_of_cilium_is_found(name):
    report = proof(CILIUM, "cilium", *WIDENED[name])
    assert report.verdict is Verdict.WIDER, name


def test_the_network_beside_the_sdk_is_equal():
    report = proof(NETWORK, "networkpolicy")
    assert report.verdict is Verdict.EQUAL
