# SPDX-License-Identifier: Apache-2.0
"""From the text of a token to claims that a known key signed: the steps that both kinds of token share.

The order is fixed, so that every enforcement point gives the same code: size, shape, base64, JSON, types
(TOKEN_MALFORMED); the key's name (UNKNOWN_KEY_ID); the header's profile, then the signature (TOKEN_INVALID).
Claims are typed before the signature is checked and believed only after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import msgspec

from everyhop.core.errors import InputError, TokenError
from everyhop.jose.encoding import decode_base64url_bytes
from everyhop.jose.jwk import MAX_KID_BYTES
from everyhop.jose.strict_json import parse_claims
from everyhop.tokens.claims import invalid, malformed
from everyhop.tokens.limits import MAX_TOKEN_BYTES

if TYPE_CHECKING:
    from everyhop.tokens.keyset import KeySource, PinnedKey

_PARTS: Final = 3
_MAX_HEADERS: Final = 64
_MEMBERS: Final = frozenset({"alg", "kid", "typ"})

Read = TypeVar("Read")


class Header(NamedTuple):
    """A header as it stands in the token; ``surplus`` are the members that the profile does not have."""

    alg: str
    kid: str
    typ: object
    surplus: frozenset[str]


class _TypedHeader(msgspec.Struct):
    alg: str
    kid: str


# Headers of tokens whose signature held, by their segment: there are as many as keys and kinds of token.  What is
# kept depends on the segment alone, so it can never be wrong; a stranger cannot fill it.
_seen_headers: dict[bytes, Header] = {}


def open_compact(
    token: str, keys: KeySource, *, typ: str, read: Callable[[bytes, str], Read]
) -> tuple[Read, PinnedKey]:
    """Return what ``read`` makes of the payload and the key's name, and the key that signed them.

    ``read`` sees unverified claims: it types them and raises TokenError TOKEN_MALFORMED, no more.
    """
    if len(token) > MAX_TOKEN_BYTES or not token.isascii():
        raise malformed(f"a token is ASCII and has at most {MAX_TOKEN_BYTES} bytes")
    signing_input, _, signature_part = token.encode().rpartition(b".")
    header_part, dot, payload_part = signing_input.partition(b".")
    if not dot or b"." in payload_part:
        raise malformed("a token has three parts")
    known = _seen_headers.get(header_part)
    try:
        header = known or _read_header(decode_base64url_bytes(header_part))
        signature = decode_base64url_bytes(signature_part)
        claims = read(decode_base64url_bytes(payload_part), header.kid)
    except InputError as error:
        raise malformed(error.message) from error
    key = keys.key(header.kid)
    _check_profile(header, key, typ)
    if not key.check(signature, signing_input):
        raise invalid("the signature does not hold")
    if known is None:
        if len(_seen_headers) >= _MAX_HEADERS:
            _seen_headers.clear()
        _seen_headers[header_part] = header
    return claims, key


def guarded(call: Callable[[], Read]) -> Read:
    """Return what ``call`` returns; whatever it raises that is no TokenError becomes TOKEN_MALFORMED.

    A verifier that fails in an unforeseen way refuses, with a code: it never turns into an internal error.
    """
    try:
        return call()
    except TokenError:
        raise
    except Exception as error:
        raise unforeseen(error) from error


def unforeseen(error: Exception) -> TokenError:
    """Return the refusal for an error that is none of ours; only its type is told."""
    return malformed(f"the token cannot be read ({type(error).__name__})")


def _read_header(data: bytes) -> Header:
    members = parse_claims(data)
    try:
        typed = msgspec.convert(members, _TypedHeader, strict=True)
    except msgspec.ValidationError as error:
        raise InputError(f"header: {error}") from error
    if not 0 < len(typed.kid) <= MAX_KID_BYTES or not typed.kid.isprintable():
        raise InputError("header: 'kid' is empty, too long or not printable")
    return Header(typed.alg, typed.kid, members.get("typ"), frozenset(members) - _MEMBERS)


def _check_profile(header: Header, key: PinnedKey, typ: str) -> None:
    # An ID token, a refresh token or a JWT-SVID under the same key is not an access token (RFC 8725 section 3.11).
    if header.typ != typ:
        raise invalid(f"'typ' is not {typ}")
    # crit, b64, jwk, jku, x5c, x5u, zip, cty: whatever could change what the rest means (RFC 7515 section 4).
    if header.surplus:
        raise invalid("the header has members that the profile does not have")
    if header.alg != key.alg:
        raise invalid("the algorithm is not the one of the key")
