# SPDX-License-Identifier: Apache-2.0
"""Several threads and processes on one store: one active authority, nothing signed by a retired one."""

import contextlib
import subprocess
import sys
import threading
from datetime import timedelta

import pytest
from tests.support.identity import NOW, WORKLOAD_ID
from tests.support.together import together

from everyhop.authority import AuthorityKind, AuthorityStatus
from everyhop.core.errors import Conflict, Unavailable
from everyhop.spiffe import SpiffeId
from everyhop.spiffe.x509_svid import validate_x509_svid
from everyhop.x509 import build_csr, generate_private_key

ID = SpiffeId.parse(WORKLOAD_ID)
CSR = build_csr(generate_private_key())


def active(authority, kind):
    return [e for e in authority.list_authorities() if e.kind is kind and e.status is AuthorityStatus.ACTIVE]


def test_many_first_starts_make_one_of_each(make):
    authorities = [make() for _ in range(6)]
    results = together([a.start for a in authorities])
    assert sorted(len(r) for r in results) == [0, 0, 0, 0, 0, 2]
    assert len(authorities[0].list_authorities()) == 2


def test_many_ticks_at_once_take_each_step_once(make, clock):
    authorities = [make() for _ in range(6)]
    authorities[0].start()
    for hours in (12, 8, 4, 8, 12):
        clock.advance(timedelta(hours=hours))
        sequence = authorities[0].bundle().sequence
        results = together([lambda a=a, s=sequence: a.tick(s) for a in authorities])
        assert all(isinstance(r, tuple) for r in results), results
        assert sum(bool(r) for r in results) <= 1
        for kind in AuthorityKind:
            assert len(active(authorities[0], kind)) == 1


def test_many_activations_at_once_activate_one(make):
    authorities = [make() for _ in range(6)]
    authorities[0].start()
    authorities[0].prepare(AuthorityKind.X509)
    results = together([lambda a=a: a.activate(AuthorityKind.X509, force=True) for a in authorities])
    assert sum(isinstance(r, Conflict) for r in results) == 5
    assert len(active(authorities[0], AuthorityKind.X509)) == 1


def test_a_process_that_missed_the_rotation_signs_with_the_new_authority(make):
    mine, theirs = make(), make()
    mine.start()
    theirs.start()
    first = mine.issue_x509(ID, CSR)
    for kind in AuthorityKind:
        theirs.prepare(kind)
        theirs.activate(kind, force=True)
    second = mine.issue_x509(ID, CSR)
    assert second.authority_id != first.authority_id
    assert second.authority_id == active(mine, AuthorityKind.X509)[0].id
    assert mine.issue_jwt(ID, ("p",)).authority_id == active(mine, AuthorityKind.JWT)[0].id


def test_issuing_while_another_rotates(make):
    issuer, rotator = make(), make()
    issuer.start()
    done = threading.Event()

    def rotate():
        for _ in range(25):
            rotator.prepare(AuthorityKind.X509)
            rotator.activate(AuthorityKind.X509, force=True)
        done.set()

    def issue():
        issued = []
        while not done.is_set():
            with contextlib.suppress(Unavailable):  # only when it lost four races in a row
                issued.append(issuer.issue_x509(ID, CSR))
        return issued

    *_, issued = together([rotate, issue])
    assert issued
    bundle = issuer.bundle()
    entries = {e.id: e for e in issuer.list_authorities()}
    for one in issued:
        validate_x509_svid(one.chain_der, bundle, NOW)
        assert entries[one.authority_id].signed_until >= one.expires_at


CHILD = """
import secrets, sys
from datetime import UTC, datetime
from pathlib import Path
from everyhop.authority import Authority, AuthorityKind
from everyhop.core.errors import Conflict
from everyhop.providers.keystores import FileKeyStore
from everyhop.spiffe import TrustDomain
from everyhop.storage import open_storage
class System:
    def now(self): return datetime.now(UTC)
    def token_bytes(self, count): return secrets.token_bytes(count)
    def fraction(self): return 0.5
state = Path(sys.argv[1])
storage = open_storage(state / "everyhop.db")
authority = Authority(trust_domain=TrustDomain.parse("shop.example"), store=storage.authorities,
    keystore=FileKeyStore(state / "kek"), clock=System(), entropy=System())
authority.start()
for _ in range(10):
    try:
        authority.prepare(AuthorityKind.X509)
        authority.activate(AuthorityKind.X509, force=True)
    except Conflict:
        pass
storage.close()
"""


def test_processes_that_start_and_rotate_at_once(tmp_path):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    command = [sys.executable, "-c", CHILD, str(state)]
    children = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    for child in children:
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors.decode()
    from everyhop.storage import open_storage

    with contextlib.closing(open_storage(state / "everyhop.db")) as storage:
        loaded = storage.authorities.load()
        counted = [(e.kind, e.status) for e in loaded.entries if e.status is not AuthorityStatus.OLD]
        for kind in AuthorityKind:
            assert counted.count((kind, AuthorityStatus.ACTIVE)) == 1
        assert loaded.sequence == max(e.published_sequence for e in loaded.entries)
        assert storage.records.last_seq("server") == storage.records.count()


def test_a_rotation_that_never_stops_is_an_error_not_a_false_svid(authority, storage, monkeypatch):
    from everyhop.storage.authorities import SqlAuthorityTransaction

    before = storage.records.count()
    monkeypatch.setattr(SqlAuthorityTransaction, "extend_signed_until", lambda *_: False)
    with pytest.raises(Unavailable):
        authority.issue_x509(ID, CSR)
    with pytest.raises(Unavailable):
        authority.issue_jwt(ID, ("p",))
    assert storage.records.count() == before
