# SPDX-License-Identifier: Apache-2.0
"""The whole hostile set on the verifier itself: each gets the code that it is listed with, and costs no fetch."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.identity import NOW, FakeClock
from tests.vectors.hostile_jwks import good_ec, good_rsa
from tests.vectors.hostile_tokens import Signer, hostile_jwks, hostile_tokens, maker

from everyhop.core.errors import InputError, TokenError
from everyhop.jose import Jwk
from everyhop.tokens import (
    Expectation,
    KeySet,
    PinnedKey,
    StaticKeys,
    TokenVerifier,
    parse_jwks,
    verify_line,
    x5t_s256,
)

SIGNER = Signer(ec.generate_private_key(ec.SECP256R1()), "k1")
KEYS = KeySet([PinnedKey.pin(Jwk(key=SIGNER.key.public_key(), kid="k1", use="sig"))])
ISSUER = "https://127.0.0.1:8443"
PEER = "spiffe://shop.example/service/orders"
X5T = x5t_s256(b"a certificate")
AT = int(NOW.timestamp())
COMMON = {"issuer": ISSUER, "service": "payments", "operation": "charge", "peer": PEER, "x5t": X5T, "now": AT}


def verifier():
    return TokenVerifier(StaticKeys(KEYS), issuer=ISSUER, trust_domain="shop.example", clock=FakeClock(NOW))


def expectation(per_operation):
    return Expectation(
        audience="payments", operation="charge", per_operation=per_operation, peer=PEER, x5t=X5T
    )


SETS = [
    (per_operation, case)
    for per_operation in (False, True)
    for case in hostile_tokens(SIGNER, **COMMON, per_operation=per_operation)
]


@pytest.mark.parametrize(
    ("per_operation", "case"), SETS, ids=[f"{'operation' if p else 'service'}: {c.name}" for p, c in SETS]
)
def test_each_is_refused_with_its_code(per_operation, case):
    with pytest.raises(TokenError) as refusal:
        verifier().access(case.token, expectation(per_operation))
    assert refusal.value.token_code == case.code
    # The message is for operators, and still holds nothing that could be replayed or that forges a line of a log.
    assert case.token not in refusal.value.message or not case.token
    assert refusal.value.message.isprintable()


@pytest.mark.parametrize("per_operation", [False, True])
def test_the_good_one_and_its_twin_are_accepted(per_operation):
    make = maker(SIGNER, **COMMON, per_operation=per_operation)
    for token in (make.good(), make.high_s_twin()):
        assert verifier().access(token, expectation(per_operation)).jti == make.claims["jti"]


def test_the_set_is_as_large_as_promised_and_named_uniquely():
    cases = hostile_tokens(SIGNER, **COMMON)
    assert len(cases) >= 110
    assert len({case.name for case in cases}) == len(cases)
    assert all(case.source and case.code for case in cases)


@pytest.mark.parametrize("case", hostile_tokens(SIGNER, **COMMON), ids=lambda case: case.name)
def test_the_same_offline(case):
    # Without a connection only what needs one is left open.
    judged = verify_line(
        case.token, KEYS, issuer=ISSUER, service="payments", operation="charge", per_operation=False, now=NOW
    )
    if case.token.endswith("\n"):
        assert judged["ok"]  # the end of the line is not part of the token
    elif case.code == "BINDING_MISMATCH":
        assert judged["ok"]
    else:
        assert judged == {"ok": False, "code": case.code}


@pytest.mark.parametrize("case", hostile_jwks(), ids=lambda case: case.name)
def test_each_key_set_is_refused(case):
    with pytest.raises(InputError):
        parse_jwks(case.document)


def test_the_good_keys_are_taken():
    keys = parse_jwks(
        json.dumps({"keys": [good_ec(), good_rsa(), {**good_ec("k2"), "key_ops": ["verify"]}]}).encode()
    )
    assert keys.kids == {"k1", "r1", "k2"}


def test_a_key_without_alg_or_use_is_pinned_by_its_type():
    ec_key = {k: v for k, v in good_ec().items() if k not in {"alg", "use"}}
    rsa_key = {k: v for k, v in good_rsa().items() if k not in {"alg", "use"}}
    keys = parse_jwks(json.dumps({"keys": [ec_key, rsa_key]}).encode())
    assert (keys.find("k1").alg, keys.find("r1").alg) == ("ES256", "RS256")


def test_the_moment_is_the_callers():
    make = maker(SIGNER, **COMMON)
    later = datetime.fromtimestamp(make.claims["exp"] + 5, UTC)
    judged = verify_line(make.good(), KEYS, issuer=ISSUER, service="payments", now=later)
    assert judged == {"ok": False, "code": "TOKEN_EXPIRED"}
