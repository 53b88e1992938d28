# SPDX-License-Identifier: Apache-2.0
"""Batches of agents at the server: whoever signs for others, signs other records or repeats is refused or changes nothing."""

from datetime import timedelta

import msgspec
import pytest
from tests.support.control_plane import ControlUnderTest, TextSource
from tests.support.identity import TestCa
from tests.support.seals import record as made_record, seal_key

from everyhop.auditlog import Kind, RecordFilter
from everyhop.auditlog.completeness import check_completeness
from everyhop.auditlog.sealing import SealError, SealKey, agent_path, seal_digest, seal_records, sealed_hash
from everyhop.authority import AuthorityKind
from everyhop.authz import Engine
from everyhop.control.messages import RecordBatch, SignX509Item
from everyhop.core.errors import InputError
from everyhop.policy import parse_policy
from everyhop.spiffe import SpiffeId
from everyhop.x509.csr import build_csr
from everyhop.x509.keys import generate_private_key

DOMAIN = "spiffe://shop.example"
ORDERS = f"{DOMAIN}/service/orders"


@pytest.fixture
async def server(tmp_path):
    made = ControlUnderTest(tmp_path)
    await made.control.start(TextSource())
    yield made
    made.close()


def identity(server, agent="a1", *, uri=None):
    key = generate_private_key()
    spiffe_id = SpiffeId.parse(uri or f"{DOMAIN}{agent_path(agent)}")
    issued = server.authority.issue_x509(spiffe_id, build_csr(key))
    return SealKey.of(issued.chain_der, key, issued.expires_at)


def record(server, seq, producer="i1", **more):
    return made_record(seq, producer, **{"time": server.clock.now(), **more})


def batch(server, key, first=1, last=3, *, producer="i1", agent="a1", previous=b"", records=None, **more):
    records = records or [record(server, seq, producer) for seq in range(first, last + 1)]
    seal = seal_records(
        producer, first, [sealed_hash(r) for r in records], previous=previous, now=server.clock.now(), key=key
    )
    return RecordBatch(agent=agent, records=records, seal=seal, chain=list(key.chain), **more)


def stored(server):
    page = server.storage.records.query(RecordFilter(kind=Kind.DECISION), limit=1000)
    return sorted((r.producer, r.seq) for r in page.records)


def refusals(server):
    page = server.storage.records.query(RecordFilter(kind=Kind.LOG), limit=1000)
    return [r.reason for r in page.records if r.operation == "refuse"]


def report(server):
    with server.storage.log_seals.reading() as log:
        return check_completeness(
            log.lines(),
            log.seals(),
            log.certificates(),
            server.authority.bundle().x509_authorities,
            pruned=log.pruned(),
        )


# -- refused


async def refused(server, sent, reason):
    with pytest.raises(SealError) as error:
        await server.control.log.take(sent)
    assert error.value.reason == reason
    assert refusals(server) == [f"seal-{reason}"]


async def test_an_agent_cannot_sign_for_another_agent(server):
    await refused(server, batch(server, identity(server, "a2"), agent="a1"), "signer")
    assert stored(server) == []


async def test_an_agent_cannot_go_on_with_the_records_of_another_agent(server):
    first = batch(server, identity(server))
    await server.control.log.take(first)
    other = identity(server, "a2")
    await refused(server, batch(server, other, 4, 6, agent="a2", previous=seal_digest(first.seal)), "owner")
    assert stored(server) == [("i1", 1), ("i1", 2), ("i1", 3)]


@pytest.mark.parametrize("producer", ["server", "server-1f", "authzen-00ff"])
async def test_an_agent_cannot_speak_for_the_server(server, producer):
    await refused(server, batch(server, identity(server), producer=producer), "owner")


@pytest.mark.parametrize("uri", [ORDERS, f"{DOMAIN}/everyhop/server", f"{DOMAIN}/everyhop/agent/a1/x"])
async def test_no_other_identity_signs(server, uri):
    await refused(server, batch(server, identity(server, uri=uri)), "signer")


async def test_a_certificate_of_another_authority_is_not_believed(server):
    key = seal_key(TestCa(not_after=server.clock.now() + timedelta(days=99)))
    await refused(server, batch(server, key), "certificate")


async def test_a_certificate_that_is_over_is_not_believed(server):
    key = identity(server)
    await server.control.log.take(batch(server, key))
    server.clock.move(hours=2)
    await refused(server, batch(server, key, 4, 5), "certificate")


async def test_a_seal_from_the_future_is_refused(server):
    key = identity(server)
    server.clock.move(minutes=10)
    sent = batch(server, key)
    server.clock.move(minutes=-10)
    await refused(server, sent, "time")


async def test_a_seal_over_other_records_is_refused(server):
    sent = batch(server, identity(server))
    other = [*sent.records[:-1], record(server, 3, path="/other")]
    await refused(server, msgspec.structs.replace(sent, records=other), "digest")
    assert stored(server) == []


async def test_a_seal_with_another_signature_is_refused(server):
    sent = batch(server, identity(server))
    broken = msgspec.structs.replace(sent.seal, signature=bytes(64))
    await refused(server, msgspec.structs.replace(sent, seal=broken), "signature")


