# SPDX-License-Identifier: Apache-2.0
"""The life of an authority: prepared, published, active, old, gone; and what must never happen between."""

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from tests.support.identity import NOW, WORKLOAD_ID, FakeClock

from everyhop.auditlog import Kind, RecordFilter
from everyhop.authority import AuthorityKind, AuthoritySettings, AuthorityStatus
from everyhop.authority.signing import open_jwt_signer
from everyhop.core.errors import Conflict, NotFound, SettingsError, TrustError
from everyhop.providers.keystores import MemoryKeyStore
from everyhop.spiffe import SpiffeId, TrustDomain
from everyhop.spiffe.bundle import encode_bundle
from everyhop.spiffe.jwt_svid import validate_jwt_svid
from everyhop.spiffe.x509_svid import check_signing_certificate, validate_x509_svid
from everyhop.x509 import build_csr, decode_certificate, generate_private_key

ID = SpiffeId.parse(WORKLOAD_ID)
CSR = build_csr(generate_private_key())
HOUR = timedelta(hours=1)
X509, JWT = AuthorityKind.X509, AuthorityKind.JWT
PREPARED, ACTIVE, OLD = AuthorityStatus.PREPARED, AuthorityStatus.ACTIVE, AuthorityStatus.OLD


def statuses(authority, kind=X509):
    return [e.status for e in authority.list_authorities() if e.kind is kind]


def actions(changes):
    return [(c.action, c.kind) for c in changes]


def test_activation_is_refused_until_everyone_has_the_bundle(authority):
    before = authority.bundle().sequence
    prepared = authority.prepare(X509)
    assert prepared.published_sequence == before + 1
    for acknowledged in (None, 0, before):
        with pytest.raises(Conflict, match="not acknowledged"):
            authority.activate(X509, acknowledged)
    assert statuses(authority) == [ACTIVE, PREPARED]
    assert authority.activate(X509, before + 1).id == prepared.id
    assert statuses(authority) == [OLD, ACTIVE]


def test_activation_can_be_forced_and_says_so(authority, storage):
    authority.prepare(JWT)
    authority.activate(JWT, force=True)
    newest = storage.records.query(RecordFilter(kind=Kind.KEY), limit=1).records[0]
    assert (newest.operation, newest.detail["forced"]) == ("activate", True)


def test_nothing_to_activate(authority):
    with pytest.raises(Conflict, match="no prepared"):
        authority.activate(X509, 100, force=True)


def test_an_expired_prepared_authority_is_not_activated(authority, clock):
    authority.prepare(X509)
    clock.advance(24 * HOUR)
    with pytest.raises(Conflict, match="expired"):
        authority.activate(X509, 100, force=True)


def test_preparing_twice_gives_one(authority, clock):
    first = authority.prepare(X509)
    sequence = authority.bundle().sequence
    assert authority.prepare(X509) == first
    assert authority.bundle().sequence == sequence
    clock.advance(24 * HOUR)
    assert authority.prepare(X509).id != first.id


def test_a_restart_creates_nothing(authority, make):
    before = authority.list_authorities()
    again = make()
    assert again.start() == ()
    assert again.list_authorities() == before
    assert again.bundle() == authority.bundle()


def test_a_first_start_makes_one_of_each(make):
    made = make()
    assert actions(made.start()) == [("create", X509), ("create", JWT)]
    assert statuses(made) == statuses(made, JWT) == [ACTIVE]


def test_another_kek_is_refused_at_the_start(authority, make):
    with pytest.raises(TrustError, match="another key-encryption key"):
        make(keystore=MemoryKeyStore()).start()


def test_another_trust_domain_is_refused_at_the_start(authority, make):
    with pytest.raises(SettingsError, match=r"is of spiffe://shop\.example"):
        make(trust_domain=TrustDomain.parse("other.example")).start()


def test_swapped_and_damaged_rows_are_refused(authority, make, storage):
    x509, jwt = authority.list_authorities()

    def store(entry_id, column, value):
        with storage.database.writing() as connection:
            connection.execute(
                sa.text(f"UPDATE authorities SET {column} = :value WHERE id = :id"),
                {"value": value, "id": entry_id},
            )

    for blob in (jwt.wrapped_key, x509.wrapped_key[:-1] + bytes([x509.wrapped_key[-1] ^ 1])):
        store(x509.id, "wrapped_key", blob)
        with pytest.raises(TrustError, match="altered, or belongs to another"):
            make().start()
    store(x509.id, "wrapped_key", x509.wrapped_key)
    with storage.database.writing() as connection:
        connection.execute(
            sa.text("UPDATE authorities SET wrapped_key = NULL, status = 'old' WHERE id = :id"),
            {"id": jwt.id},
        )
    assert actions(make().start()) == [("create", JWT)]


