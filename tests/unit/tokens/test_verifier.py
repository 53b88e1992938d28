# SPDX-License-Identifier: Apache-2.0
"""The verifier that remembers: everything that may have changed since the first time is asked again."""

import threading
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.identity import FakeClock
from tests.support.tokens import (
    AT,
    DOMAIN,
    EC_SIGNER,
    ISSUER,
    KEY_SET,
    ORDERS,
    OTHER_X5T,
    STOREFRONT,
    X5T,
    mint_access,
    mint_txn,
)

from everyhop.core.errors import TokenError
from everyhop.jose import Jwk
from everyhop.tokens import (
    Es256Signer,
    Expectation,
    HeldKeys,
    KeySet,
    MemoryReplayGuard,
    PinnedKey,
    Revocations,
    TokenMint,
    TokenVerifier,
)

RIGHT = Expectation(audience="payments", operation="charge", peer=ORDERS, x5t=X5T)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def keys():
    return HeldKeys(KEY_SET)


@pytest.fixture
def verifier(keys, clock):
    return TokenVerifier(keys, issuer=ISSUER, trust_domain=DOMAIN, clock=clock)


def code(call, *arguments):
    with pytest.raises(TokenError) as refusal:
        call(*arguments)
    return str(refusal.value.token_code)


class Counting:
    """Counts the signatures that are checked."""

    def __init__(self, keys):
        self.count = 0
        self.keys = keys

    def current(self, kid):
        return self.keys.current(kid)

    def key(self, kid):
        self.count += 1
        return self.keys.key(kid)


def test_a_seen_token_is_not_verified_again(keys, clock):
    counting = Counting(keys)
    verifier = TokenVerifier(counting, issuer=ISSUER, trust_domain=DOMAIN, clock=clock)
    token = mint_access()
    first = verifier.access(token, RIGHT)
    assert verifier.access(token, RIGHT) is first
    assert counting.count == 1


@pytest.mark.parametrize("token", [None, ""])
def test_missing(verifier, token):
    assert code(verifier.access, token, RIGHT) == "MISSING_TOKEN"


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        (Expectation(audience="ledger", operation="charge", peer=ORDERS, x5t=X5T), "AUDIENCE_MISMATCH"),
        (
            Expectation(audience="payments", operation="charge", per_operation=True, peer=ORDERS, x5t=X5T),
            "AUDIENCE_MISMATCH",
        ),
        (Expectation(audience="payments", operation="refund", peer=ORDERS, x5t=X5T), "INSUFFICIENT_SCOPE"),
        (Expectation(audience="payments", operation="charge", peer=STOREFRONT, x5t=X5T), "BINDING_MISMATCH"),
        (
            Expectation(audience="payments", operation="charge", peer=ORDERS, x5t=OTHER_X5T),
            "BINDING_MISMATCH",
        ),
        (Expectation(audience="payments", operation="charge", peer=ORDERS), "BINDING_MISMATCH"),
    ],
)
def test_a_seen_token_at_a_stricter_door(verifier, expected, answer):
    token = mint_access()
    verifier.access(token, RIGHT)
    assert code(verifier.access, token, expected) == answer
    verifier.access(token, RIGHT)


def test_a_seen_token_dies_at_its_end(verifier, clock):
    token = mint_access()
    verifier.access(token, RIGHT)
    clock.advance(timedelta(seconds=304))
    verifier.access(token, RIGHT)
    clock.advance(timedelta(seconds=1))
    assert code(verifier.access, token, RIGHT) == "TOKEN_EXPIRED"
    assert verifier._accesses.size == 0
    assert code(verifier.access, token, RIGHT) == "TOKEN_EXPIRED"


def test_a_seen_token_dies_with_its_key(verifier, keys):
    token = mint_access()
    verifier.access(token, RIGHT)
    keys.replace(KEY_SET.without({"k1"}))
    assert code(verifier.access, token, RIGHT) == "UNKNOWN_KEY_ID"
    keys.replace(KEY_SET)
    verifier.access(token, RIGHT)


def test_another_key_under_the_old_name_is_another_key(verifier, keys):
    token = mint_access()
    verifier.access(token, RIGHT)
    other = Es256Signer("k1", ec.generate_private_key(ec.SECP256R1()))
    keys.replace(KeySet([PinnedKey.pin(other.public())]))
    assert code(verifier.access, token, RIGHT) == "TOKEN_INVALID"
    verifier.access(mint_access(TokenMint(other)), RIGHT)


def test_the_same_key_in_a_newer_document_is_the_same(keys, clock):
    counting = Counting(keys)
    verifier = TokenVerifier(counting, issuer=ISSUER, trust_domain=DOMAIN, clock=clock)
    token = mint_access()
    verifier.access(token, RIGHT)
    keys.replace(KeySet([PinnedKey.pin(Jwk(key=EC_SIGNER.public().key, kid="k1", use="sig"))]))
    verifier.access(token, RIGHT)
    assert counting.count == 1


