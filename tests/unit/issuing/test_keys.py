# SPDX-License-Identifier: Apache-2.0
"""Signing keys: published, waited for, signing, retained; and what happens to one that is stolen."""

import json
import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.support.identity import NOW
from tests.support.together import together

from everyhop.core.errors import Conflict, InputError, NotFound, TokenError, TrustError, Unavailable
from everyhop.issuing import KeyStatus
from everyhop.issuing.material import make_material, open_private, open_public
from everyhop.issuing.rotation import MAX_PUBLISHED, needed_until
from everyhop.issuing.view import Views
from everyhop.jose import Algorithm
from everyhop.providers.keystores import MemoryKeyStore
from everyhop.tokens import StaticKeys, TokenVerifier, parse_jwks, verify_access_token

WAIT = timedelta(seconds=600)  # twice max-age
DAYS = timedelta(days=1)


def statuses(keys):
    return [key.status.value for key in keys.list_keys()]


def sequence(issuer):
    return issuer.service.truth().sequence


def rotate(issuer):
    prepared = issuer.keys.rotate()
    issuer.clock.advance(WAIT)
    issuer.keys.tick(sequence(issuer))
    return prepared


# --- what does not happen ---------------------------------------------------------------------------------------------


def test_a_restart_creates_nothing(issuer):
    before = issuer.keys.list_keys()
    for _ in range(5):
        assert issuer.another_keys().start() == ()
    assert issuer.keys.list_keys() == before


def test_a_prepared_key_signs_nothing(issuer):
    prepared = issuer.keys.rotate()
    kid = json.loads(issuer.service.truth().jwks)["keys"][0]["kid"]
    assert kid != prepared.kid
    issuer.clock.advance(timedelta(seconds=2))
    assert issuer.keys.views.recent(issuer.clock.now()).signer().kid == kid


def test_it_does_not_take_over_before_the_wait_is_over(issuer):
    issuer.keys.rotate()
    issuer.clock.advance(WAIT - timedelta(seconds=1))
    assert issuer.keys.tick(sequence(issuer)) == ()
    with pytest.raises(Conflict, match="not known to every verifier"):
        issuer.keys.activate(sequence(issuer))


@pytest.mark.parametrize("acknowledged", [None, 0, -1])
def test_it_does_not_take_over_before_every_agent_has_it(issuer, acknowledged):
    issuer.keys.rotate()
    behind = None if acknowledged is None else sequence(issuer) - 1 + acknowledged
    issuer.clock.advance(365 * DAYS)  # however long that takes: an active key does not end
    assert issuer.keys.tick(behind) == ()
    with pytest.raises(Conflict):
        issuer.keys.activate(behind)
    assert statuses(issuer.keys) == ["active", "prepared"]


def test_there_are_never_two_prepared(issuer):
    assert issuer.keys.prepare() == issuer.keys.prepare() == issuer.keys.rotate()
    assert statuses(issuer.keys) == ["active", "prepared"]


def test_nothing_to_activate(issuer):
    with pytest.raises(Conflict, match="no prepared"):
        issuer.keys.activate(force=True)


def test_the_store_refuses_a_second_active_or_prepared_one(issuer):
    issuer.keys.prepare()
    for key in issuer.keys.list_keys():
        material = make_material(Algorithm.ES256, 2048, issuer.keystore)
        second = replace(key, kid=material.kid, public=material.public, wrapped_key=material.wrapped)
        with pytest.raises(Conflict), issuer.storage.issuing.transaction() as tx:
            tx.insert_key(second)


def test_no_more_keys_than_readers_take(make):
    issuer = make(max_age=timedelta(0))
    for _ in range(MAX_PUBLISHED - 1):
        issuer.keys.prepare()
        issuer.keys.activate(force=True)
    with pytest.raises(Conflict, match="published already"):
        issuer.keys.prepare()
    issuer.clock.advance(89 * DAYS)
    issuer.keys.tick(sequence(issuer))
    assert statuses(issuer.keys) == ["active"]
    parse_jwks(issuer.service.truth().jwks)


def test_an_emergency_is_possible_even_then(make):
    issuer = make(max_age=timedelta(0))
    for _ in range(MAX_PUBLISHED - 1):
        issuer.keys.prepare()
        issuer.keys.activate(force=True)
    active = issuer.keys.views.fresh(issuer.clock.now()).signer().kid
    issuer.keys.revoke(active)
    assert issuer.mint().token
    parse_jwks(issuer.service.truth().jwks)


