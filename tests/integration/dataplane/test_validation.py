# SPDX-License-Identifier: Apache-2.0
"""Envoy accepts what is rendered, for many policies; and would refuse a field that it does not know."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from tests.strategies import policies

from everyhop.core.errors import Unavailable
from everyhop.core.secret import Secret
from everyhop.dataplane.envoy import locate_envoy, validate_configuration
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
