# SPDX-License-Identifier: Apache-2.0
"""A foreign Envoy (gRPC and HTTP) and nginx before an application, with the guide's configurations: refused first."""

import http.client
import json
import ssl
import time

import pytest
from tests.integration.proxies.conftest import start_proxy
from tests.support import identity
from tests.support.envoy_pair import exchange, foreign_ca, request_bytes
from tests.support.foreign_proxies import Authorizer, manager_of
from tests.support.tokens import mint_access

from everyhop.control.asking import AskingProxy
from everyhop.x509.certificates import decode_certificate
from everyhop.x509.csr import build_csr
from everyhop.x509.keys import generate_private_key
from everyhop.x509.thumbprint import x5t_s256

STOREFRONT = "spiffe://shop.example/service/storefront"
FORGED = [
    ("X-Everyhop-Caller", "spiffe://shop.example/service/root"),
    ("X-Everyhop-User", "root"),
    ("X-Everyhop-Anything", "root"),
    ("X-Original-URI", "/orders"),
    ("X-Original-Method", "GET"),
    ("X-Client-Certificate", "none"),
    ("X-HTTP-Method-Override", "DELETE"),
    ("X-Forwarded-Method", "GET"),
    ("X-Forwarded-Uri", "/orders"),
    ("X-Forwarded-Client-Cert", f"URI={STOREFRONT}"),
    ("X-Forwarded-Tls-Client-Cert", "none"),
    ("Txn-Token", "e30.e30.x"),
]


def ask(mesh, proxy, method="GET", path="/orders", *, caller="storefront", headers=(), body=b""):
    with proxy.connect(mesh.client(caller)) as connection:
        return exchange(connection, request_bytes(method, path, headers=headers, body=body))


def test_no_certificate(mesh, asked):
    before = list(mesh.apps["orders"].seen)
    try:
        with asked.proxy.connect(mesh.context(None, None)) as connection:
            status, _, _ = exchange(connection, request_bytes("GET", "/orders"))
    except (ssl.SSLError, OSError, http.client.HTTPException):
        status = 0
    assert status in {0, 400}
    assert mesh.apps["orders"].seen == before


def test_a_certificate_of_another_authority(mesh, asked):
    key = identity.new_key()
    context = mesh.context(foreign_ca().leaf(uri=STOREFRONT, key=key, **valid()), key)
    before = list(mesh.apps["orders"].seen)
    try:
        with asked.proxy.connect(context) as connection:
            status, _, _ = exchange(connection, request_bytes("GET", "/orders"))
    except (ssl.SSLError, OSError, http.client.HTTPException):
        status = 0
    assert status in {0, 400}
    assert mesh.apps["orders"].seen == before


def valid():
    ca = foreign_ca()
    return {"not_before": ca.not_before, "not_after": ca.not_after}


@pytest.mark.parametrize(
    ("caller", "method", "path", "status", "code"),
    [
        ("storefront", "GET", "/admin", 403, "ACCESS_DENIED"),
        ("storefront", "DELETE", "/orders", 403, "ACCESS_DENIED"),
        ("stranger", "GET", "/orders", 403, "ACCESS_DENIED"),
        ("nobody", "GET", "/orders", 403, "ACCESS_DENIED"),
        ("web", "POST", "/orders", 403, "ACCESS_DENIED"),
        ("storefront", "GET", "/orders//7", 400, "AMBIGUOUS_PATH"),
        ("storefront", "GET", "/region", 403, "ACCESS_DENIED"),
        ("storefront", "POST", "/pay", 401, "MISSING_TOKEN"),
    ],
)
def test_refused_with_code_and_decision(mesh, asked, caller, method, path, status, code):
    before = list(mesh.apps["orders"].seen)
    found, headers, body = ask(mesh, asked.proxy, method, path, caller=caller)
    assert found == status
    assert mesh.apps["orders"].seen == before
    if status == 401:
        assert headers["www-authenticate"].startswith("Bearer")
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(body)["code"] == code
    record = asked.authorizer.record(headers["x-everyhop-decision"])
    assert json.loads(body)["decision"] == record.id
    assert (record.status, record.method, record.path) == (status, method, path)
    assert record.detail["form"] == asked.form


