# SPDX-License-Identifier: Apache-2.0
"""What everyhop mints, against the clause checker; and the checker, against artefacts broken in one clause each.

Every broken artefact that a validator of the product has to judge is shown to it as well: it must refuse what breaks a MUST.
"""

import contextlib
import json
from base64 import b64encode
from datetime import timedelta

import jwt as pyjwt
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.conformance.svid_checker import (
    MUST,
    check_bundle,
    check_jwt_svid,
    check_leaf,
    check_signing_certificate,
    check_x509_svid,
)
from tests.support.identity import (
    DOMAIN,
    DOMAIN_ID,
    HOUR,
    NOW,
    WORKLOAD_ID,
    FakeClock,
    TestCa,
    TestEntropy,
    ca_extensions,
    key_usage,
    name,
    new_key,
    uris,
)

from everyhop.authority import Authority, AuthorityKind
from everyhop.core.errors import EveryhopError
from everyhop.jose import Jwk, encode_base64url, public_key_to_jwk
from everyhop.providers.keystores import MemoryKeyStore
from everyhop.spiffe import SpiffeId, TrustDomain
from everyhop.spiffe.bundle import Bundle, decode_bundle, encode_bundle, encode_jwt_bundle
from everyhop.spiffe.jwt_svid import validate_jwt_svid
from everyhop.spiffe.x509_svid import validate_x509_svid
from everyhop.storage import open_storage
from everyhop.x509 import build_csr, generate_private_key

TD = TrustDomain.parse(DOMAIN)


def musts(report):
    return {f.clause for f in report if f.level == MUST}


# --- what we mint ----------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path):
    with contextlib.closing(open_storage(tmp_path / "everyhop.db")) as storage:
        made = Authority(
            trust_domain=TD,
            store=storage.authorities,
            keystore=MemoryKeyStore(),
            clock=FakeClock(),
            entropy=TestEntropy(),
        )
        made.start()
        yield made


@pytest.mark.parametrize(
    "path", ["/service/orders", "/a", "/ns/shop/sa/orders", "/" + "x" * 2000, "/A.b-c_d/0"]
)
def test_minted_x509_svids(authority, path):
    chain = authority.issue_x509(
        SpiffeId.parse(DOMAIN_ID + path), build_csr(generate_private_key())
    ).chain_der
    assert check_x509_svid(chain, authority.bundle().x509_authorities, DOMAIN, NOW) == []


@pytest.mark.parametrize(
    "audience", ["payments", "https://payments.shop.example/v1", "spiffe://shop.example/service/payments"]
)
def test_minted_jwt_svids(authority, audience):
    token = authority.issue_jwt(SpiffeId.parse(WORKLOAD_ID), (audience,)).token
    assert check_jwt_svid(token, encode_bundle(authority.bundle()), DOMAIN, audience, NOW) == []
    assert check_jwt_svid(token, encode_jwt_bundle(authority.bundle()), DOMAIN, audience, NOW) == []


def test_minted_bundles_at_every_step_of_a_rotation(authority):
    for step in range(4):
        if step == 1:
            authority.prepare(AuthorityKind.X509)
        if step == 2:
            authority.prepare(AuthorityKind.JWT)
        if step == 3:
            authority.activate(AuthorityKind.X509, authority.bundle().sequence)
            authority.activate(AuthorityKind.JWT, authority.bundle().sequence)
        assert check_bundle(encode_bundle(authority.bundle()), NOW, DOMAIN) == []
        for der in authority.bundle().x509_authorities:
            assert check_signing_certificate(der) == []


def test_the_workload_api_s_jwt_bundle_has_no_other_keys(authority):
    keys = json.loads(encode_jwt_bundle(authority.bundle()))["keys"]
    assert {key["use"] for key in keys} == {"jwt-svid"}  # Workload API 6.2.2


# --- broken leaves ---------------------------------------------------------------------------------------------------

CA = TestCa(
    extensions={
        **ca_extensions(),
        "identifier": (x509.SubjectKeyIdentifier(b"k" * 20), False),
    }
)
BUNDLE = Bundle(trust_domain=TD, x509_authorities=(CA.der,), jwt_authorities={})
WRONG_IDENTIFIER = x509.AuthorityKeyIdentifier(b"x" * 20, None, None)


def key_purposes(*oids):
    return (x509.ExtendedKeyUsage(list(oids)), False)


