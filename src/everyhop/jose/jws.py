# SPDX-License-Identifier: Apache-2.0
"""Compact JSON Web Signatures (RFC 7515 section 3.1): ES256 to sign, an allow-list to verify.

The JSON serializations are not read at all (JWT-SVID.md section 1), and a header that could point to a key or
change the meaning of the others (``jwk``, ``jku``, ``x5c``, ``x5u``, ``crit``, ``b64``) is refused because every
header outside the caller's list is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from everyhop.core.errors import InputError, TrustError
from everyhop.jose.algorithms import Algorithm, is_signed_by
from everyhop.jose.encoding import decode_base64url, encode_base64url
from everyhop.jose.jwk import Jwk
from everyhop.jose.strict_json import parse_json_object

if TYPE_CHECKING:
    from collections.abc import Mapping, Set as AbstractSet

MAX_TOKEN_BYTES: Final = 16 * 1024
_PARTS: Final = 3
_HALF: Final = 32
_ES256: Final = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedJws:
    """A token that parses and that nobody should believe yet."""

    header: Mapping[str, Any]
    payload: bytes
    signature: bytes
    signing_input: bytes


def sign_es256(key: ec.EllipticCurvePrivateKey, header: Mapping[str, str], payload: bytes) -> str:
    """Return the compact serialization; ``alg`` is set to ES256 whatever ``header`` says.

    Raises InputError when the key is not on P-256.
    """
    if not isinstance(key.curve, ec.SECP256R1):
        raise InputError("ES256 takes a key on the curve P-256")
    protected = json.dumps({**header, "alg": Algorithm.ES256.value}, separators=(",", ":")).encode()
    signing_input = f"{encode_base64url(protected)}.{encode_base64url(payload)}"
    r, s = decode_dss_signature(key.sign(signing_input.encode(), _ES256))
    return f"{signing_input}.{encode_base64url(r.to_bytes(_HALF, 'big') + s.to_bytes(_HALF, 'big'))}"


def parse_compact(token: str, *, max_bytes: int = MAX_TOKEN_BYTES) -> UnverifiedJws:
    """Split and decode a token of at most ``max_bytes``; believes nothing.

    Raises InputError unless there are exactly three parts in canonical base64url and the first is a JSON
    object without repeated members.
    """
    if not token.isascii() or len(token) > max_bytes:
        raise InputError(f"a token is ASCII and has at most {max_bytes} bytes")
    parts = token.split(".", _PARTS)
    if len(parts) != _PARTS:
        raise InputError("a token has three parts")
    header, payload, signature = (decode_base64url(part) for part in parts)
    return UnverifiedJws(
        header=parse_json_object(header, max_bytes=max_bytes),
        payload=payload,
        signature=signature,
        signing_input=f"{parts[0]}.{parts[1]}".encode(),
    )


def verify_jws(jws: UnverifiedJws, key: Jwk, *, headers: AbstractSet[str]) -> bytes:
    """Return the payload when ``key`` signed it.

    ``headers`` are the only header names allowed.  Raises TrustError for another header, an ``alg`` that the
    key does not have, a ``kid`` that is not the key's, or a false signature.
    """
    surplus = jws.header.keys() - headers
    if surplus:
        raise TrustError(f"the header {min(surplus)[:40]!r} is not allowed in this token")
    alg = jws.header.get("alg")
    if not isinstance(alg, str) or alg not in key.algorithms:
        raise TrustError("the token's algorithm is not one of its key")
    if jws.header.get("kid", key.kid) != key.kid:
        raise TrustError("the token names another key")
    if not is_signed_by(key.key, Algorithm(alg), jws.signature, jws.signing_input):
        raise TrustError("the signature of the token is false")
    return jws.payload
