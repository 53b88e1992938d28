# SPDX-License-Identifier: Apache-2.0
"""Tokens in the control plane: refusals item by item, staged signing keys, revocation, API keys, publication."""

import asyncio

import msgspec
import pytest
from tests.support.token_bench import STOREFRONT, X5T, TokenBench

from everyhop.auditlog import Kind, Order, RecordFilter
from everyhop.control.messages import (
    AgentReport,
    ApiKeyWish,
    ExchangeTokenRequest,
    MintItem,
    RevokeRequest,
    TokenTruthDocument,
)
from everyhop.control.token_truth import TokenTruth
from everyhop.core.errors import AccessDenied, InputError, NotFound, TokenError, Unavailable
from everyhop.spiffe import TrustDomain
from everyhop.tokens.expectation import Expectation
from everyhop.tokens.keyset import parse_jwks

TRANSACTION = "urn:ietf:params:oauth:token-type:txn_token"
API_KEY = "urn:everyhop:params:oauth:token-type:api_key"


@pytest.fixture
async def bench(tmp_path):
    made = TokenBench(tmp_path)
    await made.start()
    yield made
    made.close()


def item(**more):
    return MintItem(**{"spiffe_id": str(STOREFRONT), "target": "orders", "x5t": X5T, **more})


def acknowledge(bench):
    """Report as an agent that holds what was published last."""
    truth = bench.control.feed.truth
    bench.control.feed.report(
        AgentReport(
            agent="node-1",
            snapshot=truth.snapshot_hash,
            bundle_sequence=truth.bundle_sequence,
            token_sequence=truth.token_sequence,
        )
    )


# -- minting


async def test_a_refusal_touches_only_its_item(bench):
    results = await bench.control.tokens.mint(
        "node-1",
        [
            item(scope=["orders.cancel"]),
            item(spiffe_id="spiffe://shop.example/service/nobody"),
            item(spiffe_id="spiffe://elsewhere/service/storefront"),
            item(target="nowhere"),
            item(operation="nothing"),
            item(operation="pay", scope=["orders.pay", "orders.create"]),
            item(x5t="short"),
            item(scope=[]),
            item(),
            item(operation="pay", count=3),
        ],
    )
    assert [result.code for result in results] == [
        "invalid_scope",
        "access_denied",
        "access_denied",
        "invalid_target",
        "invalid_target",
        "invalid_scope",
        "invalid_request",
        "invalid_scope",
        None,
        None,
    ]
    assert all(result.error and not result.tokens for result in results[:8])
    assert [len(result.tokens) for result in results[8:]] == [1, 3]
    assert len({token.jti for result in results for token in result.tokens}) == 4


async def test_refusals_are_recorded(bench):
    await bench.control.tokens.mint("node-1", [item(scope=["orders.cancel"])])
    page = await bench.control.log.query(
        RecordFilter(kind=Kind.TOKEN), order=Order.NEWEST, cursor=None, limit=10
    )
    (record,) = page.records
    assert (record.decision, record.caller, record.target) == ("deny", str(STOREFRONT), "orders")
    assert "orders.cancel" in record.reason


@pytest.mark.parametrize("count", [0, 65, -1])
async def test_batches_are_bounded(bench, count):
    with pytest.raises(InputError):
        await bench.control.tokens.mint("node-1", [item(count=count)])
    with pytest.raises(InputError):
        await bench.control.tokens.mint("node-1", [item()] * 257)


