# SPDX-License-Identifier: Apache-2.0
"""The HTTP forms for foreign proxies: real sockets and raw bytes; one form's headers count in no other."""

import asyncio
import contextlib
import http.client
import json
import os
import socket
from urllib.parse import quote_from_bytes

import pytest
from tests.support.tokens import DOMAIN, ISSUER, KEYS
from tests.support.workloads import AuthorityForTests, RealClock

from everyhop.api.authorizer_http import HttpAuthorizer, form_of
from everyhop.api.http import http_server, serve_until_stopped
from everyhop.control.asking import AskingProxy, CallerFrom, Form
from everyhop.control.credentials import Credentials
from everyhop.control.external_decisions import OVERLOADED, ExternalDecisions
from everyhop.control.policy_view import PolicyView
from everyhop.control.proxied_callers import ProxiedCallers
from everyhop.policy import parse_policy
from everyhop.tokens.verifier import TokenVerifier
from everyhop.wire.sockets import UnixListener
from everyhop.x509.certificates import certificates_to_pem
from everyhop.x509.csr import build_csr
from everyhop.x509.keys import generate_private_key

POLICY = b"""\
version: 1
trust_domain: shop.example
services:
  storefront: {}
  orders: {operations: {list: GET /orders, create: {route: POST /orders, token: required}}}
  payments: {operations: {list: GET /payments}}
allow: [{from: storefront, to: orders, operations: [list, create]}]
"""
STOREFRONT = "spiffe://shop.example/service/storefront"
PROXY = AskingProxy(uid=os.getuid(), services=("orders",))
BY_XFCC = AskingProxy(uid=os.getuid(), services=("orders", "payments"), caller=CallerFrom.XFCC)
XFCC = f"x-forwarded-client-cert: URI={STOREFRONT}"


class Server:
    """The product's HTTP side with a policy, on a socket."""

    def __init__(self, directory, proxy=PROXY, **options):
        self.path = directory / "h.sock"
        self.lines = []
        clock = RealClock()
        self.authority = AuthorityForTests(clock)
        callers = ProxiedCallers(clock)
        callers.apply_bundle(self.authority.bundle())
        credentials = Credentials(tokens=None, exchanger=None, spend=None, clock=clock)
        self.decisions = ExternalDecisions(
            credentials=credentials, callers=callers, record=self.lines.append, clock=clock
        )
        snapshot = parse_policy({"p": POLICY})
        view = PolicyView(snapshot)
        credentials.apply_policy(view)
        credentials.apply_verifier(TokenVerifier(KEYS, issuer=ISSUER, trust_domain=DOMAIN, clock=clock))
        self.decisions.apply_policy(view)
        self.authorizer = HttpAuthorizer(self.decisions, {proxy.uid: proxy}, **options)
        der = self.authority.sign(STOREFRONT, build_csr(generate_private_key())).chain[0]
        self.certificate = quote_from_bytes(certificates_to_pem([der]))

    async def start(self, stack):
        listener = stack.enter_context(contextlib.closing(UnixListener.bind(self.path, mode=0o600)))
        server = http_server(None, admit=self.authorizer.application)
        serving = asyncio.create_task(serve_until_stopped(server, listener.sock))

        async def stop():
            server.stop()
            await serving

        stack.push_async_callback(stop)
        return self

    async def raw(self, data):
        """Send bytes; return status, headers and body, or None for a closed connection."""

        def asking():
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(10)
                sock.connect(str(self.path))
                sock.sendall(data)
                answer = http.client.HTTPResponse(sock)
                try:
                    answer.begin()
                except (http.client.HTTPException, ConnectionError):
                    return None
                return answer.status, dict(answer.getheaders()), answer.read()

        return await asyncio.to_thread(asking)

    async def ask(self, target, *headers, method="GET"):
        lines = [f"{method} {target} HTTP/1.1", "Host: payments", *headers, "", ""]
        return await self.raw("\r\n".join(lines).encode("latin-1"))

    async def nginx(self, method="GET", uri="/orders", *more, certificate=None, service="/orders"):
        return await self.ask(
            f"/nginx{service}",
            f"X-Original-Method: {method}",
            f"X-Original-URI: {uri}",
            f"X-Client-Certificate: {self.certificate if certificate is None else certificate}",
            *more,
        )


@pytest.fixture
async def stack():
    async with contextlib.AsyncExitStack() as made:
        yield made


@pytest.fixture
async def server(tmp_path, stack):
    return await Server(tmp_path).start(stack)


