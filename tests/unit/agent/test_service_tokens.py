# SPDX-License-Identifier: Apache-2.0
"""Service tokens held ready: bound to the certificate in use, renewed early, served while the server is away."""

import asyncio
import base64
import json
from dataclasses import dataclass

import pytest
from tests.support.workloads import (
    AuthorityForTests,
    FakeClock,
    FakeControlPlane,
    FixedEntropy,
    spiffe_id,
)

from everyhop.agent import Audience, Changes, IdentityCache, ServiceTokens, TokenWish
from everyhop.agent.minting import MAX_WAITING, Minting
from everyhop.core.errors import AccessDenied, Unavailable

ORDERS = spiffe_id("orders")
PAYMENTS = Audience(target="payments", operation=None, grants=frozenset({"charge"}))
CHARGE = Audience(target="payments", operation="charge", grants=frozenset({"charge"}))


@dataclass(frozen=True)
class MintedOne:
    token: str
    jti: str
    expires_at: int


@dataclass(frozen=True)
class Outcome:
    tokens: tuple = ()
    error: str | None = None


def encoded(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


class FakeMinter:
    """Mints tokens of 300 seconds; ``down`` makes it unreachable, ``refuse`` names targets."""

    def __init__(self, clock):
        self.clock = clock
        self.down = False
        self.refuse = set()
        self.gate = None
        self.calls = []
        self.kid = "k1"
        self.count = 0

    async def mint(self, wishes):
        self.calls.append(list(wishes))
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise Unavailable("the server is down")
        return [self._outcome(wish, count) for wish, count in wishes]

    def _outcome(self, wish, count):
        if wish.target in self.refuse:
            return Outcome(error="not granted by the policy")
        return Outcome(tokens=tuple(self._token(wish) for _ in range(count)))

    def _token(self, wish):
        self.count += 1
        header = encoded({"alg": "ES256", "kid": self.kid, "typ": "at+jwt"})
        claims = encoded({"jti": f"j{self.count}", "x5t": wish.x5t, "aud": wish.target})
        end = int(self.clock.now().timestamp()) + 300
        return MintedOne(f"{header}.{claims}.c2ln", f"j{self.count}", end)


class Bench:
    """Tokens over a fake server and a clock that stands still."""

    def __init__(self):
        self.clock = FakeClock()
        self.minter = FakeMinter(self.clock)
        self.changes = Changes()
        self.authority = AuthorityForTests(self.clock)
        self.identities = IdentityCache(
            control=FakeControlPlane(self.authority),
            clock=self.clock,
            entropy=FixedEntropy(),
            changes=self.changes,
        )
        self.identities.apply_bundle(self.authority.bundle(), self.authority.name)
        self.hold = self.identities.hold(ORDERS)
        self.tokens = ServiceTokens(
            control=self.minter,
            identities=self.identities,
            clock=self.clock,
            entropy=FixedEntropy(),
            changes=self.changes,
        )

    async def settle(self):
        self.tokens.refresh_due()
        for _ in range(20):
            await asyncio.sleep(0)

    async def start(self, *needs):
        await self.identities.renew_due()
        self.tokens.need({ORDERS: frozenset(needs)})
        await self.settle()
        return self.identities.current(ORDERS).x5t

    def wish(self, x5t, target="payments", operation=None, scope=None):
        return TokenWish(spiffe_id=ORDERS, target=target, operation=operation, x5t=x5t, scope=scope)


async def test_a_refusal_is_told_and_does_not_hold_the_certificate_back():
    bench = Bench()
    bench.minter.refuse.add("payments")
    x5t = await bench.start(PAYMENTS)
    assert bench.tokens.token_for(ORDERS, "payments", None, x5t) is None
    assert bench.tokens.generation(ORDERS).x5t == x5t
    with pytest.raises(AccessDenied, match="not granted"):
        await bench.tokens.token(bench.wish(x5t))


async def test_without_a_server_and_without_a_token_there_is_none():
    bench = Bench()
    bench.minter.down = True
    x5t = await bench.start(PAYMENTS)
    with pytest.raises(Unavailable):
        await bench.tokens.token(bench.wish(x5t))
    with pytest.raises(Unavailable):
        await bench.tokens.once(bench.wish(x5t))


async def test_what_waits_is_bounded():
    bench = Bench()
    bench.minter.gate = asyncio.Event()
    minting = Minting(bench.minter)
    tasks = [asyncio.ensure_future(minting.mint(bench.wish("x"))) for _ in range(MAX_WAITING + 300)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    refused = [task for task in tasks if task.done() and isinstance(task.exception(), Unavailable)]
    assert len(refused) == 300
    bench.minter.gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_the_policy_names_is_there_before_anybody_asks_and_in_one_request():
    bench = Bench()
    x5t = await bench.start(PAYMENTS, CHARGE)
    assert bench.tokens.token_for(ORDERS, "payments", None, x5t)
    assert bench.tokens.token_for(ORDERS, "payments", "charge", x5t)
    assert bench.tokens.token_for(ORDERS, "payments", "refund", x5t) is None
    assert bench.tokens.token_for(ORDERS, "payments", None, "another") is None
    assert len(bench.minter.calls) == 1


async def test_a_new_certificate_is_shown_once_its_tokens_are_there():
    bench = Bench()
    first = await bench.start(PAYMENTS)
    bench.authority.rotate()
    bench.identities.apply_bundle(bench.authority.bundle(), bench.authority.name)
    await bench.identities.renew_due()
    second = bench.identities.current(ORDERS).x5t
    assert second != first
    bench.minter.gate = asyncio.Event()
    await bench.settle()
    assert bench.tokens.generation(ORDERS).x5t == first
    bench.minter.gate.set()
    await bench.settle()
    assert bench.tokens.generation(ORDERS).x5t == second
    assert bench.tokens.token_for(ORDERS, "payments", None, first)
    assert bench.tokens.token_for(ORDERS, "payments", None, second)
    await bench.settle()
    bench.clock.advance(seconds=61)
    await bench.settle()
    await bench.settle()
    assert [g.identity.x5t for g in bench.tokens._generations[ORDERS]] == [second]


async def test_renewal_at_four_fifths_and_outage_until_the_end():
    bench = Bench()
    x5t = await bench.start(PAYMENTS)
    first = bench.tokens.token_for(ORDERS, "payments", None, x5t)
    bench.clock.advance(seconds=200)
    await bench.settle()
    assert bench.tokens.token_for(ORDERS, "payments", None, x5t) == first
    bench.minter.down = True
    bench.clock.advance(seconds=41)
    await bench.settle()
    assert len(bench.minter.calls) == 2
    assert bench.tokens.token_for(ORDERS, "payments", None, x5t) == first
    assert (await bench.tokens.token(bench.wish(x5t))).token == first
    bench.clock.advance(seconds=60)
    assert bench.tokens.token_for(ORDERS, "payments", None, x5t) is None
    bench.minter.down = False
    bench.tokens.retry_now()
    await bench.settle()
    assert bench.tokens.token_for(ORDERS, "payments", None, x5t) not in {None, first}


async def test_a_wider_grant_fetches_anew_and_serves_the_old_one_meanwhile():
    bench = Bench()
    x5t = await bench.start(PAYMENTS)
    first = bench.tokens.token_for(ORDERS, "payments", None, x5t)
    bench.minter.gate = asyncio.Event()
    wider = Audience(target="payments", operation=None, grants=frozenset({"charge", "refund"}))
    bench.tokens.need({ORDERS: frozenset({wider})})
    await bench.settle()
    assert bench.tokens.token_for(ORDERS, "payments", None, x5t) == first
    bench.minter.gate.set()
    await bench.settle()
    assert bench.tokens.token_for(ORDERS, "payments", None, x5t) not in {None, first}


async def test_dropped_tokens_are_replaced():
    bench = Bench()
    x5t = await bench.start(PAYMENTS)
    first = bench.tokens.token_for(ORDERS, "payments", None, x5t)
    bench.minter.kid = "k2"
    bench.tokens.drop(lambda token: token.kid == "k1")
    assert bench.tokens.token_for(ORDERS, "payments", None, x5t) is None
    await bench.settle()
    assert bench.tokens.token_for(ORDERS, "payments", None, x5t) not in {None, first}


async def test_single_use_tokens_are_given_away_once_even_in_a_crowd():
    bench = Bench()
    x5t = await bench.start()
    taken = await asyncio.gather(
        *[bench.tokens.once(bench.wish(x5t, operation="charge")) for _ in range(300)]
    )
    assert len({token.jti for token in taken}) == 300
    assert len(bench.minter.calls) < 12


async def test_single_use_tokens_do_not_grow_old_on_the_shelf():
    bench = Bench()
    x5t = await bench.start()
    first = await bench.tokens.once(bench.wish(x5t))
    bench.clock.advance(seconds=295)
    second = await bench.tokens.once(bench.wish(x5t))
    assert second.expires_at - first.expires_at >= 290


async def test_one_who_stops_waiting_does_not_stop_the_others():
    bench = Bench()
    x5t = await bench.start()
    bench.minter.gate = asyncio.Event()
    first = asyncio.ensure_future(bench.tokens.token(bench.wish(x5t)))
    second = asyncio.ensure_future(bench.tokens.token(bench.wish(x5t)))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    bench.minter.gate.set()
    assert (await second).token
    assert len(bench.minter.calls) == 1


async def test_only_thumbprints_of_this_agents_own_svids_are_its():
    bench = Bench()
    x5t = await bench.start()
    assert bench.identities.issued(ORDERS, x5t)
    assert not bench.identities.issued(ORDERS, "A" * 43)
    assert not bench.identities.issued(spiffe_id("payments"), x5t)
    bench.clock.advance(hours=2)
    assert not bench.identities.issued(ORDERS, x5t)


async def test_the_loop_ends_with_its_fetches():
    bench = Bench()
    bench.minter.gate = asyncio.Event()
    await bench.identities.renew_due()
    bench.tokens.need({ORDERS: frozenset({PAYMENTS})})
    running = asyncio.ensure_future(bench.tokens.run())
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(bench.minter.calls) == 1
