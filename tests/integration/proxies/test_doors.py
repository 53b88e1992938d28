# SPDX-License-Identifier: Apache-2.0
"""Who may ask: the guide's door on TCP for named gateways only, and users of this machine by the kernel's word."""

import os
import ssl
import stat
import subprocess
import sys

import pytest
from tests.integration.proxies.conftest import start_proxy
from tests.support.envoy_pair import exchange, request_bytes
from tests.support.foreign_proxies import Authorizer, door, foreign_envoy, write_svid
from tests.support.http2_client import Http2Client

from everyhop.control.asking import AskingProxy

WWW_DATA = 33
ASK = """
import os, socket, sys
os.setgid(33); os.setuid(33)
with socket.socket(socket.AF_UNIX) as sock:
    sock.settimeout(10)
    sock.connect(sys.argv[1])
    try:
        sock.sendall(b"GET /nginx HTTP/1.1\\r\\nHost: x\\r\\nX-Original-Method: GET\\r\\nX-Original-URI: /orders\\r\\n\\r\\n")
        print(sock.recv(4096).decode()[:12])
    except ConnectionError:
        print("closed")
"""


@pytest.fixture(scope="module")
def gate(mesh, authorizer):
    with door(mesh, authorizer) as started:
        yield started


def as_gateway(service):
    """Have the guide's Envoy ask at the door, over TLS, with the SVID of a service."""

    def change(mesh, gate):
        def edit(config):
            directory = write_svid(mesh, service, mesh.root / f"asks-{service}")
            (cluster,) = [c for c in config["static_resources"]["clusters"] if c["name"] == "authorizer"]
            endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
            endpoint["address"] = {"socket_address": {"address": "127.0.0.1", "port_value": gate.port}}
            tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
            cluster["transport_socket"] = {
                "name": "tls",
                "typed_config": {
                    "@type": tls,
                    "common_tls_context": {
                        "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                        "alpn_protocols": ["h2"],
                        "tls_certificates": [
                            {
                                "certificate_chain": {"filename": str(directory / "svid.pem")},
                                "private_key": {"filename": str(directory / "key.pem")},
                            }
                        ],
                        "validation_context": {"trusted_ca": {"filename": str(directory / "bundle.pem")}},
                    },
                },
            }

        return edit

    return change


def ask(mesh, proxy):
    with proxy.connect(mesh.client("storefront")) as connection:
        return exchange(connection, request_bytes("GET", "/orders"))


@pytest.mark.parametrize("service", ["storefront", "gateway-evil", "orders"])
def test_who_is_no_named_gateway_is_not_let_in(mesh, authorizer, gate, service):
    before = len(authorizer.records())
    with foreign_envoy(mesh, authorizer, change=as_gateway(service)(mesh, gate)) as proxy:
        assert ask(mesh, proxy)[0] == 503
    assert len(authorizer.records()) == before


def test_without_a_certificate_the_door_is_shut(mesh, gate):
    with pytest.raises((ssl.SSLError, OSError)), gate.connect(mesh.context(None, None, alpn=("h2",))) as raw:
        raw.recv(1)


def test_only_the_check_is_behind_the_door(mesh, gate):
    client = Http2Client(gate.connect(mesh.client("gateway", alpn=("h2",))))
    status, *_ = client.request("GET", "/nginx/orders")
    client.close()
    assert status == 404


def test_a_named_gateway_asks(mesh, authorizer, gate):
    with foreign_envoy(mesh, authorizer, change=as_gateway("gateway")(mesh, gate)) as proxy:
        status, headers, _ = ask(mesh, proxy)
    assert status == 200
    assert authorizer.record(headers["x-seen-decision"]).decision == "allow"


def _ask_as_www_data(path):
    return subprocess.run(
        [sys.executable, "-c", ASK, str(path)], capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()


@pytest.mark.root
def test_another_user_is_answered_only_when_named(mesh):
    if os.getuid() != 0:
        pytest.skip("needs to be root")
    mesh.root.chmod(0o711)
    with Authorizer(mesh, name="root-only") as own:
        assert _ask_as_www_data(own.http) in {"closed", ""}
        assert own.records() == []
    named = AskingProxy(uid=WWW_DATA, services=("orders",))
    with Authorizer(mesh, named, name="www-data") as shared:
        assert _ask_as_www_data(shared.http) == "HTTP/1.1 403"
        (record,) = shared.records()
        assert record.detail["uid"] == WWW_DATA


@pytest.mark.root
def test_nginx_whose_workers_are_another_user(mesh):
    if os.getuid() != 0:
        pytest.skip("needs to be root")
    mesh.root.chmod(0o711)
    app = mesh.root / "orders.app"
    app.chmod(stat.S_IMODE(app.stat().st_mode) | 0o666)
    named = AskingProxy(uid=WWW_DATA, services=("orders",))
    with Authorizer(mesh, named, name="workers") as shared:
        with start_proxy(mesh, "nginx", shared, shared, user="www-data") as proxy:
            assert ask(mesh, proxy)[0] == 200
        with start_proxy(mesh, "nginx", shared, shared) as proxy:  # as root, who is not named
            assert ask(mesh, proxy)[0] == 503