def test_a_seen_token_is_revoked_at_once(verifier):
    token = mint_access()
    verifier.access(token, RIGHT)
    for revocations in (Revocations(jtis={"j1": AT + 300}), Revocations(kids=frozenset({"k1"}))):
        verifier.revoke(revocations)
        assert verifier.revocations is revocations
        assert code(verifier.access, token, RIGHT) == "TOKEN_REVOKED"
    verifier.revoke(Revocations())
    verifier.access(token, RIGHT)


def test_the_twin_of_a_revoked_token_is_revoked_too(verifier):
    from tests.vectors.token_maker import ORDER, b64

    from everyhop.jose import decode_base64url

    head, _, signature = mint_access().rpartition(".")
    raw = decode_base64url(signature)
    twin = f"{head}.{b64(raw[:32] + (ORDER - int.from_bytes(raw[32:], 'big')).to_bytes(32, 'big'))}"
    verifier.access(twin, RIGHT)
    guard = MemoryReplayGuard(FakeClock())
    verifier.access_once(f"{head}.{signature}", RIGHT, guard)
    assert code(verifier.access_once, twin, RIGHT, guard) == "TOKEN_REPLAYED"
    verifier.revoke(Revocations(jtis={"j1": AT + 300}))
    assert code(verifier.access, twin, RIGHT) == "TOKEN_REVOKED"


def test_once_is_asked_last(verifier):
    guard = MemoryReplayGuard(FakeClock())
    token = mint_access()
    wrong = Expectation(audience="payments", operation="refund", peer=ORDERS, x5t=X5T)
    assert code(verifier.access_once, token, wrong, guard) == "INSUFFICIENT_SCOPE"
    assert verifier.access_once(token, RIGHT, guard).jti == "j1"
    assert code(verifier.access_once, token, RIGHT, guard) == "TOKEN_REPLAYED"


def test_one_kind_is_never_the_other(verifier):
    access, transaction = mint_access(), mint_txn()
    verifier.access(access, RIGHT)
    verifier.transaction(transaction)
    assert code(verifier.transaction, access) == "TOKEN_MALFORMED"
    assert code(verifier.access, transaction, RIGHT) == "TOKEN_MALFORMED"


def test_what_is_remembered_is_bounded_and_by_digest(keys, clock):
    verifier = TokenVerifier(keys, issuer=ISSUER, trust_domain=DOMAIN, clock=clock, max_entries=4)
    tokens = [mint_access(jti=f"j{n}") for n in range(10)]
    for token in tokens:
        verifier.access(token, RIGHT)
    assert verifier._accesses.size == 4
    assert all(isinstance(name, bytes) and len(name) == 32 for name in verifier._accesses._seen)
    assert tokens[-1] not in repr(verifier._accesses._seen)
    none = TokenVerifier(keys, issuer=ISSUER, trust_domain=DOMAIN, clock=clock, max_entries=0)
    none.access(tokens[0], RIGHT)
    assert none._accesses.size == 0


def test_refused_tokens_are_not_remembered(verifier):
    token = mint_access()
    for bad in (token[:-4] + "AAAA", token + "x", "x" * 9000, "\udc80", "a.b.c"):
        with pytest.raises(TokenError):
            verifier.access(bad, RIGHT)
    assert verifier._accesses.size == 0
    assert verifier._transactions.size == 0


def test_verifiers_of_other_configurations_do_not_share(keys, clock):
    here = TokenVerifier(keys, issuer=ISSUER, trust_domain=DOMAIN, clock=clock)
    there = TokenVerifier(keys, issuer=f"{ISSUER}0", trust_domain=DOMAIN, clock=clock)
    assert here._accesses._prefix != there._accesses._prefix
    assert here._accesses._prefix != here._transactions._prefix
    token = mint_access()
    here.access(token, RIGHT)
    assert code(there.access, token, RIGHT) == "UNAUTHORIZED_ISSUER"


def test_a_failure_inside_is_a_refusal(keys):
    class Broken:
        def now(self):
            raise MemoryError

    verifier = TokenVerifier(keys, issuer=ISSUER, trust_domain=DOMAIN, clock=Broken())
    assert code(verifier.access, mint_access(), RIGHT) == "TOKEN_MALFORMED"
    assert code(verifier.transaction, mint_txn()) == "TOKEN_MALFORMED"


def test_a_clock_may_tell_seconds(keys):
    class Quick:
        def now(self):
            raise AssertionError

        def seconds(self):
            return AT + 400.0

    verifier = TokenVerifier(keys, issuer=ISSUER, trust_domain=DOMAIN, clock=Quick())
    assert code(verifier.access, mint_access(), RIGHT) == "TOKEN_EXPIRED"


def test_many_threads(verifier):
    tokens = [mint_access(jti=f"j{n}") for n in range(30)]
    wrong = Expectation(audience="ledger", operation="charge", peer=ORDERS, x5t=X5T)
    outcomes = []

    def work():
        for token in tokens:
            outcomes.append(verifier.access(token, RIGHT).audience)
            outcomes.append(code(verifier.access, token, wrong))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == ["AUDIENCE_MISMATCH"] * 180 + ["payments"] * 180
