# SPDX-License-Identifier: Apache-2.0
"""A whole token service on a database of its own, with a clock that moves when told to."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from tests.support.identity import DOMAIN, FakeClock, TestEntropy

from everyhop.apikeys import ApiKeys
from everyhop.authz import Grants
from everyhop.core.errors import TokenError
from everyhop.issuing import (
    ExchangeRequest,
    IssuingSettings,
    MintRequest,
    PolicyView,
    SigningKeys,
    TokenPorts,
    TokenService,
    TokenType,
    UserIdentity,
)
from everyhop.policy import parse_policy
from everyhop.providers.keystores import MemoryKeyStore
from everyhop.storage import Storage

ISSUER = "https://127.0.0.1:8443"
X5T = "A" * 43
OTHER_X5T = "B" * 42 + "A"
JKT = "C" * 42 + "A"

POLICY = b"""
version: 1
trust_domain: shop.example
services:
  storefront:
    workload: [{run: true}]
    operations: {checkout: POST /checkout, browse: GET /}
  orders:
    workload: [{run: true}]
    operations:
      read: {route: GET /orders, token: required}
      create: {route: POST /orders, token: required}
      remove: {route: DELETE /orders, token: required}
  payments:
    workload: [{run: true}]
    operations:
      charge: {route: POST /charges, token: operation, once: true}
      refund: {route: POST /refunds, token: operation}
      list: {route: GET /charges, token: required}
      status: GET /status
  ledger:
    workload: [{run: true}]
    operations: {write: {route: POST /entries, token: required}, read: {route: GET /entries, token: required}}
  vault:
    workload: [{run: true}]
    operations: {open: {route: POST /open, token: operation}}
  auditor: {workload: [{run: true}]}
users:
  issuers:
    - {issuer: "https://idp.example", audience: shop}
allow:
  - {from: outside, to: storefront, operations: [checkout, browse], user: optional}
  - {from: storefront, to: orders, operations: [read, create], user: optional}
  - {from: orders, to: payments, operations: [charge, list, status], user: optional}
  - {from: payments, to: ledger, operations: all, user: optional}
  - {from: ledger, to: vault, operations: all}
  - {from: auditor, to: ledger, operations: [read]}
"""


def spiffe(service: str) -> str:
    """Return the SPIFFE ID of a service of the policy."""
    return f"spiffe://{DOMAIN}/service/{service}"


@dataclass
class Journal:
    """Keeps what is recorded."""

    issues: list = field(default_factory=list)
    refusals: list = field(default_factory=list)

    def issued(self, event):
        self.issues.append(event)

    def noted(self, event):
        self.issues.append(event)

    def refused(self, event):
        self.refusals.append(event)


@dataclass
class Users:
    """An OIDC issuer that believes the texts it knows."""

    known: dict = field(default_factory=dict)

    def verify(self, token, *, now):
        if token not in self.known:
            raise TokenError("TOKEN_INVALID", "the signature does not hold")
        return self.known[token]


@dataclass
class Workloads:
    """JWT-SVIDs by their text."""

    known: dict = field(default_factory=dict)

    def subject(self, token, *, now):
        if token not in self.known:
            raise TokenError("TOKEN_INVALID", "not a JWT-SVID")
        return self.known[token]


class IssuerUnderTest:
    """The service with everything that a test wants to look at."""

    def __init__(self, storage: Storage, *, policy: bytes = POLICY, keystore=None, **settings) -> None:
        self.storage = storage
        self.clock = FakeClock()
        self.keystore = keystore or MemoryKeyStore()
        self.settings = IssuingSettings(issuer=ISSUER, trust_domain=DOMAIN, **settings)
        self.journal = Journal()
        self.users = Users()
        self.workloads = Workloads()
        self.set_policy(policy)
        self.api_keys = ApiKeys(
            store=storage.api_keys,
            keystore=self.keystore,
            edge_scopes=lambda: self.policy.edge_scopes(),  # noqa: PLW0108  # the policy changes
            clock=self.clock,
            entropy=TestEntropy(),
        )
        self.keys = self.another_keys()
        self.keys.start()
        self.service = TokenService(
            TokenPorts(
                keys=self.keys,
                store=storage.issuing,
                policy=lambda: self.policy,
                journal=self.journal,
                clock=self.clock,
                entropy=TestEntropy(),
                users=self.users,
                api_keys=self.api_keys,
                workloads=self.workloads,
            ),
            self.settings,
        )

    def another_keys(self, **changed) -> SigningKeys:
        """Return the signing keys as a second process, or a restart, would hold them."""
        values = {
            "store": self.storage.issuing,
            "keystore": self.keystore,
            "clock": self.clock,
            "settings": self.settings,
        }
        return SigningKeys(**{**values, **changed})

    def set_policy(self, policy: bytes) -> None:
        snapshot = parse_policy({"policy.yaml": policy})
        self.policy = PolicyView(snapshot, Grants(snapshot))

    def mint(self, caller="orders", target="payments", operation=None, scope=None, **more):
        more.setdefault("x5t", X5T)
        scope = None if scope is None else frozenset(scope)
        return self.service.mint(
            MintRequest(caller=spiffe(caller), target=target, operation=operation, scope=scope, **more)
        )

    def exchange(self, caller, token, kind=TokenType.ACCESS, target=None, *, scope=None, roles=None, **more):
        """Exchange for an access token when there is a target, else for a transaction token."""
        wanted = TokenType.TRANSACTION if target is None else TokenType.ACCESS
        if wanted is TokenType.ACCESS and "jkt" not in more:
            more.setdefault("x5t", X5T)
        more.setdefault("requested_token_type", wanted)
        return self.service.exchange(
            ExchangeRequest(
                caller=spiffe(caller),
                subject_token=token,
                subject_token_type=kind,
                target=target,
                scope=None if scope is None else frozenset(scope),
                roles=None if roles is None else frozenset(roles),
                **more,
            )
        )

    def signed_in(self, name="alice", roles=("clerk", "viewer"), *, life=3600, **more) -> str:
        """Return the token of a user that the OIDC issuer vouches for."""
        end = int((self.clock.now() + timedelta(seconds=life)).timestamp())
        token = f"{name}-token"
        self.users.known[token] = UserIdentity(
            subject=name, idp="https://idp.example", roles=frozenset(roles), expires_at=end, **more
        )
        return token

    def transaction(self, name="alice", **more):
        """Begin a transaction for a user at the edge."""
        return self.exchange("storefront", self.signed_in(name), TokenType.ID, **more)

    def api_key(self, scopes=("storefront.checkout",), **more) -> str:
        return self.api_keys.create(owner="team", scopes=scopes, **more).key.reveal().decode()
