# SPDX-License-Identifier: Apache-2.0
"""API keys: who is refused and how much that costs; then their life."""

import hmac
import json
from datetime import timedelta

import pytest

from everyhop.apikeys import ApiKeyRefused, ApiKeySettings, TooManyFailures, checksum_of
from everyhop.apikeys.service import PURPOSE
from everyhop.auditlog import RecordFilter
from everyhop.core.errors import Conflict, InputError, NotFound, SettingsError, TrustError
from everyhop.providers.keystores import MemoryKeyStore

DAY = timedelta(days=1)


def create(keys, **more):
    return keys.create(**{"owner": "team", "scopes": ["shop.checkout"], **more})


def text_of(created):
    return created.key.reveal().decode()


def falsified(text):
    """Return the key with another secret and a right checksum."""
    body = text[:-7]
    body = body[:-1] + ("x" if body[-1] != "x" else "y")
    return f"{body}_{checksum_of(body)}"


def unknown(text):
    """Return a key of the same form that nobody made."""
    parts = text.split("_")
    parts[3] = "zzzzzzzz"
    body = "_".join(parts[:-1])
    return f"{body}_{checksum_of(body)}"


class Counted:
    """Counts look-ups in a store and MACs."""

    def __init__(self, keys, monkeypatch):
        self.lookups = self.macs = self.compared = 0
        find, digest, compare = keys._store.find, hmac.digest, hmac.compare_digest

        def counted_find(lookup):
            self.lookups += 1
            return find(lookup)

        def counted_digest(*arguments):
            self.macs += 1
            return digest(*arguments)

        def counted_compare(*arguments):
            self.compared += 1
            return compare(*arguments)

        monkeypatch.setattr(keys._store, "find", counted_find)
        monkeypatch.setattr("everyhop.apikeys.service.hmac.digest", counted_digest)
        monkeypatch.setattr("everyhop.apikeys.service.hmac.compare_digest", counted_compare)

    def take(self):
        taken = self.lookups, self.macs, self.compared
        self.lookups = self.macs = self.compared = 0
        return taken


# --- what a guess costs -----------------------------------------------------------------------------------------------


def test_every_refusal_costs_the_same_and_says_the_same(keys, clock, edge, monkeypatch):
    good = create(keys)
    revoked, disabled, expired, placed = (create(keys) for _ in range(3)), None, None, None
    revoked, disabled, expired = revoked
    placed = create(keys, sources=["203.0.113.0/24"])
    gone = create(keys, scopes=["search.query"])
    keys.revoke(revoked.entry.lookup)
    keys.set_enabled(disabled.entry.lookup, enabled=False)
    with keys._store.transaction() as tx:
        from dataclasses import replace

        tx.update(replace(expired.entry, expires_at=clock.now()))
    edge.discard("search.query")
    presented = {
        "unknown": unknown(text_of(good)),
        "false secret": falsified(text_of(good)),
        "revoked": text_of(revoked),
        "disabled": text_of(disabled),
        "expired": text_of(expired),
        "source": text_of(placed),
        "no scope is left": text_of(gone),
    }
    keys.authenticate(text_of(good))
    counted = Counted(keys, monkeypatch)
    costs, messages = set(), set()
    for reason, text in presented.items():
        with pytest.raises(ApiKeyRefused) as caught:
            keys.authenticate(text, "198.51.100.1")
        assert caught.value.reason == reason
        assert text not in repr(caught.value)
        costs.add(counted.take())
        messages.add(str(caught.value))
    keys.authenticate(text_of(good), "198.51.100.2")
    assert costs == {counted.take()} == {(1, 1, 1)}
    assert messages == {"the API key is not accepted"}


@pytest.mark.parametrize("spoil", [lambda t: t[:-1] + "#", lambda t: t[:-1], lambda t: "", lambda t: t * 10])
def test_a_wrong_checksum_asks_nobody(keys, monkeypatch, spoil):
    text = text_of(create(keys))
    counted = Counted(keys, monkeypatch)
    with pytest.raises(ApiKeyRefused):
        keys.authenticate(spoil(text))
    assert counted.take() == (0, 0, 0)


