# SPDX-License-Identifier: Apache-2.0
"""Issuing: what is refused, what is cut, what is recorded."""

from datetime import timedelta

import pytest
from tests.support.identity import DOMAIN_ID, NOW, WORKLOAD_ID

from everyhop.auditlog import Kind, RecordFilter
from everyhop.authority import AuthorityKind, AuthoritySettings
from everyhop.core.errors import AccessDenied, InputError, TrustError, Unavailable
from everyhop.spiffe import SpiffeId
from everyhop.spiffe.jwt_svid import validate_jwt_svid
from everyhop.spiffe.x509_svid import validate_x509_svid
from everyhop.x509 import build_csr, decode_certificate, generate_private_key

ID = SpiffeId.parse(WORKLOAD_ID)
KEY = generate_private_key()
CSR = build_csr(KEY)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    "text", [DOMAIN_ID, "spiffe://other.example/service/orders", "spiffe://other.example"]
)
def test_ids_that_are_never_signed(authority, storage, text):
    before = storage.records.count()
    with pytest.raises(AccessDenied):
        authority.issue_x509(SpiffeId.parse(text), CSR)
    with pytest.raises(AccessDenied):
        authority.issue_jwt(SpiffeId.parse(text), ("payments",))
    assert storage.records.count() == before


def test_a_request_that_proves_nothing(authority):
    forged = bytearray(CSR)
    forged[-1] ^= 1
    with pytest.raises(TrustError):
        authority.issue_x509(ID, bytes(forged))
    with pytest.raises(InputError):
        authority.issue_x509(ID, b"no request")


@pytest.mark.parametrize("ttl", [timedelta(0), -SECOND, timedelta(milliseconds=999)])
def test_a_lifetime_that_is_none(authority, ttl):
    with pytest.raises(InputError):
        authority.issue_x509(ID, CSR, ttl)
    with pytest.raises(InputError):
        authority.issue_jwt(ID, ("payments",), ttl)


@pytest.mark.parametrize("audience", [(), ("",), ("a", "a"), "payments"])
def test_audiences_that_are_none(authority, audience):
    with pytest.raises(InputError):
        authority.issue_jwt(ID, audience)


def test_nothing_is_issued_before_the_start(make):
    with pytest.raises(Unavailable):
        make().issue_x509(ID, CSR)
    with pytest.raises(Unavailable):
        make().issue_jwt(ID, ("payments",))


def test_nothing_is_issued_by_an_authority_whose_time_is_over(authority, clock):
    clock.advance(timedelta(hours=24))
    with pytest.raises(Unavailable):
        authority.issue_x509(ID, CSR)
    with pytest.raises(Unavailable):
        authority.issue_jwt(ID, ("payments",))


def test_nothing_is_issued_in_the_last_moment(authority, clock):
    clock.advance(timedelta(hours=24) - timedelta(milliseconds=1))
    for issue in (lambda: authority.issue_x509(ID, CSR), lambda: authority.issue_jwt(ID, ("p",))):
        with pytest.raises(Unavailable):
            issue()


def test_an_svid_never_outlives_its_authority(authority, clock):
    clock.advance(timedelta(hours=23, minutes=58))
    end = NOW + timedelta(hours=24)
    assert authority.issue_x509(ID, CSR).expires_at == end
    assert authority.issue_jwt(ID, ("payments",)).expires_at == end


def test_lifetimes(authority):
    assert authority.issue_x509(ID, CSR).expires_at == NOW + timedelta(hours=1)
    assert authority.issue_x509(ID, CSR, timedelta(minutes=1)).expires_at == NOW + timedelta(minutes=1)
    assert authority.issue_x509(ID, CSR, timedelta(days=9)).expires_at == NOW + timedelta(hours=1)
    assert authority.issue_jwt(ID, ("p",)).expires_at == NOW + timedelta(minutes=5)
    assert authority.issue_jwt(ID, ("p",), SECOND).expires_at == NOW + SECOND
    assert authority.issue_jwt(ID, ("p",), timedelta(days=9)).expires_at == NOW + timedelta(minutes=5)


def test_what_is_issued_holds_under_the_bundle(authority, clock):
    clock.advance(timedelta(hours=1, microseconds=7))
    issued = authority.issue_x509(ID, CSR)
    svid = validate_x509_svid(issued.chain_der, authority.bundle(), clock.now())
    assert svid.spiffe_id == ID
    assert svid.not_after == issued.expires_at
    assert svid.not_before == NOW + timedelta(hours=1, seconds=-10)
    leaf = decode_certificate(issued.chain_der[0])
    assert leaf.public_key() == KEY.public_key()
    jwt = authority.issue_jwt(ID, ("payments", "orders"))
    token = validate_jwt_svid(jwt.token, authority.bundle(), audience="orders", now=clock.now())
    assert (token.spiffe_id, token.kid) == (ID, jwt.authority_id)
    assert jwt.token not in repr(jwt)


def test_serial_numbers_and_token_ids_are_new_each_time(authority):
    serials = {decode_certificate(authority.issue_x509(ID, CSR).chain_der[0]).serial_number for _ in range(5)}
    tokens = {authority.issue_jwt(ID, ("p",)).token for _ in range(5)}
    assert len(serials) == len(tokens) == 5


def test_each_issue_is_recorded(authority, storage):
    issued = authority.issue_x509(ID, CSR)
    authority.issue_jwt(ID, ("payments",))
    jwt, x509 = storage.records.query(RecordFilter(kind=Kind.IDENTITY)).records
    serial = decode_certificate(issued.chain_der[0]).serial_number
    assert (x509.operation, x509.caller, x509.decision) == ("issue-x509-svid", WORKLOAD_ID, "allow")
    assert x509.detail["serial"] == f"{serial:x}"
    assert x509.detail["authority"] == issued.authority_id
    assert (jwt.operation, jwt.detail["audience"]) == ("issue-jwt-svid", "payments")


def test_a_token_never_reaches_the_log(authority, storage):
    from everyhop.auditlog import encode_records

    token = authority.issue_jwt(ID, ("payments",)).token
    lines = encode_records(storage.records.query(RecordFilter()).records)
    assert token.rsplit(".", 1)[1].encode() not in lines


def test_an_issue_that_cannot_be_recorded_is_not_given_out(authority, storage):
    with storage.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM log_head")
    with pytest.raises(Unavailable):
        authority.issue_x509(ID, CSR)


def test_the_latest_expiry_is_remembered_by_the_authority(authority):
    authority.issue_x509(ID, CSR)
    authority.issue_x509(ID, CSR, timedelta(minutes=1))
    (entry,) = (e for e in authority.list_authorities() if e.kind is AuthorityKind.X509)
    assert entry.signed_until == NOW + timedelta(hours=1)


def test_settings_that_contradict_themselves():
    from everyhop.core.errors import SettingsError

    hour = timedelta(hours=1)
    for changed in (
        {"x509_ttl": timedelta(0)},
        {"jwt_ttl": timedelta(milliseconds=1)},
        {"ca_ttl": hour, "x509_ttl": 2 * hour},
        {"jwt_key_ttl": hour, "jwt_ttl": 2 * hour},
        {"prepare_at": 0.9},
        {"force_at": 1.0},
        {"prepare_at": 0.0},
    ):
        with pytest.raises(SettingsError):
            AuthoritySettings(**changed)