# --- the ordinary day -------------------------------------------------------------------------------------------------


def test_the_first_start_creates_one(make):
    issuer = make()
    (key,) = issuer.keys.list_keys()
    assert (key.status, key.algorithm, key.published_sequence) == (KeyStatus.ACTIVE, Algorithm.ES256, 1)


def test_a_whole_rotation(issuer):
    (first,) = issuer.keys.list_keys()
    old_token = issuer.mint().token
    prepared = rotate(issuer)
    old, new = issuer.keys.list_keys()
    assert (old.kid, old.status, old.wrapped_key) == (first.kid, KeyStatus.RETAINED, None)
    assert (new.kid, new.status) == (prepared.kid, KeyStatus.ACTIVE)
    assert old_token
    assert needed_until(old, issuer.settings) == old.retired_at + timedelta(seconds=300 + 10 + 300)
    issuer.clock.moment = needed_until(old, issuer.settings) - timedelta(seconds=1)
    assert issuer.keys.retire_expired() == ()
    issuer.clock.advance(timedelta(seconds=1))
    (removed,) = issuer.keys.tick(sequence(issuer))
    assert (removed.action, removed.kid) == ("remove", first.kid)
    assert statuses(issuer.keys) == ["active"]


def test_retiring_by_hand(issuer):
    rotate(issuer)
    issuer.clock.advance(DAYS)
    (change,) = issuer.keys.retire_expired()
    assert change.action == "remove"


def test_activation_by_hand(issuer):
    prepared = issuer.keys.prepare()
    assert issuer.keys.activate(force=True).kid == prepared.kid
    prepared = issuer.keys.prepare()
    issuer.clock.advance(WAIT)
    assert issuer.keys.activate(sequence(issuer)).kid == prepared.kid


def test_the_schedule(issuer):
    issuer.clock.advance(60 * DAYS - timedelta(seconds=1))
    assert issuer.keys.tick(sequence(issuer)) == ()
    issuer.clock.advance(timedelta(seconds=1))
    (prepared,) = issuer.keys.tick(sequence(issuer))
    assert prepared.action == "prepare"
    issuer.clock.advance(WAIT)
    (activated,) = issuer.keys.tick(sequence(issuer))
    assert (activated.action, activated.kid) == ("activate", prepared.kid)
    assert issuer.keys.tick(sequence(issuer)) == ()
    issuer.clock.advance(59 * DAYS)
    assert [c.action for c in issuer.keys.tick(sequence(issuer))] == ["remove"]


def test_every_token_is_good_until_it_ends_over_twenty_rotations(make):
    issuer = make(max_age=timedelta(seconds=1))
    held = []
    for _ in range(20):
        issuer.keys.rotate()
        for _ in range(3):
            issuer.clock.advance(timedelta(seconds=1))
            issuer.keys.tick(sequence(issuer))
            held.append(issuer.mint())
            now = issuer.clock.now()
            keys = StaticKeys(parse_jwks(issuer.service.truth().jwks))
            for issued in held:
                if issued.expires_at > now.timestamp():
                    verify_access_token(issued.token, keys, issuer=issuer.settings.issuer, now=now)
    assert len({verify_kid(issued.token) for issued in held}) == 21


def verify_kid(token):
    import jwt

    return jwt.get_unverified_header(token)["kid"]


def test_every_step_counts_and_is_recorded(issuer):
    assert sequence(issuer) == 1
    rotate(issuer)
    assert sequence(issuer) == 3
    issuer.clock.advance(DAYS)
    issuer.keys.tick(3)
    assert sequence(issuer) == 4
    from everyhop.auditlog import RecordFilter

    page = issuer.storage.records.query(RecordFilter())
    assert [r.operation for r in reversed(page.records)] == ["create", "prepare", "activate", "remove"]
    assert {r.kind.value for r in page.records} == {"key"}


def test_the_truth_is_of_this_moment(issuer):
    before = issuer.service.truth()
    other = issuer.another_keys()  # another process
    other.prepare()
    after = issuer.service.truth()
    assert after.sequence == before.sequence + 1
    assert len(json.loads(after.jwks)["keys"]) == 2
    assert issuer.service.truth().jwks == after.jwks


