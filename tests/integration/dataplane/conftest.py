# SPDX-License-Identifier: Apache-2.0
"""One trust domain of real sidecars for the tests of this shelf."""

import io
import logging

import pytest
from tests.support.envoy_pair import Mesh

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {}
  stranger: {}
  web: {}
  orders:
    operations:
      list: GET /orders
      read: GET /orders/{id}
      create: POST /orders
      admin: GET /admin
      reset: DELETE /admin/{what}
      me: GET /@me
      public: GET /public/{rest...}
      watch: {grpc: shop.v1.Orders/Watch}
      drop: {grpc: shop.v1.Admin/Drop}
      live: {websocket: "/live/{room}"}
      info: GET /live/info
    probes: [GET /healthz]
  ledger: {tcp: 5432}
  vault: {tcp: 8200}
allow:
  - {from: [storefront, web], to: orders, operations: [list, read, create, public, watch, live, info, me]}
  - {from: storefront, to: ledger}
deny:
  - {from: web, to: orders, operations: [create], reason: the web only reads}
"""


@pytest.fixture(scope="module")
def mesh():
    """Sidecars of orders, ledger (callees) and storefront (a caller)."""
    with Mesh(POLICY) as mesh:
        for service in ("orders", "ledger", "storefront"):
            mesh.sidecar(service)
        yield mesh


class Log(logging.Handler):
    """What the data plane logged since a test began."""

    def __init__(self):
        super().__init__()
        self._stream = io.StringIO()

    def emit(self, record):
        self._stream.write(record.getMessage() + "\n")

    @property
    def text(self):
        return self._stream.getvalue()


@pytest.fixture(autouse=True)
def watched_log(request):
    """Give the domain of this shelf a ``log``."""
    handler = Log()
    logger = logging.getLogger("everyhop.dataplane")
    logger.addHandler(handler)
    if "mesh" in request.fixturenames:
        request.getfixturevalue("mesh").log = handler
    yield
    logger.removeHandler(handler)
