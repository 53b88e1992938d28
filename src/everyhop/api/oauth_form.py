# SPDX-License-Identifier: Apache-2.0
"""The body of an OAuth request: ``application/x-www-form-urlencoded``, read strictly (RFC 6749 section 3.2).

What two parsers could read in two ways is refused: a parameter twice, a broken escape, bytes that are no UTF-8,
control characters.  Nothing is ever read from the query, where it would end up in logs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from everyhop.api.oauth_errors import OAuthCode, OAuthRefusal

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_FORM_BYTES: Final = 64 * 1024
MAX_PARAMETERS: Final = 64
_MEDIA_TYPE: Final = re.compile(
    r'application/x-www-form-urlencoded(?:[ \t]*;[ \t]*charset=(?:"utf-8"|utf-8))?', re.IGNORECASE
)
_RAW: Final = re.compile(rb"(?:[A-Za-z0-9*._~!$'(),;:@/?+-]|%[0-9A-Fa-f]{2})*")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_REPEATABLE: Final = frozenset({"audience", "resource"})  # RFC 8693 section 2.1, RFC 8707 section 2


def _malformed(description: str) -> OAuthRefusal:
    return OAuthRefusal(OAuthCode.INVALID_REQUEST, description)


async def read_form(request: Request) -> dict[str, str]:
    """Return the parameters of a request; those without a value count as left out.

    Raises OAuthRefusal for a query, another media type, a body of more than 64 KiB, a parameter twice
    (``invalid_target`` for an audience or resource, of which a token has one), and whatever is not well formed.
    """
    if request.scope.get("query_string"):
        raise _malformed("parameters belong into the body, never into the query")
    types = request.headers.getlist("content-type")
    if len(types) != 1 or not _MEDIA_TYPE.fullmatch(types[0].strip()):
        raise _malformed("the content type is application/x-www-form-urlencoded")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise _malformed("the body is not encoded")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise OAuthRefusal(OAuthCode.INVALID_REQUEST, "the body is too large", status=413)
    return parse_form(bytes(body))


def parse_form(body: bytes) -> dict[str, str]:
    """Return the parameters of a form by name; raises OAuthRefusal (see :func:`read_form`)."""
    pairs = body.split(b"&") if body else []
    if len(pairs) > MAX_PARAMETERS:
        raise _malformed("too many parameters")
    found: dict[str, str] = {}
    for pair in pairs:
        raw_name, equals, raw_value = pair.partition(b"=")
        name, value = _decode(raw_name), _decode(raw_value)
        if not equals or not name:
            raise _malformed("the form is not well formed")
        if name in found:
            if name in _REPEATABLE:
                raise OAuthRefusal(OAuthCode.INVALID_TARGET, "a token has one audience")
            raise _malformed("a parameter is there twice")
        found[name] = value
    return {name: value for name, value in found.items() if value}


def _decode(raw: bytes) -> str:
    if not _RAW.fullmatch(raw):
        raise _malformed("the form is not well formed")
    try:
        text = _ESCAPE.sub(lambda hit: bytes([int(hit[1], 16)]), raw.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _malformed("the form is not UTF-8") from error
    if _CONTROL.search(text):
        raise _malformed("the form holds control characters")
    return text


def required(form: dict[str, str], name: str) -> str:
    """Return a parameter; raises OAuthRefusal ``invalid_request`` when it is missing."""
    value = form.get(name)
    if value is None:
        raise _malformed(f"{name} is missing")
    return value


def single_header(request: Request, name: str) -> str | None:
    """Return a header that may be there once; raises OAuthRefusal ``invalid_request`` for more."""
    values = request.headers.getlist(name)
    if len(values) > 1:
        raise _malformed(f"the header {name} is there twice")
    return values[0] if values else None