def test_a_certificate_of_another_key_is_refused(authority, make, storage, keystore):
    x509 = authority.list_authorities()[0]
    secret = keystore.generate()
    with storage.database.writing() as connection:
        connection.execute(
            sa.text("UPDATE authorities SET wrapped_key = :value WHERE id = :id"),
            {"value": keystore.wrap(x509.id, "authority/x509", secret), "id": x509.id},
        )
    with pytest.raises(TrustError, match="another CA"):
        make().start()


def test_a_jwt_key_that_is_not_the_published_one_is_refused(authority, make, storage, keystore):
    jwt = authority.list_authorities()[1]
    with storage.database.writing() as connection:
        connection.execute(
            sa.text("UPDATE authorities SET wrapped_key = :value WHERE id = :id"),
            {"value": keystore.wrap(jwt.id, "authority/jwt", keystore.generate()), "id": jwt.id},
        )
    with pytest.raises(TrustError, match="not the JWT key"):
        make().start()


def test_the_schedule(authority, clock):
    def at(hours, acknowledged=10**6):
        clock.moment = NOW + hours * HOUR
        return actions(authority.tick(acknowledged))

    assert at(11.99) == []
    assert at(12) == [("prepare", X509), ("prepare", JWT)]
    assert at(19.99) == []
    assert at(20) == [("activate", X509), ("activate", JWT)]
    assert at(20) == []


def test_without_acknowledgement_the_change_waits_and_comes_by_force_only_late(authority, clock, storage):
    authority.issue_x509(ID, CSR)
    clock.advance(12 * HOUR)
    authority.tick(None)
    prepared_in = authority.bundle().sequence
    for hours in (8, 1, 0.99):
        clock.advance(hours * HOUR)
        assert authority.tick(prepared_in - 2) == ()
        assert authority.tick(None) == ()
    clock.advance(0.01 * HOUR)
    assert actions(authority.tick(None)) == [("activate", X509), ("activate", JWT)]
    newest = storage.records.query(RecordFilter(kind=Kind.KEY), limit=1).records[0]
    assert newest.detail["forced"] is True


def test_a_pause_longer_than_everything_is_survived(authority, clock):
    clock.advance(300 * HOUR)
    changes = authority.tick(0)
    assert actions(changes) == [("create", X509), ("create", JWT)]
    assert authority.issue_x509(ID, CSR)
    clock.advance(timedelta(seconds=61))
    authority.tick(0)
    assert statuses(authority) == statuses(authority, JWT) == [ACTIVE]


def test_after_a_pause_a_published_authority_is_preferred_to_a_new_one(authority, clock):
    clock.advance(12 * HOUR)
    authority.tick(0)
    prepared = authority.list_authorities()[2]
    clock.advance(20 * HOUR)
    assert actions(authority.tick(0))[0] == ("activate", X509)
    assert prepared.id in {e.id for e in authority.list_authorities() if e.status is ACTIVE}


def test_a_prepared_authority_without_an_active_one_takes_over_at_the_start(authority, make, storage):
    prepared = authority.prepare(JWT)
    with storage.database.writing() as connection:
        connection.exec_driver_sql(
            "UPDATE authorities SET status = 'old', wrapped_key = NULL WHERE kind = 'jwt' AND status = 'active'"
        )
    assert actions(make().start()) == [("activate", JWT)]
    assert prepared.id in {e.id for e in authority.list_authorities() if e.status is ACTIVE}


def test_an_authority_without_its_key_does_not_sign(authority, keystore):
    entry = replace(authority.list_authorities()[1], wrapped_key=None)
    with pytest.raises(TrustError, match="no private key"):
        open_jwt_signer(entry, keystore)


def test_an_old_authority_stays_while_anything_it_signed_is_alive(authority, clock):
    issued = authority.issue_x509(ID, CSR)
    token = authority.issue_jwt(ID, ("p",))
    for kind in AuthorityKind:
        authority.prepare(kind)
        authority.activate(kind, force=True)
    clock.advance(timedelta(minutes=4))
    assert validate_jwt_svid(token.token, authority.bundle(), audience="p", now=clock.now())
    clock.moment = token.expires_at + timedelta(seconds=59)
    assert authority.retire_expired() == ()
    clock.advance(timedelta(seconds=1))
    assert actions(authority.retire_expired()) == [("remove", JWT)]
    clock.moment = issued.expires_at
    assert authority.retire_expired() == ()
    assert validate_x509_svid(issued.chain_der, authority.bundle(), clock.now())
    clock.advance(timedelta(seconds=60))
    assert actions(authority.retire_expired()) == [("remove", X509)]
    assert authority.retire_expired() == ()


def test_an_old_authority_that_signed_nothing_goes_soon(authority, clock):
    authority.prepare(X509)
    authority.activate(X509, force=True)
    clock.advance(timedelta(seconds=60))
    assert actions(authority.retire_expired()) == [("remove", X509)]