async def test_an_exchange_cannot_widen(bench):
    key = bench.server.works.api_keys.create(owner="a", scopes=["storefront.browse"]).key.reveal().decode()
    request = ExchangeTokenRequest(
        agent="node-1",
        spiffe_id=str(STOREFRONT),
        subject_token=key,
        subject_token_type=API_KEY,
        requested_token_type=TRANSACTION,
    )
    first = await bench.control.tokens.exchange(request)
    narrow = msgspec.structs.replace(request, subject_token=first.token, subject_token_type=TRANSACTION)
    for wider in (
        msgspec.structs.replace(narrow, scope=["storefront.hidden"]),
        msgspec.structs.replace(narrow, spiffe_id="spiffe://shop.example/service/thief"),
    ):
        with pytest.raises((AccessDenied, TokenError)):
            await bench.control.tokens.exchange(wider)
    bench.clock.move(seconds=100)
    again = await bench.control.tokens.exchange(narrow)
    assert again.expires_at == first.expires_at
    with pytest.raises(TokenError, match="not accepted") as caught:
        await bench.control.tokens.exchange(msgspec.structs.replace(narrow, subject_token=bench.mint()))
    assert caught.value.token_code in {"TOKEN_INVALID", "TOKEN_MALFORMED"}


# -- signing keys


async def test_a_key_is_not_activated_while_an_agent_lags(bench):
    bench.control.feed.connected("node-1")
    with pytest.raises(Unavailable, match="node-1"):
        await bench.control.tokens.rotate(wait_seconds=0.05, now=True)
    assert [key.state for key in await bench.control.tokens.signing_keys()] == ["active", "prepared"]
    acknowledge(bench)
    await bench.control.tokens.rotate(wait_seconds=5.0, now=True)
    assert [key.state for key in await bench.control.tokens.signing_keys()] == ["retained", "active"]


async def test_a_key_waits_for_readers_outside_too(bench):
    bench.control.feed.connected("node-1")
    before = bench.control.feed.truth
    await bench.control.tokens.rotate(wait_seconds=1.0, now=False)
    assert bench.control.feed.truth.token_sequence > before.token_sequence
    acknowledge(bench)
    bench.clock.move(seconds=599)
    acknowledge(bench)
    await bench.control.tokens.tick()
    assert [key.state for key in await bench.control.tokens.signing_keys()] == ["active", "prepared"]
    bench.clock.move(seconds=2)
    await bench.control.tokens.tick()
    assert [key.state for key in await bench.control.tokens.signing_keys()] == ["retained", "active"]


async def test_the_schedule_waits_for_an_agent_that_has_not_acknowledged(bench):
    bench.control.feed.connected("node-1")
    await bench.control.tokens.rotate(wait_seconds=1.0, now=False)
    bench.clock.move(seconds=700)
    await bench.control.tokens.tick()
    assert [key.state for key in await bench.control.tokens.signing_keys()] == ["active", "prepared"]


async def test_twenty_rotations_without_a_token_that_is_not_believed(bench):
    bench.control.feed.connected("node-1")
    x5t = bench.identities.current(STOREFRONT).x5t
    following = asyncio.ensure_future(follow(bench))
    held = [bench.mint(x5t=x5t)]
    for _ in range(20):
        await bench.control.tokens.rotate(wait_seconds=10.0, now=True)
        held = [*held[-3:], bench.mint(x5t=x5t)]
        for token in held:
            assert bench.truth.verifier.access(token, expected_at("orders", x5t)).client_id
        bench.clock.move(seconds=60)
        await bench.control.tokens.tick()
    following.cancel()
    keys = await bench.control.tokens.signing_keys()
    assert [key.state for key in keys].count("active") == 1
    assert len(keys) <= 14


async def follow(bench):
    """Hold and acknowledge every truth, as an agent does."""
    known = None
    while True:
        known = await bench.control.feed.wait_beyond(known, 10.0)
        await bench.push()
        acknowledge(bench)


def expected_at(service, x5t):
    return Expectation(audience=service, operation="create", peer=str(STOREFRONT), x5t=x5t)


async def test_an_unknown_key_cannot_be_revoked(bench):
    with pytest.raises(NotFound):
        await bench.control.tokens.revoke_key("nothing")


# -- revocation and publication


async def test_exactly_one_thing_is_revoked(bench):
    for request in (RevokeRequest(), RevokeRequest(token="x", txn="y"), RevokeRequest(txn="a", subject="b")):
        with pytest.raises(InputError):
            await bench.control.tokens.revoke(request)


