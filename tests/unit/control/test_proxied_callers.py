# SPDX-License-Identifier: Apache-2.0
"""Who calls through a foreign proxy: look-alikes and forgeries first (field notes on authorization, number 29)."""

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, quote_from_bytes

import pytest
from tests.support import identity
from tests.support.workloads import DOMAIN, AuthorityForTests, FakeClock

from everyhop.control import proxied_callers
from everyhop.control.proxied_callers import ProxiedCallers, parse_principal, read_certificates, uri_of_xfcc
from everyhop.core.errors import EveryhopError, InputError, TrustError, Unavailable
from everyhop.x509.certificates import certificates_to_pem, decode_certificate
from everyhop.x509.csr import build_csr
from everyhop.x509.keys import generate_private_key
from everyhop.x509.thumbprint import x5t_s256

ORDERS = "spiffe://shop.example/service/orders"
STOREFRONT = "spiffe://shop.example/service/storefront"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def authority(clock):
    return AuthorityForTests(clock)


@pytest.fixture
def callers(clock, authority):
    made = ProxiedCallers(clock)
    made.apply_bundle(authority.bundle())
    return made


def leaf(authority, name=ORDERS):
    return authority.sign(name, build_csr(generate_private_key())).chain[0]


def escaped(*chain):
    return quote_from_bytes(certificates_to_pem(chain)).encode()


LOOK_ALIKES = [
    "outside",
    "unknown",
    "CN=orders,O=shop",
    "orders.shop.example",
    "spiffe://shop.example",
    "spiffe://shop.example/",
    "spiffe://shop.example/service/orders/",
    "spiffe://shop.example//service/orders",
    "spiffe://shop.example/service/../service/orders",
    "spiffe://shop.example/service/%6frders",
    "spiffe://shop.example:443/service/orders",
    "spiffe://user@shop.example/service/orders",
    "spiffe://shop.example/service/orders?x",
    "spiffe://shop.example/service/orders#x",
    "spiffe://shopXexample/service/orders",
    "spiffe://shop.example.evil/service/orders",
    "spiffe://other.example/service/orders",
    "SPIFFE://shop.example/service/orders",
    "spiffe://Shop.Example/service/orders",
    " spiffe://shop.example/service/orders",
    "spiffe://shop.example/service/orders\n",
    f"{ORDERS},{STOREFRONT}",
    f"{ORDERS} {STOREFRONT}",
    "https://shop.example/service/orders",
    "spiffe://shop.example/service/ordérs",
    "spiffe://" + "a" * 3000,
]


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_what_only_looks_like_an_id(callers, text):
    with pytest.raises((InputError, TrustError)):
        callers.identify(text, None)
    with pytest.raises((InputError, TrustError)):
        parse_principal(text, DOMAIN)


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_peer_without_a_name(callers, nothing):
    with pytest.raises(TrustError):
        callers.identify(nothing, None)


def test_nothing_is_believed_before_the_bundle_is_there(clock, authority):
    fresh = ProxiedCallers(clock)
    with pytest.raises(Unavailable):
        fresh.identify(ORDERS, None)
    with pytest.raises(Unavailable):
        fresh.identify(None, escaped(leaf(authority)))


def test_a_certificate_that_proves_somebody_else(callers, authority):
    with pytest.raises(TrustError):
        callers.identify(STOREFRONT, escaped(leaf(authority)))
    with pytest.raises(EveryhopError):
        callers.identify("CN=orders", escaped(leaf(authority)))


def test_a_certificate_of_another_authority(callers):
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    foreign = identity.TestCa(not_before=now - timedelta(hours=1), not_after=now + timedelta(hours=1))
    with pytest.raises(TrustError):
        callers.identify(None, escaped(foreign.leaf(uri=ORDERS, not_before=now, not_after=foreign.not_after)))


def test_a_certificate_counts_no_longer_than_it_is_valid(callers, authority, clock):
    shown = escaped(leaf(authority))
    assert callers.identify(None, shown).spiffe_id == ORDERS
    clock.advance(hours=2)
    with pytest.raises(TrustError):
        callers.identify(None, shown)


def test_a_certificate_counts_no_longer_than_its_authority(callers, authority, clock):
    shown = escaped(leaf(authority))
    assert callers.identify(None, shown).spiffe_id == ORDERS
    authority.rotate()
    authority.certificates.pop(0)
    callers.apply_bundle(authority.bundle())
    with pytest.raises(TrustError):
        callers.identify(None, shown)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b",",
        b"%",
        b"MII",
        b"-----BEGIN CERTIFICATE-----",
        b"%2D%2D%2D%2D%2DBEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"\xff\xfe",
        b"A" * 70_000,
        b"AAAA,AAAA,AAAA,AAAA,AAAA,AAAA,AAAA",
    ],
)
def test_bytes_that_are_no_certificate(callers, text):
    with pytest.raises((InputError, TrustError)):
        callers.identify(None, text)


def test_a_believed_caller_by_name_by_escaped_pem_and_by_bare_base64(callers, authority):
    der = leaf(authority)
    bare = b64encode(der)
    for principal, certificate in (
        (ORDERS, None),
        (None, escaped(der)),
        (ORDERS, escaped(der)),
        (None, bare),
        (None, quote(bare.decode(), safe="").encode()),
    ):
        caller = callers.identify(principal, certificate)
        assert caller.spiffe_id == ORDERS
        assert caller.x5t == (None if certificate is None else x5t_s256(der))


def test_the_same_certificate_is_verified_once_a_bundle(callers, authority, monkeypatch):
    shown = escaped(leaf(authority))
    first = callers.identify(None, shown)
    monkeypatch.setattr(proxied_callers, "validate_x509_svid", None)
    assert callers.identify(None, shown) is first


def test_what_is_remembered_is_bounded(callers, authority, monkeypatch):
    monkeypatch.setattr(proxied_callers, "MAX_REMEMBERED", 2)
    for service in ("a", "b", "c"):
        callers.identify(None, escaped(leaf(authority, f"spiffe://shop.example/service/{service}")))
    assert len(callers._seen) == 2


def test_a_chain_is_read_leaf_first(authority):
    der = leaf(authority)
    chain = read_certificates(b64encode(der) + b"," + b64encode(authority.certificates[0]))
    assert chain == (der, authority.certificates[0])
    assert decode_certificate(chain[0]).serial_number


@pytest.mark.parametrize(
    "value",
    [
        "",
        "By=spiffe://shop.example/service/orders",
        "Hash=00",
        f"URI={ORDERS};URI={STOREFRONT}",
        f"URI={ORDERS},URI={STOREFRONT}",
        f"URI={ORDERS},",
        f'Subject="a,URI={ORDERS}"',
        f'Subject="a\\";URI={ORDERS}',
        f'Subject="unclosed;URI={ORDERS}',
        f"DNS={ORDERS}",
        f"Chain=URI={ORDERS}",
    ],
)
def test_a_forwarded_certificate_with_no_or_several_uris(value):
    with pytest.raises(InputError):
        uri_of_xfcc(value)


@pytest.mark.parametrize(
    "value",
    [
        f"URI={ORDERS}",
        f'By=spiffe://x;Hash=00;Subject="CN=a, O=\\"b;c\\"";URI={ORDERS}',
        f'uri="{ORDERS}"',
    ],
)
def test_the_one_uri_of_a_forwarded_certificate(value):
    assert uri_of_xfcc(value) == ORDERS
