# SPDX-License-Identifier: Apache-2.0
"""The ``targets`` part of the policy: refused first, then read, canonical and described."""

import json

import jsonschema
import pytest
import yaml

from everyhop.core.errors import PolicyError
from everyhop.policy import decode_snapshot, encode_snapshot, parse_policy
from everyhop.policy.schema import json_schema
from everyhop.policy.targets import OPTIONS

BASE = """
version: 1
trust_domain: shop.example
services:
  checkout: {operations: {list: GET /}}
  payment-processor: {operations: {pay: POST /v1/payments}}
allow:
  - {from: checkout, to: payment-processor, operations: [pay]}
"""

WHOLE = """
targets:
  trust_domain: cluster.local
  cluster_domain: k8s.example
  namespace: shop
  tokens: {issuer: "https://issuer.shop.example", jwks_uri: "https://issuer.shop.example/jwks"}
  probe_networks: [10.0.0.0/8]
  gateway: {namespace: edge, service_account: gateway, hosts: [shop.example]}
  services:
    checkout: {service_account: shop-checkout, labels: {app: checkout, tier: web}, port: 9000, timeout: 15s, retries: 2}
    payment-processor: {namespace: pay, labels: {app: pay}, host: "10.0.0.5:8080", image: "registry.example/pay:1"}
  egress:
    stripe: {host: api.stripe.com, from: [payment-processor]}
  ambient: {waypoint: waypoint, with: [sdk]}
  spire: {ttl: 30m}
"""


def parsed(text):
    return parse_policy({"everyhop.yaml": (BASE + text).encode()})


def problems(text):
    with pytest.raises(PolicyError) as caught:
        parsed(text)
    return [(p.code, p.message) for p in caught.value.problems]


@pytest.mark.parametrize(
    ("chapter", "code", "said"),
    [
        ("targets: {istoi: {}}", "unknown-key", "istoi"),
        ("targets: {istio: {root_namespaces: x}}", "unknown-key", "root_namespaces"),
        ("targets: {istio: {root_namespace: 'a b'}}", "value", "DNS label"),
        ("targets: {istio: {with: [sdkk]}}", "value", "unknown name 'sdkk'"),
        ("targets: {istio: {accept: [token]}}", "value", "unknown name 'token'"),
        ("targets: {namespace: Shop}", "value", "DNS label"),
        ("targets: {services: {chekout: {}}}", "unknown-service", "chekout"),
        ("targets: {services: {checkout: {port: 0}}}", "value", "not between"),
        ("targets: {services: {checkout: {port: 65536}}}", "value", "not between"),
        ("targets: {services: {checkout: {host: nowhere}}}", "value", "HOST:PORT"),
        ("targets: {services: {checkout: {labels: {}}}}", "type", "labels"),
        ("targets: {services: {checkout: {labels: {'a b': c}}}}", "value", "label's key"),
        ("targets: {services: {checkout: {timeout: 0s}}}", "value", "between"),
        (
            "targets: {gateway: {namespace: default, service_account: checkout}}",
            "same-account",
            "targets: gateway: 'checkout' has the same",
        ),
        (
            "targets: {services: {checkout: {service_account: payment-processor}}}",
            "same-account",
            "service account",
        ),
        ("targets: {services: {checkout: {labels: {app: payment-processor}}}}", "same-labels", "labels"),
        (
            "targets: {services: {checkout: {labels: {app: payment-processor, tier: web}}}}",
            "same-labels",
            "select the pods of 'checkout'",
        ),
        ("targets: {probe_networks: [10.0.0.1/8]}", "value", "not a network"),
        ("targets: {gateway: {namespace: a}}", "missing-key", "service_account"),
        ("targets: {tokens: {issuer: 'http://x', jwks_uri: 'https://x'}}", "value", "https"),
        ("targets: {egress: {stripe: {host: '*.stripe.com', from: [checkout]}}}", "value", "DNS name"),
        ("targets: {egress: {stripe: {host: api.stripe.com, from: [nobody]}}}", "unknown-service", "nobody"),
        ("targets: {cert-manager: {issuer_kind: Isuer}}", "value", "Isuer"),
        ("targets: {envoy: {certificates: svid}}", "value", "absolute path"),
    ],
)
def test_a_mistake_is_named(chapter, code, said):
    found = problems(chapter)
    assert any(one == code and said in message for one, message in found), found


def test_two_files_cannot_both_have_the_chapter():
    with pytest.raises(PolicyError, match="two files"):
        parse_policy(
            {
                "a.yaml": (BASE + "targets: {namespace: a}").encode(),
                "b.yaml": b"version: 1\ntargets: {namespace: b}\n",
            }
        )


def test_without_the_chapter_each_service_has_its_default_place():
    targets = parsed("").targets
    place = targets.place("checkout")
    assert (place.namespace, place.service_account, dict(place.labels), place.port) == (
        "default", "checkout", {"app": "checkout"}, 8080,
    )  # fmt: skip
    assert targets.option("istio", "root_namespace") == "istio-system"
    assert b"targets" not in parsed("").canonical


def test_the_chapter_is_read():
    targets = parsed(WHOLE).targets
    checkout, pay = targets.place("checkout"), targets.place("payment-processor")
    assert (checkout.namespace, checkout.service_account, checkout.port, checkout.timeout, checkout.retries) == (
        "shop", "shop-checkout", 9000, 15, 2,
    )  # fmt: skip
    assert (pay.namespace, dict(pay.labels), pay.host) == ("pay", {"app": "pay"}, "10.0.0.5:8080")
    assert (targets.egress[0].host, targets.egress[0].port, targets.egress[0].callers) == (
        "api.stripe.com", 443, ("payment-processor",),
    )  # fmt: skip
    assert targets.option("ambient", "with") == ("sdk",)
    assert targets.option("spire", "ttl") == 1800
    assert targets.gateway.hosts == ("shop.example",)


def test_the_canonical_form_says_the_same():
    snapshot = parsed(WHOLE)
    assert decode_snapshot(encode_snapshot(snapshot)) == snapshot
    assert parse_policy({"canonical.yaml": snapshot.canonical}).targets == snapshot.targets


def test_another_place_is_another_snapshot():
    assert parsed("targets: {namespace: a}").hash != parsed("targets: {namespace: b}").hash


def test_a_written_default_is_no_difference():
    assert (
        parsed("targets: {namespace: default, istio: {root_namespace: istio-system}}").canonical
        == parsed("").canonical
    )


def test_the_schema_knows_the_chapter():
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.validate(yaml.safe_load(BASE + WHOLE))
    for chapter in (
        "targets: {istoi: {}}",
        "targets: {istio: {root: x}}",
        "targets: {services: {checkout: {port: 0}}}",
    ):
        assert list(validator.iter_errors(yaml.safe_load(BASE + chapter))), chapter


def test_every_option_has_a_help_text_and_a_default_of_its_kind():
    for target, options in OPTIONS.items():
        for name, option in options.items():
            assert option.help, (target, name)
            json.dumps(option.default)