async def test_a_revocation_is_published_when_the_answer_comes(bench):
    token = bench.mint()
    assert await bench.control.tokens.revoke(RevokeRequest(token="x")) == {"revoked": False}
    before = bench.control.feed.truth
    assert await bench.control.tokens.revoke(RevokeRequest(token=token)) == {"revoked": True}
    document = msgspec.json.decode(bench.control.feed.truth.tokens, type=TokenTruthDocument)
    assert document.sequence > before.token_sequence
    assert len(document.revoked.jtis) == 1
    await bench.control.tokens.revoke(RevokeRequest(subject="alice"))
    document = msgspec.json.decode(bench.control.feed.truth.tokens, type=TokenTruthDocument)
    assert document.revoked.subs == {"alice": int(bench.clock.now().timestamp())}


async def test_what_another_process_revoked_is_published_too(bench):
    running = asyncio.ensure_future(bench.control.tokens.run_schedule())
    before = bench.control.feed.truth
    bench.server.works.service.revoke(bench.mint(), asker="admin")
    after = await bench.control.feed.wait_beyond(before, 5.0)
    assert after.token_sequence > before.token_sequence
    running.cancel()


async def test_nothing_secret_is_published(bench):
    document = msgspec.json.decode(bench.control.feed.truth.tokens)
    assert all("d" not in key for key in document["jwks"]["keys"])
    assert parse_jwks(bytes(msgspec.json.encode(document["jwks"])))


# -- API keys


async def test_an_api_key_opens_nothing_beyond_the_policy(bench):
    for wish in (
        ApiKeyWish(owner="a", scopes=["orders.create"]),
        ApiKeyWish(owner="a", scopes=[]),
        ApiKeyWish(owner="", scopes=["storefront.browse"]),
        ApiKeyWish(owner="a", scopes=["storefront.browse"], life_seconds=1e300),
        ApiKeyWish(owner="a", scopes=["storefront.browse"], life_seconds=-1),
        ApiKeyWish(owner="a", scopes=["storefront.browse"], sources=["nowhere"]),
    ):
        with pytest.raises(InputError):
            await bench.control.tokens.create_api_key(wish)


async def test_the_life_of_an_api_key(bench):
    wish = ApiKeyWish(owner="acme", scopes=["storefront.browse"], sources=["192.0.2.0/24"])
    created = await bench.control.tokens.create_api_key(wish)
    assert created.key not in repr(created)
    assert created.entry.state == "active"
    rotated = await bench.control.tokens.rotate_api_key(created.entry.lookup, 60)
    assert rotated.entry.replaces == created.entry.lookup
    bench.clock.move(seconds=61)
    states = {entry.lookup: entry.state for entry in await bench.control.tokens.list_api_keys("acme")}
    assert states == {created.entry.lookup: "expired", rotated.entry.lookup: "active"}
    before = bench.control.feed.truth
    assert (await bench.control.tokens.revoke_api_key(rotated.entry.lookup)).state == "revoked"
    assert bench.control.feed.truth.token_sequence > before.token_sequence
    with pytest.raises(NotFound):
        await bench.control.tokens.revoke_api_key("nothing1")


# -- the agent's side of the truth


def test_before_the_first_truth_there_is_none():
    truth = TokenTruth(None)
    assert (truth.sequence, truth.epoch) == (0, "0")
    for ask in (lambda: truth.document, lambda: truth.verifier):
        with pytest.raises(Unavailable):
            ask()


async def test_a_truth_of_another_domain_or_without_good_keys_changes_nothing(bench):
    held = bench.truth.document
    encoded = msgspec.json.decode(bench.control.feed.truth.tokens)
    for broken in (
        {**encoded, "trust_domain": "elsewhere"},
        {**encoded, "jwks": {"keys": []}},
        {**encoded, "jwks": {"keys": [{"kty": "oct", "kid": "a", "k": "AAAA"}]}},
        {**encoded, "surplus": 1},
        {"issuer": 1},
    ):
        with pytest.raises(InputError):
            bench.truth.take(msgspec.json.encode(broken), TrustDomain.parse("shop.example"))
    assert bench.truth.document == held
