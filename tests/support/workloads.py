# SPDX-License-Identifier: Apache-2.0
"""A small authority, a control plane that can fail, and a policy: what tests of the agent stand on."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from everyhop.core.errors import Unavailable
from everyhop.jose.jwk import Jwk
from everyhop.policy.parse import parse_policy
from everyhop.spiffe.bundle import Bundle
from everyhop.spiffe.ids import SpiffeId, TrustDomain
from everyhop.spiffe.jwt_svid import mint_jwt_svid
from everyhop.x509.csr import verify_csr
from everyhop.x509.issue import CaProfile, Issuer, LeafProfile, new_serial, sign_ca
from everyhop.x509.keys import generate_private_key

DOMAIN = TrustDomain.parse("shop.example")


def spiffe_id(service):
    return SpiffeId.parse(f"spiffe://shop.example/service/{service}")


def policy(services):
    """A snapshot from {service: workload text}, e.g. {"orders": "[{unix: {uid: 0}}]"}."""
    lines = ["version: 1", "trust_domain: shop.example", "services:"]
    for name, workload in services.items():
        lines += [f"  {name}:", f"    workload: {workload}", "    operations: {list: GET /}"]
    return parse_policy({"policy.yaml": "\n".join(lines).encode()})


class FakeClock:
    def __init__(self, now=None):
        self._now = now or datetime(2026, 11, 21, 12, tzinfo=UTC)

    def now(self):
        return self._now

    def advance(self, **duration):
        self._now += timedelta(**duration)


class RealClock:
    def now(self):
        return datetime.now(UTC)


class FixedEntropy:
    """No jitter: the middle of every range."""

    def __init__(self):
        self._count = 0

    def token_bytes(self, count):
        self._count += 1
        return self._count.to_bytes(count, "big")

    def fraction(self):
        return 0.5


@dataclass(frozen=True)
class Signed:
    chain: tuple = ()
    expires_at: datetime | None = None
    authority: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Minted:
    token: str
    issued_at: datetime
    expires_at: datetime


class AuthorityForTests:
    """Signs for the trust domain shop.example; ``rotate`` puts a new CA and a new JWT key in force."""

    def __init__(self, clock, *, ttl=timedelta(hours=1), jwt_ttl=timedelta(minutes=5)):
        self.clock = clock
        self.ttl = ttl
        self.jwt_ttl = jwt_ttl
        self.entropy = FixedEntropy()
        self.certificates = []
        self.jwt_keys = {}
        self.sequence = 0
        self.rotate()

    def rotate(self):
        key = generate_private_key()
        now = self.clock.now()
        profile = CaProfile(
            uri=str(DOMAIN.id),
            serial=new_serial(self.entropy),
            not_before=now - timedelta(seconds=10),
            not_after=now + timedelta(days=1),
        )
        certificate = sign_ca(profile, key)
        self.issuer = Issuer(certificate, key)
        self.certificates.append(certificate)
        self.sequence += 1
        self.name = f"x509-{self.sequence}"
        self.jwt_kid = f"jwt-{self.sequence}"
        self.jwt_key = generate_private_key()
        self.jwt_keys[self.jwt_kid] = self.jwt_key.public_key()

    def bundle(self):
        keys = {kid: Jwk(key=key, kid=kid, use="jwt-svid", alg="ES256") for kid, key in self.jwt_keys.items()}
        return Bundle(
            trust_domain=DOMAIN,
            x509_authorities=tuple(self.certificates),
            jwt_authorities=keys,
            sequence=self.sequence,
            refresh_hint=timedelta(minutes=5),
        )

    def sign(self, name, csr):
        now = self.clock.now()
        leaf = LeafProfile(
            uri=name,
            public_key=verify_csr(csr),
            serial=new_serial(self.entropy),
            not_before=now - timedelta(seconds=10),
            not_after=now + self.ttl,
        )
        return Signed(chain=(self.issuer.sign_leaf(leaf),), expires_at=now + self.ttl, authority=self.name)

    def mint(self, name, audience):
        now = self.clock.now()
        token = mint_jwt_svid(
            spiffe_id=SpiffeId.parse(name),
            audience=audience,
            issued_at=now,
            expires_at=now + self.jwt_ttl,
            token_id=self.entropy.token_bytes(8).hex(),
            kid=self.jwt_kid,
            key=self.jwt_key,
        )
        return Minted(token, now, now + self.jwt_ttl)


class FakeControlPlane:
    """The port over an authority; ``down`` makes it unreachable, ``refuse`` names ids it does not sign."""

    def __init__(self, authority):
        self.authority = authority
        self.down = False
        self.refuse = set()
        self.x509_calls = []
        self.jwt_calls = []
        self.gate = None
        self.lock = threading.Lock()

    async def sign_x509(self, requests):
        self.x509_calls.append([name for name, _ in requests])
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise Unavailable("the server is down")
        return [
            Signed(error="not a service of the policy")
            if name in self.refuse
            else self.authority.sign(name, csr)
            for name, csr in requests
        ]

    async def sign_jwt(self, name, audience):
        self.jwt_calls.append((name, audience))
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise Unavailable("the server is down")
        return self.authority.mint(name, audience)
