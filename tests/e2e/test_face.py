# SPDX-License-Identifier: Apache-2.0
"""``everyhop up`` as a relying party sees it: a URL, a bundle, tokens that PyJWT and Authlib take."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import time
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import jwt
import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from trust_domain import TrustDomainUnderTest, trust_domain, wait_until

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {workload: [{run: true}]}
  orders:
    workload: [{run: true}]
    operations:
      list: {route: GET /orders, token: required}
allow:
  - {from: storefront, to: orders, operations: [list]}
"""
GRANT = {"grant_type": "client_credentials", "audience": "orders"}


@pytest.fixture(scope="module")
def domain():
    with trust_domain(POLICY) as started:
        started.cli("svid", "fetch", "storefront", "--write", str(started.root / "svid"))
        yield started


def context(domain: TrustDomainUnderTest, *, with_svid: bool = False) -> ssl.SSLContext:
    held = domain.root / "svid"
    made = ssl.create_default_context(cafile=held / "bundle.pem")
    if with_svid:
        made.load_cert_chain(held / "svid.pem", held / "key.pem")
    return made


def ask(url: str, tls: ssl.SSLContext, form: dict[str, str] | None = None) -> tuple[int, dict]:
    parts = urlsplit(url)
    connection = http.client.HTTPSConnection(parts.hostname, parts.port, context=tls, timeout=10)
    try:
        if form is None:
            connection.request("GET", parts.path)
        else:
            headers = {"content-type": "application/x-www-form-urlencoded"}
            connection.request("POST", parts.path, body=urlencode(form), headers=headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def face_pid(domain: TrustDomainUnderTest) -> int:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[1]) == domain.up_process.pid:
                words = (path.parent / "cmdline").read_bytes().split(b"\0")
                if str(domain.state / "face" / "bootstrap.json").encode() in words:
                    return int(path.parent.name)
        except (OSError, IndexError, ValueError):
            continue
    raise AssertionError("no face")


def test_a_token_by_mtls_is_verified_by_pyjwt(domain):
    urls = domain.json("status")["urls"]
    assert set(urls) == {"api", "issuer", "jwks", "token", "authzen", "log"}
    assert ask(urls["token"], context(domain), GRANT)[0] == 401
    status, answer = ask(urls["token"], context(domain, with_svid=True), GRANT)
    assert status == 200
    client = jwt.PyJWKClient(urls["jwks"], ssl_context=context(domain))
    key = client.get_signing_key_from_jwt(answer["access_token"])
    claims = jwt.decode(
        answer["access_token"], key, algorithms=["ES256"], audience="orders", issuer=urls["issuer"]
    )
    assert claims["sub"] == "spiffe://shop.example/service/storefront"
    assert claims["scope"] == "orders.list"


def test_discovery_leads_to_the_keys(domain):
    urls = domain.json("status")["urls"]
    status, document = ask(urls["issuer"] + "/.well-known/oauth-authorization-server", context(domain))
    assert status == 200
    metadata = AuthorizationServerMetadata(document)
    metadata.validate()
    assert ask(metadata["jwks_uri"], context(domain))[1]["keys"]
    assert metadata["token_endpoint"] == urls["token"]


def test_a_killed_face_is_back_within_a_second(domain):
    urls = domain.json("status")["urls"]
    pid = face_pid(domain)
    os.kill(pid, signal.SIGKILL)
    started = time.monotonic()

    def answers():
        try:
            return ask(urls["jwks"], context(domain))[0] == 200
        except OSError:
            return False

    wait_until(answers, seconds=5, what="the face answers")
    assert time.monotonic() - started < 1.5  # 1 s, and what the machine is busy with
    assert face_pid(domain) != pid


def test_a_killed_server_is_only_a_longer_wait(domain):
    urls = domain.json("status")["urls"]
    kids = [key["kid"] for key in ask(urls["jwks"], context(domain))[1]["keys"]]
    os.kill(domain.child_pids()["server"], signal.SIGKILL)
    wait_until(lambda: _kids(urls["jwks"], domain) == kids, seconds=10, what="the same keys again")


def _kids(url, domain):
    try:
        status, document = ask(url, context(domain))
    except OSError:
        return None
    return [key["kid"] for key in document["keys"]] if status == 200 else None


def test_address_and_keys_outlive_a_restart():
    with trust_domain(POLICY) as own:
        own.cli("svid", "fetch", "storefront", "--write", str(own.root / "svid"))
        before = own.status()["urls"]
        kids = _kids(before["jwks"], own)
        assert kids
        own.up_process.terminate()
        assert own.up_process.wait(15) == 0
        assert list(own.state.glob("run/*.sock")) == []
        own.up()
        assert own.status()["urls"] == before
        assert _kids(before["jwks"], own) == kids
        assert any(f["check"] == "face" and f["ok"] for f in own.json("doctor", code=None))


def test_a_taken_port_is_a_clear_error(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        own = TrustDomainUnderTest(POLICY, api_listen=f"127.0.0.1:{port}")
        try:
            with pytest.raises(AssertionError, match="api_listen"):
                own.up()
        finally:
            own.close()


def test_an_explicit_port_is_honoured():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with trust_domain(POLICY, api_listen=f"127.0.0.1:{port}", issuer="https://auth.shop.example") as own:
        urls = own.status()["urls"]
        assert urls["api"] == f"https://127.0.0.1:{port}"
        assert urls["issuer"] == "https://auth.shop.example"
