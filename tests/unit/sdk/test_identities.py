# SPDX-License-Identifier: Apache-2.0
"""What the Workload API hands out is refused whole when one point of it is wrong."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from everyhop.core.errors import InputError, TrustError
from everyhop.sdk.identities import read_jwt_bundles, read_jwt_svids, read_x509_bundles, read_x509_update
from everyhop.spiffe.bundle import encode_jwt_bundle
from everyhop.testing import Authority
from everyhop.wire import workload_pb2 as w

SHOP, OTHER = Authority("shop.example"), Authority("other.example")
GOOD = SHOP.issue("orders")
NOW = datetime.now(UTC)


def message(**overrides):
    fields = {
        "spiffe_id": str(GOOD.spiffe_id),
        "x509_svid": b"".join(GOOD.chain),
        "x509_svid_key": GOOD.key.reveal(),
        "bundle": SHOP.bundle.x509_der,
        "hint": "orders",
        **overrides,
    }
    return w.X509SVID(**fields)


def update(*svids, **more):
    return w.X509SVIDResponse(svids=svids, **more)


def der(key):
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


BAD = {
    "no identity": update(),
    "too many": update(*[message(hint="")] * 65),
    "no id": update(message(spiffe_id="")),
    "an id that is none": update(message(spiffe_id="https://shop.example/service/orders")),
    "no certificate": update(message(x509_svid=b"")),
    "no key": update(message(x509_svid_key=b"")),
    "no bundle": update(message(bundle=b"")),
    "bytes for a certificate": update(message(x509_svid=b"nonsense")),
    "PEM": update(message(x509_svid=GOOD.chain_pem)),
    "a cut certificate": update(message(x509_svid=GOOD.chain[0][:-5])),
    "something behind the certificate": update(message(x509_svid=GOOD.chain[0] + b"\0")),
    "bytes for a key": update(message(x509_svid_key=b"nonsense")),
    "a PEM key": update(message(x509_svid_key=GOOD.key_pem.reveal())),
    "a huge key": update(message(x509_svid_key=b"\x30" * 20_000)),
    "another's key": update(message(x509_svid_key=SHOP.issue("orders").key.reveal())),
    "a key of another kind": update(message(x509_svid_key=der(rsa.generate_private_key(65537, 2048)))),
    "a key of another curve": update(message(x509_svid_key=der(ec.generate_private_key(ec.SECP384R1())))),
    "another service's id": update(message(spiffe_id="spiffe://shop.example/service/payments")),
    "another trust domain's id": update(message(spiffe_id="spiffe://other.example/service/orders")),
    "another trust domain's chain": update(message(x509_svid=OTHER.issue("orders").chain[0])),
    "another trust domain's bundle": update(message(bundle=OTHER.bundle.x509_der)),
    "a leaf as bundle": update(message(bundle=GOOD.chain[0])),
    "a CA as leaf": update(message(x509_svid=SHOP.bundle.x509_authorities[0])),
    "one good and one bad": update(message(), message(hint="b", x509_svid_key=b"x")),
    "a hint twice": update(message(), message()),
    "a federated bundle that is none": update(message(), federated_bundles={"spiffe://other.example": b"x"}),
    "a federated bundle named by a path": update(
        message(), federated_bundles={"spiffe://other.example/x": OTHER.bundle.x509_der}
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_update_is_refused(name):
    with pytest.raises((InputError, TrustError)) as refused:
        read_x509_update(BAD[name], NOW)
    assert "nonsense" not in str(refused.value)


@pytest.mark.parametrize("moment", [NOW + timedelta(hours=2), NOW - timedelta(hours=1)])
def test_a_certificate_out_of_its_time_is_refused(moment):
    with pytest.raises((InputError, TrustError)):
        read_x509_update(update(message()), moment)


def test_a_good_update():
    second = SHOP.issue("reporting")
    found = read_x509_update(
        update(
            message(),
            w.X509SVID(
                spiffe_id=str(second.spiffe_id),
                x509_svid=second.chain[0],
                x509_svid_key=second.key.reveal(),
                bundle=SHOP.bundle.x509_der,
                hint="",
            ),
            federated_bundles={"spiffe://other.example": OTHER.bundle.x509_der},
        ),
        datetime.now(UTC),
    )
    assert found.default.spiffe_id == GOOD.spiffe_id
    assert found.default.x5t == GOOD.x5t
    assert len(found.identities) == 2
    assert found.federated[OTHER.trust_domain].x509_authorities == OTHER.bundle.x509_authorities
    assert found.default.bundle.trust_domain == SHOP.trust_domain
    assert GOOD.key.reveal().hex() not in repr(found)


@pytest.mark.parametrize(
    "bundles",
    [{}, {"spiffe://shop.example": b"x"}, {"shop.example": SHOP.bundle.x509_der}, {"spiffe://a/b": b""}],
)
def test_malformed_x509_bundles(bundles):
    with pytest.raises(InputError):
        read_x509_bundles(w.X509BundlesResponse(bundles=bundles))


@pytest.mark.parametrize(
    "bundles", [{}, {"spiffe://shop.example": b"x"}, {"spiffe://shop.example": b"{}"}, {"x": b'{"keys":[]}'}]
)
def test_malformed_jwt_bundles(bundles):
    with pytest.raises(InputError):
        read_jwt_bundles(w.JWTBundlesResponse(bundles=bundles))


def test_good_bundles():
    domain = str(SHOP.trust_domain.id)
    x509 = read_x509_bundles(w.X509BundlesResponse(bundles={domain: SHOP.bundle.x509_der}))
    jwt = read_jwt_bundles(w.JWTBundlesResponse(bundles={domain: encode_jwt_bundle(SHOP.bundle)}))
    assert x509[SHOP.trust_domain].x509_authorities == SHOP.bundle.x509_authorities
    assert set(jwt[SHOP.trust_domain].jwt_authorities) == set(SHOP.bundle.jwt_authorities)


@pytest.mark.parametrize(
    "svids",
    [[], [w.JWTSVID(spiffe_id="spiffe://a/b", svid="")], [w.JWTSVID(spiffe_id="", svid="x")]],
)
def test_malformed_jwt_svids(svids):
    with pytest.raises(InputError):
        read_jwt_svids(w.JWTSVIDResponse(svids=svids))
