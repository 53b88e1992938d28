# SPDX-License-Identifier: Apache-2.0
"""Tokens of the OIDC issuers that the policy trusts: whose user is this?

Signatures are checked by joserfc, with one key and one algorithm that we chose; what the claims mean is checked here
(OpenID Connect Core section 3.1.3.7, RFC 9068 section 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import import_key

from everyhop.conditions import ValueType
from everyhop.core.errors import InputError, TokenError
from everyhop.issuing.model import UserIdentity
from everyhop.jose.jwk import Jwk
from everyhop.jose.jws import parse_compact
from everyhop.jose.strict_json import parse_json_object
from everyhop.policy.model import ClaimAttribute, UserIssuer
from everyhop.providers.oidc_keys import Fetch, IssuerKeys, fetch
from everyhop.tokens.codes import TokenCode
from everyhop.tokens.limits import (
    EXPIRY_SKEW_SECONDS,
    LATEST,
    MAX_ATTRIBUTE,
    MAX_ID,
    MAX_ROLES,
    START_SKEW_SECONDS,
)
from everyhop.tokens.transaction import AttributeClaim

MAX_SUBJECT: Final = 255  # OpenID Connect Core section 2
MAX_AUDIENCES: Final = 16
_INT: Final = 2**63
# Names of keys that some issuers add are passed over; anything that could bring a key or change the meaning is not.
_HEADERS: Final = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})


class OidcTokens:
    """Judges ID tokens and JWT access tokens of configured issuers.  Safe to share between threads."""

    def __init__(self, issuers: Callable[[], tuple[UserIssuer, ...]], *, fetcher: Fetch = fetch) -> None:
        """Take ``issuers`` of the policy in force (asked at each token)."""
        self._issuers = issuers
        self._fetch = fetcher
        self._keys: dict[tuple[str, str | None], IssuerKeys] = {}

    def verify(self, token: str, *, now: datetime) -> UserIdentity:
        """Return who signed in.

        ``token`` is untrusted, at most 16 KiB.  Raises TokenError; Unavailable when the issuer's keys are not to be
        had.
        """
        try:
            unverified = parse_compact(token)
            claims = parse_json_object(unverified.payload)
        except InputError as error:
            raise TokenError(TokenCode.TOKEN_MALFORMED, error.message) from error
        issuer = self._issuer(claims)
        kid = _check_header(unverified.header)
        key = self._keys_of(issuer).key(kid, now)
        _check_signature(token, unverified.header.get("alg"), key, issuer)
        _check_times(claims, now)
        _check_audience(claims, issuer)
        return _identity(claims, issuer)

    def _issuer(self, claims: Mapping[str, Any]) -> UserIssuer:
        """Choose the issuer by the unverified ``iss``; only those of the policy can be chosen."""
        configured = {issuer.issuer: issuer for issuer in self._issuers()}
        claimed = claims.get("iss")
        issuer = configured.get(claimed) if isinstance(claimed, str) else None
        if issuer is None:
            raise TokenError(TokenCode.UNAUTHORIZED_ISSUER, "the policy does not trust the token's issuer")
        return issuer

    def _keys_of(self, issuer: UserIssuer) -> IssuerKeys:
        name = (issuer.issuer, issuer.jwks)
        keys = self._keys.get(name)
        if keys is None:
            live = {(other.issuer, other.jwks) for other in self._issuers()}
            kept = {other: held for other, held in self._keys.items() if other in live}
            # One step for all threads: of two that come first, one's keys are used by both.
            keys = self._keys.setdefault(name, IssuerKeys(issuer, self._fetch))
            self._keys = {**kept, name: keys}
        return keys


def _check_header(header: Mapping[str, Any]) -> str | None:
    surplus = header.keys() - _HEADERS
    if surplus:
        raise TokenError(TokenCode.TOKEN_INVALID, f"the header {min(surplus)[:40]!r} is not allowed")
    typ = header.get("typ", "JWT")
    # Logout tokens, DPoP proofs and our own transaction tokens are signed statements too, and none is a sign-in.
    if not isinstance(typ, str) or typ.lower() not in _TYPES:
        raise TokenError(TokenCode.TOKEN_INVALID, "'typ' is neither JWT nor at+jwt")
    kid = header.get("kid")
    if kid is not None and (not isinstance(kid, str) or not 0 < len(kid) <= MAX_ID):
        raise TokenError(TokenCode.TOKEN_MALFORMED, "'kid' is not a name")
    return kid


def _check_signature(token: str, alg: object, key: Jwk, issuer: UserIssuer) -> None:
    if not isinstance(alg, str) or alg not in issuer.algorithms or alg not in key.algorithms:
        raise TokenError(TokenCode.TOKEN_INVALID, "the algorithm is not one of the issuer's")
    registry = jws.JWSRegistry(algorithms=[alg], strict_check_header=False)  # the header was checked above
    try:
        jws.deserialize_compact(token, import_key(dict(key.to_members())), registry=registry)
    except (JoseError, ValueError, TypeError) as error:
        raise TokenError(TokenCode.TOKEN_INVALID, "the signature does not hold") from error


def _check_times(claims: Mapping[str, Any], now: datetime) -> None:
    moment = now.timestamp()
    if moment >= _seconds(claims, "exp") + EXPIRY_SKEW_SECONDS:
        raise TokenError(TokenCode.TOKEN_EXPIRED, "the token has expired")
    if _seconds(claims, "iat") > moment + START_SKEW_SECONDS:
        raise TokenError(TokenCode.TOKEN_INVALID, "the token is issued in the future")
    if "nbf" in claims and _seconds(claims, "nbf") > moment + START_SKEW_SECONDS:
        raise TokenError(TokenCode.TOKEN_INVALID, "the token is not valid yet")


def _check_audience(claims: Mapping[str, Any], issuer: UserIssuer) -> None:
    value = claims.get("aud")
    audiences = [value] if isinstance(value, str) else value
    if (
        not isinstance(audiences, list)
        or not 0 < len(audiences) <= MAX_AUDIENCES
        or not all(isinstance(audience, str) for audience in audiences)
    ):
        raise TokenError(TokenCode.TOKEN_MALFORMED, "'aud' is missing or not a list of texts")
    if not set(audiences) & set(issuer.audiences):
        raise TokenError(TokenCode.AUDIENCE_MISMATCH, "the token is for another client")
    # Core 3.1.3.7, steps 4 and 5: of several audiences, the one that the token was issued to has to be ours.
    if len(audiences) > 1 and claims.get("azp") not in issuer.audiences:
        raise TokenError(TokenCode.AUDIENCE_MISMATCH, "the token was issued to another client ('azp')")


def _identity(claims: Mapping[str, Any], issuer: UserIssuer) -> UserIdentity:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT or not subject.isprintable():
        raise TokenError(TokenCode.TOKEN_MALFORMED, "'sub' is missing or not a name")
    auth_time = _seconds(claims, "auth_time") if "auth_time" in claims else None
    return UserIdentity(
        subject=subject,
        idp=issuer.issuer,
        roles=_roles(claims, issuer.roles),
        expires_at=_seconds(claims, "exp"),
        acr=_text(claims, "acr"),
        amr=_texts(claims.get("amr", []), "amr"),
        auth_time=auth_time,
        # An address that nobody has checked names anybody.
        email=_text(claims, "email") if claims.get("email_verified") is True else None,
        attributes=_attributes(claims, issuer.attributes),
    )


def _at(claims: Mapping[str, Any], path: tuple[str, ...]) -> object:
    """Return the claim at a configured path, None where there is none."""
    value: object = claims
    for name in path:
        if not isinstance(value, dict):
            raise TokenError(TokenCode.TOKEN_MALFORMED, f"the claim {'.'.join(path)!r} has another shape")
        if name not in value:
            return None
        value = value[name]
    return value


def _attributes(claims: Mapping[str, Any], mapped: tuple[ClaimAttribute, ...]) -> dict[str, AttributeClaim]:
    """Return the mapped attributes that the token states; one of another type than the policy says is refused."""
    found: dict[str, AttributeClaim] = {}
    for attribute in mapped:
        value = _at(claims, attribute.path)
        if value is not None:
            found[attribute.name] = _attribute(value, attribute)
    return found


def _attribute(value: object, attribute: ClaimAttribute) -> AttributeClaim:
    name = ".".join(attribute.path)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    match attribute.type:
        case ValueType.BOOL if isinstance(value, bool):
            return value
        case ValueType.INT if isinstance(value, int) and is_number and -_INT <= value < _INT:
            return value
        case ValueType.DOUBLE if isinstance(value, int | float) and is_number:
            return float(value)
        case ValueType.TIMESTAMP if isinstance(value, int | float) and is_number and 0 <= value <= LATEST:
            return int(value)
        case ValueType.STRING if isinstance(value, str) and len(value) <= MAX_ATTRIBUTE:
            return value
        case ValueType.STRINGS:
            return list(_texts([value] if isinstance(value, str) else value, name))
    raise TokenError(TokenCode.TOKEN_MALFORMED, f"{name!r} is not of the type that the policy declares")


def _roles(claims: Mapping[str, Any], path: tuple[str, ...]) -> frozenset[str]:
    """Return the roles at the configured path; a user without them has none, anything but texts is refused."""
    value = _at(claims, path)
    if value is None:
        return frozenset()
    return frozenset(_texts([value] if isinstance(value, str) else value, ".".join(path)))


def _texts(value: object, name: str) -> tuple[str, ...]:
    if (
        not isinstance(value, list)
        or len(value) > MAX_ROLES
        or not all(isinstance(one, str) and 0 < len(one) <= MAX_ID and one.isprintable() for one in value)
    ):
        raise TokenError(TokenCode.TOKEN_MALFORMED, f"{name!r} is not a list of at most {MAX_ROLES} names")
    return tuple(value)


def _text(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID or not value.isprintable():
        raise TokenError(TokenCode.TOKEN_MALFORMED, f"{name!r} is not a name")
    return value


def _seconds(claims: Mapping[str, Any], name: str) -> int:
    """Return a NumericDate in whole seconds (RFC 7519 section 2)."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TokenError(TokenCode.TOKEN_MALFORMED, f"{name!r} is missing or not a number of seconds")
    if not 0 <= value <= LATEST:
        raise TokenError(TokenCode.TOKEN_MALFORMED, f"{name!r} is out of range")
    return int(value)