def test_forged_headers_open_nothing_and_arrive_nowhere(mesh, asked):
    status, _, _ = ask(mesh, asked.proxy, "GET", "/admin", headers=FORGED)
    assert status == 403
    status, _, body = ask(mesh, asked.proxy, "GET", "/orders", headers=FORGED)
    assert status == 200
    seen = {name.lower(): value for name, value in json.loads(body)["headers"]}
    assert seen["x-everyhop-caller"] == STOREFRONT
    for name in (
        "x-everyhop-user",
        "x-original-uri",
        "x-http-method-override",
        "x-forwarded-uri",
        "txn-token",
    ):
        assert name not in seen
    if asked.form != "nginx":  # which cannot remove by prefix, and says so
        assert "x-everyhop-anything" not in seen


def test_a_condition_on_a_header_with_one_value(mesh, asked):
    assert ask(mesh, asked.proxy, "GET", "/region", headers=[("X-Region", "us")])[0] == 403
    assert (
        ask(mesh, asked.proxy, "GET", "/region", headers=[("X-Region", "eu"), ("X-Region", "us")])[0] == 403
    )
    assert (
        ask(mesh, asked.proxy, "GET", "/region", headers=[("X-Region", "eu"), ("X-Region", "eu")])[0] == 403
    )
    assert ask(mesh, asked.proxy, "GET", "/region", headers=[("X-Region", "eu,us")])[0] == 403
    assert ask(mesh, asked.proxy, "GET", "/region", headers=[("X_Region", "eu")])[0] in {400, 403}
    status, headers, _ = ask(mesh, asked.proxy, "GET", "/region", headers=[("X-Region", "eu")])
    assert status == 200
    assert asked.authorizer.record(headers["x-seen-decision"]).detail["facts"]


def test_the_clients_address_is_known_where_the_proxy_tells_it(mesh, asked):
    forged = [("X-Client-Address", "127.0.0.1"), ("X-Forwarded-For", "127.0.0.1"), ("X-Real-IP", "127.0.0.1")]
    expected = 403 if asked.form == "envoy-http" else 200
    assert ask(mesh, asked.proxy, "GET", "/local", headers=forged)[0] == expected


def test_allowed_is_forwarded_as_it_was_decided(mesh, asked):
    target = "/public/a%20b/c?x=%2e%2e&y=//"
    status, headers, body = ask(mesh, asked.proxy, "GET", target)
    assert status == 200
    assert json.loads(body)["line"].startswith(f"GET {target} HTTP/")
    record = asked.authorizer.record(headers["x-seen-decision"])
    assert (record.decision, record.caller, record.path) == ("allow", STOREFRONT, "/public/a%20b/c")


def test_a_body_is_passed_on(mesh, asked):
    status, _, body = ask(mesh, asked.proxy, "POST", "/orders", body=b'{"item":1}')
    assert (status, json.loads(body)["body"]) == (200, '{"item":1}')


@pytest.mark.parametrize("form", ["envoy", "envoy-http", "nginx"])
def test_an_authorizer_that_is_away_or_may_not_be_asked_opens_nothing(mesh, form):
    class Nowhere:
        grpc, http = mesh.root / "nowhere.sock", mesh.root / "nowhere-http.sock"

    before = list(mesh.apps["orders"].seen)
    with start_proxy(mesh, form, Nowhere, Nowhere) as proxy:
        assert ask(mesh, proxy)[0] == 503
    other = AskingProxy(uid=4711, services=("orders",))
    with (
        Authorizer(mesh, other, name=f"other-{form}") as stranger,
        start_proxy(mesh, form, stranger, stranger) as proxy,
    ):
        assert ask(mesh, proxy)[0] == 503
        assert stranger.records() == []
    assert mesh.apps["orders"].seen == before


def test_nginx_that_believes_every_certificate_is_not_believed(mesh, authorizer, by_xfcc):
    """The second verification: by us, whatever the proxy was told to accept."""

    def change(text):
        return text.replace("ssl_verify_client      on;", "ssl_verify_client      optional_no_ca;")

    key = identity.new_key()
    context = mesh.context(foreign_ca().leaf(uri=STOREFRONT, key=key, **valid()), key)
    with start_proxy(mesh, "nginx", authorizer, by_xfcc, change=change) as proxy:
        with proxy.connect(context) as connection:
            assert exchange(connection, request_bytes("GET", "/orders"))[0] == 403
        assert authorizer.records()[-1].reason == "unknown-caller"
        assert ask(mesh, proxy)[0] == 200