def test_the_jwks_holds_public_keys_only(make):
    for algorithm in (Algorithm.ES256, Algorithm.RS256):
        issuer = make(algorithm=algorithm)
        for key in json.loads(issuer.service.truth().jwks)["keys"]:
            assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & key.keys()
            assert (key["use"], key["alg"] in {"ES256", "RS256"}) == ("sig", True)


def test_another_algorithm_is_staged_as_well(make):
    issuer = make()
    first = issuer.mint().token
    changed = make(algorithm=Algorithm.RS256)  # a restart with another setting
    assert statuses(changed.keys) == ["active"]
    keys = changed.keys
    (prepared,) = keys.tick(sequence(issuer))
    assert (prepared.action, prepared.algorithm) == ("prepare", Algorithm.RS256)
    assert keys.views.fresh(issuer.clock.now()).signer().alg is Algorithm.ES256
    changed.clock.advance(WAIT)
    assert [c.action for c in keys.tick(sequence(issuer))] == ["activate"]
    assert keys.views.fresh(changed.clock.now()).signer().alg is Algorithm.RS256
    assert statuses(keys) == ["retained", "active"]
    assert first


def test_a_prepared_key_of_a_former_algorithm_goes(make):
    issuer = make()
    issuer.keys.prepare()
    keys = issuer.another_keys(settings=replace(issuer.settings, algorithm=Algorithm.RS256))
    actions = [(c.action, c.algorithm) for c in keys.tick(sequence(issuer))]
    assert ("remove", Algorithm.ES256) in actions


# --- a key that was stolen --------------------------------------------------------------------------------------------


def test_revoking_ends_everything_that_it_signed_and_signing_goes_on(issuer):
    (stolen,) = issuer.keys.list_keys()
    token = issuer.mint().token
    changes = issuer.keys.revoke(stolen.kid)
    assert [c.action for c in changes] == ["revoke", "create"]
    truth = issuer.service.truth()
    assert stolen.kid in truth.revocations.kids
    assert stolen.kid not in truth.jwks.decode()
    assert issuer.service.introspect(token, asker="admin") == {"active": False}
    fresh = issuer.mint()
    assert issuer.service.introspect(fresh.token, asker="admin")["active"]


def test_a_verifier_that_still_has_the_key_refuses_by_its_name(issuer):
    (stolen,) = issuer.keys.list_keys()
    stale = StaticKeys(parse_jwks(issuer.service.truth().jwks))
    token = issuer.mint().token
    issuer.keys.revoke(stolen.kid)
    verifier = TokenVerifier(
        stale,
        issuer=issuer.settings.issuer,
        trust_domain="shop.example",
        clock=issuer.clock,
        revocations=issuer.service.truth().revocations,
    )
    from everyhop.tokens import Expectation

    with pytest.raises(TokenError) as caught:
        verifier.access(token, Expectation(audience="payments", bound=False))
    assert caught.value.token_code == "TOKEN_REVOKED"


def test_the_prepared_key_takes_over(issuer):
    (stolen,) = issuer.keys.list_keys()
    prepared = issuer.keys.prepare()
    assert [c.action for c in issuer.keys.revoke(stolen.kid)] == ["revoke", "activate"]
    assert [k.kid for k in issuer.keys.list_keys()] == [prepared.kid]


def test_revoking_a_prepared_or_retained_key_leaves_the_active_one(issuer):
    prepared = issuer.keys.prepare()
    assert [c.action for c in issuer.keys.revoke(prepared.kid)] == ["revoke"]
    rotate(issuer)
    old, active = issuer.keys.list_keys()
    assert [c.action for c in issuer.keys.revoke(old.kid)] == ["revoke"]
    assert [k.kid for k in issuer.keys.list_keys()] == [active.kid]


def test_a_revoked_key_is_named_for_a_month(issuer):
    (stolen,) = issuer.keys.list_keys()
    issuer.keys.revoke(stolen.kid)
    issuer.clock.advance(29 * DAYS)
    issuer.keys.tick(sequence(issuer))
    assert stolen.kid in issuer.service.truth().revocations.kids
    issuer.clock.advance(2 * DAYS)
    issuer.keys.tick(sequence(issuer))
    assert not issuer.storage.issuing.load().revocations


def test_revoking_what_is_not_there(issuer):
    with pytest.raises(NotFound):
        issuer.keys.revoke("nothing")
    assert statuses(issuer.keys) == ["active"]