def test_brute_force_is_cut_off_and_costs_nothing_from_there_on(keys, clock, monkeypatch):
    text = text_of(create(keys))
    counted = Counted(keys, monkeypatch)
    for _ in range(30):
        with pytest.raises(ApiKeyRefused):
            keys.authenticate(falsified(text), "203.0.113.9")
    assert counted.take() == (30, 30, 30)
    for _ in range(100):
        with pytest.raises(TooManyFailures) as caught:
            keys.authenticate(text, "203.0.113.9")
    assert counted.take() == (0, 0, 0)
    assert 0 < caught.value.retry_after <= 60
    keys.authenticate(text, "203.0.113.10")  # everybody else goes on
    clock.advance(timedelta(seconds=60))
    keys.authenticate(text, "203.0.113.9")


def test_many_sources_are_bounded(make, clock):
    keys = make(settings=ApiKeySettings(max_sources=100))
    for n in range(1000):
        with pytest.raises(ApiKeyRefused):
            keys.authenticate("x", f"10.0.{n // 250}.{n % 250}")
    assert len(keys._throttle) == 100


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("203.0.113.1", "::ffff:203.0.113.1", True),
        (None, "not an address", True),
    ],
)
def test_what_counts_as_one_source(make, one, other, same):
    keys = make(settings=ApiKeySettings(failures=1))
    with pytest.raises(ApiKeyRefused):
        keys.authenticate("x", one)
    with pytest.raises(TooManyFailures if same else ApiKeyRefused):
        keys.authenticate("x", other)


def test_before_any_key_was_made(keys):
    with pytest.raises(ApiKeyRefused):
        keys.authenticate(unknown("eh_live_key_AAAAAAAA_" + "a" * 32 + "_000000"))


@pytest.mark.parametrize("source", [None, "", "nonsense", "203.0.114.1", "::1", "203.0.113.7%eth0"])
def test_another_place_than_it_may_come_from(keys, source):
    text = text_of(create(keys, sources=["203.0.113.0/24", "2001:db8::/32"]))
    with pytest.raises(ApiKeyRefused):
        keys.authenticate(text, source)


@pytest.mark.parametrize("source", ["203.0.113.7", "::ffff:203.0.113.7", "2001:db8::5"])
def test_a_place_that_it_may_come_from(keys, source):
    assert keys.authenticate(text_of(create(keys, sources=["203.0.113.0/24", "2001:db8::/32"])), source)


def test_the_pepper_is_needed(keys, make):
    text = text_of(create(keys))
    with pytest.raises(TrustError, match="key-encryption"):
        make(keystore=MemoryKeyStore()).authenticate(text)
    assert make().authenticate(text)  # a restart opens it again


def test_a_mac_that_is_moved_to_another_row_is_no_key(keys):
    from dataclasses import replace

    first, second = create(keys), create(keys)
    with keys._store.transaction() as tx:
        tx.update(replace(second.entry, mac=first.entry.mac))
    with pytest.raises(ApiKeyRefused):
        keys.authenticate(text_of(second))


# --- making them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"scopes": []},
        {"scopes": ["shop.refund"]},
        {"scopes": ["shop.checkout", "shop"]},
        {"scopes": ["*"]},
        {"scopes": [f"s.{n}" for n in range(300)]},
        {"owner": ""},
        {"owner": " "},
        {"owner": "x" * 201},
        {"owner": "a\nb"},
        {"environment": "Live"},
        {"kind": ""},
        {"life": timedelta(0)},
        {"life": timedelta(days=-1)},
        {"life": timedelta(days=367)},
        {"sources": ["203.0.113.1/24"]},
        {"sources": ["nowhere"]},
        {"sources": ["10.0.0.0/8"] * 65},
    ],
)
def test_not_made(keys, wrong):
    with pytest.raises(InputError):
        create(keys, **wrong)
    assert keys.list_keys() == ()


def test_not_without_end(make):
    keys = make(settings=ApiKeySettings(max_keys=2))
    for _ in range(2):
        create(keys)
    with pytest.raises(Conflict):
        create(keys)


def test_a_broken_source_of_randomness(make):
    class Broken:
        def token_bytes(self, count):
            return bytes(count)

        def fraction(self):
            return 0.0

    keys = make(entropy=Broken())
    create(keys)
    with pytest.raises(Conflict, match="no free name"):
        create(keys)


