# SPDX-License-Identifier: Apache-2.0
"""X509-SVID validation: each MUST of X509-SVID.md, broken alone."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.support.identity import (
    BOTH,
    DOMAIN,
    DOMAIN_ID,
    HOUR,
    NOW,
    WORKLOAD_ID,
    TestCa,
    ca_extensions,
    key_usage,
    name,
    uris,
)

from everyhop.core.errors import ChainError, InputError, SvidError
from everyhop.spiffe import TrustDomain
from everyhop.spiffe.bundle import Bundle
from everyhop.spiffe.x509_svid import validate_x509_svid

CA = TestCa()


def bundle(*cas, domain=DOMAIN):
    return Bundle(
        trust_domain=TrustDomain.parse(domain),
        x509_authorities=tuple(ca.der for ca in cas or (CA,)),
        jwt_authorities={},
    )


@pytest.mark.parametrize(
    ("clause", "leaf"),
    [
        ("2:", {"names": None, "subject": name("orders")}),
        ("2:", {"names": (x509.SubjectAlternativeName([x509.DNSName("orders")]), True)}),
        ("2:", {"names": (uris(WORKLOAD_ID, WORKLOAD_ID), True)}),
        ("2:", {"names": (uris(WORKLOAD_ID, "https://shop.example"), True)}),
        ("5.2:", {"names": (uris("https://shop.example/service/orders"), True)}),
        ("5.2:", {"names": (uris("spiffe://shop.example/service/../root"), True)}),
        ("5.2:", {"names": (uris("spiffe://shop.example/service/orders?x"), True)}),
        ("5.2:", {"names": (uris("spiffe://shop.example:443/service/orders"), True)}),
        ("3.1:", {"names": (uris(DOMAIN_ID), True)}),
        ("5.2:", {"names": (uris(DOMAIN_ID + "/"), True)}),
        ("3.1:", {"names": (uris(WORKLOAD_ID), False)}),
        ("4.1:", {"constraints": (x509.BasicConstraints(ca=True, path_length=None), True)}),
        ("4.3:", {"usage": None}),
        ("4.3:", {"usage": (key_usage("digital_signature"), False)}),
        ("4.3:", {"usage": (key_usage("key_agreement"), True)}),
        ("4.3:", {"usage": (key_usage("digital_signature", "key_cert_sign"), True)}),
        ("4.3:", {"usage": (key_usage("digital_signature", "crl_sign"), True)}),
        ("4.4:", {"purposes": (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)}),
        ("4.4:", {"purposes": (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)}),
        ("4.4:", {"purposes": (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False)}),
    ],
)
def test_a_leaf_that_breaks_one_clause(clause, leaf):
    with pytest.raises(SvidError) as caught:
        validate_x509_svid([CA.leaf(**leaf)], bundle(), NOW)
    assert caught.value.message.startswith(f"X509-SVID {clause}")


@pytest.mark.parametrize(
    ("clause", "changed"),
    [
        ("3.2:", {"names": (uris(WORKLOAD_ID), False)}),
        ("2:", {"names": (uris(DOMAIN_ID, DOMAIN_ID), False)}),
        ("4.1:", {"constraints": (x509.BasicConstraints(ca=False, path_length=None), True)}),
        ("4.1:", {"constraints": None}),
        ("4.3:", {"usage": (key_usage("crl_sign"), True)}),
        ("4.3:", {"usage": (key_usage("key_cert_sign"), False)}),
        ("4.3:", {"usage": None}),
    ],
)
def test_an_intermediate_that_breaks_one_clause(clause, changed):
    middle = TestCa(common="middle", parent=CA, extensions={**ca_extensions(), **changed})
    with pytest.raises(SvidError) as caught:
        validate_x509_svid([middle.leaf(), middle.der], bundle(), NOW)
    assert caught.value.message.startswith(f"X509-SVID {clause}")


def test_another_trust_domain():
    with pytest.raises(SvidError, match=r"5\.1"):
        validate_x509_svid([CA.leaf(uri="spiffe://other.example/service/orders")], bundle(), NOW)
    with pytest.raises(SvidError, match=r"5\.1"):
        validate_x509_svid([CA.leaf()], bundle(domain="other.example"), NOW)


def test_an_authority_that_is_not_in_the_bundle():
    with pytest.raises(ChainError):
        validate_x509_svid([TestCa().leaf()], bundle(), NOW)
    with pytest.raises(ChainError):
        validate_x509_svid(
            [CA.leaf()],
            Bundle(trust_domain=TrustDomain.parse(DOMAIN), x509_authorities=(), jwt_authorities={}),
            NOW,
        )


def test_a_signing_certificate_is_no_identity():
    with pytest.raises(SvidError):
        validate_x509_svid([CA.der], bundle(), NOW)


def test_a_self_made_ca_sent_along_does_not_help():
    fake = TestCa()
    with pytest.raises(ChainError):
        validate_x509_svid([fake.leaf(), fake.der], bundle(), NOW)


@pytest.mark.parametrize("by", [-HOUR - timedelta(seconds=1), HOUR + timedelta(seconds=1)])
def test_outside_its_time(by):
    with pytest.raises(ChainError):
        validate_x509_svid([CA.leaf()], bundle(), NOW + by)


@pytest.mark.parametrize("chain", [[], [b""], [b"\x30\x00"], [CA.der[:-1]], [CA.leaf()] * 6])
def test_what_does_not_parse(chain):
    with pytest.raises(InputError):
        validate_x509_svid(chain, bundle(), NOW)


def test_chains_that_hold():
    leaf = CA.leaf()
    svid = validate_x509_svid([leaf], bundle(), NOW)
    assert str(svid.spiffe_id) == WORKLOAD_ID
    assert (svid.not_before, svid.not_after, svid.chain) == (NOW - HOUR, NOW + HOUR, (leaf,))
    middle = TestCa(common="middle", parent=CA, extensions=ca_extensions(uri=None))
    assert validate_x509_svid([middle.leaf(), middle.der], bundle(), NOW).spiffe_id == svid.spiffe_id
    assert validate_x509_svid([CA.leaf()], bundle(TestCa(common="x"), CA), NOW)


def test_what_the_standard_permits_is_accepted():
    more_names = x509.SubjectAlternativeName(
        [
            x509.UniformResourceIdentifier(WORKLOAD_ID),
            x509.DNSName("orders"),
            x509.RFC822Name("o@shop.example"),
        ]
    )
    wide = x509.ExtendedKeyUsage([*BOTH, ExtendedKeyUsageOID.CODE_SIGNING])
    usage = key_usage("digital_signature", "key_encipherment", "key_agreement")
    for leaf in (
        {"purposes": None},
        {"purposes": (wide, False)},
        {"usage": (usage, True)},
        {"names": (more_names, True)},
        {"constraints": None},
        {"subject": name("orders"), "names": (uris(WORKLOAD_ID), False)},
    ):
        assert validate_x509_svid([CA.leaf(**leaf)], bundle(), NOW)