@pytest.fixture
async def by_xfcc(tmp_path, stack):
    return await Server(tmp_path, BY_XFCC).start(stack)


def code(answer):
    return json.loads(answer[2])["code"]


async def test_a_user_that_the_settings_do_not_name_gets_no_connection(tmp_path, stack):
    other = AskingProxy(uid=os.getuid() + 4711, services=("orders",))
    server = await Server(tmp_path, other).start(stack)
    assert await server.nginx() is None
    assert server.lines == []


@pytest.mark.parametrize(
    "target",
    ["/", "/orders", "/nginxx", "/nginx/orders/x", "/NGINX", "/traefik/orders/", "/envoy", "*", "/%6eginx"],
)
async def test_other_paths_are_no_question(server, target):
    status, _, _ = await server.ask(target, f"X-Original-URI: {target}", "X-Original-Method: GET")
    assert status == 404
    assert server.lines == []


@pytest.mark.parametrize(
    ("headers", "missing"),
    [
        (["X-Original-Method: GET"], "uri"),
        (["X-Original-URI: /orders"], "method"),
        (["X-Original-Method: GET", "X-Original-URI:"], "uri"),
        (["X-Original-Method: GET", "X-Original-URI: /orders", "X-Original-URI: /orders"], "uri"),
        (["X-Original-Method: GET", "X-Original-URI: /orders", "X_Original_URI: /orders"], "uri"),
        (["X-Original-Method: GET", "X-Original-Method: POST", "X-Original-URI: /orders"], "method"),
        (["X_Original_Method: GET", "X-Original-URI: /orders"], "method"),
        (["X-Forwarded-Method: GET", "X-Forwarded-Uri: /orders"], "of another form"),
    ],
)
async def test_nginx_without_or_with_two_of_what_its_configuration_sets(server, headers, missing):
    answer = await server.ask("/nginx", *headers, f"X-Client-Certificate: {server.certificate}")
    assert (answer[0], answer[1]["x-everyhop-status"], code(answer)) == (403, "400", "MALFORMED_QUESTION")
    assert server.lines[0].reason == "malformed-question"


async def test_two_certificates(server):
    answer = await server.nginx("GET", "/orders", f"X-Client-Certificate: {server.certificate}")
    assert (answer[0], code(answer)) == (403, "MALFORMED_QUESTION")


@pytest.mark.parametrize("certificate", ["", "x", "%00", "(null)", "-----BEGIN CERTIFICATE-----"])
async def test_nginx_without_a_certificate_that_holds(server, certificate):
    answer = await server.nginx(certificate=certificate)
    assert (answer[0], code(answer)) == (403, "ACCESS_DENIED")
    assert server.lines[0].reason == "unknown-caller"


async def test_a_certificate_of_another_form_or_header_is_nobody(server):
    answer = await server.ask(
        "/nginx",
        "X-Original-Method: GET",
        "X-Original-URI: /orders",
        f"X-Forwarded-Tls-Client-Cert: {server.certificate}",
        XFCC,
        f"X-Everyhop-Caller: {STOREFRONT}",
    )
    assert (answer[0], server.lines[0].reason) == (403, "unknown-caller")


@pytest.mark.parametrize(
    "uri", ["//orders", "/orders/..;/x", "http://orders/orders", "*", "/orders\xff", "@evil"]
)
async def test_nginx_a_path_of_two_readings(server, uri):
    answer = await server.nginx("GET", uri)
    assert (answer[0], answer[1]["x-everyhop-status"], code(answer)) == (403, "400", "AMBIGUOUS_PATH")


@pytest.mark.parametrize("service", ["/payments", "/ORDERS", "/orders%2f", "/orders?x"])
async def test_a_service_that_this_proxy_may_not_ask_about(server, service):
    answer = await server.nginx(service=service)
    if service == "/orders?x":  # a query is no part of the service
        assert answer[0] == 200
    else:
        assert (answer[0], code(answer)) == (403, "MALFORMED_QUESTION")


async def test_nginx_is_told_what_it_can_pass_on(server):
    answer = await server.nginx("POST", "/orders")
    assert (answer[0], code(answer)) == (401, "MISSING_TOKEN")
    assert answer[1]["www-authenticate"].startswith("Bearer")


async def test_nginx_allowed(server):
    for service in ("", "/orders"):
        status, headers, body = await server.nginx("GET", "/orders?x=1", service=service)
        assert (status, body) == (200, b"")
        assert headers["x-everyhop-caller"] == STOREFRONT
        assert headers["x-everyhop-operation"] == "list"
        assert headers["x-everyhop-decision"] == server.lines[-1].id


