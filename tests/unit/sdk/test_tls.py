# SPDX-License-Identifier: Apache-2.0
"""TLS in memory: who is let in, who is talked to, what a rotation changes, and what cannot be switched off."""

import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.identity import WORKLOAD_ID, new_key  # independent material
from tests.support.tls_pair import Pair

from everyhop.core.errors import AccessDenied, InputError, TrustError, Unavailable
from everyhop.sdk import client_context, peer_of, server_context
from everyhop.testing import Authority, FixedX509Source, Issuer, service_context

SHOP, OTHER = Authority("shop.example"), Authority("other.example")
ORDERS, STOREFRONT, INTRUDER = (
    f"spiffe://shop.example/service/{n}" for n in ("orders", "storefront", "intruder")
)


@pytest.fixture
def orders():
    return FixedX509Source(SHOP.issue("orders"))


@pytest.fixture
def storefront():
    return FixedX509Source(SHOP.issue("storefront"))


def refused(server, client):
    with pytest.raises(ssl.SSLError) as caught:
        Pair(server, client).handshake().say(b"x")
    return str(caught.value)


def plain(identity=None, *, authorities=None, version=None):
    """A client of the standard library that checks nothing, with or without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version is not None:
        context.maximum_version = version
    if identity is not None:
        descriptor = os.memfd_create("t")
        os.write(descriptor, identity.chain_pem + identity.key_pem.reveal())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        os.close(descriptor)
    return context


def test_both_ends_know_each_other(orders, storefront):
    pair = Pair(server_context(orders, [STOREFRONT]), client_context(storefront, ORDERS)).handshake()
    assert pair.say(b"hello") == b"hello"
    assert peer_of(pair.server).spiffe_id == STOREFRONT
    assert peer_of(pair.server).x5t == storefront.svid.x5t
    assert peer_of(pair.client).spiffe_id == ORDERS
    assert pair.server.version() == "TLSv1.3"
    assert not pair.client.session_reused


def test_a_client_without_certificate_is_refused(orders):
    refused(server_context(orders, [STOREFRONT]), plain())


def test_tls_12_is_refused(orders, storefront):
    refused(server_context(orders, [STOREFRONT]), plain(storefront.svid, version=ssl.TLSVersion.TLSv1_2))


def test_a_certificate_of_another_authority_is_refused(orders):
    stranger = Authority("shop.example").issue("storefront")
    refused(server_context(orders, [STOREFRONT]), plain(stranger))
    refused(server_context(orders, [STOREFRONT]), plain(OTHER.issue("storefront")))


def test_another_caller_is_refused(orders):
    intruder = FixedX509Source(SHOP.issue("intruder"))
    assert "not allowed" in refused(server_context(orders, [STOREFRONT]), client_context(intruder, ORDERS))
    assert "not allowed" in refused(server_context(orders, lambda _: False), client_context(intruder, ORDERS))
    assert "not allowed" in refused(server_context(orders, lambda _: "yes"), client_context(intruder, ORDERS))


def test_another_server_is_refused(storefront):
    intruder = FixedX509Source(SHOP.issue("intruder"))
    server = server_context(intruder, [STOREFRONT])
    assert "not allowed" in refused(server, client_context(storefront, ORDERS))
    refused(
        server_context(FixedX509Source(OTHER.issue("orders")), lambda _: True),
        client_context(storefront, ORDERS),
    )


def test_an_expired_certificate_is_refused(orders, storefront):
    storefront.svid = SHOP.issue("storefront", life=timedelta(seconds=-1))
    refused(server_context(orders, [STOREFRONT]), plain(storefront.svid))


def test_two_ids_in_one_certificate_are_nobody(orders):
    from cryptography import x509 as x
    from cryptography.hazmat.primitives import hashes
    from tests.support.identity import key_usage, uris

    from everyhop.sdk.identities import X509Identity
    from everyhop.x509.keys import encode_private_key

    assert WORKLOAD_ID == ORDERS
    key, ca = new_key(), SHOP._issuer
    now = datetime.now(UTC)
    certificate = (
        x.CertificateBuilder()
        .subject_name(x.Name([]))
        .issuer_name(x.load_der_x509_certificate(ca.certificate_der).subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(seconds=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(uris(STOREFRONT, INTRUDER), critical=True)
        .add_extension(key_usage("digital_signature"), critical=True)
        .sign(ca._key, hashes.SHA256())
    )
    good = SHOP.issue("storefront")
    from cryptography.hazmat.primitives.serialization import Encoding

    twin = X509Identity(
        spiffe_id=good.spiffe_id,
        chain=(certificate.public_bytes(Encoding.DER),),
        key=encode_private_key(key),
        bundle=good.bundle,
        hint="",
        not_before=good.not_before,
        not_after=good.not_after,
        x5t="x",
    )
    assert "more than one URI" in refused(server_context(orders, lambda _: True), plain(twin))


def test_who_is_let_in_by_policy(orders, storefront):
    policy = """\
version: 1
trust_domain: shop.example
services:
  storefront: {workload: [{run: true}]}
  intruder: {workload: [{run: true}]}
  orders: {workload: [{run: true}], operations: {list: GET /orders}}
allow:
  - {from: storefront, to: orders, operations: [list]}