def test_what_is_kept(keys, storage, clock):
    created = create(keys, environment="test", kind="ci", sources=["10.0.0.0/8"], by="spiffe://x/y")
    text = text_of(created)
    assert text.startswith(f"eh_test_ci_{created.entry.lookup}_")
    (entry,) = keys.list_keys()
    assert entry == created.entry
    assert entry.expires_at == clock.now() + 90 * DAY
    assert entry.state(clock.now()) == "active"
    secret = text.split("_")[4]
    with storage.database.reading() as connection:
        dump = repr([list(connection.exec_driver_sql(f"SELECT * FROM {t}")) for t in TABLES])
    assert secret not in dump
    assert secret not in repr(created)
    assert "mac=" not in repr(entry)
    (record,) = storage.records.query(RecordFilter()).records
    assert (record.operation, record.caller) == ("create-api-key", "spiffe://x/y")
    assert secret not in json.dumps(record.detail)


TABLES = ("api_keys", "api_key_peppers", "records", "meta")


def test_the_pepper_is_wrapped(keys, storage):
    created = create(keys)
    (pepper,) = storage.api_keys.peppers()
    opened = keys._keystore.unwrap(pepper.id, PURPOSE, pepper.wrapped)
    assert hmac.digest(opened.reveal(), created.key.reveal(), "sha256") == created.entry.mac
    create(keys)
    assert len(storage.api_keys.peppers()) == 1


def test_what_it_proves(keys, edge):
    created = create(keys, scopes=["shop.checkout", "search.query"])
    principal = keys.authenticate(text_of(created))
    assert principal.lookup == created.entry.lookup
    assert principal.subject == f"apikey:{created.entry.lookup}"
    assert principal.scopes == {"shop.checkout", "search.query"}
    edge.discard("search.query")  # the policy changed
    assert keys.authenticate(text_of(created)).scopes == {"shop.checkout"}


def test_last_use_is_written_in_batches(keys, storage, clock, monkeypatch):
    used, unused = create(keys), create(keys)
    writes = []
    touch = storage.api_keys.touch
    monkeypatch.setattr(storage.api_keys, "touch", lambda batch: writes.append(batch) or touch(batch))
    for _ in range(50):
        clock.advance(timedelta(seconds=1))
        keys.authenticate(text_of(used))
    assert not writes
    assert keys.flush_usage() == 1
    assert keys.flush_usage() == 0
    assert len(writes) == 1
    first, second = keys.list_keys()
    assert (first.last_used_at, second.last_used_at) == (clock.now(), None)
    assert unused
    storage.api_keys.touch({first.lookup: clock.now() - DAY})
    assert keys.list_keys()[0].last_used_at == clock.now()


# --- their life -------------------------------------------------------------------------------------------------------


def test_rotation_with_overlap(keys, clock):
    old = create(keys, scopes=["shop.checkout"], sources=["10.0.0.0/8"], life=30 * DAY)
    clock.advance(10 * DAY)
    new = keys.rotate(old.entry.lookup)
    listed = {entry.lookup: entry for entry in keys.list_keys()}
    assert listed[old.entry.lookup].replaced_by == new.entry.lookup
    assert listed[new.entry.lookup].replaces == old.entry.lookup
    assert listed[old.entry.lookup].expires_at == clock.now() + DAY
    assert new.entry.expires_at == clock.now() + 30 * DAY
    assert (new.entry.scopes, new.entry.sources, new.entry.owner) == (
        old.entry.scopes,
        old.entry.sources,
        old.entry.owner,
    )
    for created in (old, new):
        assert keys.authenticate(text_of(created), "10.0.0.1")
    clock.advance(DAY)
    with pytest.raises(ApiKeyRefused):
        keys.authenticate(text_of(old), "10.0.0.1")
    assert keys.authenticate(text_of(new), "10.0.0.1")


def test_the_overlap_makes_no_key_live_longer(keys, clock):
    old = create(keys, life=timedelta(hours=2))
    keys.rotate(old.entry.lookup, overlap=10 * DAY)
    assert keys.list_keys()[0].expires_at == old.entry.expires_at
    at_once = create(keys)
    keys.rotate(at_once.entry.lookup, overlap=timedelta(0))
    with pytest.raises(ApiKeyRefused):
        keys.authenticate(text_of(at_once))


