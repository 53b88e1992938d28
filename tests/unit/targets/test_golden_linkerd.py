# SPDX-License-Identifier: Apache-2.0
"""Two small policies as they come out for Linkerd, OPA and AWS, read by eye."""

import pytest
from tests.support.golden import assert_golden

from everyhop.policy import parse_policy
from everyhop.targets.compiling import compile_policy

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
  opa: {accept: [mtls]}
tests:
  - {from: checkout, to: payment-processor, call: POST /v1/payments, expect: allow}
  - {from: payment-processor, to: payment-processor, call: POST /v1/payments, expect: deny}
"""
SHOP = """
version: 1
trust_domain: shop.example
attributes: {user: {level: int}}
users:
  issuers: [{issuer: "https://id.shop.example", audience: shop, roles: groups}]
roles:
  clerk: [web.home, web.mine]
services:
  web:
    operations:
      home: GET /
      mine: GET /orders/{id}
  orders:
    operations:
      top: GET /orders/top
      read: GET /orders/{id}
      files: GET /files/{path...}
    probes: [GET /healthz]
  db: {tcp: 5432}
allow:
  - {from: outside, to: web, operations: [home, mine], user: required}
  - {from: web, to: orders, operations: [read, files]}
  - {from: db, to: orders, operations: [top], user: required, when: "user.level >= 2"}
  - {from: orders, to: db}
targets:
  namespace: shop
  services: {db: {namespace: data}, orders: {timeout: 5s, retries: 2}}
  gateway: {namespace: edge, service_account: gate, hosts: [shop.example]}
  probe_networks: [192.168.0.0/16]
  egress: {maps: {host: maps.example, from: [db]}}
  linkerd: {with: [sdk]}
  opa: {accept: [mtls]}
  aws: {with: [sdk], application_domain: apps.example}
"""
BESIDE = {"opa": ["linkerd"]}  # who holds the egress
CASES = [("payment", "linkerd"), ("payment", "opa"), ("shop", "linkerd"), ("shop", "opa"), ("shop", "aws")]


@pytest.mark.parametrize(("name", "target"), CASES)
def test_what_somebody_has_read(name, target):
    policy = {"payment": PAYMENT, "shop": SHOP}[name]
    (found,) = compile_policy(
        parse_policy({"everyhop.yaml": policy.encode()}), [target], beside=BESIDE.get(target, ())
    )
    assert [one.code for one in found.diagnostics if one.is_error] == []
    assert_golden(f"{target}/{name}", {file.path: file.content for file in found.files})
