# SPDX-License-Identifier: Apache-2.0
"""What the guard reads from a request's headers, each field with exactly one reading.

A field that may occur once and occurs twice, or joins two values with a comma, is refused: a proxy in front might
have looked at the other one.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Final

from everyhop.sdk.model import Caller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everyhop.sdk.model import Request

CALLER_HEADER: Final = b"x-everyhop-caller"
DECISION_HEADER: Final = b"x-everyhop-decision"
CERTIFICATE_HEADER: Final = b"x-forwarded-client-cert"
AUTHORIZATION: Final = b"authorization"
TXN_TOKEN: Final = b"txn-token"
TRACEPARENT: Final = b"traceparent"
TRACESTATE: Final = b"tracestate"
HOST: Final = b"host"
CONTENT_LENGTH: Final = b"content-length"
TRANSFER_ENCODING: Final = b"transfer-encoding"
UPGRADE: Final = b"upgrade"

HIDDEN_PREFIXES: Final = (b"x-everyhop-", b"x-forwarded-", b"x-envoy-", b"x-original-")
HIDDEN: Final = frozenset(
    {b"forwarded", b"x-rewrite-url", b"x-http-method-override", b"x-method-override", b"x-http-method"}
)
"""Fields in which a caller could claim an identity, another path, method or origin: no application sees them.

