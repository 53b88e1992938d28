# SPDX-License-Identifier: Apache-2.0
"""A certificate authority for tests: real X509-SVIDs of a trust domain that exists in this process only."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from everyhop.jose.jwk import Jwk
from everyhop.sdk.identities import X509Identity
from everyhop.spiffe.bundle import Bundle
from everyhop.spiffe.ids import SpiffeId, TrustDomain
from everyhop.spiffe.jwt_svid import mint_jwt_svid
from everyhop.x509.issue import CaProfile, Issuer as LeafIssuer, LeafProfile, new_serial, sign_ca
from everyhop.x509.keys import encode_private_key, generate_private_key
from everyhop.x509.thumbprint import x5t_s256

_BACKDATED: Final = timedelta(seconds=10)
_JWT_LIFE: Final = timedelta(minutes=5)


class SystemEntropy:
    """The randomness of the machine."""

    def token_bytes(self, count: int) -> bytes:
        """Return ``count`` unpredictable bytes."""
        return secrets.token_bytes(count)

    def fraction(self) -> float:
        """Return a number in [0, 1)."""
        return secrets.randbelow(2**32) / 2**32


class Authority:
    """Signs X509-SVIDs and JWT-SVIDs for a trust domain; :meth:`rotate` adds a CA that signs from then on."""

    def __init__(self, trust_domain: str = "shop.example") -> None:
        self.trust_domain: Final = TrustDomain.parse(trust_domain)
        self._entropy = SystemEntropy()
        self._authorities: list[bytes] = []
        self._jwt_keys: dict[str, Jwk] = {}
        self._next: LeafIssuer | None = None
        self.rotate()

    @property
    def bundle(self) -> Bundle:
        """Return every CA and every JWT key so far."""
        return Bundle(
            trust_domain=self.trust_domain,
            x509_authorities=tuple(self._authorities),
            jwt_authorities=MappingProxyType(self._jwt_keys),
        )

    def prepare(self) -> None:
        """Publish the next CA, which signs from :meth:`rotate` on: give everybody time to learn of it."""
        self._next = self._new_authority()
        self._authorities.append(self._next.certificate_der)

    def rotate(self, *, forget: bool = False) -> None:
        """Sign with the prepared CA, or a new one, and a new JWT key; with ``forget`` the bundle holds only these."""
        issuer, self._next = self._next or self._new_authority(), None
        if forget:
            self._authorities.clear()
            self._jwt_keys.clear()
        if issuer.certificate_der not in self._authorities:
            self._authorities.append(issuer.certificate_der)
        self._issuer = issuer
        self._jwt_key, self._jwt_kid = generate_private_key(), secrets.token_hex(8)
        self._jwt_keys[self._jwt_kid] = Jwk(
            key=self._jwt_key.public_key(), kid=self._jwt_kid, use="jwt-svid", alg=None
        )

    def _new_authority(self) -> LeafIssuer:
        now = datetime.now(UTC)
        key = generate_private_key()
        profile = CaProfile(
            uri=str(self.trust_domain.id),
            serial=new_serial(self._entropy),
            not_before=now - _BACKDATED,
            not_after=now + timedelta(days=1),
        )
        return LeafIssuer(sign_ca(profile, key), key)

    def spiffe_id(self, service: str) -> SpiffeId:
        """Return ``spiffe://TRUST_DOMAIN/service/NAME``; a SPIFFE ID is returned as it is."""
        return SpiffeId.parse(service if "://" in service else f"{self.trust_domain.id}/service/{service}")

    def issue(self, service: str, *, life: timedelta = timedelta(hours=1), hint: str = "") -> X509Identity:
        """Return a fresh identity of a service (its name or SPIFFE ID), key included."""
        now = datetime.now(UTC)
        spiffe_id, key = self.spiffe_id(service), generate_private_key()
        profile = LeafProfile(
            uri=str(spiffe_id),
            public_key=key.public_key(),
            serial=new_serial(self._entropy),
            not_before=now - _BACKDATED,
            not_after=now + life,
        )
        chain = (self._issuer.sign_leaf(profile),)
        return X509Identity(
            spiffe_id=spiffe_id,
            chain=chain,
            key=encode_private_key(key),
            bundle=self.bundle,
            hint=hint,
            not_before=profile.not_before,
            not_after=profile.not_after,
            x5t=x5t_s256(chain[0]),
        )

    def jwt_svid(self, service: str, *audience: str, life: timedelta = _JWT_LIFE) -> str:
        """Return a JWT-SVID of a service."""
        now = datetime.now(UTC)
        return mint_jwt_svid(
            spiffe_id=self.spiffe_id(service),
            audience=audience,
            issued_at=now,
            expires_at=now + life,
            token_id=secrets.token_hex(16),
            kid=self._jwt_kid,
            key=self._jwt_key,
        )


class FixedX509Source:
    """An identity that a test holds in its hand, where the SDK wants a source.  Assign ``svid`` to rotate."""

    def __init__(self, svid: X509Identity) -> None:
        self.svid = svid

    @property
    def bundle(self) -> Bundle:
        """Return the authorities of the own trust domain."""
        return self.svid.bundle

    @property
    def thumbprint(self) -> str:
        """Return ``x5t#S256`` of the certificate."""
        return self.svid.x5t
