# SPDX-License-Identifier: Apache-2.0
"""A policy with every kind of door, and the sidecar of a service."""

from pathlib import Path

import pytest

from everyhop.core.secret import Secret
from everyhop.dataplane.model import AppSocket, Sidecar
from everyhop.policy import parse_policy

POLICY = b"""\
version: 1
trust_domain: shop.example
services:
  storefront: {}
  orders:
    operations:
      list: GET /orders
      read: GET /orders/{id}
      items: GET /orders/{id}/items/{n}
      create: POST /orders
      files: GET /files/{rest...}
      me: GET /@me
      watch: {grpc: shop.v1.Orders/Watch}
      live: {websocket: "/live/{room}"}
      info: GET /live/info
    probes: [GET /healthz]
  idle: {operations: {whatever: "GET /{rest...}"}}
  ledger: {tcp: 5432}
allow:
  - {from: storefront, to: orders, operations: all}
  - {from: storefront, to: ledger}
deny:
  - {from: ledger, to: orders, operations: [list], reason: no}
"""


@pytest.fixture(scope="session")
def snapshot():
    return parse_policy({"policy.yaml": POLICY})


@pytest.fixture
def make_sidecar():
    def make(service="orders", root=Path("/state"), **changed):
        values = {
            "instance": "0123456789",
            "service": service,
            "node": "node-1",
            "directory": root / "envoy" / "0123456789",
            "ingress": ("127.0.0.1", 21001),
            "egress_port": 21002,
            "egress_socket": root / "run" / "egress.sock",
            "egress_secret": Secret(b"the secret of this launch"),
            "app": AppSocket(root / "run" / "app.sock"),
            "sds_socket": root / "run" / "sds.sock",
            "access_log": root / "spool" / "access.log",
            "admin_socket": root / "run" / "admin.sock",
            "uid": 1000,
        }
        return Sidecar(**{**values, **changed})

    return make
