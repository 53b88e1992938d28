# SPDX-License-Identifier: Apache-2.0
import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.support.workloads import AuthorityForTests, FakeClock, FakeControlPlane, FixedEntropy, spiffe_id

from everyhop.agent.identities import IdentityCache
from everyhop.core.errors import AccessDenied, Unavailable
from everyhop.x509.certificates import decode_certificate
from everyhop.x509.csr import build_csr
from everyhop.x509.keys import decode_private_key, generate_private_key

ORDERS = spiffe_id("orders")
PAYMENTS = spiffe_id("payments")


class World:
    def __init__(self):
        self.clock = FakeClock()
        self.authority = AuthorityForTests(self.clock)
        self.control = FakeControlPlane(self.authority)
        self.cache = IdentityCache(control=self.control, clock=self.clock, entropy=FixedEntropy())

    def publish(self):
        self.cache.apply_bundle(self.authority.bundle(), self.authority.name)


@pytest.fixture
async def world():
    return World()


async def test_nothing_is_asked_for_without_a_bundle_or_a_need(world):
    world.cache.hold(ORDERS)
    assert await world.cache.renew_due() == 0
    world.publish()
    assert await world.cache.renew_due() == 1
    assert world.cache.current(PAYMENTS) is None
    assert world.control.x509_calls == [[str(ORDERS)]]


async def test_a_refused_id_gets_nothing_and_backs_off(world):
    world.publish()
    world.control.refuse = {str(ORDERS)}
    world.cache.hold(ORDERS)
    assert await world.cache.renew_due() == 0
    assert world.cache.current(ORDERS) is None
    assert await world.cache.renew_due() == 0
    assert len(world.control.x509_calls) == 1
    world.clock.advance(seconds=1)
    await world.cache.renew_due()
    assert len(world.control.x509_calls) == 2


async def test_one_refusal_of_a_batch_does_not_touch_the_others(world):
    world.publish()
    world.control.refuse = {str(ORDERS)}
    world.cache.hold(ORDERS)
    world.cache.hold(PAYMENTS)
    assert await world.cache.renew_due() == 1
    assert world.cache.current(PAYMENTS) is not None
    assert world.control.x509_calls == [[str(ORDERS), str(PAYMENTS)]]


@pytest.mark.parametrize(
    "trick", ["other id", "other key", "other authority", "empty", "garbage", "short list"]
)
async def test_a_wrong_answer_of_the_server_is_not_believed(world, trick):
    world.publish()
    world.cache.hold(ORDERS)
    stranger = AuthorityForTests(world.clock)

    async def lie(requests):
        (name, csr) = requests[0]
        return {
            "other id": lambda: [world.authority.sign(str(PAYMENTS), csr)],
            "other key": lambda: [world.authority.sign(name, build_csr(generate_private_key()))],
            "other authority": lambda: [stranger.sign(name, csr)],
            "empty": lambda: [replace(world.authority.sign(name, csr), chain=())],
            "garbage": lambda: [replace(world.authority.sign(name, csr), chain=(b"no",))],
            "short list": list,
        }[trick]()

    world.control.sign_x509 = lie
    assert await world.cache.renew_due() == 0
    assert world.cache.current(ORDERS) is None


async def test_the_key_belongs_to_the_leaf_and_shows_itself_to_nobody(world):
    world.publish()
    world.cache.hold(ORDERS)
    await world.cache.renew_due()
    held = world.cache.current(ORDERS)
    leaf = decode_certificate(held.chain[0])
    assert decode_private_key(held.key).public_key() == leaf.public_key()
    assert "Secret(…)" in repr(held)
    assert held.chain_pem.startswith(b"-----BEGIN CERTIFICATE")
    assert held.key_pem.reveal().startswith(b"-----BEGIN PRIVATE KEY")


async def test_renewed_at_half_life_with_a_fresh_key_and_not_before(world):
    world.publish()
    world.cache.hold(ORDERS)
    await world.cache.renew_due()
    first = world.cache.current(ORDERS)
    world.clock.advance(minutes=29)
    assert await world.cache.renew_due() == 0
    world.clock.advance(minutes=2)
    assert await world.cache.renew_due() == 1
    second = world.cache.current(ORDERS)
    assert second.key.reveal() != first.key.reveal()
    assert second.expires_at > first.expires_at


@pytest.mark.parametrize(("fraction", "minutes"), [(0.0, 27), (0.999999, 33)])
async def test_jitter_stays_within_a_tenth(world, fraction, minutes):
    world.cache._entropy.fraction = lambda: fraction
    world.publish()
    world.cache.hold(ORDERS)
    await world.cache.renew_due()
    after = (world.cache.current(ORDERS).renew_at - world.clock.now()).total_seconds() / 60
    assert abs(after - minutes) < 0.1


async def test_with_the_server_down_the_held_svid_is_served_until_its_end(world):
    world.publish()
    world.cache.hold(ORDERS)
    await world.cache.renew_due()
    world.control.down = True
    held = world.cache.current(ORDERS)
    for _ in range(59):
        world.clock.advance(minutes=1)
        await world.cache.renew_due()
        assert world.cache.current(ORDERS) is held
    world.clock.advance(minutes=2)
    version = world.cache.changes.version
    await world.cache.renew_due()
    assert world.cache.current(ORDERS) is None
    assert world.cache.changes.version > version
    world.control.down = False
    world.cache.retry_now()
    assert await world.cache.renew_due() == 1


