# SPDX-License-Identifier: Apache-2.0
"""P-256 keys and their encodings.

One curve on purpose: every implementation has it, and it is the fastest that JWT-SVID admits.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from everyhop.core.errors import InputError
from everyhop.core.secret import Secret

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey

MAX_KEY_BYTES: Final = 1024  # a P-256 key takes 138 bytes in PKCS#8 and 91 as a public key


def generate_private_key() -> PrivateKey:
    """Make a fresh P-256 key from the operating system's randomness, which OpenSSL reads by itself."""
    return ec.generate_private_key(ec.SECP256R1())


def encode_private_key(key: PrivateKey) -> Secret:
    """Return the key as unencrypted PKCS#8 DER, the form that the Workload API hands out (section 5.2.1)."""
    return Secret(
        key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def decode_private_key(secret: Secret) -> PrivateKey:
    """Parse PKCS#8 DER.  Raises InputError unless it is one unencrypted P-256 key."""
    data = secret.reveal()
    if len(data) > MAX_KEY_BYTES:
        raise InputError("the private key is too large")
    try:
        key = serialization.load_der_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # `from None`: an error of the parser may quote what it could not parse.
        raise InputError(f"not an unencrypted PKCS#8 private key ({type(error).__name__})") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InputError("the private key is not on the curve P-256")
    return key


def private_key_to_pem(secret: Secret) -> Secret:
    """Turn PKCS#8 DER into PEM, for files that other programs read.  Raises InputError as the decoder does."""
    return Secret(
        decode_private_key(secret).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def encode_public_key(key: PublicKey) -> bytes:
    """Return the key as SubjectPublicKeyInfo DER."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def decode_public_key(data: bytes) -> PublicKey:
    """Parse SubjectPublicKeyInfo DER.  Raises InputError unless it is one P-256 key."""
    if len(data) > MAX_KEY_BYTES:
        raise InputError("the public key is too large")
    try:
        key = serialization.load_der_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError("not a public key in DER") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InputError("the public key is not on the curve P-256")
    return key


def key_identifier(key: PublicKey) -> bytes:
    """Return a 20-byte name of a public key: SHA-256 of its point, cut (RFC 7093 section 2, method 1)."""
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return hashlib.sha256(point).digest()[:20]
