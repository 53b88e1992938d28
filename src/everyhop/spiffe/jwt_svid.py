# SPDX-License-Identifier: Apache-2.0
"""JWT-SVIDs (JWT-SVID.md): minting, and validation that leaves nothing to the token."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from everyhop.core.errors import InputError, SvidError, TrustError
from everyhop.jose.jws import UnverifiedJws, parse_compact, sign_es256, verify_jws
from everyhop.jose.strict_json import parse_json_object
from everyhop.spiffe.bundle import Bundle
from everyhop.spiffe.ids import SpiffeId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric import ec

HEADERS: Final = frozenset({"alg", "kid", "typ"})  # section 2: no other may appear
TYPES: Final = frozenset({"JWT", "JOSE"})  # section 2.3
MAX_JWT_SVID_BYTES: Final = 8 * 1024
MAX_AUDIENCES: Final = 32
MAX_AUDIENCE_BYTES: Final = 2048
_LATEST: Final = 253402300799  # 9999-12-31T23:59:59Z; a later time is a mistake or an attack


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtSvid:
    """A verified token.  ``claims`` holds every claim, also those that SPIFFE does not define."""

    spiffe_id: SpiffeId
    audience: tuple[str, ...]
    expires_at: datetime
    kid: str
    claims: Mapping[str, Any]
    token: str = field(repr=False)


def mint_jwt_svid(
    *,
    spiffe_id: SpiffeId,
    audience: Sequence[str],
    issued_at: datetime,
    expires_at: datetime,
    token_id: str,
    kid: str,
    key: ec.EllipticCurvePrivateKey,
) -> str:
    """Return a signed JWT-SVID (ES256); times are cut to whole seconds.

    Raises InputError for an id without a path, no audience or a bad one, a time that is over before it starts, or
    audiences that make the token larger than the 8 KiB that are validated.
    """
    if not spiffe_id.has_path:
        raise InputError("a JWT-SVID is issued to a workload, not to the trust domain itself")
    check_audience(audience)
    issued, expires = int(issued_at.timestamp()), int(expires_at.timestamp())
    if expires <= issued:
        raise InputError("the token would not be valid at any time")
    claims = {"aud": list(audience), "exp": expires, "iat": issued, "jti": token_id, "sub": str(spiffe_id)}
    payload = json.dumps(claims, separators=(",", ":")).encode()
    token = sign_es256(key, {"alg": "ES256", "kid": kid, "typ": "JWT"}, payload)
    if len(token) > MAX_JWT_SVID_BYTES:
        raise InputError(f"the audiences make the token larger than {MAX_JWT_SVID_BYTES} bytes")
    return token


def check_audience(audience: Sequence[str]) -> None:
    """Raise InputError unless there are 1 to 32 distinct, non-empty audiences of at most 2048 bytes (section 3.2)."""
    if isinstance(audience, str) or not 0 < len(audience) <= MAX_AUDIENCES:
        raise InputError(f"a JWT-SVID has 1 to {MAX_AUDIENCES} audiences")
    for one in audience:
        if not one or not one.isprintable() or len(one.encode()) > MAX_AUDIENCE_BYTES:
            raise InputError(f"an audience is printable text of 1 to {MAX_AUDIENCE_BYTES} bytes")
    if len(set(audience)) != len(audience):
        raise InputError("an audience is named twice")


def validate_jwt_svid(
    token: str, bundle: Bundle, *, audience: str, now: datetime, skew: timedelta = timedelta(0)
) -> JwtSvid:
    """Return the identity that ``token`` proves to ``audience`` at ``now`` under ``bundle``.

    ``token`` is untrusted, at most 8 KiB.  Raises InputError when it does not parse, SvidError when it breaks a
    clause of JWT-SVID.md (the message names it), is over, early, for another audience, or of another trust domain.
    """
    jws = parse_compact(token, max_bytes=MAX_JWT_SVID_BYTES)
    kid = _check_header(jws)
    key = bundle.jwt_authorities.get(kid)
    if key is None:
        raise SvidError("JWT-SVID 6.2: the bundle has no JWT key of the token's name")
    try:
        payload = verify_jws(jws, key, headers=HEADERS)
    except TrustError as error:
        raise SvidError(f"JWT-SVID 2.1: {error.message}") from error
    claims = parse_json_object(payload, max_bytes=MAX_JWT_SVID_BYTES)
    spiffe_id = _subject(claims, bundle)
    expires_at = _check_times(claims, now, skew)
    return JwtSvid(
        spiffe_id=spiffe_id,
        audience=_check_audience_claim(claims, audience),
        expires_at=expires_at,
        kid=kid,
        claims=MappingProxyType(claims),
        token=token,
    )


def peek_subject(token: str) -> SpiffeId:
    """Return the *unverified* subject, to choose the bundle to check with and for nothing else (section 6.3).

    Raises InputError when the token does not parse, SvidError when ``sub`` is not a SPIFFE ID.
    """
    jws = parse_compact(token, max_bytes=MAX_JWT_SVID_BYTES)
    return _subject_id(parse_json_object(jws.payload, max_bytes=MAX_JWT_SVID_BYTES))


def _check_header(jws: UnverifiedJws) -> str:
    surplus = jws.header.keys() - HEADERS
    if surplus:
        raise SvidError(f"JWT-SVID 2: the header {min(surplus)[:40]!r} must not appear")
    typ, kid = jws.header.get("typ", "JWT"), jws.header.get("kid")
    if not isinstance(typ, str) or typ not in TYPES:
        raise SvidError("JWT-SVID 2.3: 'typ' is neither JWT nor JOSE")
    # Section 2.2 makes kid optional; every implementation we know demands it, and trying all keys is a search.
    if not isinstance(kid, str) or not kid:
        raise SvidError("JWT-SVID 2.2: the token does not name its key")
    return kid


def _subject(claims: Mapping[str, Any], bundle: Bundle) -> SpiffeId:
    spiffe_id = _subject_id(claims)
    if not spiffe_id.has_path:
        raise SvidError("JWT-SVID 3.1: the subject is a trust domain, not a workload")
    if spiffe_id.trust_domain != bundle.trust_domain:
        raise SvidError(f"JWT-SVID 3.1: {spiffe_id} is not of the trust domain {bundle.trust_domain}")
    return spiffe_id


def _subject_id(claims: Mapping[str, Any]) -> SpiffeId:
    subject = claims.get("sub")
    if not isinstance(subject, str):
        raise SvidError("JWT-SVID 3.1: 'sub' is missing or not a string")
    try:
        return SpiffeId.parse(subject)
    except InputError as error:
        raise SvidError(f"JWT-SVID 3.1: {error.message}") from error


def _check_audience_claim(claims: Mapping[str, Any], wanted: str) -> tuple[str, ...]:
    value = claims.get("aud")
    audiences = [value] if isinstance(value, str) else value
    if not isinstance(audiences, list) or not audiences or not all(isinstance(a, str) for a in audiences):
        raise SvidError("JWT-SVID 3.2: 'aud' is missing or not a list of strings")
    if not wanted or wanted not in audiences:
        raise SvidError("JWT-SVID 3.2: the token is for another audience")
    return tuple(audiences)


def _check_times(claims: Mapping[str, Any], now: datetime, skew: timedelta) -> datetime:
    expires = _numeric_date(claims, "exp")
    if expires is None:
        raise SvidError("JWT-SVID 3.3: 'exp' is missing")
    if now - skew >= expires:
        raise SvidError("JWT-SVID 3.3: the token has expired")
    not_before = _numeric_date(claims, "nbf")
    if not_before is not None and now + skew < not_before:
        raise SvidError("RFC 7519 4.1.5: the token is not valid yet")
    _numeric_date(claims, "iat")
    return expires


def _numeric_date(claims: Mapping[str, Any], name: str) -> datetime | None:
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SvidError(f"RFC 7519 2: {name!r} is not a number of seconds")
    if not 0 <= value <= _LATEST:
        raise SvidError(f"RFC 7519 2: {name!r} is out of range")
    return datetime.fromtimestamp(value, UTC)