BROKEN_LEAVES = [
    ("X509-SVID 2", {"names": None, "subject": name("x")}),
    ("X509-SVID 2", {"names": (x509.SubjectAlternativeName([x509.DNSName("orders")]), True)}),
    ("X509-SVID 2", {"names": (uris(WORKLOAD_ID, DOMAIN_ID + "/b"), True)}),
    ("SPIFFE-ID 2", {"names": (uris("https://shop.example/service/orders"), True)}),
    ("SPIFFE-ID 2", {"names": (uris("spiffe:///service/orders"), True)}),
    ("SPIFFE-ID 2", {"names": (uris(WORKLOAD_ID + "?a=b"), True)}),
    ("SPIFFE-ID 2", {"names": (uris(WORKLOAD_ID + "#a"), True)}),
    ("SPIFFE-ID 2.1", {"names": (uris("spiffe://shop.example:8443/orders"), True)}),
    ("SPIFFE-ID 2.1", {"names": (uris("spiffe://user@shop.example/orders"), True)}),
    ("SPIFFE-ID 2.1", {"names": (uris("spiffe://shop%2eexample/orders"), True)}),
    ("SPIFFE-ID 2.2", {"names": (uris(WORKLOAD_ID + "/"), True)}),
    ("SPIFFE-ID 2.2", {"names": (uris(DOMAIN_ID + "//orders"), True)}),
    ("SPIFFE-ID 2.2", {"names": (uris(DOMAIN_ID + "/a/../orders"), True)}),
    ("SPIFFE-ID 2.2", {"names": (uris(DOMAIN_ID + "/a%2forders"), True)}),
    ("X509-SVID 3.1", {"names": (uris(DOMAIN_ID), True)}),
    ("X509-SVID 3.1", {"names": (uris(WORKLOAD_ID), False)}),
    ("X509-SVID 4.1", {"constraints": (x509.BasicConstraints(ca=True, path_length=None), True)}),
    ("X509-SVID 4.3", {"usage": None}),
    ("X509-SVID 4.3", {"usage": (key_usage("digital_signature"), False)}),
    ("X509-SVID 4.3", {"usage": (key_usage("key_encipherment"), True)}),
    ("X509-SVID 4.3", {"usage": (key_usage("digital_signature", "key_cert_sign"), True)}),
    ("X509-SVID 4.3", {"usage": (key_usage("digital_signature", "crl_sign"), True)}),
    ("X509-SVID 4.4", {"purposes": key_purposes(ExtendedKeyUsageOID.SERVER_AUTH)}),
    ("X509-SVID 4.4", {"purposes": key_purposes(ExtendedKeyUsageOID.CLIENT_AUTH)}),
]


def test_a_right_leaf_breaks_nothing():
    assert check_x509_svid([CA.leaf()], [CA.der], DOMAIN, NOW) == []
    assert validate_x509_svid([CA.leaf()], BUNDLE, NOW)


@pytest.mark.parametrize(("clause", "changed"), BROKEN_LEAVES)
def test_broken_leaves(clause, changed):
    leaf = CA.leaf(**changed)
    assert clause in musts(check_leaf(leaf))
    with pytest.raises(EveryhopError):
        validate_x509_svid([leaf], BUNDLE, NOW)


def test_a_leaf_without_purposes_breaks_only_a_should():
    (finding,) = check_leaf(CA.leaf(purposes=None))
    assert (finding.clause, finding.level) == ("X509-SVID 4.4", "SHOULD")


@pytest.mark.parametrize(
    ("clause", "chain", "now"),
    [
        ("X509-SVID 5.1", [TestCa().leaf()], NOW),
        ("X509-SVID 5.1", [CA.leaf(uri="spiffe://other.example/service/orders")], NOW),
        ("X509-SVID 5.1", [CA.leaf()[:-1] + bytes([CA.leaf()[-1] ^ 1])], NOW),
        ("RFC 5280 6.1.3", [CA.leaf()], NOW + 2 * HOUR),
        ("RFC 5280 6.1.3", [CA.leaf()], NOW - 2 * HOUR),
    ],
    ids=["stranger", "other domain", "signature", "expired", "early"],
)
def test_broken_chains(clause, chain, now):
    assert clause in musts(check_x509_svid(chain, [CA.der], DOMAIN, now))
    with pytest.raises(EveryhopError):
        validate_x509_svid(chain, BUNDLE, now)


def test_a_wrong_key_identifier_is_found():
    leaf = CA.leaf(authority=(WRONG_IDENTIFIER, False))
    assert "RFC 5280 4.2.1.1" in musts(check_x509_svid([leaf], [CA.der], DOMAIN, NOW))


