# SPDX-License-Identifier: Apache-2.0
"""Two small policies as they come out for Kubernetes and Cilium, read by eye."""

import pytest
from tests.support.golden import assert_golden
from tests.support.kube import codes, compiled

PAYMENT = """
version: 1
trust_domain: shop.example
services:
  checkout: {}
  payment-processor:
    operations:
      charge: POST /v1/payments
allow:
  - {from: checkout, to: payment-processor, operations: [charge]}
targets:
  namespace: payments
  cilium: {accept: [mtls]}
  networkpolicy: {with: [istio]}
  clusternetworkpolicy: {with: [istio]}
"""
SHOP = """
version: 1
trust_domain: shop.example
services:
  web: {operations: {home: GET /}}
  orders:
    operations:
      read: GET /orders/{id}
      files: GET /files/{path...}
    probes: [GET /healthz]
  db: {tcp: 5432}
allow:
  - {from: outside, to: web, operations: [home]}
  - {from: web, to: orders, operations: [read, files]}
  - {from: orders, to: db}
targets:
  namespace: shop
  services: {db: {namespace: data}}
  gateway: {namespace: edge, service_account: gate, hosts: [shop.example]}
  tokens: {issuer: "https://id.shop.example", jwks_uri: "https://id.shop.example/jwks"}
  egress: {maps: {host: maps.example, from: [web]}}
  cilium: {accept: [mtls]}
  networkpolicy: {with: [istio, authorizer]}
  clusternetworkpolicy: {with: [istio, authorizer]}
  gateway-api: {gateway: main, gateway_namespace: edge}
"""
POLICIES = {"payment": PAYMENT, "shop": SHOP}


@pytest.mark.parametrize("target", ["cilium", "networkpolicy", "clusternetworkpolicy"])
@pytest.mark.parametrize("name", sorted(POLICIES))
def test_what_somebody_has_read(name, target):
    found = compiled(POLICIES[name], target)
    assert codes(found, errors=True) == []
    assert_golden(f"{target}/{name}", {file.path: file.content for file in found.files})


@pytest.mark.parametrize("target", ["gateway-api", "rbac", "serviceaccounts"])
def test_what_somebody_has_read_of_a_shop(target):
    found = compiled(SHOP, target)
    assert codes(found, errors=True) == []
    assert_golden(f"{target}/shop", {file.path: file.content for file in found.files})