The same as at a sidecar's ingress, which takes them away itself (tests/unit/sdk/test_headers.py compares the two).
"""

_READ: Final = frozenset(
    {
        CALLER_HEADER,
        DECISION_HEADER,
        CERTIFICATE_HEADER,
        AUTHORIZATION,
        TXN_TOKEN,
        TRACEPARENT,
        TRACESTATE,
        HOST,
        CONTENT_LENGTH,
        TRANSFER_ENCODING,
        UPGRADE,
    }
)
_HOST: Final = re.compile(rb"[A-Za-z0-9._~%\[\]:-]*")
_DIGITS: Final = re.compile(rb"[0-9]{1,19}")
_BEARER: Final = re.compile(rb"(?i:bearer) +([A-Za-z0-9._~+/=-]+)")
_TOKEN: Final = re.compile(rb"[A-Za-z0-9._~+/=-]+")
_DECISION: Final = re.compile(rb"[A-Za-z0-9-]{1,64}")
_HASH: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_QUERY_TOKEN: Final = re.compile(rb"(?:^|&)\s*(?:a|%61)ccess(?:_|%5[fF])token(?:=|&|$)")


class Headers:
    """The fields that the guard reads, by lower-case name, every value kept."""

    __slots__ = ("_flaw", "_values")

    def __init__(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._values: dict[bytes, list[bytes]] = {}
        self._flaw: str | None = None
        for name, value in headers:
            lowered = name.lower()
            if lowered in _READ:
                self._values.setdefault(lowered, []).append(value)
            elif b"_" in name:
                self._flaw = "a field name has an underscore, which others read as a dash"
            elif (
                b"\0" in value or b"\n" in value or b"\r" in value
            ):  # those that are read have their own, stricter rules
                self._flaw = "a field holds a control character"

    @property
    def flaw(self) -> str | None:
        """Return why these fields have more than one reading, None when they have one.

        An underscore in a name, a NUL or a line end in a value, two hosts or one that is none, two lengths, or a
        length beside a transfer coding (RFC 9112 sections 3.2 and 6.3).
        """
        if self._flaw is not None:
            return self._flaw
        hosts = self._values.get(HOST)
        if hosts is not None and (len(hosts) > 1 or not _HOST.fullmatch(hosts[0])):
            return "Host is not exactly one host"
        lengths = self._values.get(CONTENT_LENGTH)
        if lengths is None:
            return None
        if len(set(lengths)) > 1 or not _DIGITS.fullmatch(lengths[0]):
            return "Content-Length is not one number"
        return "a length beside a transfer coding" if TRANSFER_ENCODING in self._values else None

    @property
    def asks_for_websocket(self) -> bool:
        """Tell whether ``Upgrade`` names the WebSocket protocol, among others or alone."""
        if UPGRADE not in self._values:
            return False
        return any(b"websocket" in value.lower() for value in self._values[UPGRADE])

    def all(self, name: bytes) -> list[bytes]:
        """Return every value, in order."""
        return self._values.get(name, [])

    def one(self, name: bytes) -> bytes | None:
        """Return the value of a field that occurs exactly once, else None."""
        values = self._values.get(name, [])
        return values[0].strip(b" \t") if len(values) == 1 else None

    def text(self, name: bytes) -> list[str]:
        """Return every value as text, one character a byte."""
        return [value.decode("latin-1") for value in self.all(name)]


def is_hidden(name: bytes) -> bool:
    """Tell whether no application may see the field of this name, in any case."""
    lowered = name.lower()
    return lowered.startswith(HIDDEN_PREFIXES) or lowered in HIDDEN


class MalformedCredentialError(Exception):
    """A credential that is there and has more than one reading, or none."""


def bearer_token(headers: Headers, query: bytes) -> str | None:
    """Return the one bearer token (RFC 6750 section 2.1), or None when there is no ``Authorization`` at all.

    Raises MalformedCredentialError for two fields, a comma, another scheme, or a second token in the query
    (section 2.3 is not supported: addresses end up in logs).
    """
    values = headers.all(AUTHORIZATION)
    if not values:
        return None
    match = _BEARER.fullmatch(values[0].strip(b" \t")) if len(values) == 1 else None
    if match is None:
        raise MalformedCredentialError("Authorization is not exactly one bearer token")
    if _QUERY_TOKEN.search(query):
        raise MalformedCredentialError("a token in the query beside the one in Authorization")
    return match[1].decode("ascii")


def txn_token(headers: Headers) -> str | None:
    """Return the one transaction token, or None.  Raises MalformedCredentialError for two or anything else."""
    values = headers.all(TXN_TOKEN)
    if not values:
        return None
    value = headers.one(TXN_TOKEN)
    if value is None or not _TOKEN.fullmatch(value):
        raise MalformedCredentialError("Txn-Token is not exactly one token")
    return value.decode("ascii")


def caller_of(request: Request, headers: Headers) -> Caller | None:
    """Return who calls: what the sidecar says on its own socket, else the peer of the TLS connection, else None.

    A sidecar says it in one ``x-everyhop-caller``; the certificate's digest in ``x-forwarded-client-cert`` counts
    only when its URI is that very caller.
    """
    if not request.via_sidecar:
        peer = request.peer
        return None if peer is None else Caller(spiffe_id=peer.spiffe_id, x5t=peer.x5t)
    value = headers.one(CALLER_HEADER)
    if not value or not value.isascii() or b"," in value:
        return None
    named = value.decode("ascii")
    return Caller(
        spiffe_id=named, x5t=_certificate_digest(headers.one(CERTIFICATE_HEADER), named), via_sidecar=True
    )


def decision_of(request: Request, headers: Headers) -> str | None:
    """Return the sidecar's decision id, so that both records of one call carry the same."""
    value = headers.one(DECISION_HEADER) if request.via_sidecar else None
    return value.decode("ascii") if value and _DECISION.fullmatch(value) else None


def _certificate_digest(value: bytes | None, caller: str) -> str | None:
    """Return ``x5t#S256`` from ``By=…;Hash=…;URI=…`` of one certificate, None where anything is odd."""
    if value is None or not value.isascii() or b"," in value or b'"' in value:
        return None
    pairs = [element.partition("=") for element in value.decode("ascii").split(";")]
    digests = [text for key, _, text in pairs if key == "Hash"]
    uris = [text for key, _, text in pairs if key == "URI"]
    if uris != [caller] or len(digests) != 1 or not _HASH.fullmatch(digests[0]):
        return None
    return urlsafe_b64encode(bytes.fromhex(digests[0])).rstrip(b"=").decode("ascii")
