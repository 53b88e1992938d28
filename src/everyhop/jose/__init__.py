# SPDX-License-Identifier: Apache-2.0
"""JOSE, the narrow part that SPIFFE and our own tokens need: public keys and compact signatures.  No IO."""

from everyhop.jose.algorithms import Algorithm, algorithms_for
from everyhop.jose.encoding import decode_base64url, encode_base64url
from everyhop.jose.jwk import Jwk, public_key_to_jwk, thumbprint
from everyhop.jose.jws import MAX_TOKEN_BYTES, UnverifiedJws, parse_compact, sign_es256, verify_jws
from everyhop.jose.strict_json import parse_json_object

__all__ = [
    "MAX_TOKEN_BYTES",
    "Algorithm",
    "Jwk",
    "UnverifiedJws",
    "algorithms_for",
    "decode_base64url",
    "encode_base64url",
    "parse_compact",
    "parse_json_object",
    "public_key_to_jwk",
    "sign_es256",
    "thumbprint",
    "verify_jws",
]
