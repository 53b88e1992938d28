# SPDX-License-Identifier: Apache-2.0
"""The blocked at every point that is not Envoy: refused first, with 429 and the time left, whatever they show."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from tests.support.authzen_world import ORDERS as ORDERS_PEP, World
from tests.support.control_plane import MovableClock
from tests.support.token_bench import STOREFRONT, X5T, TokenBench
from tests.support.workloads import spiffe_id
from tests.unit.control.test_credentials import api_key, shown, txn

from everyhop.anomaly.blocks_codec import encode_blocks
from everyhop.anomaly.looking import BlockedError
from everyhop.anomaly.model import Block, BlockMode, Blocks, Subject
from everyhop.api.ext_authz import _denied_by_block
from everyhop.control.blocks_held import HeldBlocks
from everyhop.control.contexts import ServiceContexts
from everyhop.control.credentials import Credentials, api_key_of
from everyhop.control.messages import SignX509Item
from everyhop.core.errors import AccessDenied, InputError
from everyhop.dataplane.log_lines import _WHY
from everyhop.issuing import GrantRefused, MintRequest
from everyhop.sdk import ServiceContext


def blocks_of(clock, *texts, mode=BlockMode.BLOCK, seconds=60, sequence=1):
    found = [
        Block(
            subject=Subject.parse(text),
            mode=mode,
            since=clock.now(),
            until=clock.now() + timedelta(seconds=seconds),
            reason="test",
            by="test",
        )
        for text in texts
    ]
    return Blocks.build(found, sequence=sequence)


@pytest.fixture
async def bench(tmp_path):
    made = TokenBench(tmp_path)
    await made.start()
    made.blocks = Blocks()
    made.credentials._blocks = lambda: made.blocks
    yield made
    made.close()


async def refused(judging):
    with pytest.raises(BlockedError) as caught:
        await judging
    assert 60 <= caught.value.retry_after <= 61
    return str(caught.value.block.subject)


# -- where Envoy asks


async def test_a_blocked_caller_before_anything_that_it_shows(bench):
    bench.blocks = blocks_of(bench.clock, f"identity:{STOREFRONT}")
    for operation in ("create", "nothing"):
        judging = bench.credentials.ingress("orders", shown(operation, token="rubbish"))
        assert await refused(judging) == f"identity:{STOREFRONT}"
    bench.clock.move(seconds=61)
    token = bench.mint()
    assert (await bench.credentials.ingress("orders", shown("create", token=token))).until


async def test_a_blocked_workload_gets_no_token_at_its_egress(bench):
    bench.blocks = blocks_of(bench.clock, f"identity:{STOREFRONT}")
    assert await refused(bench.credentials.egress("storefront", "orders", "pay", X5T[:8]))


async def test_a_blocked_key_and_a_blocked_address_are_not_exchanged(bench):
    key, lookup = api_key(bench)
    bench.credentials._exchanger = None
    for text, source in ((f"api-key:{lookup}", "198.51.100.7"), ("address:198.51.100.7", "198.51.100.7")):
        bench.blocks = blocks_of(bench.clock, text)
        judging = bench.credentials.edge(
            "storefront", shown("browse", caller="outside", token=key, source=source)
        )
        assert await refused(judging) == text


async def test_what_was_exchanged_before_is_no_way_around(bench):
    key, lookup = api_key(bench)
    at_edge = shown("browse", caller="outside", token=key, source="198.51.100.7")
    passed = await bench.credentials.edge("storefront", at_edge)
    assert passed.api_key == lookup
    bench.blocks = blocks_of(bench.clock, f"api-key:{lookup}")
    assert await refused(bench.credentials.edge("storefront", at_edge)) == f"api-key:{lookup}"


async def test_a_blocked_key_is_refused_deeper_in_too(bench):
    """There it is the subject of a transaction."""
    key, lookup = api_key(bench)
    carried = shown("ours", txn=txn(bench, key))
    assert (await bench.credentials.ingress("orders", carried)).user == f"apikey:{lookup}"
    bench.blocks = blocks_of(bench.clock, f"api-key:{lookup}")
    assert await refused(bench.credentials.ingress("orders", carried)) == f"api-key:{lookup}"


async def test_the_servers_word_is_enough(bench):
    """It may know of a block a moment before this agent does."""

    class Blocking:
        agent = "a"

        async def exchange(self, request):
            del request
            raise BlockedError(
                blocks_of(bench.clock, "user:alice").find([Subject.parse("user:alice")], bench.clock.now()),
                60,
            )

    bench.credentials._exchanger = Blocking()
    judging = bench.credentials.edge("storefront", shown("browse", caller="outside", token="a.b.c"))
    assert await refused(judging) == "user:alice"


@pytest.mark.parametrize("token", ["", "eh_", "eh_live_key", "Bearer", "a.b.c"])
def test_what_is_no_key_of_ours_has_no_public_part(token):
    assert api_key_of(token) is None


def test_envoy_is_told_how_long_and_the_record_who():
    clock = MovableClock()
    block = next(iter(blocks_of(clock, "user:zoë | deny").by_subject.values()))
    answer = _denied_by_block(BlockedError(block, 17), "d" * 36)
    headers = {o.header.key: o.header.value for o in answer.denied_response.headers}
    assert headers[b"retry-after"] == b"17"
    assert answer.denied_response.status.code == 429
    assert json.loads(answer.denied_response.body)["code"] == "BLOCKED"
    assert "zo" not in answer.denied_response.body
    told = answer.dynamic_metadata.fields
    assert told["code"].string_value == "BLOCKED"
    match = _WHY.fullmatch(told["why"].string_value)
    assert match is not None
    assert match[6] == "user zo%C3%AB%20%7C%20deny"


# -- where the server issues


async def test_nothing_is_issued_to_the_blocked(bench):
    bench.server.control.blocks_in_force.put(blocks_of(bench.clock, f"identity:{STOREFRONT}"))
    bench.server.works.service._blocks = bench.server.control.blocks_in_force
    with pytest.raises(GrantRefused) as caught:
        bench.server.works.service.mint(
            MintRequest(caller=str(STOREFRONT), target="orders", operation=None, scope=None, x5t=X5T)
        )
    assert (caught.value.status, caught.value.code) == (429, "BLOCKED")
    assert 60 <= caught.value.retry_after <= 61
    # A block is no quarantine: the workload keeps its identity.
    await bench.server.control.sign_jwt("agent", str(STOREFRONT), ("orders",))


async def test_no_identity_for_the_quarantined(bench):
    held = blocks_of(bench.clock, f"identity:{STOREFRONT}", mode=BlockMode.QUARANTINE)
    bench.server.control.blocks_in_force.put(held)
    with pytest.raises(AccessDenied, match="quarantined"):
        await bench.server.control.sign_jwt("agent", str(STOREFRONT), ("orders",))
    (result,) = await bench.server.control.sign_x509(
        "agent", [SignX509Item(spiffe_id=str(STOREFRONT), csr=b"")]
    )
    assert "quarantined" in (result.error or "")
    bench.clock.move(seconds=61)
    await bench.server.control.sign_jwt("agent", str(STOREFRONT), ("orders",))


async def test_an_exchange_for_a_blocked_key_is_refused_and_recorded_as_blocked(bench):
    key, lookup = api_key(bench)
    bench.server.control.blocks_in_force.put(blocks_of(bench.clock, f"api-key:{lookup}"))
    bench.server.works.service._blocks = bench.server.control.blocks_in_force
    with pytest.raises(GrantRefused) as caught:
        txn(bench, key)
    assert (caught.value.message, caught.value.subject) == ("blocked", f"api-key:{lookup}")


# -- where others ask


def test_authzen_denies_the_blocked_and_says_so():
    world = World()
    caller = next(s for s in world.snapshot.services.values() if s.name == "storefront").spiffe_id
    before = world.ask(ORDERS_PEP, "service:storefront", "read", "order:o1")
    world.points._blocks = lambda: blocks_of(world.clock, f"identity:{caller}")
    answer = world.ask(ORDERS_PEP, "service:storefront", "read", "order:o1")
    assert answer.decision is False
    assert answer.context["reason"] == "blocked"
    assert 60 <= answer.context["retry_after"] <= 61
    assert before.context["reason"] != "blocked"
    record = world.store.records[-1]
    assert (record.decision, record.reason, record.rule) == ("deny", "blocked", None)
    assert record.detail["block"] == f"identity:{caller}"


def test_authzen_knows_users():
    world = World()
    world.points._blocks = lambda: blocks_of(world.clock, "user:ann")
    assert world.reason(ORDERS_PEP, "user:ann", "read", "order:o1", caller="storefront") == "blocked"
    assert world.reason(ORDERS_PEP, "user:ben", "read", "order:o1", caller="storefront") != "blocked"


# -- what an agent holds


async def test_blocks_outlive_the_agent_on_its_disk(tmp_path):
    clock, file = MovableClock(), tmp_path / "blocks.json"
    held = HeldBlocks(file, clock)
    held.take(encode_blocks(blocks_of(clock, "user:alice", f"identity:{STOREFRONT}", sequence=7)))
    await held.keep()
    assert file.stat().st_mode & 0o777 == 0o600
    again = HeldBlocks(file, clock)
    assert (again.sequence, len(again().by_subject)) == (7, 2)
    assert list(tmp_path.iterdir()) == [file]


async def test_a_damaged_file_is_as_none_and_loud(tmp_path, caplog):
    file = tmp_path / "blocks.json"
    file.write_bytes(b'{"sequence": 9')
    held = HeldBlocks(file, MovableClock())
    assert held.sequence == 0
    assert "cannot be read" in caplog.text


def test_what_is_malformed_changes_nothing_and_a_step_back_is_said(caplog):
    clock = MovableClock()
    held = HeldBlocks(None, clock)
    held.take(encode_blocks(blocks_of(clock, "user:alice", sequence=7)))
    with pytest.raises(InputError):
        held.take(b"{}")
    assert held.sequence == 7
    held.take(encode_blocks(blocks_of(clock, sequence=3)))
    assert held.sequence == 3
    assert "restored" in caplog.text


def test_the_epoch_is_of_users_and_keys_alone():
    clock = MovableClock()
    held = HeldBlocks(None, clock)
    epochs = []
    for texts in (
        (),
        (f"identity:{STOREFRONT}", "address:203.0.113.7"),
        ("user:a",),
        ("user:a", "api-key:k"),
    ):
        held.take(encode_blocks(blocks_of(clock, *texts)))
        epochs.append(held.epoch)
    assert epochs[0] == epochs[1] == ""
    assert len(set(epochs[1:])) == 3
    clock.move(seconds=60)
    assert held.epoch == ""
    assert held.seconds_left() is None


def test_only_a_quarantine_in_force_withholds():
    clock = MovableClock()
    held = HeldBlocks(None, clock)
    held.take(encode_blocks(blocks_of(clock, f"identity:{STOREFRONT}", mode=BlockMode.QUARANTINE)))
    assert held.quarantined() == {STOREFRONT}
    assert held.is_quarantined(str(STOREFRONT))
    assert not held.is_quarantined(str(spiffe_id("orders")))
    assert held.seconds_left() == 60
    clock.move(seconds=60)
    assert held.quarantined() == frozenset()


def test_without_blocks_credentials_look_at_nothing():
    def never(*_args, **_more):
        raise AssertionError("asked")

    clock = MovableClock()
    clock.now = never
    Credentials(tokens=None, exchanger=None, spend=None, clock=clock)._refuse_blocked(
        identity="x", address="y"
    )


async def test_a_guard_is_told_by_the_context_of_its_service(bench):
    blocks = blocks_of(bench.clock, "user:alice", sequence=3)
    contexts = ServiceContexts()
    asked = (bench.control.snapshot, "orders", bench.truth.document, {})
    assert "blocks" not in json.loads(contexts.document(*asked, Blocks()))
    told = ServiceContext.parse(contexts.document(*asked, blocks))
    assert told.blocks.sequence == 3
    assert list(told.blocks.by_subject) == [Subject.parse("user:alice")]
