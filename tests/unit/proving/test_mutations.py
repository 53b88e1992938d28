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
    r"metadata\.(labels|annotations)": "labels and notes of an object decide nothing",
}
TWICE = "what refuses it stands here twice: by the namespace's default, and by the service's own object"
DNS = "which names are looked up, and by UDP, is not asked: requests are connections"
DEFAULT = "it is the default"
EQUIVALENT: dict[str, dict[str, str]] = {
    "networkpolicy": {
        r"protocol: deleted": DEFAULT,
        r"policyTypes: deleted": "the directions that have rules are the default",
        r"deny-default spec\.podSelector: deleted": "none is an empty one",
        r"from\.\d\.namespaceSelector: deleted": "without one the policy's own namespace is meant, which it is",
        r"to\.0\.namespaceSelector: deleted": "without one the policy's own namespace is meant, which it is",
        r"egress\.\d\.ports\.[01](: deleted|\.(protocol|port): )": DNS,
    },
    "clusternetworkpolicy": {
        r"\.name: ": "the name of a rule decides nothing",
        r"udp": DNS,
        r"deny-default spec\.egress\.0(: deleted|\.to)": "the networks beside it hold the addresses of pods too",
        r"networks\.1": "no request has an address of IPv6",
        r"protocols\.0: deleted": DNS,
        r"priority: one more": "the order of two policies that accept different things",
        r"values: with \* added": "a star is no label's value, so nobody more is selected",
        r"namespaceSelector(\.matchLabels)?(\.kubernetes\.io/metadata\.name)?: (emptied|deleted)": "no other namespace has pods with these labels",
    },
    "cilium": {
        r"deny-default": TWICE,
        r"enableDefaultDeny": TWICE,
        r"rules(\.dns|: )": DNS,
        r"calls-intruder spec\.ingress(\.0)?: ": TWICE,
        r"(method|path): a character less": "an expression has to match as a whole, with its end mark or without",
        r"pod\.namespace: deleted": "without one the policy's own namespace is meant, which it is",
        r"protocol: deleted": "without one every protocol is meant, and requests are connections",
        r"serviceaccount: deleted": "the label of the application says the same",
        r"matchLabels\.k8s:app: deleted": "the label of the account says the same",
        r"(ingress|egress|fromEndpoints|toEndpoints): with \{\} added": "an empty rule allows nothing",
        r"endpointSelector": "the only service of its namespace",
    },
    "linkerd": {
        r"(closed|server)-intruder": TWICE,
        r"(proxyProtocol|accessPolicy): deleted": DEFAULT,
        r"parentRefs\.0\.group: deleted": DEFAULT,
        r"route-checkout-outside-\w+ spec\.rules\.0\.matches\.0\.path\.value: deleted": "the default is /, which it is",
        r"Server server-[\w-]+ spec\.podSelector(\.matchLabels(\.app)?)?: (emptied|deleted)": "pods that it would select have a Server of their own there, whose name comes first, or none listens there",
        r"processor-intruder-\w+ spec\.rules\.0\.matches\.0\.path\.value: cut to a prefix": "below /files/ may stand the whole path again",
        r"path\.value: a character less": "an expression has to span the whole path, with its end mark or without",
    },
    "istio": {
        r"^(VirtualService|DestinationRule|Sidecar|ServiceEntry) ": "where calls go, not who may",
        r"PeerAuthentication": "every rule names principals, and plaintext has none",
        r"everyhop-deny-all": "a workload with an ALLOW policy refuses the rest without it",
        r"allow-\w+[\w-]* spec\.(action: deleted)": DEFAULT,
        r"allow-db spec\.selector": "the only service of its namespace",
        r"jwtRules\.0\.(issuer|audiences|jwksUri|fromHeaders|forwardOriginalToken)": "the rules say issuer and audience again; keys, place and forwarding are not asked",
        r"when\.0(: deleted|\.values)": "the RequestAuthentication believes one issuer only",
        r"when\.2(: deleted|\.values)": "the RequestAuthentication lists the audiences too",
    },
    "ambient": {
        r"^(VirtualService|DestinationRule|ServiceEntry|Namespace|Gateway|Service|HTTPRoute) ": "where calls go, not who may",
        r"PeerAuthentication": "every rule names principals, and plaintext has none",
        r"everyhop-deny": TWICE,
        r"action: deleted": DEFAULT,
        r"admit-db spec\.selector": "the only service of its namespace",
    },
}
"""By target: which mutants may live (a pattern of where and how), and why."""

STRIDE = 9
"""``make test`` tries every ninth mutant, the slow run (``make test-all``) all."""


@pytest.fixture(scope="module", params=[name for name in SAMPLES if name in BUILDERS])
def bench(request):
    text, elsewhere = SAMPLES[request.param]
    return Bench({"everyhop.yaml": text.encode()}, request.param, elsewhere)


def test_what_is_compiled_is_the_policy(bench):
    report = bench.prove()
    assert report.verdict is not Verdict.WIDER
    assert report.unannounced == ()


def survivors(bench, stride):
    """Return the mutants that live and are not listed, how many were tried, and which reasons were met."""
    before = bench.baseline()
    reasons = {**EVERYWHERE, **EQUIVALENT.get(bench.target, {})}
    count, living, met = 0, [], set()
    for index, mutant in enumerate(mutants(bench.output)):
        found = next((one for one in reasons if re.search(one, str(mutant))), None)
        if found is not None:
            met.add(found)
        elif index % stride == 0:
            count += 1
            if not (bench.is_noticed(mutant, before) or bench.is_masked(mutant, before)):
                living.append(str(mutant))
    return living, count, met


def test_mutants_are_noticed(bench):
    """Noticed end to end; or, where pods are isolated at both ends, at the end that was broken: the other one still holds."""
    living, count, _ = survivors(bench, STRIDE)
    assert living == []
    assert count > 15


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_every_mutant_is_noticed(bench):
    living, count, met = survivors(bench, 1)
    assert living == []
    assert count > 200
    assert set(EQUIVALENT.get(bench.target, {})) <= met


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_mutants_that_may_live_are_few(bench):
    """A pattern that hides many mutants which would be noticed is too wide to be a reason."""
    before = bench.baseline()
    for pattern, reason in EQUIVALENT.get(bench.target, {}).items():
        hidden = [one for one in mutants(bench.output) if re.search(pattern, str(one))]
        alive = [one for one in hidden if not bench.is_noticed(one, before)]
        assert alive, reason
