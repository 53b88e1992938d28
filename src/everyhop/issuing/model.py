# SPDX-License-Identifier: Apache-2.0
"""Signing keys and revocations as they are stored, and the settings of the issuer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from everyhop.core.errors import SettingsError
from everyhop.jose.algorithms import Algorithm
from everyhop.tokens.revocations import Revocations
from everyhop.tokens.transaction import AttributeClaim

ALGORITHMS: Final = (Algorithm.ES256, Algorithm.RS256)
RSA_BITS: Final = (2048, 3072, 4096)
LONGEST_ROTATION: Final = timedelta(days=90)
LONGEST_TTL: Final = timedelta(hours=1)  # verifiers refuse a token that lives longer


class KeyStatus(StrEnum):
    """Where a signing key is in its life; the order is the only one possible."""

    PREPARED = "prepared"  # published, signs nothing yet
    ACTIVE = "active"  # signs; at most one of an algorithm
    RETAINED = "retained"  # its private key is destroyed; published until nothing that it signed is alive


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """One signing key as it is stored.

    ``kid`` is the key's RFC 7638 thumbprint, ``public`` its SubjectPublicKeyInfo.  ``wrapped_key`` is None once the
    key is retained.  ``published_sequence`` is the first truth that held it.  Times are aware UTC.
    """

    kid: str
    algorithm: Algorithm
    status: KeyStatus
    public: bytes
    wrapped_key: bytes | None = field(repr=False)
    created_at: datetime
    published_sequence: int
    activated_at: datetime | None = None
    retired_at: datetime | None = None


class RevokedKind(StrEnum):
    """What a revocation names."""

    JTI = "jti"  # one token
    TXN = "txn"  # a transaction: its token, everything narrowed from it, everything bound to it
    KID = "kid"  # a signing key: everything that it ever signed
    SUBJECT = "sub"  # everything issued up to now on behalf of one user or API key


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """One thing that must not be believed any more.

    ``expires_at`` is when nothing that it names can be alive; ``by`` is who asked, a SPIFFE ID or ``admin``.
    """

    kind: RevokedKind
    value: str
    revoked_at: datetime
    expires_at: datetime
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuingState:
    """Signing keys, oldest first, revocations, and the number that grows with every change of either."""

    keys: tuple[SigningKey, ...]
    revocations: tuple[Revocation, ...]
    sequence: int

    def one(self, algorithm: Algorithm, status: KeyStatus) -> SigningKey | None:
        """Return the key of an algorithm in a status that admits only one, or None."""
        return next((k for k in self.keys if k.algorithm is algorithm and k.status is status), None)

    def find(self, kid: str) -> SigningKey | None:
        """Return a key by its name, or None."""
        return next((k for k in self.keys if k.kid == kid), None)

    def signing(self, preferred: Algorithm) -> SigningKey | None:
        """Return the key that signs: the active one of ``preferred``, else any active one, or None."""
        return self.one(preferred, KeyStatus.ACTIVE) or next(
            (k for k in self.keys if k.status is KeyStatus.ACTIVE), None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """One step that was taken: ``create``, ``prepare``, ``activate``, ``remove`` or ``revoke``.

    ``sequence`` is that of the truth after the step.
    """

    action: str
    kid: str
    algorithm: Algorithm
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuingSettings:
    """Who issues, and for how long.

    ``token_ttl`` and ``transaction_ttl`` are both what is issued unless asked otherwise and the most there is.
    ``max_age`` is how long a reader may keep the JWKS (``Cache-Control``); ``skew`` how far a verifier's clock may be
    behind.  ``revoked_key_memory`` is how long a revoked key is named: its thief can go on signing, and a reader that
    cannot fetch may hold an old JWKS.
    """

    issuer: str
    trust_domain: str
    algorithm: Algorithm = Algorithm.ES256
    rsa_bits: int = 2048
    token_ttl: timedelta = timedelta(seconds=300)
    transaction_ttl: timedelta = timedelta(seconds=300)
    max_age: timedelta = timedelta(seconds=300)
    skew: timedelta = timedelta(seconds=10)
    rotate_every: timedelta = timedelta(days=60)
    revoked_key_memory: timedelta = timedelta(days=30)
    max_revocations: int = 50_000
    max_revocations_each: int = 1_000

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise SettingsError("tokens are signed with ES256 or RS256")
        if self.rsa_bits not in RSA_BITS:
            raise SettingsError("an RSA signing key has 2048, 3072 or 4096 bits")
        for ttl in (self.token_ttl, self.transaction_ttl):
            if not timedelta(seconds=1) <= ttl <= LONGEST_TTL:
                raise SettingsError("the lifetime of a token is one second to one hour")
        if not timedelta(seconds=1) <= self.rotate_every <= LONGEST_ROTATION:
            raise SettingsError("a signing key signs for at most 90 days")
        if self.max_age < timedelta(0) or self.skew < timedelta(0):
            raise SettingsError("a duration cannot be negative")

    @property
    def longest_ttl(self) -> timedelta:
        """Return how long a token signed now can be alive."""
        return max(self.token_ttl, self.transaction_ttl)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserIdentity:
    """A signed-in person as a trusted OIDC issuer states it.

    ``idp`` is the issuer's URL, ``subject`` its ``sub``, ``auth_time`` seconds since 1970, ``expires_at`` the end of
    the statement.  ``attributes`` are those that the policy maps, of their declared types (moments in seconds).
    """

    subject: str
    idp: str
    roles: frozenset[str]
    expires_at: int
    acr: str | None = None
    amr: tuple[str, ...] = ()
    auth_time: int | None = None
    email: str | None = None
    attributes: Mapping[str, AttributeClaim] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTruth:
    """What verifiers need to know, at one moment.

    ``jwks`` is the JSON document; ``sequence`` grows whenever anything here changes, and when an API key ends.
    """

    issuer: str
    trust_domain: str
    sequence: int
    jwks: bytes
    revocations: Revocations
