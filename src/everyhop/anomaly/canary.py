# SPDX-License-Identifier: Apache-2.0
"""Canaries: API keys, secrets and services that must never be used, and how one is recognised without being kept.

Of a credential nothing is stored but a mark: a MAC, under a key that the key store wraps, of the digest of the text.  So
whoever reads the database, or the log, cannot tell which API key is a canary, nor find out by trying.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from everyhop.anomaly.finding import Action
from everyhop.core.errors import InputError
from everyhop.core.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Sequence

DIGEST_BYTES: Final = 32
MAX_NAME: Final = 100
MAX_CANARIES: Final = 1000
MAX_TEXT: Final = 16 * 1024
"""Longer texts are looked at only so far; no canary is longer."""

_ID_DIGITS: Final = 12
_COMMITMENT_DIGITS: Final = 32


class CanaryKind(StrEnum):
    """What a canary looks like."""

    API_KEY = "api-key"
    SECRET = "secret"  # noqa: S105  # a kind
    SERVICE = "service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """One canary.  ``name`` is for its owner, or the service's; ``mark`` is None for a service; ``response`` is for its user."""

    id: str
    kind: CanaryKind
    name: str
    response: Action
    created_at: datetime
    created_by: str
    mark: bytes | None = field(default=None, repr=False)
    ended_at: datetime | None = None

    @property
    def action(self) -> Action:
        """Return what a use leads to: of one that was ended an alert, nothing more."""
        return self.response if self.ended_at is None else Action.ALERT


class CanaryStore(Protocol):
    """Keeps canaries."""

    def insert(self, canary: Canary, *, recorded: bool) -> None:
        """Add one; with ``recorded`` the log says that there is one more, by its id and nothing else.

        Raises Conflict for an id or a mark that exists, or a service that is a canary already.
        """

    def list(self) -> Sequence[Canary]:
        """Return all, oldest first, ended ones too."""

    def end(self, canary_id: str, *, at: datetime, by: str, recorded: bool) -> Canary:
        """Note that one was ended; doing it again changes nothing.  Raises NotFound."""

    def used(self, use: Use) -> str:
        """Append the record of a use; durable when it returns.  Returns its id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A credential that was recognised: by whom it was shown (``caller`` is proven), from where, and at which door."""

    canary: Canary
    time: datetime
    caller: str | None = None
    source: str | None = None
    where: str
    target: str | None = None
    decision: str | None = None


class Marker:
    """Makes marks, and ids and commitments that only the holder of the key can tell apart from chance."""

    __slots__ = ("_key",)

    def __init__(self, key: Secret) -> None:
        self._key = key

    def mark(self, digest: bytes) -> bytes:
        """Return the mark of a text by its SHA-256."""
        return self._mac(b"mark", digest)

    def id_of_key(self, lookup: str) -> str:
        """Return the id of the canary that an API key is, if it is one."""
        return self._mac(b"id", lookup.encode()).hex()[:_ID_DIGITS]

    def commitment(self, lookup: str, *, is_canary: bool) -> str:
        """Return what the record of every new API key says, canary or not.

        Without the key it looks like chance.  With it the owner can show, years later, what a key was from its first day.
        """
        what = CanaryKind.API_KEY.value if is_canary else ""
        return self._mac(b"commitment", f"{lookup} {what}".encode()).hex()[:_COMMITMENT_DIGITS]

    def derived(self, purpose: str) -> Secret:
        """Return a key of 32 bytes for another purpose."""
        return Secret(self._mac(b"derived", purpose.encode()))

    def _mac(self, purpose: bytes, data: bytes) -> bytes:
        return hmac.digest(self._key.reveal(), purpose + b"\0" + data, "sha256")


def digest_of(text: str) -> bytes:
    """Return the SHA-256 of what was shown."""
    return hashlib.sha256(text[:MAX_TEXT].encode("utf-8", "surrogatepass")).digest()


def check_name(name: str) -> str:
    """Return a name without white space around it.  Raises InputError unless it is 1 to 100 printable characters."""
    name = name.strip()
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise InputError(f"a canary has a name of 1 to {MAX_NAME} printable characters")
    return name
