# SPDX-License-Identifier: Apache-2.0
import asyncio
import os

import pytest
from tests.support.workloads import (
    AuthorityForTests,
    FakeClock,
    FakeControlPlane,
    FixedEntropy,
    policy,
    spiffe_id,
)

from everyhop.agent import (
    Changes,
    IdentityCache,
    Launch,
    LaunchRegistry,
    ProcessFacts,
    TokenCache,
    WorkloadService,
)
from everyhop.core.errors import AccessDenied, AttestationError, InputError, SvidError, Unavailable
from everyhop.wire.peers import PeerInfo
from everyhop.wire.processes import ProcessRef, read_stat

SELF = ProcessRef(pid=os.getpid(), start_time=read_stat(os.getpid()).start_time)


class FakeProcess:
    ref = SELF
    fd = None
    alive = True

    def is_alive(self):
        return self.alive


class FakeInspector:
    """Tells what the test says; counts how often it looked."""

    def __init__(self):
        self.looks = []
        self.before = None

    async def inspect(self, peer, *, path, sha256):
        self.looks.append((path, sha256))
        if self.before is not None:
            self.before()
        if not peer.is_alive():
            raise AttestationError("gone")
        return ProcessFacts(
            pid=peer.pid,
            uid=peer.uid,
            gid=0,
            user=None,
            group=None,
            groups=(),
            group_names=(),
            path=None,
            sha256=None,
            ancestors=(SELF,),
            unknown={"path": "it was deleted"} if path else {},
        )


class World:
    def __init__(self, tmp_path):
        self.clock = FakeClock()
        self.authority = AuthorityForTests(self.clock)
        self.control = FakeControlPlane(self.authority)
        self.inspector = FakeInspector()
        self.process = FakeProcess()
        self.peer = PeerInfo(pid=SELF.pid, uid=1000, gid=0, process=self.process)
        changes = Changes()
        self.launches = LaunchRegistry(tmp_path / "launches.json", changes=changes)
        self.identities = IdentityCache(
            control=self.control, clock=self.clock, entropy=FixedEntropy(), changes=changes
        )
        self.changes = changes
        self.service = WorkloadService(
            inspector=self.inspector,
            launches=self.launches,
            identities=self.identities,
            tokens=TokenCache(control=self.control, clock=self.clock),
            clock=self.clock,
            changes=changes,
        )
        self.runner = asyncio.create_task(self.identities.run())

    def apply(self, services):
        self.service.apply_snapshot(policy(services))

    def publish(self):
        self.service.apply_bundle(self.authority.bundle(), self.authority.name)

    async def close(self):
        self.runner.cancel()
        await asyncio.gather(self.runner, return_exceptions=True)
        self.launches.close()


MINE = "[{unix: {uid: 1000}}]"
OTHERS = "[{unix: {uid: 4242}}]"


@pytest.fixture
async def world(tmp_path):
    opened = World(tmp_path)
    opened.publish()
    opened.apply({"orders": MINE})
    yield opened
    await opened.close()


