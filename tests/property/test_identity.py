# SPDX-License-Identifier: Apache-2.0
"""Whatever bytes arrive: our own errors or a right value, never a crash; and what is encoded is decoded."""

import json
from datetime import UTC, datetime, timedelta

from hypothesis import example, given, settings, strategies as st
from tests.support.identity import DOMAIN, NOW, WORKLOAD_ID, TestCa, new_key

from everyhop.auditlog import Kind, Point, Record, decode_record, decode_records, encode_record
from everyhop.core.errors import EveryhopError, InputError
from everyhop.core.secret import Secret
from everyhop.jose import (
    Jwk,
    decode_base64url,
    encode_base64url,
    parse_compact,
    parse_json_object,
    sign_es256,
)
from everyhop.providers.keystores import MemoryKeyStore
from everyhop.spiffe import SpiffeId, TrustDomain
from everyhop.spiffe.bundle import Bundle, decode_bundle, encode_bundle
from everyhop.spiffe.jwt_svid import mint_jwt_svid, validate_jwt_svid
from everyhop.spiffe.x509_svid import validate_x509_svid
from everyhop.storage.schema import from_micros, to_micros
from everyhop.x509 import build_csr, certificates_from_pem, decode_certificate, split_certificates, verify_csr

TD = TrustDomain.parse(DOMAIN)
CA = TestCa()
LEAF = CA.leaf()
KEY = new_key()
CSR = build_csr(KEY)
JWK = Jwk(key=KEY.public_key(), kid="k", use="jwt-svid")
BUNDLE = Bundle(trust_domain=TD, x509_authorities=(CA.der,), jwt_authorities={"k": JWK}, sequence=1)
TOKEN = sign_es256(
    KEY, {"kid": "k"}, json.dumps({"sub": WORKLOAD_ID, "aud": "a", "exp": 4102444800}).encode()
)
KEYSTORE = MemoryKeyStore()


def mutated(original):
    """Bytes near a right value: a few places changed, or a piece cut out or doubled."""
    size = len(original)

    def apply(changes, cut, repeat):
        data = bytearray(original)
        for place, value in changes:
            data[place] = value
        start, end = sorted(cut)
        return bytes(data[:start] + (data[start:end] * repeat) + data[end:])

    places = st.tuples(st.integers(0, size - 1), st.integers(0, 255))
    cuts = st.tuples(st.integers(0, size), st.integers(0, size))
    return st.builds(apply, st.lists(places, max_size=4), cuts, st.sampled_from([0, 1, 1, 1, 2]))


def ours_or_nothing(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except EveryhopError:
        return None


@given(st.one_of(st.binary(max_size=300), mutated(LEAF)))
@settings(max_examples=400, deadline=None)
def test_certificates(data):
    ours_or_nothing(decode_certificate, data)
    ours_or_nothing(split_certificates, data)
    ours_or_nothing(certificates_from_pem, data)
    svid = ours_or_nothing(validate_x509_svid, [data], BUNDLE, NOW)
    assert svid is None or data == LEAF


@given(st.one_of(st.binary(max_size=300), mutated(CSR)))
@settings(max_examples=300, deadline=None)
def test_requests(data):
    key = ours_or_nothing(verify_csr, data)
    assert key is None or key == KEY.public_key()


@given(st.one_of(st.text(max_size=200), mutated(TOKEN.encode()).map(lambda b: b.decode("latin-1"))))
@settings(max_examples=400, deadline=None)
def test_tokens(text):
    ours_or_nothing(parse_compact, text)
    svid = ours_or_nothing(validate_jwt_svid, text, BUNDLE, audience="a", now=NOW)
    assert svid is None or text == TOKEN


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["sub", "aud", "exp", "iat", "nbf", "jti", "x"]), json_values | st.just(WORKLOAD_ID)
    )
)
@settings(max_examples=300, deadline=None)
def test_rightly_signed_nonsense(claims):
    token = sign_es256(KEY, {"kid": "k"}, json.dumps(claims).encode())
    svid = ours_or_nothing(validate_jwt_svid, token, BUNDLE, audience="a", now=NOW)
    assert svid is None or claims["sub"] == WORKLOAD_ID


entries = st.dictionaries(
    st.sampled_from(["kty", "use", "kid", "crv", "x", "y", "n", "e", "x5c", "alg", "d"]),
    json_values | st.sampled_from([*JWK.to_members().values(), "x509-svid", "RSA"]),
)


@given(
    st.fixed_dictionaries(
        {"keys": st.lists(entries | json_values, max_size=3) | json_values},
        optional={"spiffe_sequence": json_values, "spiffe_refresh_hint": json_values},
    )
)
@settings(max_examples=300, deadline=None)
def test_bundles_of_nonsense(document):
    ours_or_nothing(decode_bundle, TD, json.dumps(document).encode())


