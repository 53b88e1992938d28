# SPDX-License-Identifier: Apache-2.0
"""A request as it is signed and verified: its fields, its digest, the chain that it carries."""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from everyhop.sdk.signatures.model import Reason, refuse
from everyhop.sdk.signatures.trust import MAX_CERTIFICATES, MAX_CHAIN_BYTES

AUDIENCE_HEADER: Final = "Everyhop-Audience"
CHAIN_HEADER: Final = "Everyhop-Certificate-Chain"
MAX_BODY_BYTES: Final = 16 * 1024 * 1024
MAX_FIELD_BYTES: Final = 32 * 1024
MAX_FIELDS: Final = 200
RESERVED: Final = frozenset(
    {"signature", "signature-input", "content-digest", AUDIENCE_HEADER.lower(), CHAIN_HEADER.lower()}
)
"""Fields that belong to the signature; with ``content-type`` they may stand there once."""


@dataclass(frozen=True, slots=True)
class HttpMessage:
    """A request: the method in capitals, the absolute URL as the receiver is known by, header fields in order."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)

    def one(self, name: str) -> str | None:
        """Return the value of a field that may stand there once; raises SignatureError when it stands twice."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        if len(found) > 1:
            raise refuse(Reason.MALFORMED, f"the field {name} stands there twice")
        return found[0] if found else None


class Fields(MutableMapping[str, str]):
    """Header fields in their order, names without case, a name perhaps more than once, as the library reads them."""

    def __init__(self, lines: list[tuple[str, str]]) -> None:
        self._lines = lines

    def __getitem__(self, name: str) -> str:
        found = [value for key, value in self._lines if key.lower() == name.lower()]
        if not found:
            raise KeyError(name)
        return ", ".join(found)

    def __setitem__(self, name: str, value: str) -> None:
        self._lines = [line for line in self._lines if line[0].lower() != name.lower()] + [(name, value)]

    def __delitem__(self, name: str) -> None:
        self._lines = [line for line in self._lines if line[0].lower() != name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self._lines])

    def __len__(self) -> int:
        return len(self._lines)

    def items(self) -> Any:
        """Return every line; a mapping's own would show a name once."""
        return list(self._lines)


@dataclass(frozen=True, slots=True)
class View:
    """A request as the library wants it."""

    method: str
    url: str
    headers: Fields


def check_shape(message: HttpMessage) -> None:
    """Refuse a request that is too large, or has a field twice that means something here."""
    if (
        len(message.body) > MAX_BODY_BYTES
        or len(message.headers) > MAX_FIELDS
        or len(message.url) > MAX_FIELD_BYTES
    ):
        raise refuse(Reason.MALFORMED, "the request is too large")
    if any(len(name) + len(value) > MAX_FIELD_BYTES for name, value in message.headers):
        raise refuse(Reason.MALFORMED, "a header field is too large")
    for name in RESERVED | {"content-type"}:
        message.one(name)


def digest(body: bytes) -> str:
    """Return the one spelling of ``Content-Digest`` that is sent and taken (RFC 9530)."""
    return f"sha-256=:{b64encode(hashlib.sha256(body).digest()).decode()}:"


def read_chain(value: str) -> list[bytes]:
    """Read a list of byte sequences (RFC 8941 section 3.1, 3.3.5), nothing else."""
    if len(value) > 2 * MAX_CHAIN_BYTES:
        raise refuse(Reason.MALFORMED, "the chain is too long")
    members = value.split(",")
    if len(members) > MAX_CERTIFICATES:
        raise refuse(Reason.MALFORMED, "the chain is too long")
    found = []
    for member in members:
        text = member.strip(" ")
        if len(text) < len("::") or text[0] != ":" or text[-1] != ":":
            raise refuse(Reason.MALFORMED, "the chain is not a list of byte sequences")
        try:
            found.append(b64decode(text[1:-1], validate=True))
        except ValueError as error:
            raise refuse(Reason.MALFORMED, "the chain is not base64") from error
    return found


def write_chain(chain: tuple[bytes, ...]) -> str:
    """Write what :func:`read_chain` reads."""
    return ", ".join(f":{b64encode(der).decode()}:" for der in chain)
