# SPDX-License-Identifier: Apache-2.0
"""Minting: nothing is signed that no verifier would take, and others can read what is."""

import json

import joserfc.jwk
import joserfc.jwt
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tests.support.tokens import (
    AT,
    EC_SIGNER,
    KEYS,
    MINT,
    ORDERS,
    RSA_SIGNER,
    STOREFRONT,
    X5T,
    mint_access,
    mint_txn,
)

from everyhop.core.errors import InputError
from everyhop.jose import decode_base64url
from everyhop.tokens import Es256Signer, Rs256Signer, TokenMint, signer_for


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": ""},
        {"client_id": "orders"},
        {"client_id": "spiffe://shop.example"},
        {"audience": ""},
        {"audience": "a\nb"},
        {"scope": ["a b", ""]},
        {"scope": ["é"]},
        {"jti": ""},
        {"jti": "x" * 257},
        {"expires_at": AT},
        {"expires_at": AT + 3601},
        {"issued_at": -1},
        {"x5t": "short"},
        {"jkt": X5T},
        {"subject": "alice"},
        {"subject": "alice", "actors": [STOREFRONT]},
        {"subject": "alice", "actors": [ORDERS] * 5},
        {"txn": ""},
        {"scope": [f"payments.operation-{n}" for n in range(400)]},
    ],
)
def test_claims_that_nobody_would_take(changes):
    with pytest.raises(InputError):
        mint_access(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"sub": ""},
        {"req_wl": "storefront"},
        {"tctx": {}},
        {"tctx": {"idp": "x", "kind": "root"}},
        {"tctx": {"idp": "x", "kind": "user", "roles": "admin"}},
        {"exp": AT + 3601},
        {"exp": AT - 1},
        {"rctx": {"pad": "x" * 9000}},
    ],
)
def test_transactions_that_nobody_would_take(changes):
    with pytest.raises(InputError):
        mint_txn(**changes)


def test_a_key_on_another_curve():
    with pytest.raises(InputError):
        Es256Signer("k", ec.generate_private_key(ec.SECP384R1()))


def test_the_signer_fits_the_key():
    assert isinstance(signer_for("k", ec.generate_private_key(ec.SECP256R1())), Es256Signer)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert isinstance(signer_for("k", key), Rs256Signer)


@pytest.mark.parametrize(("signer", "alg"), [(EC_SIGNER, "ES256"), (RSA_SIGNER, "RS256")])
def test_others_read_it(signer, alg):
    mint = TokenMint(signer)
    assert (mint.kid, mint.alg) == (signer.kid, alg)
    for token, typ in ((mint_access(mint), "at+jwt"), (mint_txn(mint), "txntoken+jwt")):
        assert jwt.get_unverified_header(token) == {"alg": alg, "kid": signer.kid, "typ": typ}
        options = {"verify_aud": False, "verify_exp": False, "verify_iat": False}
        claims = jwt.decode(token, signer.public().key, algorithms=[alg], options=options)
        theirs = joserfc.jwk.import_key(signer.public().to_members())
        assert joserfc.jwt.decode(token, theirs, algorithms=[alg]).claims == claims
        assert claims["jti"]


def test_the_members_are_those_of_the_profile():
    claims = json.loads(decode_base64url(mint_access().split(".")[1]))
    assert claims == {
        "iss": "https://127.0.0.1:8443",
        "sub": ORDERS,
        "client_id": ORDERS,
        "aud": "payments",
        "scope": "payments.charge",
        "jti": "j1",
        "iat": AT,
        "exp": AT + 300,
        "cnf": {"x5t#S256": X5T},
    }
    on_behalf = json.loads(
        decode_base64url(mint_access(subject="alice", actors=[ORDERS, STOREFRONT]).split(".")[1])
    )
    assert (on_behalf["sub"], on_behalf["act"]) == ("alice", {"sub": ORDERS, "act": {"sub": STOREFRONT}})


def test_scopes_are_written_in_order():
    assert b"a b c" in decode_base64url(mint_access(scope=["c", "a", "b"]).split(".")[1])
    assert MINT.kid in KEYS.keys.kids