async def test_a_seal_without_its_chain_is_refused(server):
    await refused(server, msgspec.structs.replace(batch(server, identity(server)), chain=[]), "certificate")


async def test_numbers_with_a_hole_are_refused(server):
    sent = batch(server, identity(server), records=[record(server, 1), record(server, 3)], last=2)
    await refused(server, sent, "numbers")


async def test_whoever_has_begun_to_seal_goes_on(server):
    await server.control.log.take(batch(server, identity(server)))
    await refused(server, RecordBatch(agent="a1", records=[record(server, 4)]), "missing")


async def test_one_refusal_is_recorded_once(server):
    for _ in range(3):
        with pytest.raises(InputError):
            await server.control.log.take(batch(server, identity(server, "a2"), agent="a1"))
    assert refusals(server) == ["seal-signer"]


async def test_an_agent_is_given_no_other_agents_svid(server):
    csr = build_csr(generate_private_key())
    names = ("a2", "a1/x", "", "a1/")
    items = [SignX509Item(spiffe_id=f"{DOMAIN}/everyhop/agent/{name}", csr=csr) for name in names]
    items.append(SignX509Item(spiffe_id=f"{DOMAIN}/everyhop/server", csr=csr))
    results = await server.control.sign_x509("a1", items)
    assert all(result.error and not result.chain for result in results)


async def test_no_rule_lets_an_agent_in(server):
    text = """
version: 1
trust_domain: shop.example
services:
  orders: {workload: [{run: true}], operations: {list: GET /orders}}
allow:
  - {from: any, to: orders, operations: all}
"""
    engine = Engine(parse_policy({"p": text.encode()}))
    decision = engine.decide(
        caller=f"{DOMAIN}/everyhop/agent/a1", target="orders", method="GET", path="/orders"
    )
    assert not decision.is_allowed


# -- taken


async def test_batches_are_stored_with_their_seals_and_prove_complete(server):
    key = identity(server)
    first = batch(server, key)
    taken = await server.control.log.take(first)
    assert (taken.stored, taken.held, taken.head) == (3, 3, seal_digest(first.seal))
    second = batch(server, key, 4, 6, previous=taken.head)
    await server.control.log.take(second)
    found = report(server)
    assert found.is_complete
    assert found.producers["i1"].sealed == 6
    assert found.producers["i1"].signer == f"{DOMAIN}/everyhop/agent/a1"


async def test_an_old_batch_again_changes_nothing_and_tells_how_far_the_log_is(server):
    key = identity(server)
    first = batch(server, key)
    head = (await server.control.log.take(first)).head
    again = await server.control.log.take(first)
    assert (again.stored, again.duplicates, again.held, again.head) == (0, 3, 3, head)
    longer = await server.control.log.take(batch(server, key, 2, 9))
    assert (longer.stored, longer.held) == (0, 3)
    assert stored(server) == [("i1", 1), ("i1", 2), ("i1", 3)]
    assert refusals(server) == []
    assert report(server).is_complete


async def test_a_batch_that_goes_on_from_another_seal_is_not_stored_and_the_answer_names_the_right_one(
    server,
):
    key = identity(server)
    head = (await server.control.log.take(batch(server, key))).head
    for previous in (b"", b"x" * 32):
        taken = await server.control.log.take(batch(server, key, 8, 9, previous=previous))
        assert (taken.stored, taken.held, taken.head) == (0, 3, head)
    assert (await server.control.log.take(batch(server, key, 8, 9, previous=head))).stored == 2
    assert [(r.first, r.last) for r in report(server).missing.shown] == [(4, 7)]
    assert report(server).refused.total == 0


async def test_a_batch_whose_ids_are_taken_comes_again_with_others(server):
    key = identity(server)
    await server.control.log.take(batch(server, key))
    records = [
        record(server, 1, "i2", id="i1-2"),
        record(server, 2, "i2"),
        record(server, 3, "i2", id="i2-2"),
    ]
    taken = await server.control.log.take(batch(server, key, producer="i2", records=records))
    assert (taken.stored, taken.held, taken.conflicts) == (0, 0, ("i1-2", "i2-2"))


async def test_an_unsealed_batch_of_one_that_never_sealed_is_taken_and_counted_apart(server):
    taken = await server.control.log.take(RecordBatch(agent="a1", records=[record(server, 1, "old")]))
    assert taken.stored == 1
    found = report(server)
    assert ("old", 1, 1) in [(r.producer, r.first, r.last) for r in found.never_sealed.shown]


async def test_a_new_certificate_and_a_new_authority_go_on_with_the_producer(server):
    head = (await server.control.log.take(batch(server, identity(server)))).head
    old = server.authority.bundle().x509_authorities
    await server.control.rotate(AuthorityKind.X509, wait_seconds=1)
    await server.control.log.take(batch(server, identity(server), 4, 5, previous=head))
    with server.storage.log_seals.reading() as log:
        both = {*old, *server.authority.bundle().x509_authorities}
        found = check_completeness(log.lines(), log.seals(), log.certificates(), sorted(both))
        assert found.is_complete
        assert len(log.certificates()) == 2
