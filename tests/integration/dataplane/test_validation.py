# SPDX-License-Identifier: Apache-2.0
"""Envoy accepts what is rendered, for many policies; and would refuse a field that it does not know."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from tests.conditioned import conditioned_documents
from tests.strategies import policies, to_files

from everyhop.core.errors import Unavailable
from everyhop.core.secret import Secret
from everyhop.dataplane.envoy import locate_envoy, validate_configuration
from everyhop.dataplane.lanes import Carried
from everyhop.dataplane.model import AppPort, AppSocket, Sidecar
from everyhop.dataplane.render import render_sidecar
from everyhop.dataplane.validation import validation_bootstrap
from everyhop.policy import parse_policy

ROOT = Path("/nowhere")


def sidecar(service, app):
    return Sidecar(
        instance="i",
        service=service,
        node="n",
        directory=ROOT / "envoy",
        ingress=("127.0.0.1", 21001),
        egress_port=21002,
        egress_socket=ROOT / "egress.sock",
        egress_secret=Secret(b"s"),
        app=app,
        sds_socket=ROOT / "sds.sock",
        access_log=ROOT / "access.log",
        admin_socket=ROOT / "admin.sock",
        uid=0,
    )


@settings(
    max_examples=15,
    phases=[Phase.generate],
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_generated_policies(tmp_path, data):
    snapshot = data.draw(policies())
    service = data.draw(st.sampled_from(sorted(snapshot.services)))
    app = data.draw(st.sampled_from((None, AppPort(8000), AppSocket(ROOT / "app.sock"))))
    endpoints = dict.fromkeys(snapshot.services, (("127.0.0.1", 1), ("::1", 2)))
    bootstrap = tmp_path / "bootstrap.json"
    bootstrap.write_bytes(validation_bootstrap(render_sidecar(snapshot, sidecar(service, app), endpoints)))
    validate_configuration(locate_envoy(), bootstrap)


@settings(
    max_examples=8,
    phases=[Phase.generate],
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(document=conditioned_documents(agent=False))
def test_generated_policies_with_conditions(tmp_path, document):
    """Envoy reads the expressions as JSON here, and as our own bytes when it runs."""
    snapshot = parse_policy(to_files(document))
    service = max(snapshot.services, key=lambda name: len(snapshot.services[name].operations))
    bootstrap = tmp_path / "bootstrap.json"
    edged = replace(sidecar(service, None), edge=("127.0.0.1", 21009))
    bootstrap.write_bytes(validation_bootstrap(render_sidecar(snapshot, edged, {})))
    validate_configuration(locate_envoy(), bootstrap)


TOKENS = b"""\
version: 1
trust_domain: shop.example
services:
  storefront: {operations: {mine: GET /mine}}
  orders:
    operations:
      list: GET /orders
      read: {route: "GET /orders/{id}", token: required}
      admin: {route: GET /admin, token: operation}
      pay: {route: POST /pay, token: required, once: true}
allow:
  - {from: storefront, to: orders, operations: all}
  - {from: outside, to: storefront, operations: all}
"""


@pytest.mark.parametrize("held", [(), (("orders", None),), (("orders", None), ("orders", "admin"))])
@pytest.mark.parametrize("service", ["storefront", "orders"])
def test_tokens_and_an_edge(tmp_path, service, held):
    snapshot = parse_policy({"p.yaml": TOKENS})
    carried = Carried(generation="a" * 12, tokens=frozenset(held)) if service == "storefront" else None
    edged = replace(sidecar(service, AppPort(8000)), edge=("127.0.0.1", 21009))
    bootstrap = tmp_path / "bootstrap.json"
    files = render_sidecar(snapshot, edged, {}, epoch="7", carried=carried)
    bootstrap.write_bytes(validation_bootstrap(files))
    validate_configuration(locate_envoy(), bootstrap)


def test_a_field_that_envoy_does_not_know(tmp_path):
    snapshot = parse_policy(
        {"p.yaml": b"{version: 1, trust_domain: a.example, services: {a: {operations: {x: GET /}}}}"}
    )
    files = render_sidecar(snapshot, sidecar("a", None), {})
    files["ecds/authz.json"] = files["ecds/authz.json"].replace(b'"matcher":', b'"matcherx":', 1)
    bootstrap = tmp_path / "bootstrap.json"
    bootstrap.write_bytes(validation_bootstrap(files))
    with pytest.raises(Unavailable, match="matcherx"):
        validate_configuration(locate_envoy(), bootstrap)