def test_no_key_is_rotated_twice(keys):
    old = create(keys)
    new = keys.rotate(old.entry.lookup)
    with pytest.raises(Conflict) as caught:
        keys.rotate(old.entry.lookup)
    assert new.entry.lookup in caught.value.hint
    assert len(keys.list_keys()) == 2
    assert keys.rotate(new.entry.lookup)


def test_the_store_itself_refuses_a_second_successor(keys):
    from dataclasses import replace

    old, other = create(keys), create(keys)
    keys.rotate(old.entry.lookup)
    with pytest.raises(Conflict), keys._store.transaction() as tx:
        tx.insert(replace(other.entry, lookup="AAAAAAAA", replaces=old.entry.lookup))


@pytest.mark.parametrize("end", ["revoke", "disable", "expire"])
def test_what_is_over_is_not_rotated(keys, clock, end):
    old = create(keys)
    lookup = old.entry.lookup
    if end == "revoke":
        keys.revoke(lookup)
    elif end == "disable":
        keys.set_enabled(lookup, enabled=False)
    else:
        clock.advance(91 * DAY)
    with pytest.raises(Conflict):
        keys.rotate(lookup)


@pytest.mark.parametrize("wrong", [{"overlap": timedelta(-1)}, {"overlap": 367 * DAY}, {"life": 367 * DAY}])
def test_rotations_that_are_refused(keys, wrong):
    old = create(keys)
    with pytest.raises(InputError):
        keys.rotate(old.entry.lookup, **wrong)
    assert len(keys.list_keys()) == 1


def test_revoking_is_at_once_and_tells_the_agents(keys, storage):
    created = create(keys)
    before = storage.issuing.sequence()
    entry = keys.revoke(created.entry.lookup)
    assert entry.revoked_at is not None
    assert storage.issuing.sequence() == before + 1
    with pytest.raises(ApiKeyRefused):
        keys.authenticate(text_of(created))
    assert keys.revoke(created.entry.lookup) == entry  # again changes nothing
    assert storage.issuing.sequence() == before + 1
    assert [r.operation for r in storage.records.query(RecordFilter()).records] == [
        "revoke-api-key",
        "create-api-key",
    ]


def test_off_and_on_again(keys, storage, clock):
    created = create(keys)
    lookup = created.entry.lookup
    assert keys.set_enabled(lookup, enabled=True) == created.entry
    assert keys.set_enabled(lookup, enabled=False).state(clock.now()) == "disabled"
    with pytest.raises(ApiKeyRefused):
        keys.authenticate(text_of(created))
    keys.set_enabled(lookup, enabled=True)
    assert keys.authenticate(text_of(created))
    assert storage.issuing.load().revocations[0].value == f"apikey:{lookup}"


def test_a_revoked_key_does_not_come_back(keys, clock):
    lookup = create(keys).entry.lookup
    keys.revoke(lookup)
    assert keys.set_enabled(lookup, enabled=False).state(clock.now()) == "revoked"
    assert keys.set_enabled(lookup, enabled=True).state(clock.now()) == "revoked"


@pytest.mark.parametrize("lookup", ["nothing0", "", "x" * 1000])
def test_a_key_that_is_not_there(keys, lookup):
    for call in (keys.revoke, keys.rotate, lambda name: keys.set_enabled(name, enabled=False)):
        with pytest.raises(NotFound):
            call(lookup)


def test_keys_of_one_owner(keys):
    create(keys)
    other = create(keys, owner="other")
    assert keys.list_keys("other") == (other.entry,)
    assert len(keys.list_keys()) == 2
    assert keys.list_keys("nobody") == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"default_life": timedelta(0)},
        {"longest_life": 367 * DAY},
        {"default_life": 100 * DAY, "longest_life": 50 * DAY},
        {"failures": 0},
        {"max_sources": 0},
    ],
)
def test_settings_that_are_refused(wrong):
    with pytest.raises(SettingsError):
        ApiKeySettings(**wrong)