async def test_a_new_authority_renews_at_once_and_the_old_svid_serves_meanwhile(world):
    world.publish()
    world.cache.hold(ORDERS)
    await world.cache.renew_due()
    before = world.cache.current(ORDERS)
    world.authority.rotate()
    world.publish()
    assert world.cache.current(ORDERS) is before
    assert await world.cache.renew_due() == 1
    assert world.cache.current(ORDERS).authority == world.authority.name
    assert await world.cache.renew_due() == 0


async def test_a_bundle_without_a_new_authority_renews_nothing(world):
    world.publish()
    world.cache.hold(ORDERS)
    await world.cache.renew_due()
    version = world.cache.changes.version
    world.publish()
    assert await world.cache.renew_due() == 0
    assert world.cache.changes.version == version + 1


async def test_an_answer_of_an_authority_we_have_not_heard_of_is_used_with_patience(world):
    world.publish()
    world.cache.hold(ORDERS)
    world.cache._authority = "somebody-else"
    assert await world.cache.renew_due() == 1
    assert await world.cache.renew_due() == 0  # backs off instead of asking again at once
    world.publish()
    assert await world.cache.renew_due() == 0


async def test_what_nobody_needs_is_not_renewed_but_kept_until_it_expires(world):
    world.publish()
    hold = world.cache.hold(ORDERS)
    await world.cache.renew_due()
    hold.close()
    hold.close()
    world.clock.advance(minutes=40)
    assert await world.cache.renew_due() == 0
    assert world.cache.current(ORDERS) is not None
    assert [i.spiffe_id for i in world.cache.held()] == [ORDERS]
    with world.cache.hold(ORDERS):
        assert await world.cache.renew_due() == 1
    world.clock.advance(hours=2)
    await world.cache.renew_due()
    assert world.cache._entries == {}


async def test_waiting_for_the_first_issue(world):
    runner = asyncio.create_task(world.cache.run())
    try:
        waiting = asyncio.create_task(world.cache.x509(ORDERS))
        await asyncio.sleep(0)
        assert not waiting.done()
        world.publish()
        assert (await asyncio.wait_for(waiting, 5)).spiffe_id == ORDERS
    finally:
        runner.cancel()


async def test_waiting_in_vain_says_why(world):
    world.control.down = True
    world.publish()
    runner = asyncio.create_task(world.cache.run())
    try:
        with pytest.raises(Unavailable, match="the server is down"):
            await world.cache.x509(ORDERS, wait_seconds=0.05)
    finally:
        runner.cancel()
    assert world.cache._entries[ORDERS].demand == 0


async def test_many_identities_are_asked_for_in_batches(world):
    world.authority.sign = lambda name, csr: (_ for _ in ()).throw(AssertionError)
    world.control.down = True
    for number in range(300):
        world.cache.hold(spiffe_id(f"s{number}"))
    world.publish()
    await world.cache.renew_due()
    assert [len(call) for call in world.control.x509_calls] == [256, 44]


async def test_the_runner_sleeps_until_the_next_renewal(world):
    assert world.cache._seconds_until_due() == 30.0
    world.publish()
    world.cache.hold(ORDERS)
    assert world.cache._seconds_until_due() == 0.0
    await world.cache.renew_due()
    assert world.cache._seconds_until_due() == 30.0
    world.clock.advance(minutes=29, seconds=50)
    assert 0 < world.cache._seconds_until_due() <= 10.0
    assert world.cache.authority == world.authority.name
    assert world.cache.current(ORDERS).expires_at - world.clock.now() < timedelta(minutes=31)


# -- quarantine


async def test_what_is_withheld_is_forgotten_and_not_asked_for(world):
    world.publish()
    with world.cache.hold(ORDERS), world.cache.hold(PAYMENTS):
        await world.cache.renew_due()
        x5t = world.cache.current(ORDERS).x5t
        world.cache.withhold(frozenset({ORDERS}))
        assert world.cache.current(ORDERS) is None
        assert not world.cache.issued(ORDERS, x5t)
        assert world.cache.current(PAYMENTS) is not None
        assert [identity.spiffe_id for identity in world.cache.held()] == [PAYMENTS]
        assert await world.cache.renew_due() == 0
        with pytest.raises(AccessDenied, match="quarantined"):
            await world.cache.x509(ORDERS)
        world.cache.withhold(frozenset())
        assert await world.cache.renew_due() == 1
        assert world.cache.current(ORDERS).x5t != x5t


async def test_what_the_server_signed_meanwhile_is_not_taken(world):
    world.publish()
    sign = world.control.sign_x509

    async def slowly(requests):
        world.cache.withhold(frozenset({ORDERS}))
        return await sign(requests)

    world.control.sign_x509 = slowly
    world.cache.hold(ORDERS)
    assert await world.cache.renew_due() == 0
    world.cache.withhold(frozenset())
    assert world.cache.current(ORDERS) is None