"""
    server = server_context(orders, service_context(policy, "orders", Issuer()))
    assert Pair(server, client_context(storefront, ORDERS)).handshake()
    intruder = FixedX509Source(SHOP.issue("intruder"))
    assert "not allowed" in refused(server, client_context(intruder, ORDERS))


@pytest.mark.parametrize("callers", [[], (), "spiffe://shop.example/service/storefront", ["storefront"]])
def test_callers_must_be_named(orders, callers):
    with pytest.raises(InputError):
        server_context(orders, callers)


# -- rotation


def test_the_next_connection_uses_the_next_identity_on_the_same_context(orders, storefront):
    server, client = server_context(orders, [STOREFRONT]), client_context(storefront, ORDERS)
    before = Pair(server, client).handshake()
    orders.svid, storefront.svid = SHOP.issue("orders"), SHOP.issue("storefront")
    after = Pair(server, client).handshake()
    assert peer_of(before.client).x5t != peer_of(after.client).x5t == orders.svid.x5t
    assert peer_of(before.server).x5t != peer_of(after.server).x5t == storefront.svid.x5t
    assert before.say(b"still here") == b"still here"


def test_a_context_that_does_not_rotate_keeps_its_identity(orders, storefront):
    server, client = server_context(orders, [STOREFRONT]), client_context(storefront, ORDERS, rotating=False)
    first = storefront.svid
    storefront.svid = SHOP.issue("storefront")
    assert peer_of(Pair(server, client).handshake().server).x5t == first.x5t == client.x5t


def test_the_authorities_rotate_too(orders, storefront):
    shop = Authority("shop.example")
    orders.svid, storefront.svid = shop.issue("orders"), shop.issue("storefront")
    server, client = server_context(orders, [STOREFRONT]), client_context(storefront, ORDERS)
    old = plain(storefront.svid)
    assert Pair(server, client).handshake()
    shop.rotate(forget=True)
    orders.svid, storefront.svid = shop.issue("orders"), shop.issue("storefront")
    assert Pair(server, client).handshake()
    refused(server, old)


@pytest.mark.parametrize("error", [AccessDenied("it was withdrawn"), Unavailable("there is none yet")])
def test_without_identity_new_handshakes_are_refused(orders, storefront, error):
    class Gone:
        @property
        def svid(self):
            raise error

    assert error.message in refused(server_context(Gone(), [STOREFRONT]), client_context(storefront, ORDERS))
    assert error.message in refused(server_context(orders, [STOREFRONT]), client_context(Gone(), ORDERS))


def test_the_context_is_built_once_a_rotation(orders):
    context = server_context(orders, [STOREFRONT])
    assert context.inner() is context.inner()
    first = context.inner()
    context.set_alpn_protocols(["h2"])
    assert context.inner() is not first
    orders.svid = SHOP.issue("orders")
    assert context.x5t == orders.svid.x5t


# -- what cannot be switched off


def test_what_libraries_do_to_a_context_has_no_effect(orders, storefront, tmp_path):
    import certifi

    server, client = server_context(orders, [STOREFRONT]), client_context(storefront, ORDERS)
    for context in (server, client):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_default_certs()
        context.load_verify_locations(certifi.where())
        context.load_cert_chain("/nonexistent")
    stranger = FixedX509Source(Authority("shop.example").issue("orders"))
    refused(server, plain())
    refused(server_context(stranger, lambda _: True), client)
    assert Pair(server, client).handshake()


def test_alpn_is_taken_over(orders, storefront):
    server, client = server_context(orders, [STOREFRONT]), client_context(storefront, ORDERS)
    server.set_alpn_protocols(["h2", "http/1.1"])
    client.set_alpn_protocols(["http/1.1"])
    assert Pair(server, client).handshake().server.selected_alpn_protocol() == "http/1.1"


def test_asking_for_the_protocol_tells_nobody_but_hypercorns_tasks(orders, storefront):
    from everyhop.sdk.checked import CONNECTION

    server, client = server_context(orders, [STOREFRONT]), client_context(storefront, ORDERS)
    pair = Pair(server, client).handshake()
    assert pair.server.selected_alpn_protocol() is pair.client.selected_alpn_protocol() is None
    assert CONNECTION.get() is None


def test_no_byte_passes_before_the_check(orders, storefront):
    pair = Pair(server_context(orders, [STOREFRONT]), client_context(storefront, ORDERS))
    for end in (pair.client, pair.server):
        with pytest.raises(ssl.SSLError, match="not complete"):
            end.read(1)
        with pytest.raises(ssl.SSLError, match="not complete"):
            end.write(b"x")


def test_the_outer_context_itself_makes_no_connection(orders, storefront):
    outer = server_context(orders, [STOREFRONT])
    bare = ssl.SSLContext.wrap_bio(outer, ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    assert outer.get_ca_certs() == []
    with pytest.raises(TrustError):
        peer_of(bare)


@pytest.mark.parametrize("connection", [None, object(), "x"])
def test_a_foreign_connection_has_no_peer(connection):
    with pytest.raises(TrustError, match="not made with"):
        peer_of(connection)


def test_an_unfinished_and_an_expired_connection_have_no_peer(orders, storefront):
    pair = Pair(server_context(orders, [STOREFRONT]), client_context(storefront, ORDERS))
    with pytest.raises(TrustError, match="not complete"):
        peer_of(pair.server)
    pair.handshake()
    assert peer_of(pair.server)
    with pytest.raises(TrustError, match="expired"):
        peer_of(pair.server, now=datetime.now(UTC) + timedelta(hours=2))


def test_no_key_file_is_left(orders, storefront, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def no_memfd(*_):
        raise OSError("not here")

    before = len(list(Path("/proc/self/fd").iterdir()))
    server_context(orders, [STOREFRONT]).inner()
    monkeypatch.setattr(os, "memfd_create", no_memfd)
    assert Pair(server_context(orders, [STOREFRONT]), client_context(storefront, ORDERS)).handshake()
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before
