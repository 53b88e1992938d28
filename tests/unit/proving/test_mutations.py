# SPDX-License-Identifier: Apache-2.0
"""Every leaf of what is compiled is broken in every small way, and the proof has to notice it or the system to reject it.

A mutant that may live is listed below with its reason; one that is listed and dies is a mistake of the list.
"""

import re

import pytest
from tests.support.mutations import mutants
from tests.support.proofs import Bench

from everyhop.proving.model import Verdict
from everyhop.proving.systems import BUILDERS

SERVICES = """
version: 1
trust_domain: shop.example
services:
  checkout: {operations: {list: GET /}}
  intruder: {operations: {x: GET /x}}
  payment-processor:
    operations:
      charge: POST /v1/payments
      read: GET /v1/payments/{id}
      files: GET /files/{path...}
    probes: [GET /healthz]
  db: {tcp: 5432}
allow:
  - {from: checkout, to: payment-processor, operations: [charge, read]}
  - {from: intruder, to: payment-processor, operations: [files]}
  - {from: payment-processor, to: db}
  - {from: outside, to: checkout, operations: [list]}
targets:
  namespace: shop
  gateway: {namespace: edge, service_account: gateway}
  services:
    db: {namespace: data}
"""
TOKENS = (
    SERVICES.replace("POST /v1/payments", "{route: POST /v1/payments, token: operation}")
    .replace("GET /v1/payments/{id}", "{route: 'GET /v1/payments/{id}', token: required}")
    .replace(
        "targets:\n",
        "targets:\n  tokens: {issuer: 'https://issuer.shop.example', jwks_uri: 'https://issuer.shop.example/jwks'}\n",
    )
)
SAMPLES = {
    "networkpolicy": (SERVICES, ("sdk",)),
    "clusternetworkpolicy": (SERVICES, ("sdk",)),
    "cilium": (SERVICES, ("sdk",)),
    "linkerd": (SERVICES, ()),
    "istio": (TOKENS, ("sdk",)),
    "ambient": (TOKENS, ("sdk",)),
    "opa": (SERVICES, ("sdk",)),
}

EVERYWHERE = {
    r"metadata\.labels|metadata\.annotations": "labels and notes of an object decide nothing",
}
EQUIVALENT: dict[str, dict[str, str]] = {}
"""By target: which mutants may live (a pattern of where and how), and why."""


@pytest.fixture(scope="module", params=[name for name in SAMPLES if name in BUILDERS])
def bench(request):
    text, elsewhere = SAMPLES[request.param]
    return Bench({"everyhop.yaml": text.encode()}, request.param, elsewhere)


def test_what_is_compiled_is_the_policy(bench):
    report = bench.prove()
    assert report.verdict is not Verdict.WIDER
    assert report.unannounced == ()


def test_every_mutant_is_noticed(bench):
    """Noticed end to end; or, where pods are isolated at both ends, at the end that was broken: the other one still holds."""
    before = bench.baseline()
    reasons = {**EVERYWHERE, **EQUIVALENT.get(bench.target, {})}
    count, living, used = 0, [], set()
    for mutant in mutants(bench.output):
        found = next((one for one in reasons if re.search(one, str(mutant))), None)
        if found is not None:
            used.add(found)
            continue
        count += 1
        if not (bench.is_noticed(mutant, before) or bench.is_masked(mutant, before)):
            living.append(str(mutant))
    assert living == []
    assert count > 40
    assert set(EQUIVALENT.get(bench.target, {})) <= used


def test_what_is_listed_as_equivalent_is(bench):
    """The list may not hide a mutant that is noticed: then its reason is wrong."""
    before = bench.baseline()
    for pattern, reason in EQUIVALENT.get(bench.target, {}).items():
        hidden = [one for one in mutants(bench.output) if re.search(pattern, str(one))]
        dead = [str(one) for one in hidden if bench.is_noticed(one, before)]
        assert dead == [], reason