BROKEN_CAS = [
    ("X509-SVID 2", {"names": (uris(DOMAIN_ID, DOMAIN_ID), False)}),
    ("X509-SVID 3.2", {"names": (uris(WORKLOAD_ID), False)}),
    ("X509-SVID 4.1", {"constraints": (x509.BasicConstraints(ca=False, path_length=None), True)}),
    ("X509-SVID 4.3", {"usage": None}),
    ("X509-SVID 4.3", {"usage": (key_usage("key_cert_sign"), False)}),
    ("X509-SVID 4.3", {"usage": (key_usage("crl_sign"), True)}),
]


@pytest.mark.parametrize(("clause", "changed"), BROKEN_CAS)
def test_broken_signing_certificates(clause, changed):
    middle = TestCa(common="middle", parent=CA, extensions={**ca_extensions(), **changed})
    assert clause in musts(check_signing_certificate(middle.der))
    with pytest.raises(EveryhopError):
        validate_x509_svid([middle.leaf(), middle.der], BUNDLE, NOW)


# --- broken tokens ---------------------------------------------------------------------------------------------------

KEY = new_key()
JWT_BUNDLE = Bundle(
    trust_domain=TD,
    x509_authorities=(),
    jwt_authorities={"k": Jwk(key=KEY.public_key(), kid="k", use="jwt-svid")},
    sequence=1,
    refresh_hint=timedelta(seconds=60),
)
EPOCH = int(NOW.timestamp())
CLAIMS = {"sub": WORKLOAD_ID, "aud": ["payments"], "exp": EPOCH + 60}


def token(claims=CLAIMS, key=KEY, alg="ES256", **headers):
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return pyjwt.PyJWS().encode(payload, key, algorithm=alg, headers={"kid": "k", "typ": "JWT", **headers})


def json_form(text):
    header, payload, signature = text.split(".")
    return json.dumps({"protected": header, "payload": payload, "signature": signature})


def unsigned():
    parts = ({"alg": "none", "kid": "k"}, CLAIMS)
    return ".".join(encode_base64url(json.dumps(p).encode()) for p in parts) + "."


def without(claim):
    return {n: v for n, v in CLAIMS.items() if n != claim}


BROKEN_TOKENS = [
    ("JWT-SVID 1", json_form(token())),
    ("JWT-SVID 1", token().rpartition(".")[0]),
    ("JWT-SVID 1", token() + "=="),
    ("JWT-SVID 2", token(jku="https://elsewhere.example")),
    ("JWT-SVID 2", token(x5c=["AAAA"])),
    ("JWT-SVID 2.1", unsigned()),
    ("JWT-SVID 2.1", token(key=b"s" * 32, alg="HS256")),
    ("JWT-SVID 2.3", token(typ="at+jwt")),
    ("JWT-SVID 3.1", token(without("sub"))),
    ("JWT-SVID 3.1", token({**CLAIMS, "sub": "orders"})),
    ("JWT-SVID 3.1", token({**CLAIMS, "sub": WORKLOAD_ID + "/.."})),
    ("JWT-SVID 3.1", token({**CLAIMS, "sub": "spiffe://other.example/service/orders"})),
    ("JWT-SVID 3.2", token(without("aud"))),
    ("JWT-SVID 3.2", token({**CLAIMS, "aud": []})),
    ("JWT-SVID 3.2", token({**CLAIMS, "aud": ["other"]})),
    ("JWT-SVID 3.3", token(without("exp"))),
    ("JWT-SVID 3.3", token({**CLAIMS, "exp": EPOCH - 1})),
    ("JWT-SVID 3.3", token({**CLAIMS, "exp": "soon"})),
    ("JWT-SVID 5.1", token(key=new_key())),
    ("JWT-SVID 6.2", token(kid="other")),
    ("RFC 7519 7.2", token(b'{"sub":"spiffe://shop.example/a","sub":"spiffe://shop.example/b"}')),
    ("RFC 7519 7.2", token(b"[]")),
]


def test_a_right_token_breaks_nothing():
    document = encode_bundle(JWT_BUNDLE)
    assert check_jwt_svid(token(), document, DOMAIN, "payments", NOW) == []
    assert validate_jwt_svid(token(), JWT_BUNDLE, audience="payments", now=NOW)


@pytest.mark.parametrize(("clause", "text"), BROKEN_TOKENS)
def test_broken_tokens(clause, text):
    assert clause in musts(check_jwt_svid(text, encode_bundle(JWT_BUNDLE), DOMAIN, "payments", NOW))
    with pytest.raises(EveryhopError):
        validate_jwt_svid(text, JWT_BUNDLE, audience="payments", now=NOW)


