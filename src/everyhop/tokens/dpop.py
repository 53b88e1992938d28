# SPDX-License-Identifier: Apache-2.0
"""DPoP proofs (RFC 9449 section 4.3): a key of the caller's, shown to be in use for this very request."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from everyhop.core.errors import InputError, TokenError
from everyhop.jose.encoding import encode_base64url
from everyhop.jose.jwk import Jwk, thumbprint
from everyhop.jose.jws import parse_compact
from everyhop.jose.strict_json import parse_claims
from everyhop.tokens.claims import Digest, Id, Name, NumericDate, check_printable, invalid, malformed, typed
from everyhop.tokens.codes import TokenCode
from everyhop.tokens.compact import guarded
from everyhop.tokens.keyset import PinnedKey

if TYPE_CHECKING:
    from everyhop.tokens.replay import ReplayGuard

DPOP_TYPE: Final = "dpop+jwt"
MAX_PROOF_BYTES: Final = 4096
MAX_AGE_SECONDS: Final = 60
MAX_AHEAD_SECONDS: Final = 30
_HEADERS: Final = frozenset({"alg", "jwk", "typ"})
_PORTS: Final = {"https": 443, "http": 80}


class _Proof(msgspec.Struct):
    jti: Id
    htm: Name
    htu: Name
    iat: NumericDate
    ath: Digest | None = None
    nonce: Name | None = None


def verify_dpop(
    proof: str,
    *,
    htm: str,
    htu: str,
    ath: str | None,
    now: datetime,
    replay: ReplayGuard,
    nonce: str | None = None,
) -> str:
    """Return the thumbprint (``jkt``) of the key that made the proof; compare it with the token's.

    ``proof`` is untrusted text of at most 4 KiB; ``htm`` and ``htu`` are the method and the URL of the request as
    the server knows them; ``ath`` is :func:`access_token_hash` of the token that comes along, None at the token
    endpoint.  The proof is used up by a success.  Raises TokenError, and nothing else.
    """
    return guarded(
        lambda: _verify(proof, htm=htm, htu=htu, ath=ath, now=now.timestamp(), replay=replay, nonce=nonce)
    )


def access_token_hash(token: str) -> str:
    """Return the ``ath`` of an access token (section 4.2)."""
    return encode_base64url(hashlib.sha256(token.encode("ascii")).digest())


def _verify(
    proof: str, *, htm: str, htu: str, ath: str | None, now: float, replay: ReplayGuard, nonce: str | None
) -> str:
    claims, jkt = _open(proof)
    if claims.htm != htm:
        raise invalid("the proof is for another method")
    if _normal(claims.htu) != _normal(htu):
        raise invalid("the proof is for another address")
    if not now - MAX_AGE_SECONDS <= claims.iat <= now + MAX_AHEAD_SECONDS:
        raise TokenError(TokenCode.TOKEN_EXPIRED, "the proof was not made just now")
    if nonce is not None and not hmac.compare_digest((claims.nonce or "").encode(), nonce.encode()):
        raise invalid("the proof does not hold the server's nonce")
    if ath is not None and not hmac.compare_digest(claims.ath or "", ath):
        raise TokenError(TokenCode.BINDING_MISMATCH, "the proof is for another token")
    # Two keys may choose one jti; and a proof is no token, whose jti it must not use up.
    try:
        first = replay.use(f"dpop:{jkt}:{claims.jti}", claims.iat + MAX_AGE_SECONDS)
    except Exception as error:
        raise TokenError(TokenCode.TOKEN_REPLAYED, "single use cannot be established now") from error
    if first is not True:
        raise TokenError(TokenCode.TOKEN_REPLAYED, "the proof was used before")
    return jkt


def _open(proof: str) -> tuple[_Proof, str]:
    try:
        jws = parse_compact(proof, max_bytes=MAX_PROOF_BYTES)
        claims = _read(parse_claims(jws.payload))
        members = jws.header.get("jwk")
        if not isinstance(members, dict):
            raise InputError("the header has no 'jwk'")
        if members.keys() - {"kty", "crv", "x", "y", "n", "e", "kid", "use", "alg", "key_ops"}:
            raise InputError("the key in the header has members that no public key has")
        key = PinnedKey.pin(Jwk.from_members({"kid": "dpop", **members}))
    except InputError as error:
        raise malformed(error.message) from error
    if jws.header.keys() != _HEADERS or jws.header["typ"] != DPOP_TYPE:
        raise invalid("the header is not that of a DPoP proof")
    if jws.header["alg"] != key.alg.value or not key.check(jws.signature, jws.signing_input):
        raise invalid("the signature does not hold")
    return claims, thumbprint(key.jwk.key)


def _read(members: dict[str, Any]) -> _Proof:
    claims = typed(members, _Proof, ("ath", "nonce"))
    check_printable(claims.jti, claims.htm, claims.htu)
    return claims


def _normal(address: str) -> tuple[str, str, int, str]:
    """Return scheme, host, port and path; query and fragment do not count (section 4.3, 9)."""
    parts = urlsplit(address)
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or not parts.hostname or parts.username is not None or parts.password is not None:
        raise malformed("'htu' is not an http address")
    return scheme, parts.hostname.lower(), parts.port or _PORTS[scheme], parts.path or "/"