def test_envoy_that_believes_every_certificate_is_not_believed(mesh, authorizer, by_xfcc):
    def change(config):
        (chain,) = config["static_resources"]["listeners"][0]["filter_chains"]
        validation = chain["transport_socket"]["typed_config"]["common_tls_context"]["validation_context"]
        del validation["trusted_ca"]
        validation["trust_chain_verification"] = "ACCEPT_UNTRUSTED"

    key = identity.new_key()
    context = mesh.context(foreign_ca().leaf(uri=STOREFRONT, key=key, **valid()), key)
    with start_proxy(mesh, "envoy", authorizer, by_xfcc, change=change) as proxy:
        with proxy.connect(context) as connection:
            assert exchange(connection, request_bytes("GET", "/orders"))[0] == 403
        assert authorizer.records()[-1].reason == "unknown-caller"


def test_two_uris_in_one_certificate_are_no_identity(mesh, asked):
    """Envoy names the first of them, so the certificate itself must be looked at; over HTTP, both are forwarded."""
    key = identity.new_key()
    both = {"names": (identity.uris(STOREFRONT, "spiffe://shop.example/service/root"), True)}
    issuer = mesh.authority.issuer
    leaf = identity.certificate(
        subject=identity.NO_NAME,
        issuer=decode_certificate(issuer.certificate_der).subject,
        public_key=key.public_key(),
        signer=issuer._key,
        extensions=identity.leaf_extensions() | both,
        **valid(),
    )
    with asked.proxy.connect(mesh.context(leaf, key)) as connection:
        status = exchange(connection, request_bytes("GET", "/orders"))[0]
    assert status in {400, 403}
    assert not [r for r in asked.authorizer.records()[-1:] if r.decision == "allow"]


def test_envoy_without_raw_headers_still_sees_two_values(mesh, authorizer, by_xfcc):
    def change(config):
        del manager_of(config)["http_filters"][0]["typed_config"]["encode_raw_headers"]

    with start_proxy(mesh, "envoy", authorizer, by_xfcc, change=change) as proxy:
        twice = [("X-Region", "eu"), ("X-Region", "eu")]
        assert ask(mesh, proxy, "GET", "/region", headers=twice)[0] == 403
        assert ask(mesh, proxy, "GET", "/region", headers=[("X-Region", "eu")])[0] == 200
        assert ask(mesh, proxy, headers=[("X-Odd", "\xff\xfe")])[0] == 200


def test_envoy_asks_about_the_service_of_its_configuration_only(mesh, by_xfcc):
    """A route that names a service which this proxy may not ask about is refused, whatever host and headers say."""

    def change(config):
        (route,) = manager_of(config)["route_config"]["virtual_hosts"][0]["routes"]
        settings = route["typed_per_filter_config"]["authorizer"]["check_settings"]
        settings["context_extensions"]["everyhop_service"] = "payments"

    with Authorizer(mesh, name="only-orders") as only:
        with start_proxy(mesh, "envoy", only, by_xfcc, change=change) as proxy:
            headers = [("everyhop_service", "orders")]
            assert ask(mesh, proxy)[0] == 400
            assert ask(mesh, proxy, headers=headers)[0] == 400
        assert {record.reason for record in only.records()} <= {"malformed-question"}


def identity_with_token(mesh, **changes):
    """A certificate of the storefront, and a token that is bound to it."""
    key = generate_private_key()
    leaf = mesh.authority.sign(STOREFRONT, build_csr(key)).chain[0]
    now = int(time.time())
    values = {"client_id": STOREFRONT, "audience": "orders", "scope": ["orders.pay"], "x5t": x5t_s256(leaf)}
    token = mint_access(issued_at=now - 5, expires_at=now + 295, **{**values, **changes})
    return mesh.context(leaf, key), token


def pay(asked, context, token):
    with asked.proxy.connect(context) as connection:
        bearer = [("Authorization", f"Bearer {token}")]
        return exchange(connection, request_bytes("POST", "/pay", headers=bearer))


def test_a_token_counts_with_the_certificate_that_it_is_bound_to(mesh, asked):
    context, token = identity_with_token(mesh)
    stolen_by = mesh.client("web")
    assert pay(asked, stolen_by, token)[0] == 401
    assert pay(asked, mesh.client("storefront"), token)[0] == 401  # another certificate of the same service
    assert pay(asked, context, token + "x")[0] == 401
    wrong_context, wrong = identity_with_token(mesh, audience="payments")
    assert pay(asked, wrong_context, wrong)[0] == 401
    # Over HTTP no certificate is passed on, so a bound token proves nothing there.
    assert pay(asked, context, token)[0] == (401 if asked.form == "envoy-http" else 200)
