# SPDX-License-Identifier: Apache-2.0
"""The signature algorithms that JWT-SVID admits (JWT-SVID.md section 2.1), each tied to its type of key.

A token never chooses: the key says which algorithms are possible, the token must name one of them.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    SignatureCheck = Callable[[bytes, bytes], bool]
    """Takes the signature, then the message; tells whether it holds."""

VerificationKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
Digest = hashes.SHA256 | hashes.SHA384 | hashes.SHA512


class Algorithm(StrEnum):
    """RFC 7518 section 3.1, without HMAC, without ``none``."""

    RS256 = "RS256"
    RS384 = "RS384"
    RS512 = "RS512"
    ES256 = "ES256"
    ES384 = "ES384"
    ES512 = "ES512"
    PS256 = "PS256"
    PS384 = "PS384"
    PS512 = "PS512"


_HASHES: Final[Mapping[str, Digest]] = MappingProxyType(
    {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
)
_CURVES: Final[Mapping[str, Algorithm]] = MappingProxyType(
    {"secp256r1": Algorithm.ES256, "secp384r1": Algorithm.ES384, "secp521r1": Algorithm.ES512}
)
_RSA: Final = frozenset(a for a in Algorithm if a.value[0] in "RP")


def algorithms_for(key: VerificationKey) -> frozenset[Algorithm]:
    """Return what a key may verify: one ES algorithm for its curve, or all of RS and PS for RSA."""
    if isinstance(key, rsa.RSAPublicKey):
        return _RSA
    algorithm = _CURVES.get(key.curve.name)
    return frozenset() if algorithm is None else frozenset({algorithm})


def is_signed_by(key: VerificationKey, algorithm: Algorithm, signature: bytes, message: bytes) -> bool:
    """Tell whether ``signature`` (raw r and s for ES, RFC 7518 section 3.4) is ``key``'s over ``message``."""
    if algorithm not in algorithms_for(key):
        return False
    return signature_check(key, algorithm)(signature, message)


def signature_check(key: VerificationKey, algorithm: Algorithm) -> SignatureCheck:
    """Return the check of one key under one algorithm, with everything prepared that does not depend on a token.

    Raises InputError when the key is not of that algorithm.
    """
    if algorithm not in algorithms_for(key):
        raise InputError("the key is not of that algorithm")
    digest = _HASHES[algorithm.value[2:]]
    if isinstance(key, rsa.RSAPublicKey):
        return _rsa_check(key, _padding(algorithm, digest), digest)
    return _ecdsa_check(key, ec.ECDSA(digest))


def _rsa_check(
    key: rsa.RSAPublicKey, scheme: padding.PKCS1v15 | padding.PSS, digest: Digest
) -> SignatureCheck:
    def check(signature: bytes, message: bytes) -> bool:
        try:
            key.verify(signature, message, scheme, digest)
        except (InvalidSignature, ValueError):
            return False
        return True

    return check


def _ecdsa_check(key: ec.EllipticCurvePublicKey, scheme: ec.ECDSA) -> SignatureCheck:
    width = (key.curve.key_size + 7) // 8
    verify = key.verify

    def check(signature: bytes, message: bytes) -> bool:
        if len(signature) != 2 * width:
            return False
        try:
            verify(_der(signature[:width], signature[width:]), message, scheme)
        except (InvalidSignature, ValueError):
            return False
        return True

    return check


def _der(r: bytes, s: bytes) -> bytes:
    """Return ``Ecdsa-Sig-Value`` (RFC 3279 section 2.2.3) of two unsigned numbers of at most 66 bytes.

    By hand, because the way through Python's integers costs a fiftieth of the whole verification.
    """
    r, s = r.lstrip(b"\0"), s.lstrip(b"\0")
    if not r or r[0] & 0x80:
        r = b"\0" + r
    if not s or s[0] & 0x80:
        s = b"\0" + s
    size = len(r) + len(s) + 4
    head = bytes((0x30, size, 2, len(r))) if size < 0x80 else bytes((0x30, 0x81, size, 2, len(r)))  # noqa: PLR2004  # X.690 section 8.1.3
    return b"".join((head, r, bytes((2, len(s))), s))


def _padding(algorithm: Algorithm, digest: Digest) -> padding.PKCS1v15 | padding.PSS:
    if algorithm.value.startswith("RS"):
        return padding.PKCS1v15()
    # RFC 7518 section 3.5: the salt has the size of the hash.
    return padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size)
