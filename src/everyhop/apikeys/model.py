# SPDX-License-Identifier: Apache-2.0
"""API keys as values: what is stored, what is shown once, what an authenticated key proves."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Network
from typing import ClassVar, Final

from everyhop.core.errors import AccessDenied, SettingsError, TrustError
from everyhop.core.secret import Secret

Network = IPv4Network | IPv6Network

DEFAULT_LIFE: Final = timedelta(days=90)
LONGEST_LIFE: Final = timedelta(days=366)
DEFAULT_OVERLAP: Final = timedelta(hours=24)
MAC_BYTES: Final = 32


class ApiKeyRefused(TrustError):  # noqa: N818  # the name of the outcome, not of a fault
    """A presented key that is not believed.  One error and one message for every reason: callers learn nothing."""

    code = "API_KEY_REFUSED"

    def __init__(self, reason: str, *, lookup: str | None = None) -> None:
        super().__init__("the API key is not accepted")
        self.reason = reason
        """For the log only."""
        self.lookup = lookup
        """The public part of what was presented, where it has the form of a key; for the log only."""


class TooManyFailures(AccessDenied):
    """A source that failed so often that it is not listened to for a while."""

    code = "TOO_MANY_FAILURES"

    def __init__(self, retry_after: int) -> None:
        super().__init__("too many failed attempts", hint=f"try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyEntry:
    """One API key as it is stored: everything but the key.

    ``scopes`` are ``service.operation``; ``sources`` are the networks it may come from (empty: anywhere); ``mac`` is
    HMAC-SHA-256 of the whole key under the pepper ``pepper``.  ``replaces`` and ``replaced_by`` are lookups.
    """

    lookup: str
    environment: str
    kind: str
    owner: str
    scopes: frozenset[str]
    sources: tuple[Network, ...]
    mac: bytes = field(repr=False)
    pepper: str
    created_at: datetime
    expires_at: datetime
    enabled: bool = True
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    replaces: str | None = None
    replaced_by: str | None = None

    def state(self, now: datetime) -> str:
        """Return ``active``, ``revoked``, ``expired`` or ``disabled``."""
        if self.revoked_at is not None:
            return "revoked"
        if now >= self.expires_at:
            return "expired"
        return "active" if self.enabled else "disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pepper:
    """The MAC key, wrapped by the key store under its ``id``."""

    id: str
    wrapped: bytes = field(repr=False)
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedKey:
    """A new key: ``key`` is the text to show once, ``entry`` what is kept."""

    key: Secret
    entry: ApiKeyEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyPrincipal:
    """What an authenticated key proves; ``scopes`` are those that the policy still opens to the outside."""

    lookup: str
    owner: str
    environment: str
    kind: str
    scopes: frozenset[str]
    expires_at: datetime

    @property
    def subject(self) -> str:
        """Return the ``sub`` of tokens made for it."""
        return f"apikey:{self.lookup}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeySettings:
    """Bounds.  After ``failures`` failed attempts of one source within ``window`` it is refused until that is over."""

    LOOKUP_ATTEMPTS: ClassVar[int] = 8
    default_life: timedelta = DEFAULT_LIFE
    longest_life: timedelta = LONGEST_LIFE
    overlap: timedelta = DEFAULT_OVERLAP
    failures: int = 30
    window: timedelta = timedelta(seconds=60)
    max_sources: int = 10_000
    max_keys: int = 100_000

    def __post_init__(self) -> None:
        if not timedelta(0) < self.default_life <= self.longest_life <= LONGEST_LIFE:
            raise SettingsError("an API key lives at most 366 days")
        if self.failures < 1 or self.max_sources < 1:
            raise SettingsError("an API key may fail at least once")
