# SPDX-License-Identifier: Apache-2.0
"""Two policies for golden outputs: the classic one, and one with every feature that a mesh can hold or ask for."""

PAYMENT = """
services:
  checkout: {operations: {buy: POST /buy}}
  payment-processor: {operations: {charge: POST /v1/payments}, probes: [GET /healthz]}
allow:
  - {from: checkout, to: payment-processor, operations: [charge]}
targets: {namespace: payments}
"""

SHOP = """
attributes: {user: {level: int}}
services:
  checkout: {operations: {buy: POST /buy}}
  orders:
    operations:
      list: GET /orders
      read: GET /orders/{id}
      export: GET /orders/export
      files: GET /files/{path...}
      watch: {grpc: shop.v1.Orders/Watch}
      live: {websocket: /live}
    probes: [GET /healthz]
  payments:
    operations:
      charge: {route: POST /v1/payments, token: operation, once: true}
      refund: {route: POST /v1/refunds, token: required}
      big: POST /v1/big
  db: {tcp: 5432}
  honeypot: {canary: true}
allow:
  - {from: checkout, to: orders, operations: [list, read]}
  - {from: any, to: orders, operations: [files]}
  - {from: payments, to: orders, operations: [export, watch, live]}
  - {from: checkout, to: payments, operations: [charge, refund]}
  - {from: orders, to: payments, operations: [big], user: required, when: user.level > 2}
  - {from: outside, to: orders, operations: [list]}
  - {from: orders, to: db}
deny:
  - {from: db, to: orders, operations: [files], reason: a database asks for no files}
targets:
  namespace: shop
  gateway: {namespace: edge, service_account: gw}
  tokens: {issuer: "https://id.shop.example", jwks_uri: "https://id.shop.example/keys"}
  services:
    payments: {namespace: pay, timeout: 5s, retries: 2}
  egress:
    bank: {host: api.bank.example, from: [payments]}
  istio: {authorizer: everyhop, authorizer_host: authorizer.everyhop.svc.cluster.local, trust_domain_aliases: [old.example]}
  ambient: {authorizer: everyhop, trust_domain_aliases: [old.example], waypoint: waypoint}
"""
POLICIES = {"payment": PAYMENT, "shop": SHOP}
