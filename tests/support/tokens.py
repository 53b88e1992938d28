# SPDX-License-Identifier: Apache-2.0
"""An issuer for tests of tokens: keys, a key set, and tokens minted by the product itself."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tests.support.identity import NOW

from everyhop.tokens import (
    Es256Signer,
    KeySet,
    PinnedKey,
    Rs256Signer,
    StaticKeys,
    TokenMint,
    TxnClaims,
    access_claims,
    x5t_s256,
)

ISSUER = "https://127.0.0.1:8443"
DOMAIN = "shop.example"
ORDERS = f"spiffe://{DOMAIN}/service/orders"
STOREFRONT = f"spiffe://{DOMAIN}/service/storefront"
X5T = x5t_s256(b"the certificate of orders")
OTHER_X5T = x5t_s256(b"the certificate of a thief")
AT = int(NOW.timestamp())

EC_SIGNER = Es256Signer("k1", ec.generate_private_key(ec.SECP256R1()))
RSA_SIGNER = Rs256Signer("r1", rsa.generate_private_key(public_exponent=65537, key_size=2048))
KEY_SET = KeySet([PinnedKey.pin(EC_SIGNER.public()), PinnedKey.pin(RSA_SIGNER.public())])
KEYS = StaticKeys(KEY_SET)
MINT = TokenMint(EC_SIGNER)


def mint_access(mint: TokenMint = MINT, **changes: Any) -> str:
    values: dict[str, Any] = {
        "issuer": ISSUER,
        "client_id": ORDERS,
        "audience": "payments",
        "scope": ["payments.charge"],
        "jti": "j1",
        "issued_at": AT,
        "expires_at": AT + 300,
        "x5t": X5T,
    }
    return mint.access(access_claims(**{**values, **changes}))


def mint_txn(mint: TokenMint = MINT, **changes: Any) -> str:
    values: dict[str, Any] = {
        "iss": ISSUER,
        "aud": DOMAIN,
        "sub": "alice",
        "txn": "t1",
        "req_wl": STOREFRONT,
        "scope": "orders.create",
        "jti": "j2",
        "iat": AT,
        "exp": AT + 300,
        "tctx": {"idp": "https://idp.example", "kind": "user", "roles": ["clerk"]},
    }
    return mint.transaction(TxnClaims(**{**values, **changes}))