async def until(condition):
    """Let the loop run until the condition holds."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen")


async def first(generator):
    try:
        return await asyncio.wait_for(anext(generator), 5)
    finally:
        await generator.aclose()


async def test_unavailable_while_starting(tmp_path):
    world = World(tmp_path)
    try:
        for ask in (
            lambda: world.service.attest(world.peer),
            lambda: first(world.service.watch_x509(world.peer)),
            lambda: world.service.jwt_svids(world.peer, ("a",)),
        ):
            with pytest.raises(Unavailable):
                await ask()
        world.apply({"orders": MINE})
        with pytest.raises(Unavailable):
            await first(world.service.watch_bundle(world.peer))
    finally:
        await world.close()


async def test_the_refusal_says_little_to_the_caller_and_all_to_the_log(world, caplog):
    world.apply({"orders": "[{unix: {uid: 4242, path: /usr/bin/orders}}]"})
    with pytest.raises(AccessDenied) as caught:
        await first(world.service.watch_x509(world.peer))
    assert "4242" not in caught.value.message
    assert f"everyhop why --pid {SELF.pid}" in caught.value.message
    assert "unix:uid:4242 (the process has unix:uid:1000)" in caplog.text
    assert "unix:path:/usr/bin/orders (not known: it was deleted)" in caplog.text
    shown = (await world.service.attest(world.peer)).to_dict()
    assert shown["services"] == []
    assert shown["no_identity"]["nearest"] == "orders"
    assert shown["unknown"] == {"path": "it was deleted"}


async def test_the_executable_is_looked_at_when_the_policy_asks(world):
    await world.service.attest(world.peer)
    world.apply({"orders": f"[{{unix: {{uid: 1000, sha256: {'0' * 64}}}}}]"})
    await world.service.attest(world.peer)
    assert world.inspector.looks == [(False, False), (False, True)]


async def test_a_peer_that_ends_gets_nothing_more(world):
    watch = world.service.watch_x509(world.peer)
    await asyncio.wait_for(anext(watch), 5)
    world.process.alive = False
    world.changes.bump()
    with pytest.raises(AttestationError):
        await asyncio.wait_for(anext(watch), 5)


async def test_a_token_is_not_given_to_a_peer_that_ended_meanwhile(world):
    world.control.gate = asyncio.Event()
    asking = asyncio.create_task(world.service.jwt_svids(world.peer, ("a",)))
    await until(lambda: world.control.jwt_calls)
    world.process.alive = False
    world.control.gate.set()
    with pytest.raises(AttestationError):
        await asking


async def test_a_token_is_not_given_when_the_rule_went_meanwhile(world):
    world.apply({"orders": MINE, "payments": MINE})
    world.control.gate = asyncio.Event()
    asking = asyncio.create_task(world.service.jwt_svids(world.peer, ("a",)))
    await until(lambda: world.control.jwt_calls)
    world.apply({"orders": OTHERS, "payments": MINE})
    world.control.gate.set()
    assert [name for name, _ in await asking] == ["payments"]
    wanted = str(spiffe_id("payments"))
    world.control.gate = asyncio.Event()
    asking = asyncio.create_task(world.service.jwt_svids(world.peer, ("b",), wanted))
    await until(lambda: len(world.control.jwt_calls) == 3)
    world.apply({"orders": MINE, "payments": OTHERS})
    world.control.gate.set()
    with pytest.raises(AccessDenied):
        await asking


async def test_an_svid_is_not_sent_when_the_rule_goes_while_it_is_signed(world):
    world.control.gate = asyncio.Event()
    watch = world.service.watch_x509(world.peer)
    asking = asyncio.create_task(anext(watch))
    await until(lambda: world.control.x509_calls)
    world.apply({"orders": OTHERS})
    world.control.gate.set()
    with pytest.raises(AccessDenied):
        await asyncio.wait_for(asking, 5)


async def test_a_policy_that_changes_while_the_process_is_looked_at_is_the_one_that_counts(world):
    def change():
        world.inspector.before = None
        world.apply({"orders": OTHERS, "payments": MINE})

    world.inspector.before = change
    context = await first(world.service.watch_x509(world.peer))
    assert [grant.service for grant in context.grants] == ["payments"]


async def test_rotation_is_pushed_and_the_process_not_looked_at_again(world):
    watch = world.service.watch_x509(world.peer)
    before = await asyncio.wait_for(anext(watch), 5)
    world.authority.rotate()
    world.publish()
    context = await asyncio.wait_for(anext(watch), 5)
    assert len(context.bundle.x509_authorities) == 2
    if context.grants == before.grants:
        context = await asyncio.wait_for(anext(watch), 5)
    assert context.grants[0].identity.authority == world.authority.name
    assert len(world.inspector.looks) == 1
    await watch.aclose()


async def test_a_watch_keeps_what_it_needs_fresh_and_gives_it_up_at_its_end(world):
    orders, payments = spiffe_id("orders"), spiffe_id("payments")
    watch = world.service.watch_x509(world.peer)
    await asyncio.wait_for(anext(watch), 5)
    assert world.identities._entries[orders].demand == 1
    world.apply({"payments": MINE})
    await asyncio.wait_for(anext(watch), 5)
    assert world.identities._entries[orders].demand == 0
    assert world.identities._entries[payments].demand == 1
    await watch.aclose()
    assert world.identities._entries[payments].demand == 0


async def test_jwt_arguments(world):
    for audience, subject in (((), ""), (("",), ""), (("a", "a"), ""), (("a",), "nonsense")):
        with pytest.raises(InputError):
            await world.service.jwt_svids(world.peer, audience, subject)
    with pytest.raises(AccessDenied, match="not entitled"):
        await world.service.jwt_svids(world.peer, ("a",), str(spiffe_id("payments")))
    ((name, token),) = await world.service.jwt_svids(world.peer, ("a",), str(spiffe_id("orders")))
    assert name == "orders"
    assert (await world.service.validate_jwt(world.peer, token.token, "a")).spiffe_id == spiffe_id("orders")
    world.clock.advance(minutes=6)
    with pytest.raises(SvidError, match="expired"):
        await world.service.validate_jwt(world.peer, token.token, "a")


async def test_a_token_of_another_trust_domain_is_not_validated(world):
    stranger = AuthorityForTests(world.clock)
    token = stranger.mint("spiffe://other.example/service/orders", ("a",)).token
    with pytest.raises(SvidError, match=r"other\.example"):
        await world.service.validate_jwt(world.peer, token, "a")
    with pytest.raises(SvidError):
        await world.service.validate_jwt(
            world.peer, stranger.mint(str(spiffe_id("orders")), ("a",)).token, "a"
        )


async def test_launched_services_are_fetched_ahead(world):
    world.apply({"orders": "[{run: true}]", "payments": "[{run: true}]"})
    running = asyncio.create_task(world.service.run())
    for instance, service in (("o1", "orders"), ("o2", "orders"), ("x1", "undeclared")):
        world.launches.register(Launch(instance=instance, service=service, uid=os.getuid(), run=SELF))
    await until(lambda: world.identities.current(spiffe_id("orders")))
    assert [held.spiffe_id for held in world.identities.held()] == [spiffe_id("orders")]
    world.launches.remove("o1")
    world.launches.remove("o2")
    await asyncio.sleep(0.01)
    assert world.identities._entries[spiffe_id("orders")].demand == 0
    world.launches.register(Launch(instance="p1", service="payments", uid=os.getuid(), run=SELF))
    await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert world.identities._entries[spiffe_id("payments")].demand == 0
    assert world.service.snapshot is not None


# -- quarantine


async def test_a_quarantine_ends_an_open_watch_and_its_end_serves_again(world):
    orders = spiffe_id("orders")
    watch = world.service.watch_x509(world.peer)
    assert (await anext(watch)).grants[0].service == "orders"
    world.service.withhold(frozenset({orders}))
    with pytest.raises(AccessDenied):
        await anext(watch)
    for asking in (
        anext(world.service.watch_bundle(world.peer)),
        world.service.service_of(world.peer),
        world.service.jwt_svids(world.peer, ("orders",)),
    ):
        with pytest.raises(AccessDenied):
            await asking
    attested = await world.service.attest(world.peer)
    assert "is quarantined" in attested.no_identity.render()
    assert attested.to_dict()["no_identity"]["quarantined"] == "orders"
    world.service.prefetch()
    world.service.withhold(frozenset())
    assert (await anext(world.service.watch_x509(world.peer))).grants[0].service == "orders"


async def test_nobody_believes_a_jwt_svid_of_the_quarantined(world):
    world.apply({"orders": MINE, "payments": MINE})
    (_, token), *_ = await world.service.jwt_svids(world.peer, ("orders",), str(spiffe_id("payments")))
    await world.service.validate_jwt(world.peer, token.token, "orders")
    world.service.withhold(frozenset({spiffe_id("payments")}))
    with pytest.raises(SvidError, match="quarantined"):
        await world.service.validate_jwt(world.peer, token.token, "orders")
