# SPDX-License-Identifier: Apache-2.0
"""Writing tokens: the header of each key is encoded once, the claims are encoded by their types.

What is minted is checked by the rules of the verifier first, so that a token that nobody would take is an error
here and not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from everyhop.core.errors import InputError, TokenError
from everyhop.jose.algorithms import Algorithm
from everyhop.jose.encoding import encode_base64url
from everyhop.jose.jwk import Jwk
from everyhop.tokens.access import ACCESS_TYPE, AccessClaims, read_access_claims
from everyhop.tokens.claims import Actor, Confirmation, encode_claims
from everyhop.tokens.limits import MAX_LIFETIME_SECONDS, MAX_TOKEN_BYTES
from everyhop.tokens.transaction import TRANSACTION_TYPE, TxnClaims, read_txn_claims

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "AccessClaims",
    "Es256Signer",
    "Rs256Signer",
    "Signer",
    "TokenMint",
    "TxnClaims",
    "access_claims",
    "signer_for",
]

_HALF: Final = 32
_ES256: Final = ec.ECDSA(hashes.SHA256())


class Signer(Protocol):
    """A signing key, wherever it is held."""

    @property
    def kid(self) -> str:
        """Its name in the key set."""

    @property
    def alg(self) -> Algorithm:
        """ES256 or RS256."""

    def sign(self, message: bytes) -> bytes:
        """Return the JOSE signature (raw r and s for ES256, RFC 7518 section 3.4)."""


class Es256Signer:
    """Signs with a key on P-256 that is held in this process."""

    __slots__ = ("_key", "alg", "kid")

    def __init__(self, kid: str, key: ec.EllipticCurvePrivateKey) -> None:
        if not isinstance(key.curve, ec.SECP256R1):
            raise InputError("ES256 takes a key on the curve P-256")
        self._key = key
        self.kid = kid
        self.alg = Algorithm.ES256

    def sign(self, message: bytes) -> bytes:
        """Return r and s, 32 bytes each."""
        r, s = decode_dss_signature(self._key.sign(message, _ES256))
        return r.to_bytes(_HALF, "big") + s.to_bytes(_HALF, "big")

    def public(self) -> Jwk:
        """Return the public half as it belongs into the key set."""
        return Jwk(key=self._key.public_key(), kid=self.kid, use="sig", alg=self.alg)


class Rs256Signer:
    """Signs with an RSA key that is held in this process."""

    __slots__ = ("_key", "alg", "kid")

    def __init__(self, kid: str, key: rsa.RSAPrivateKey) -> None:
        self._key = key
        self.kid = kid
        self.alg = Algorithm.RS256

    def sign(self, message: bytes) -> bytes:
        """Return the PKCS #1 v1.5 signature."""
        return self._key.sign(message, padding.PKCS1v15(), hashes.SHA256())

    def public(self) -> Jwk:
        """Return the public half as it belongs into the key set."""
        return Jwk(key=self._key.public_key(), kid=self.kid, use="sig", alg=self.alg)


def signer_for(kid: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> Es256Signer | Rs256Signer:
    """Return the signer that fits the key."""
    return Rs256Signer(kid, key) if isinstance(key, rsa.RSAPrivateKey) else Es256Signer(kid, key)


def access_claims(
    *,
    issuer: str,
    client_id: str,
    audience: str,
    scope: Sequence[str],
    jti: str,
    issued_at: int,
    expires_at: int,
    x5t: str | None = None,
    jkt: str | None = None,
    txn: str | None = None,
    subject: str | None = None,
    actors: Sequence[str] = (),
) -> AccessClaims:
    """Return the claims of a token for ``client_id``; with ``actors`` (the present one first) on behalf of ``subject``."""
    act: Actor | None = None
    for sub in reversed(actors):
        act = Actor(sub=sub, act=act)
    return AccessClaims(
        iss=issuer,
        sub=client_id if subject is None else subject,
        client_id=client_id,
        aud=audience,
        scope=" ".join(sorted(scope)),
        jti=jti,
        iat=issued_at,
        exp=expires_at,
        cnf=None if x5t is None and jkt is None else Confirmation(x5t=x5t, jkt=jkt),
        txn=txn,
        act=act,
    )


class TokenMint:
    """Writes tokens with one signer."""

    def __init__(self, signer: Signer) -> None:
        self._sign = signer.sign
        self.kid = signer.kid
        self.alg = signer.alg
        self._headers: Mapping[str, bytes] = {
            typ: encode_base64url(
                encode_claims({"alg": signer.alg.value, "kid": signer.kid, "typ": typ})
            ).encode()
            + b"."
            for typ in (ACCESS_TYPE, TRANSACTION_TYPE)
        }

    def access(self, claims: AccessClaims) -> str:
        """Return the signed access token; raises InputError for claims that no verifier would take."""
        return self._write(ACCESS_TYPE, claims)

    def transaction(self, claims: TxnClaims) -> str:
        """Return the signed transaction token; raises InputError for claims that no verifier would take."""
        return self._write(TRANSACTION_TYPE, claims)

    def _write(self, typ: str, claims: AccessClaims | TxnClaims) -> str:
        payload = encode_claims(claims)
        _check_claims(claims, payload)
        signing_input = self._headers[typ] + encode_base64url(payload).encode()
        token = f"{signing_input.decode()}.{encode_base64url(self._sign(signing_input))}"
        if len(token) > MAX_TOKEN_BYTES:
            raise InputError(f"the claims make the token larger than {MAX_TOKEN_BYTES} bytes")
        return token


def _check_claims(claims: AccessClaims | TxnClaims, payload: bytes) -> None:
    """Read the payload as a verifier will, and refuse what it would."""
    try:
        if isinstance(claims, AccessClaims):
            read_access_claims(payload, "")
        else:
            read_txn_claims(payload, "")
    except TokenError as error:
        raise InputError(error.message) from error
    if not 0 < claims.exp - claims.iat <= MAX_LIFETIME_SECONDS:
        raise InputError(f"a token lives for 1 to {MAX_LIFETIME_SECONDS} seconds")