@given(st.binary(max_size=200))
def test_random_bytes_as_json_bundle_record(data):
    ours_or_nothing(decode_bundle, TD, data)
    ours_or_nothing(parse_json_object, data)
    ours_or_nothing(decode_record, data)
    ours_or_nothing(decode_records, data)


@given(
    st.lists(st.sampled_from([CA.der, TestCa(common="b").der, TestCa(common="c").der]), unique=True),
    st.dictionaries(st.text(min_size=1, max_size=40), st.just(JWK), max_size=4),
    st.none() | st.integers(0, 2**63 - 1),
    st.none() | st.integers(0, 10**6).map(lambda s: timedelta(seconds=s)),
)
def test_bundles_come_back(cas, keys, sequence, hint):
    bundle = Bundle(
        trust_domain=TD,
        x509_authorities=tuple(cas),
        jwt_authorities={kid: Jwk(key=k.key, kid=kid, use="jwt-svid") for kid, k in keys.items()},
        sequence=sequence,
        refresh_hint=hint,
    )
    assert decode_bundle(TD, encode_bundle(bundle)) == bundle


@given(st.binary(max_size=100))
def test_base64url_comes_back(data):
    assert decode_base64url(encode_base64url(data)) == data


@given(st.text(alphabet="ABab01-_=+/ \n", max_size=12))
def test_base64url_has_one_spelling(text):
    decoded = ours_or_nothing(decode_base64url, text)
    assert decoded is None or encode_base64url(decoded) == text


segments = st.text(alphabet="abzAZ09.-_", min_size=1, max_size=12).filter(lambda s: s not in {".", ".."})


@given(st.text(alphabet="abz09.-_", min_size=1, max_size=20), st.lists(segments, max_size=5))
def test_spiffe_ids_come_back(domain, path):
    text = f"spiffe://{domain}" + "".join(f"/{s}" for s in path)
    assert str(SpiffeId.parse(text)) == text


@given(st.text(max_size=60).map(lambda t: "spiffe://" + t) | st.text(max_size=60))
@example("spiffe://a/\n")
def test_whatever_parses_as_spiffe_id_is_its_own_normal_form(text):
    parsed = ours_or_nothing(SpiffeId.parse, text)
    assert parsed is None or str(SpiffeId.parse(str(parsed))) == str(parsed)


@given(
    st.integers(1, 3600),
    st.lists(st.text(alphabet="abc:/.", min_size=1, max_size=20), min_size=1, max_size=8, unique=True),
)
@settings(deadline=None)
def test_minted_tokens_validate_for_each_audience_until_they_expire(seconds, audience):
    token = ours_or_nothing(
        mint_jwt_svid,
        spiffe_id=SpiffeId.parse(WORKLOAD_ID),
        audience=audience,
        issued_at=NOW,
        expires_at=NOW + timedelta(seconds=seconds),
        token_id="t",
        kid="k",
        key=KEY,
    )
    for one in audience:
        last = NOW + timedelta(seconds=seconds) - timedelta(microseconds=1)
        assert validate_jwt_svid(token, BUNDLE, audience=one, now=last).audience == tuple(audience)


@given(
    st.binary(max_size=200),
    st.text(max_size=10),
    st.text(max_size=10),
    st.text(max_size=10),
    st.text(max_size=10),
)
def test_a_wrapped_key_opens_in_its_own_place_only(secret, key_id, purpose, other_id, other_purpose):
    blob = KEYSTORE.wrap(key_id, purpose, Secret(secret))
    opened = ours_or_nothing(KEYSTORE.unwrap, other_id, other_purpose, blob)
    assert (opened is not None) is ((key_id, purpose) == (other_id, other_purpose))


texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


@given(
    st.builds(
        Record,
        id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
        seq=st.integers(1, 2**63 - 1),
        producer=st.just("p"),
        time=st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
        kind=st.sampled_from(Kind),
        point=st.sampled_from(Point),
        caller=texts,
        path=texts,
        decision=st.sampled_from([None, "allow", "deny"]),
        status=st.none() | st.integers(0, 999),
        latency_ms=st.none() | st.floats(0, 1e9),
        detail=st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), texts, max_size=3
        ),
    )
)
def test_records_come_back_on_one_line(record):
    line = encode_record(record)
    assert b"\n" not in line
    assert decode_record(line) == record
    assert from_micros(to_micros(record.time)) == record.time


@given(st.binary(max_size=400))
def test_wrapped_keys_of_nonsense(blob):
    try:
        KEYSTORE.unwrap("k", "p", blob)
    except InputError:
        return
    except EveryhopError:
        return
    raise AssertionError("random bytes opened")