# -- Traefik


@pytest.mark.parametrize(
    "headers",
    [
        ["X-Forwarded-Uri: /orders"],
        ["X-Forwarded-Method: GET"],
        ["X-Forwarded-Method: GET", "X-Forwarded-Uri: /orders", "X_Forwarded_Uri: /payments"],
        ["X-Forwarded-Method: GET", "X-Forwarded-Uri: /orders", "X-Forwarded-Uri: /payments"],
        ["X-Original-Method: GET", "X-Original-URI: /orders"],
    ],
)
async def test_traefik_without_or_with_two_of_its_headers(server, headers):
    answer = await server.ask("/traefik", *headers, f"X-Forwarded-Tls-Client-Cert: {server.certificate}")
    assert (answer[0], code(answer)) == (400, "MALFORMED_QUESTION")


async def test_traefik_path_host_and_certificate(server):
    base = ["X-Forwarded-Method: GET", "X-Forwarded-Host: payments"]
    proof = f"X-Forwarded-Tls-Client-Cert: {server.certificate}"
    assert (await server.ask("/traefik", *base, "X-Forwarded-Uri: //orders", proof))[0] == 400
    assert (await server.ask("/traefik", *base, "X-Forwarded-Uri: /payments", proof))[0] == 403
    assert (await server.ask("/traefik", *base, "X-Forwarded-Uri: /orders"))[0] == 403
    assert (await server.ask("/traefik/orders", *base, "X-Forwarded-Uri: /orders", proof))[0] == 200


# -- Envoy's HTTP form


@pytest.mark.parametrize(
    "target",
    [
        "/envoy/orders",
        "/envoy/orders//orders",
        "/envoy/orders/../nginx",
        "/envoy/orders/%2e%2e/x",
        "/envoy//orders",
        "/envoy/orders@evil",
        "/envoy/storefront/orders",
        "/envoy/orders/../payments/payments",
        "/envoy/orders/orders!",
    ],
)
async def test_envoy_paths_that_leave_their_place(by_xfcc, target):
    answer = await by_xfcc.ask(target, XFCC)
    assert answer[0] == 400


async def test_envoy_believes_the_forwarded_certificate_only_where_the_settings_say_so(server):
    answer = await server.ask("/envoy/orders/orders", XFCC)
    assert (answer[0], server.lines[0].reason) == (403, "unknown-caller")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [f"x-forwarded-client-cert: URI={STOREFRONT},URI={STOREFRONT}"],
        [XFCC, XFCC],
        [f"x_forwarded_client_cert: URI={STOREFRONT}"],
    ],
)
async def test_envoy_without_exactly_one_forwarded_certificate(by_xfcc, headers):
    answer = await by_xfcc.ask("/envoy/orders/orders", *headers)
    assert answer[0] in {400, 403}
    assert not by_xfcc.lines[0].allowed


async def test_envoy_allowed_with_method_and_path_of_the_request_itself(by_xfcc):
    override = ["X-Original-URI: /nothing", "X-Original-Method: PUT", "X-HTTP-Method-Override: PUT"]
    status, headers, _ = await by_xfcc.ask("/envoy/orders/orders?x=/", XFCC, *override)
    assert (status, headers["x-everyhop-operation"]) == (200, "list")
    assert (await by_xfcc.ask("/envoy/orders/orders", XFCC, method="PUT"))[0] == 403


# -- what all have in common


async def test_a_body_is_not_waited_for(server):
    answer = await server.nginx("GET", "/orders", "Content-Length: 1000")
    assert answer[0] == 200


async def test_more_than_wait_are_refused_at_once(tmp_path, stack):
    server = await Server(tmp_path, max_waiting=0).start(stack)
    answer = await server.nginx()
    assert (answer[0], answer[1]["x-everyhop-status"], code(answer)) == (403, "503", "CHECK_UNAVAILABLE")
    assert server.lines[0].reason == OVERLOADED


def test_forms_by_path():
    assert form_of(b"/envoy/orders/a/b") == (Form.ENVOY_HTTP, "orders", "/a/b")
    assert form_of(b"/nginx/orders") == (Form.NGINX, "orders", "")
    assert form_of(b"/traefik") == (Form.TRAEFIK, "", "")
    assert form_of(b"/\xff") == (None, "", "")