# --- broken bundles --------------------------------------------------------------------------------------------------

X509_ENTRY = {
    **public_key_to_jwk(CA.key.public_key()),
    "use": "x509-svid",
    "x5c": [b64encode(CA.der).decode()],
}
JWT_ENTRY = {**public_key_to_jwk(KEY.public_key()), "use": "jwt-svid", "kid": "k"}
DOCUMENT = {"spiffe_sequence": 1, "spiffe_refresh_hint": 60, "keys": [X509_ENTRY, JWT_ENTRY]}


def entry_without(entry, member):
    return {n: v for n, v in entry.items() if n != member}


BROKEN_BUNDLES = [
    ("Bundle 4", b"[]"),
    ("Bundle 4", b'{"keys":[],"keys":[]}'),
    ("Bundle 4.1.1", {**DOCUMENT, "spiffe_sequence": "1"}),
    ("Bundle 4.1.1", {**DOCUMENT, "spiffe_sequence": -1}),
    ("Bundle 4.1.2", {**DOCUMENT, "spiffe_refresh_hint": 0.5}),
    ("Bundle 4.1.3", entry_without(DOCUMENT, "keys")),
    ("Bundle 4.1.3", {**DOCUMENT, "keys": {}}),
]
BROKEN_ENTRIES = [
    ("Bundle 4.2.1", entry_without(JWT_ENTRY, "kty")),
    ("Bundle 4.2.2", entry_without(JWT_ENTRY, "use")),
    ("Bundle 4.2.2", {**JWT_ENTRY, "use": "sig"}),
    ("Bundle 4.2", {**JWT_ENTRY, "d": "AAAA"}),
    ("JWT-SVID 6.1", entry_without(JWT_ENTRY, "kid")),
    ("JWT-SVID 6.1", entry_without(JWT_ENTRY, "x")),
    ("X509-SVID 6.1", entry_without(X509_ENTRY, "x5c")),
    ("X509-SVID 6.1", {**X509_ENTRY, "x5c": ["AAAA"]}),
    ("X509-SVID 4.1", {**X509_ENTRY, "x5c": [b64encode(CA.leaf()).decode()]}),
]
# Wrong to publish, harmless to read: the standard lets a reader take the first certificate and ignore the rest.
UNTIDY_ENTRIES = [
    ("X509-SVID 6.1", {**X509_ENTRY, "kid": "k"}),
    ("X509-SVID 6.1", {**X509_ENTRY, "x5c": X509_ENTRY["x5c"] * 2}),
    ("RFC 7517 4.7", {**X509_ENTRY, **public_key_to_jwk(KEY.public_key())}),
]


def encoded(document):
    return document if isinstance(document, bytes) else json.dumps(document).encode()


def test_a_right_bundle_breaks_nothing():
    assert check_bundle(encoded(DOCUMENT), NOW, DOMAIN) == []
    assert len(decode_bundle(TD, encoded(DOCUMENT)).jwt_authorities) == 1


@pytest.mark.parametrize(("clause", "document"), BROKEN_BUNDLES)
def test_broken_bundles(clause, document):
    assert clause in musts(check_bundle(encoded(document)))
    with pytest.raises(EveryhopError):
        decode_bundle(TD, encoded(document))


@pytest.mark.parametrize(("clause", "entry"), BROKEN_ENTRIES)
def test_broken_entries_are_found_and_never_trusted(clause, entry):
    document = encoded({**DOCUMENT, "keys": [entry]})
    assert clause in musts(check_bundle(document))
    bundle = decode_bundle(TD, document)
    assert (bundle.x509_authorities, dict(bundle.jwt_authorities)) == ((), {})


@pytest.mark.parametrize(("clause", "entry"), UNTIDY_ENTRIES)
def test_untidy_entries_are_found(clause, entry):
    document = encoded({**DOCUMENT, "keys": [entry]})
    assert clause in musts(check_bundle(document))
    assert decode_bundle(TD, document).x509_authorities == (CA.der,)


def test_two_keys_of_one_name():
    document = encoded({**DOCUMENT, "keys": [JWT_ENTRY, JWT_ENTRY]})
    assert musts(check_bundle(document)) == {"JWT-SVID 6.1"}
    assert not decode_bundle(TD, document).jwt_authorities


def test_the_set_of_broken_artefacts_is_large_enough():
    sets = (BROKEN_LEAVES, BROKEN_CAS, BROKEN_TOKENS, BROKEN_BUNDLES, BROKEN_ENTRIES, UNTIDY_ENTRIES)
    assert sum(map(len, sets)) >= 70
