# SPDX-License-Identifier: Apache-2.0
"""Types that the claims of both kinds of token share, and what they admit.

Claims that the profile does not know are tolerated (RFC 7519 section 4); one that it knows has exactly its type,
because a reader that coerces and one that does not would see two different tokens.
"""

from __future__ import annotations

import functools
import re
from typing import Annotated, Final, Generic, TypeVar

import msgspec

from everyhop.core.errors import InputError, TokenError
from everyhop.jose.strict_json import parse_claims
from everyhop.tokens.codes import TokenCode
from everyhop.tokens.limits import (
    EXPIRY_SKEW_SECONDS,
    LATEST,
    MAX_ACTORS,
    MAX_ID,
    MAX_LIFETIME_SECONDS,
    MAX_NAME,
    START_SKEW_SECONDS,
)

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)]
Digest = Annotated[str, msgspec.Meta(min_length=43, max_length=43)]
NumericDate = Annotated[int, msgspec.Meta(ge=0, le=LATEST)]
"""RFC 7519 section 2, whole seconds only: no fraction, no boolean, no text."""

Claims = TypeVar("Claims", bound=msgspec.Struct)

encode_claims: Final = msgspec.json.Encoder().encode
"""Write claims in the shortest spelling, in the order of their type."""

_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*", re.ASCII)
_WORKLOAD: Final = re.compile(
    r"spiffe://[a-z0-9._-]{1,255}(?:/(?!\.{1,2}(?:/|\Z))[a-zA-Z0-9._-]+)+", re.ASCII
)
_DIGEST: Final = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]", re.ASCII)


class Confirmation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """``cnf`` (RFC 7800): a certificate's digest or a key's thumbprint, one of them."""

    x5t: Digest | None = msgspec.field(default=None, name="x5t#S256")
    jkt: Digest | None = None


class Actor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """``act`` (RFC 8693 section 4.1): who acts, and below it for whom that one acted."""

    sub: Name
    act: Actor | None = None


def malformed(reason: str) -> TokenError:
    """Return the error for a token that is not of the shape that the profile describes."""
    return TokenError(TokenCode.TOKEN_MALFORMED, reason)


def invalid(reason: str) -> TokenError:
    """Return the error for a token of the right shape that must not be believed."""
    return TokenError(TokenCode.TOKEN_INVALID, reason)


class ClaimsReader(Generic[Claims]):
    """Reads the claims of one kind of token; ``nullable`` are the members that may be absent but never null."""

    __slots__ = ("_decode", "_kind", "_nullable")

    def __init__(self, kind: type[Claims], nullable: tuple[str, ...]) -> None:
        self._kind = kind
        self._nullable = nullable
        self._decode = msgspec.json.Decoder(kind).decode

    def read(self, data: bytes) -> Claims:
        """Return the claims; raises TOKEN_MALFORMED for anything that is not exactly of their types.

        Text of our own spelling is proved good in the cheapest way: written down again from its types it gives the
        same bytes, so it repeats no member at any depth and holds none that is unknown.  Any other text, which
        may be good as well, takes the long way.
        """
        try:
            claims = self._decode(data)
            if encode_claims(claims) == data:
                return claims
        except (ValueError, RecursionError):
            pass  # the long way finds out what is wrong
        try:
            return typed(parse_claims(data), self._kind, self._nullable)
        except InputError as error:
            raise malformed(error.message) from error


def typed(members: dict[str, object], kind: type[Claims], nullable: tuple[str, ...]) -> Claims:
    """Return the members as ``kind``; ``nullable`` are those that may be absent but never null."""
    if None in members.values():
        for name in nullable:
            if members.get(name, "") is None:
                raise malformed(f"the claim {name!r} is null")
    try:
        return msgspec.convert(members, kind, strict=True)
    except msgspec.ValidationError as error:
        raise malformed(str(error)) from error


def check_printable(*texts: str) -> None:
    """Refuse control characters, which have no business in a name and would end up in logs."""
    if not "".join(texts).isprintable():
        raise malformed("a claim holds characters that cannot be printed")


# Bounded memories of pure functions: there are few callers and few scopes, and the answer depends on the text alone.
@functools.lru_cache(maxsize=256)
def scopes(text: str) -> frozenset[str]:
    """Return the scope as a set (RFC 6749 section 3.3); empty text is the empty set."""
    if not text:
        return frozenset()
    if not _SCOPE.fullmatch(text):
        raise malformed("'scope' is not a list of scope tokens with single spaces")
    return frozenset(text.split(" "))


@functools.lru_cache(maxsize=256)
def is_workload(text: str) -> bool:
    """Tell whether the text is the SPIFFE ID of a workload in its normal form."""
    return _WORKLOAD.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Tell whether the text is a SHA-256 digest in canonical base64url."""
    return _DIGEST.fullmatch(text) is not None


def confirmed(confirmation: Confirmation | None) -> tuple[str | None, str | None]:
    """Return the digest of the certificate and the thumbprint of the key: one of them, or neither without ``cnf``."""
    if confirmation is None:
        return None, None
    x5t, jkt = confirmation.x5t, confirmation.jkt
    named = x5t or jkt
    if named is None or (x5t is not None and jkt is not None) or not is_digest(named):
        raise malformed("'cnf' does not hold exactly one digest")
    return x5t, jkt


def actors(act: Actor | None) -> tuple[str, ...]:
    """Return the actors, the present one first; at most four."""
    found: list[str] = []
    while act is not None:
        if len(found) == MAX_ACTORS:
            raise malformed(f"'act' is nested deeper than {MAX_ACTORS}")
        check_printable(act.sub)
        found.append(act.sub)
        act = act.act
    return tuple(found)


def check_issuer(claimed: str, issuer: str) -> None:
    """Compare exactly: a prefix, a suffix or another spelling is another issuer (RFC 8725 section 3.8)."""
    if claimed != issuer:
        raise TokenError(TokenCode.UNAUTHORIZED_ISSUER, "the token is of another issuer")


def check_expiry(expires_at: int, now: float) -> None:
    """Refuse a token that is over by more than the skew for ``exp``."""
    if now >= expires_at + EXPIRY_SKEW_SECONDS:
        raise TokenError(TokenCode.TOKEN_EXPIRED, "the token has expired")


def check_start(issued_at: int, not_before: int | None, expires_at: int, now: float) -> None:
    """Refuse a token from the future, one that is never valid, and one that lives for longer than an hour."""
    if issued_at > now + START_SKEW_SECONDS:
        raise invalid("the token is issued in the future")
    if not_before is not None and not_before > now + START_SKEW_SECONDS:
        raise invalid("the token is not valid yet")
    if not 0 < expires_at - issued_at <= MAX_LIFETIME_SECONDS:
        raise invalid(f"a token lives for at most {MAX_LIFETIME_SECONDS} seconds")
