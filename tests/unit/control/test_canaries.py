# SPDX-License-Identifier: Apache-2.0
"""Canaries: recognised everywhere, told by nothing that a reader of log or database has."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from tests.support.identity import FakeClock, TestEntropy

from everyhop.anomaly import observe
from everyhop.anomaly.canary import CanaryKind, Marker, digest_of
from everyhop.anomaly.detectors import default_detectors
from everyhop.anomaly.finding import Action
from everyhop.apikeys import ApiKeyRefused, ApiKeys, ApiKeySettings, TooManyFailures
from everyhop.auditlog import Order, RecordFilter
from everyhop.control.canaries import CanaryControl, open_marker
from everyhop.control.shown_credentials import Shown
from everyhop.core.errors import Conflict, InputError, NotFound, TrustError, Unavailable
from everyhop.core.secret import Secret
from everyhop.policy import parse_policy
from everyhop.providers.keystores import MemoryKeyStore
from everyhop.storage import open_storage

POLICY = b"""\
version: 1
trust_domain: shop.example
services:
  orders: {operations: {list: GET /orders}}
  vault-backup: {canary: true}
allow:
  - {from: outside, to: orders, operations: [list]}
"""
CALLER = "spiffe://shop.example/service/orders"
SCOPES = frozenset({"orders.list"})


class Bench:
    """Canaries and API keys on one database; ``again`` is another server on it."""

    def __init__(self, directory, clock=None, keystore=None):
        self.directory, self.clock, self.keystore = (
            directory,
            clock or FakeClock(),
            keystore or MemoryKeyStore(),
        )
        entropy = TestEntropy()
        self.storage = open_storage(directory / "everyhop.db", entropy=entropy)
        self.opened = SCOPES
        self.canaries = CanaryControl(
            store=self.storage.canaries,
            marker=open_marker(self.storage.meta, self.keystore, entropy),
            clock=self.clock,
            entropy=entropy,
            snapshot=lambda: parse_policy({"p": POLICY}),
            edge_scopes=lambda: self.opened,
        )
        self.keys = ApiKeys(
            store=self.storage.api_keys,
            keystore=self.keystore,
            edge_scopes=lambda: self.opened,
            clock=self.clock,
            entropy=entropy,
            canaries=self.canaries,
            settings=ApiKeySettings(failures=3),
        )

    def again(self):
        return Bench(self.directory, self.clock, self.keystore)

    def key(self, **more):
        canary, text = self.canaries.create_key(
            self.keys, **{"name": "notes", "response": Action.BLOCK, **more}
        )
        return canary, text.reveal().decode()

    def secret(self, **more):
        canary, text = self.canaries.create_secret(**{"name": "env", "response": Action.BLOCK, **more})
        return canary, text.reveal().decode()

    @property
    def records(self):
        return self.storage.records.query(RecordFilter(), order=Order.OLDEST, limit=1000).records

    def uses(self):
        return [record for record in self.records if record.operation == "canary-used"]


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.storage.close()


def shown(**more):
    return Shown(**{"where": "edge", "source": "203.0.113.9", **more})


# -- what is refused


def test_a_canary_is_refused_with_the_words_of_any_other_key(bench):
    _, text = bench.key()
    other = bench.keys.create(owner="x", scopes=SCOPES)
    bench.keys.revoke(other.entry.lookup)
    refusals = []
    for presented in (text, other.key.reveal().decode()):
        with pytest.raises(ApiKeyRefused) as caught:
            bench.keys.authenticate(presented, "203.0.113.9")
        refusals.append((caught.value.code, caught.value.message, caught.value.hint))
    assert refusals[0] == refusals[1]


def test_a_source_that_is_shut_out_cannot_tell_a_canary_by_its_answer(bench):
    _, text = bench.key()
    for _ in range(3):
        with pytest.raises(ApiKeyRefused):
            bench.keys.authenticate("eh_live_key_x", "203.0.113.9")
    with pytest.raises(TooManyFailures):
        bench.keys.authenticate(text, "203.0.113.9")
    assert bench.canaries.refused([text], shown())  # and it is seen all the same


def test_without_anything_open_to_the_outside_there_is_no_key_to_imitate(bench):
    bench.opened = frozenset()
    with pytest.raises(InputError):
        bench.key()
    assert bench.canaries.list() == ()


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 101])
def test_a_name_that_is_none(bench, name):
    with pytest.raises(InputError, match="name"):
        bench.secret(name=name)


@pytest.mark.parametrize("prefix", ["a b", "ghp:", "ä", "x" * 41, "a\n"])
def test_a_prefix_that_is_none(bench, prefix):
    with pytest.raises(InputError, match="prefix"):
        bench.secret(prefix=prefix)


def test_a_service_that_exists_is_no_canary(bench):
    with pytest.raises(Conflict, match="no canary"):
        bench.canaries.create_service(name="orders", response=Action.ALERT)


def test_a_service_is_a_canary_once(bench):
    bench.canaries.create_service(name="vault-backup", response=Action.ALERT)
    with pytest.raises(Conflict, match="already"):
        bench.canaries.create_service(name="vault-backup", response=Action.BLOCK)


def test_an_unknown_canary_cannot_be_ended(bench):
    with pytest.raises(NotFound):
        bench.canaries.end("0" * 12, bench.keys)


def test_a_key_whose_canary_cannot_be_stored_opens_nothing(bench, monkeypatch):
    def broken(*args, **kwargs):
        raise Unavailable("the database is full")

    monkeypatch.setattr(bench.storage.canaries, "insert", broken)
    with pytest.raises(Unavailable):
        bench.key()
    (entry,) = bench.keys.list_keys()
    assert entry.state(bench.clock.now()) == "revoked"


def test_another_key_store_does_not_open_the_marks(bench):
    with pytest.raises(TrustError):
        open_marker(bench.storage.meta, MemoryKeyStore(), TestEntropy())


# -- what is recognised


def test_a_used_key_is_recorded_and_found_as_critical(bench):
    canary, text = bench.key()
    assert bench.canaries.refused(["something else", text], shown(target="orders", decision="d-1"))
    (record,) = bench.uses()
    assert record.caller is None
    assert record.detail == {
        "canary": canary.id,
        "canary_kind": "api-key",
        "response": "block",
        "where": "edge",
        "source": "203.0.113.9",
        "decision": "d-1",
    }
    found = [f for d in default_detectors() for f in d.observe(observe(record), record.time)]
    assert [(f.detector, f.severity, str(f.subject), f.action) for f in found] == [
        ("canary", "critical", "address:203.0.113.9", Action.BLOCK)
    ]


def test_a_used_secret_is_held_against_the_proven_caller(bench):
    _, text = bench.secret(prefix="ghp_", response=Action.QUARANTINE)
    assert text.startswith("ghp_")
    assert bench.canaries.refused([text], shown(where="ingress", caller=CALLER))
    (record,) = bench.uses()
    assert (record.caller, record.detail["response"]) == (CALLER, "quarantine")


@pytest.mark.parametrize(
    "change", [lambda t: t + "x", lambda t: t[:-1], lambda t: t.swapcase(), lambda t: ""]
)
def test_what_is_nearly_a_canary_is_none(bench, change):
    _, text = bench.secret()
    _, key = bench.key()
    assert not bench.canaries.refused([change(text), change(key)], shown())
    assert bench.uses() == []


def test_whoever_knows_the_public_part_of_a_key_cannot_raise_an_alarm(bench):
    _, text = bench.key()
    lookup = text.split("_")[3]
    assert not bench.canaries.refused([lookup, f"eh_live_key_{lookup}"], shown())


def test_a_revoked_an_expired_and_an_ended_key_are_still_recognised(bench):
    canary, text = bench.key(life=timedelta(hours=1))
    bench.clock.advance(timedelta(hours=2))
    assert bench.canaries.refused([text], shown())
    ended = bench.canaries.end(canary.id, bench.keys)
    assert ended.action is Action.ALERT
    bench.clock.advance(timedelta(hours=2))
    assert bench.canaries.refused([text], shown())
    assert [record.detail["response"] for record in bench.uses()] == ["block", "alert"]
    (entry,) = bench.keys.list_keys()
    assert entry.revoked_at is not None
    assert bench.canaries.end(canary.id, bench.keys).ended_at == ended.ended_at


def test_two_doors_that_see_one_use_record_it_once(bench):
    _, text = bench.secret()
    for _ in range(5):
        assert bench.canaries.refused([text], shown())
    assert bench.canaries.refused([text], shown(source="203.0.113.10"))
    bench.clock.advance(timedelta(seconds=11))
    assert bench.canaries.refused([text], shown())
    assert len(bench.uses()) == 3


def test_another_server_recognises_it_within_a_second(bench):
    other = bench.again()
    assert not other.canaries.refused(["nothing"], shown())
    _, text = bench.secret()
    bench.clock.advance(timedelta(seconds=1))
    assert other.canaries.refused([text], shown())
    other.storage.close()


def test_looking_never_fails_and_never_delays_a_refusal_for_ever(bench, monkeypatch):
    _, text = bench.secret()

    def broken(*args):
        raise Unavailable("the database is full")

    monkeypatch.setattr(bench.storage.canaries, "used", broken)
    assert not bench.canaries.refused([text], shown())
    assert not bench.canaries.refused_digests([b"short"], shown())
    with pytest.raises(Unavailable):  # an agent is told, and tries again
        bench.canaries.refused_digests([digest_of(text)], shown())


def test_a_use_that_could_not_be_recorded_is_recorded_at_the_next_try(bench, monkeypatch):
    _, text = bench.secret()
    used = bench.storage.canaries.used
    monkeypatch.setattr(
        bench.storage.canaries, "used", lambda use: (_ for _ in ()).throw(Unavailable("full"))
    )
    bench.canaries.refused([text], shown())
    monkeypatch.setattr(bench.storage.canaries, "used", used)
    assert bench.canaries.refused([text], shown())
    assert len(bench.uses()) == 1


def test_whoever_follows_the_log_is_woken(bench):
    woken = []
    bench.canaries.on_use = lambda: woken.append(True)
    _, text = bench.secret()
    bench.canaries.refused(["x"], shown())
    assert woken == []
    bench.canaries.refused([text], shown())
    assert woken == [True]


def test_services_are_canaries_by_the_policy_and_have_the_response_of_the_list(bench):
    assert bench.canaries.find("vault-backup").response is Action.ALERT
    canary, is_declared = bench.canaries.create_service(name="vault-backup", response=Action.QUARANTINE)
    assert is_declared
    assert bench.canaries.find("vault-backup") == (canary.id, Action.QUARANTINE)
    assert bench.canaries.find("orders") is bench.canaries.find("nowhere") is None
    _, is_declared = bench.canaries.create_service(name="not-yet", response=Action.ALERT)
    assert not is_declared
    assert bench.canaries.find("not-yet") is None


# -- what is told to nobody


def test_the_log_does_not_tell_which_key_is_a_canary(bench):
    bench.keys.create(owner="integration", scopes=SCOPES)
    canary, text = bench.key()
    bench.keys.create(owner="integration", scopes=SCOPES)
    forms = {
        (r.operation, r.reason, r.decision, tuple(sorted(r.detail)), len(r.detail["commitment"]))
        for r in bench.records
    }
    assert len(bench.records) == 3
    assert len(forms) == 1
    everything = " ".join(map(repr, bench.records))
    assert "canary" not in everything
    assert canary.id not in everything
    assert text not in everything


def test_the_owner_can_show_what_a_key_was_from_its_first_day(bench):
    _, text = bench.key()
    (record,) = bench.records
    lookup = text.split("_")[3]
    assert record.detail["commitment"] == bench.canaries.commitment(lookup, is_canary=True)
    assert record.detail["commitment"] != bench.canaries.commitment(lookup, is_canary=False)


def test_of_a_secret_and_a_service_the_log_says_only_an_id(bench):
    canary, text = bench.secret(name="env of web-3")
    service, _ = bench.canaries.create_service(name="vault-backup", response=Action.ALERT)
    bench.canaries.end(canary.id, bench.keys)
    assert [(r.operation, r.detail) for r in bench.records] == [
        ("create-canary", {"canary": canary.id}),
        ("create-canary", {"canary": service.id}),
        ("end-canary", {"canary": canary.id}),
    ]
    assert text not in repr(bench.records)


def test_neither_text_nor_public_part_is_stored_as_a_canary(bench):
    canary, text = bench.key()
    _, secret = bench.secret()
    bench.storage.close()
    stored = b"".join(path.read_bytes() for path in bench.directory.iterdir())
    assert text.encode() not in stored
    assert secret.encode() not in stored
    assert digest_of(secret) not in stored
    assert text.split("_")[3] not in canary.id
    assert "mark" not in repr(canary)


def test_the_owners_list_names_the_key(bench):
    canary, text = bench.key()
    bench.keys.create(owner="x", scopes=SCOPES)
    assert [c.id for c in bench.canaries.list()] == [canary.id]
    assert bench.canaries.lookups(bench.keys)[canary.id] == text.split("_")[3]
    assert bench.canaries.list()[0].kind is CanaryKind.API_KEY


def test_marks_of_another_key_are_others():
    one, two = Marker(Secret(b"1" * 32)), Marker(Secret(b"2" * 32))
    assert one.mark(digest_of("x")) != two.mark(digest_of("x"))
    assert one.id_of_key("k7Qm2xPa") != two.id_of_key("k7Qm2xPa")
    assert re.fullmatch(r"[0-9a-f]{12}", one.id_of_key("k7Qm2xPa"))