def test_another_process_hears_of_it_at_its_next_look(issuer):
    other = issuer.another_keys()
    other.start()
    (stolen,) = issuer.keys.list_keys()
    issuer.keys.revoke(stolen.kid)
    assert other.views.fresh(issuer.clock.now()).signer().kid != stolen.kid
    issuer.clock.advance(timedelta(seconds=1))
    assert other.views.recent(issuer.clock.now()).signer().kid != stolen.kid


# --- keys at rest -----------------------------------------------------------------------------------------------------


def test_private_keys_are_wrapped_and_bound_to_their_row(issuer):
    (key,) = issuer.keys.list_keys()
    assert open_private(key, issuer.keystore).public_key() == open_public(key)
    with pytest.raises(TrustError):
        issuer.keystore.unwrap(key.kid, "another purpose", key.wrapped_key)
    assert "wrapped_key" not in repr(key)


def test_another_kek(issuer):
    with pytest.raises(TrustError):
        issuer.another_keys(keystore=MemoryKeyStore()).start()


def test_rows_that_were_tampered_with(issuer):
    (key,) = issuer.keys.list_keys()
    other = make_material(Algorithm.ES256, 2048, issuer.keystore)
    rsa = make_material(Algorithm.RS256, 2048, issuer.keystore)
    for changed in (
        replace(key, public=other.public),
        replace(key, public=rsa.public),
        replace(key, public=b"nothing"),
        replace(key, algorithm=Algorithm.RS256),
    ):
        with pytest.raises(TrustError):
            open_public(changed)
    for changed in (
        replace(key, wrapped_key=None),
        replace(key, wrapped_key=other.wrapped),
        replace(key, algorithm=Algorithm.RS256),
    ):
        with pytest.raises(TrustError):
            open_private(changed, issuer.keystore)
    from everyhop.core.secret import Secret
    from everyhop.issuing.material import PURPOSE

    with pytest.raises(InputError):
        open_private(
            replace(key, wrapped_key=issuer.keystore.wrap(key.kid, PURPOSE, Secret(b"no key"))),
            issuer.keystore,
        )
    swapped = issuer.keystore.wrap(
        key.kid, PURPOSE, issuer.keystore.unwrap(other.kid, PURPOSE, other.wrapped)
    )
    with pytest.raises(TrustError, match="another key"):
        open_private(replace(key, wrapped_key=swapped), issuer.keystore)


def test_nothing_is_signed_before_the_start(storage, make):
    issuer = make()
    with storage.issuing.transaction() as tx:
        tx.delete_key(issuer.keys.list_keys()[0].kid)
        tx.advance()
    views = Views(store=storage.issuing, keystore=issuer.keystore, settings=issuer.settings)
    with pytest.raises(Unavailable):
        views.fresh(NOW).signer()


# --- several at once --------------------------------------------------------------------------------------------------


def test_many_first_starts_make_one_key(storage, make):
    issuer = make()
    with storage.issuing.transaction() as tx:
        tx.delete_key(issuer.keys.list_keys()[0].kid)
        tx.advance()
    results = together([issuer.another_keys().start for _ in range(6)])
    assert sorted(map(len, results)) == [0, 0, 0, 0, 0, 1]


def test_many_steps_at_once_are_each_taken_once(issuer):
    everyone = [issuer.another_keys() for _ in range(6)]
    kids = {key.kid for key in together([keys.rotate for keys in everyone])}
    assert len(kids) == 1
    issuer.clock.advance(WAIT)
    known = sequence(issuer)
    results = together([lambda k=keys: k.tick(known) for keys in everyone])
    assert sum(len(r) for r in results) == 1
    assert statuses(issuer.keys) == ["retained", "active"]


def test_minting_while_keys_rotate_and_are_revoked(issuer):
    done = threading.Event()

    def churn():
        for _ in range(8):
            issuer.keys.prepare()
            issuer.keys.activate(force=True)
            issuer.keys.revoke(issuer.keys.list_keys()[0].kid)
        done.set()

    def mint():
        minted = [issuer.mint()]
        while not done.is_set():
            minted.append(issuer.mint())
        return minted

    _, *minted = together([churn, mint, mint])
    assert all(isinstance(one, list) and one for one in minted), minted
    alive = [
        issuer.service.introspect(i.token, asker="admin")["active"] for i in (minted[0][-1], minted[1][-1])
    ]
    assert isinstance(alive, list)
    assert issuer.service.introspect(issuer.mint().token, asker="admin")["active"]