def test_the_private_key_of_an_old_authority_is_destroyed(authority):
    authority.prepare(X509)
    authority.activate(X509, force=True)
    (old,) = (e for e in authority.list_authorities() if e.status is OLD)
    assert old.wrapped_key is None


def test_the_sequence_changes_with_the_content_and_only_with_it(authority, clock):
    seen = {}
    last = 0
    for step in range(200):
        clock.advance(HOUR)
        authority.tick(authority.bundle().sequence)
        if step % 3 == 0:
            authority.issue_x509(ID, CSR)
            authority.issue_jwt(ID, ("p",))
        bundle = authority.bundle()
        content = (bundle.x509_authorities, tuple(bundle.jwt_authorities))
        assert bundle.sequence >= last
        assert seen.setdefault(bundle.sequence, content) == content
        last = bundle.sequence
        for kind in AuthorityKind:
            held = statuses(authority, kind)
            assert held.count(ACTIVE) == 1
            assert held.count(PREPARED) <= 1
            assert held.count(OLD) <= 1
    assert len(set(seen.values())) == len(seen)


def test_everything_ever_issued_holds_as_long_as_it_says(authority, clock):
    """Over ten rotations, an SVID of any age that has not expired verifies under the bundle of the moment."""
    alive = []
    for _ in range(480):
        clock.advance(timedelta(minutes=30))
        authority.tick(authority.bundle().sequence)
        alive.append((authority.issue_x509(ID, CSR), authority.issue_jwt(ID, ("p",))))
        bundle = authority.bundle()
        alive = [pair for pair in alive if pair[0].expires_at >= clock.now()]
        for x509, jwt in alive:
            validate_x509_svid(x509.chain_der, bundle, clock.now())
            if jwt.expires_at > clock.now():
                validate_jwt_svid(jwt.token, bundle, audience="p", now=clock.now())


def test_a_bundle_is_published_before_anything_is_signed_by_what_it_adds(authority, clock):
    """Whoever holds the bundle of the previous tick can verify everything issued since."""
    held = authority.bundle()
    for _ in range(400):
        clock.advance(timedelta(minutes=20))
        authority.tick(held.sequence)
        issued = authority.issue_x509(ID, CSR)
        validate_x509_svid(issued.chain_der, held, clock.now())
        held = authority.bundle()


def test_rotation_every_few_seconds(make):
    clock = FakeClock()
    settings = AuthoritySettings(
        ca_ttl=timedelta(seconds=12),
        jwt_key_ttl=timedelta(seconds=12),
        x509_ttl=timedelta(seconds=6),
        jwt_ttl=timedelta(seconds=3),
    )
    authority = make(clock=clock, settings=settings)
    authority.start()
    for _ in range(240):
        clock.advance(timedelta(milliseconds=500))
        authority.tick(authority.bundle().sequence)
        issued = authority.issue_x509(ID, CSR)
        assert issued.expires_at - clock.now() > timedelta(seconds=1)
        validate_x509_svid(issued.chain_der, authority.bundle(), clock.now())
    assert len(authority.list_authorities()) < 30


def test_each_step_is_recorded_with_its_sequence(authority, storage):
    authority.prepare(X509)
    authority.activate(X509, authority.bundle().sequence)
    records = storage.records.query(RecordFilter(kind=Kind.KEY)).records
    assert [r.operation for r in records] == ["activate", "prepare", "create", "create"]
    assert [r.detail["sequence"] for r in records] == [3, 3, 2, 1]
    assert b"PRIVATE" not in encode_bundle(authority.bundle())


def test_the_ca_is_an_svid_of_the_trust_domain_itself(authority):
    ca = decode_certificate(authority.bundle().x509_authorities[0])
    assert check_signing_certificate(ca) == authority.trust_domain.id


def test_the_store_refuses_what_the_service_never_does(authority, storage):
    entry = authority.list_authorities()[0]
    for changed in (entry, replace(entry, id="other")):
        with pytest.raises(Conflict), storage.authorities.transaction() as tx:
            tx.insert(changed)
    for sequence in (0, 1, 2):
        with pytest.raises(Conflict), storage.authorities.transaction() as tx:
            tx.set_sequence(sequence)
    with pytest.raises(NotFound), storage.authorities.transaction() as tx:
        tx.delete("other")
    with pytest.raises(NotFound), storage.authorities.transaction() as tx:
        tx.update(replace(entry, id="other", status=OLD, wrapped_key=None))
    with pytest.raises(Conflict), storage.authorities.transaction() as tx:
        tx.insert(replace(entry, id="other", status=OLD))
    with storage.authorities.transaction() as tx:
        assert not tx.extend_signed_until("other", NOW)
