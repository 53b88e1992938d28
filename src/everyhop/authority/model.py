# SPDX-License-Identifier: Apache-2.0
"""Authorities as values: what is stored of each, and what the service hands out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from everyhop.core.errors import SettingsError

SKEW: Final = timedelta(seconds=60)  # clocks of verifiers may be behind ours by this much


class AuthorityKind(StrEnum):
    """What an authority signs."""

    X509 = "x509"
    JWT = "jwt"


class AuthorityStatus(StrEnum):
    """Where an authority is in its life; the order is the only one possible."""

    PREPARED = "prepared"  # in the bundle, signs nothing yet
    ACTIVE = "active"  # signs; exactly one of each kind
    OLD = "old"  # its key is destroyed; in the bundle until nothing that it signed is alive


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityEntry:
    """One authority as it is stored.

    ``id`` is the subject key identifier in hex of a CA, the ``kid`` of a JWT key.  ``public`` is the CA certificate
    in DER, or the public key as SubjectPublicKeyInfo.  ``wrapped_key`` is None once the authority is old.
    ``published_sequence`` is the first bundle that held it.  ``signed_until`` is the latest expiry of anything it
    signed.  Times are aware UTC.
    """

    id: str
    kind: AuthorityKind
    status: AuthorityStatus
    public: bytes
    wrapped_key: bytes | None = field(repr=False)
    created_at: datetime
    not_before: datetime
    not_after: datetime
    published_sequence: int
    activated_at: datetime | None = None
    retired_at: datetime | None = None
    signed_until: datetime | None = None

    @property
    def needed_until(self) -> datetime:
        """Return when nothing that it signed can be alive any more, clock skew included."""
        last_use = max(self.signed_until or self.created_at, self.retired_at or self.created_at)
        return min(last_use, self.not_after) + SKEW


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityState:
    """All authorities, oldest first, and the sequence number of the bundle that they form (0 before the first)."""

    entries: tuple[AuthorityEntry, ...]
    sequence: int

    def one(self, kind: AuthorityKind, status: AuthorityStatus) -> AuthorityEntry | None:
        """Return the authority of a kind in a status that admits only one, or None."""
        return next((e for e in self.entries if e.kind is kind and e.status is status), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthoritySettings:
    """Lifetimes.  ``x509_ttl`` and ``jwt_ttl`` are both what is issued unless asked otherwise and the most there is.

    The fractions are of an authority's own life: when its successor is made and published, when the successor takes
    over if it is known everywhere, and when it takes over even if it is not, because the other way is an outage.
    """

    ca_ttl: timedelta = timedelta(hours=24)
    jwt_key_ttl: timedelta = timedelta(hours=24)
    x509_ttl: timedelta = timedelta(hours=1)
    jwt_ttl: timedelta = timedelta(minutes=5)
    backdate: timedelta = timedelta(seconds=10)
    refresh_hint: timedelta = timedelta(minutes=5)
    prepare_at: float = 1 / 2
    activate_at: float = 5 / 6
    force_at: float = 11 / 12

    def __post_init__(self) -> None:
        if min(self.x509_ttl, self.jwt_ttl, self.ca_ttl, self.jwt_key_ttl) < timedelta(seconds=1):
            raise SettingsError("a lifetime is at least one second")
        if self.x509_ttl > self.ca_ttl or self.jwt_ttl > self.jwt_key_ttl:
            raise SettingsError("an SVID cannot outlive the authority that signs it")
        if not 0 < self.prepare_at < self.activate_at < self.force_at < 1:
            raise SettingsError(
                "an authority is prepared, activated and forced in this order within its life"
            )

    def life_of(self, kind: AuthorityKind) -> timedelta:
        """Return the lifetime of a new authority."""
        return self.ca_ttl if kind is AuthorityKind.X509 else self.jwt_key_ttl


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One step that was taken: ``create``, ``prepare``, ``activate`` or ``remove``.

    ``sequence`` is that of the bundle after the step.
    """

    action: str
    kind: AuthorityKind
    authority_id: str
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedX509:
    """An X509-SVID: ``chain_der`` leaf first and without the root, ``expires_at`` aware UTC."""

    chain_der: tuple[bytes, ...]
    expires_at: datetime
    authority_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedJwt:
    """A JWT-SVID in compact form; times are aware UTC, in whole seconds."""

    token: str = field(repr=False)
    expires_at: datetime
    issued_at: datetime
    authority_id: str
