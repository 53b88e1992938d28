# SPDX-License-Identifier: Apache-2.0
"""The keys themselves: made, wrapped, opened again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from everyhop.core.errors import InputError, TrustError
from everyhop.core.secret import Secret
from everyhop.issuing.model import SigningKey
from everyhop.issuing.ports import KeyStore
from everyhop.jose.algorithms import Algorithm, VerificationKey
from everyhop.jose.jwk import thumbprint

PURPOSE: Final = "issuing/token"
_EXPONENT: Final = 65537

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """A new key pair, not stored anywhere yet."""

    kid: str
    algorithm: Algorithm
    public: bytes
    wrapped: bytes = field(repr=False)


def make_material(algorithm: Algorithm, rsa_bits: int, keystore: KeyStore) -> Material:
    """Make a key pair; 50 ms to a second for RSA, so never while a transaction or a caller waits."""
    key: PrivateKey
    if algorithm is Algorithm.ES256:
        key = ec.generate_private_key(ec.SECP256R1())
    else:
        key = rsa.generate_private_key(_EXPONENT, rsa_bits)
    public = key.public_key()
    kid = thumbprint(public)
    secret = Secret(
        key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return Material(
        kid=kid,
        algorithm=algorithm,
        public=public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
        wrapped=keystore.wrap(kid, PURPOSE, secret),
    )


def open_public(key: SigningKey) -> VerificationKey:
    """Return the public key of a stored key.  Raises TrustError when it is not the key of its name."""
    try:
        public = serialization.load_der_public_key(key.public)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise TrustError(f"the stored signing key {key.kid} does not parse") from error
    expected = ec.EllipticCurvePublicKey if key.algorithm is Algorithm.ES256 else rsa.RSAPublicKey
    if not isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey) or not isinstance(
        public, expected
    ):
        raise TrustError(f"the stored signing key {key.kid} is not one of {key.algorithm}")
    if thumbprint(public) != key.kid:
        raise TrustError(f"the stored signing key {key.kid} is another key")
    return public


def open_private(key: SigningKey, keystore: KeyStore) -> PrivateKey:
    """Unwrap a stored key.  Raises TrustError when it does not unwrap or is not the key that was published."""
    if key.wrapped_key is None:
        raise TrustError(f"the signing key {key.kid} has no private key")
    secret = keystore.unwrap(key.kid, PURPOSE, key.wrapped_key)
    try:
        private = serialization.load_der_private_key(secret.reveal(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # `from None`: an error of the parser may quote what it could not parse.
        raise InputError(f"the stored signing key {key.kid} does not parse") from None
    expected = ec.EllipticCurvePrivateKey if key.algorithm is Algorithm.ES256 else rsa.RSAPrivateKey
    if not isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) or not isinstance(
        private, expected
    ):
        raise TrustError(f"the stored signing key {key.kid} is not one of {key.algorithm}")
    if thumbprint(private.public_key()) != key.kid:
        raise TrustError(f"the stored signing key {key.kid} is another key")
    return private
