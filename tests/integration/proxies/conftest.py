# SPDX-License-Identifier: Apache-2.0
"""One CA, one application, one authorizer of each kind, and the proxies of docs/guides/proxies.md before it."""

import os

import pytest
from tests.support.envoy_pair import Mesh
from tests.support.foreign_proxies import NGINX, Authorizer, foreign_envoy, foreign_nginx

from everyhop.control.asking import AskingProxy, CallerFrom

POLICY = """\
version: 1
trust_domain: shop.example
attributes:
  request: {headers: [x-region]}
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
      public: GET /public/{rest...}
      region: GET /region
      local: GET /local
      pay: {route: POST /pay, token: required}
      live: {websocket: "/live/{room}"}
    probes: [GET /healthz]
  payments:
    operations: {list: GET /orders}
allow:
  - {from: [storefront, web], to: orders, operations: [list, read, create, public, live, pay]}
  - {from: storefront, to: orders, operations: [local], when: "in_cidr(request.source_ip, '127.0.0.0/8')"}
  - {from: storefront, to: orders, operations: [region], when: "request.headers['x-region'] == 'eu'"}
deny:
  - {from: web, to: orders, operations: [create], reason: the web only reads}
"""
FORMS = ("envoy", "envoy-http", "nginx")


def start_proxy(mesh, form, authorizer, by_xfcc, **options):
    if form == "nginx":
        return foreign_nginx(mesh, authorizer, **options)
    return foreign_envoy(mesh, by_xfcc if form == "envoy-http" else authorizer, form=form, **options)


class Asked:
    """A proxy with the authorizer that it asks."""

    def __init__(self, form, proxy, authorizer):
        self.form, self.proxy, self.authorizer = form, proxy, authorizer


@pytest.fixture(scope="module")
def mesh(request):
    """A CA with the application of orders, under the module's POLICY or the one above."""
    with Mesh(getattr(request.module, "POLICY", POLICY)) as mesh:
        mesh.app("orders")
        yield mesh


@pytest.fixture(scope="module")
def authorizer(mesh):
    with Authorizer(mesh) as started:
        yield started


@pytest.fixture(scope="module")
def by_xfcc(mesh):
    proxy = AskingProxy(uid=os.getuid(), services=("orders",), caller=CallerFrom.XFCC)
    with Authorizer(mesh, proxy, name="xfcc") as started:
        yield started


@pytest.fixture(scope="module", params=FORMS)
def asked(request, mesh, authorizer, by_xfcc):
    """Each proxy in turn."""
    form = request.param
    if form == "nginx" and NGINX is None:
        pytest.skip("no nginx on this machine (`make peers` installs it)")
    with start_proxy(mesh, form, authorizer, by_xfcc) as proxy:
        yield Asked(form, proxy, by_xfcc if form == "envoy-http" else authorizer)
