# SPDX-License-Identifier: Apache-2.0
"""The token side of a server and a node in one process: a real control plane, the agent's parts, no sockets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.support.control_plane import ControlUnderTest, TextSource
from tests.support.workloads import AuthorityForTests, FakeControlPlane, FixedEntropy, spiffe_id

from everyhop.agent import Changes, IdentityCache, ServiceTokens, TokenWish
from everyhop.control.credentials import Credentials
from everyhop.control.messages import ExchangeTokenRequest, ExchangeTokenResponse, MintItem, MintResult
from everyhop.control.policy_view import PolicyView
from everyhop.control.token_truth import TokenTruth
from everyhop.core.errors import Unavailable
from everyhop.issuing import MintRequest
from everyhop.tokens.access import AccessToken
from everyhop.tokens.replay import MemoryReplayGuard
from everyhop.tokens.verifier import spend

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront:
    workload: [{run: true}]
    operations: {browse: GET /browse, hidden: GET /hidden, plain: GET /plain, personal: GET /me}
  orders:
    workload: [{run: true}]
    operations:
      list: GET /orders
      create: {route: POST /orders, token: required}
      cancel: {route: POST /cancel, token: required}
      pay: {route: POST /pay, token: operation, once: true}
      mine: GET /mine
      ours: GET /ours
  thief: {workload: [{run: true}]}
allow:
  - {from: storefront, to: orders, operations: [list, create, pay]}
  - {from: storefront, to: orders, operations: [mine], user: required}
  - {from: storefront, to: orders, operations: [ours], user: optional}
  - {from: thief, to: orders, operations: [create]}
  - {from: outside, to: storefront, operations: [browse, hidden], user: optional}
  - {from: outside, to: storefront, operations: [plain]}
  - {from: outside, to: storefront, operations: [personal], user: required}
"""
STOREFRONT, THIEF = spiffe_id("storefront"), spiffe_id("thief")
X5T, OTHER_X5T = "A" * 43, "B" * 42 + "A"


class DirectLink:
    """The agent's client of the server without the socket; ``down`` makes it unreachable."""

    agent = "node-1"

    def __init__(self, under_test: ControlUnderTest) -> None:
        self.under_test = under_test
        self.down = False
        self.exchanges = 0

    async def mint(self, wishes: Sequence[tuple[TokenWish, int]]) -> list[MintResult]:
        """Mint as the server does for ``/v1/tokens/mint``."""
        if self.down:
            raise Unavailable("the server is down")
        items = [
            MintItem(
                spiffe_id=str(wish.spiffe_id),
                target=wish.target,
                operation=wish.operation,
                scope=None if wish.scope is None else sorted(wish.scope),
                x5t=wish.x5t,
                count=count,
            )
            for wish, count in wishes
        ]
        return await self.under_test.control.tokens.mint(self.agent, items)

    async def exchange(self, request: ExchangeTokenRequest) -> ExchangeTokenResponse:
        """Exchange as the server does for ``/v1/tokens/exchange``."""
        self.exchanges += 1
        if self.down:
            raise Unavailable("the server is down")
        return await self.under_test.control.tokens.exchange(request)


class TokenBench:
    """Call :meth:`start` first, :meth:`close` last."""

    def __init__(self, directory: Path) -> None:
        self.server = ControlUnderTest(directory)
        self.control = self.server.control
        self.clock = self.server.clock
        self.link = DirectLink(self.server)
        self.changes = Changes()
        self.authority = AuthorityForTests(self.clock)
        self.identities = IdentityCache(
            control=FakeControlPlane(self.authority),
            clock=self.clock,
            entropy=FixedEntropy(),
            changes=self.changes,
        )
        self.tokens = ServiceTokens(
            control=self.link,
            identities=self.identities,
            clock=self.clock,
            entropy=FixedEntropy(),
            changes=self.changes,
        )
        self.truth = TokenTruth(self.clock)
        guard = MemoryReplayGuard(self.clock)

        async def use_up(token: AccessToken) -> None:
            spend(token, guard)

        self.credentials = Credentials(
            tokens=self.tokens, exchanger=self.link, spend=use_up, clock=self.clock
        )

    async def start(self, policy: str = POLICY) -> None:
        """Put the policy in force on both sides."""
        await self.control.start(TextSource(policy))
        self.identities.apply_bundle(self.authority.bundle(), self.authority.name)
        self.hold = self.identities.hold(STOREFRONT)
        await self.identities.renew_due()
        await self.push()

    async def push(self) -> None:
        """Hand the server's truth to the node, as the stream of updates does."""
        encoded, _ = await self.control.tokens.truth()
        self.credentials.apply_policy(PolicyView(self.control.snapshot))
        self.truth.take(encoded, self.control.snapshot.trust_domain)
        self.credentials.apply_verifier(self.truth.verifier)
        self.tokens.drop(self.truth.is_dead)

    def close(self) -> None:
        """Give everything back."""
        self.server.close()

    def mint(self, target="orders", operation=None, *, caller=STOREFRONT, scope=None, x5t=X5T) -> str:
        """Return a token, straight from the token service."""
        issued = self.server.works.service.mint(
            MintRequest(caller=str(caller), target=target, operation=operation, scope=scope, x5t=x5t)
        )
        return issued.token
