# SPDX-License-Identifier: Apache-2.0
"""What a call shows besides its certificate: refused first, then believed; at ingress, egress and edge."""

import asyncio
from dataclasses import replace

import pytest
from tests.support.token_bench import OTHER_X5T, POLICY, STOREFRONT, THIEF, X5T, TokenBench
from tests.support.workloads import spiffe_id

from everyhop.control.credentials import Credentials, Shown, user_headers
from everyhop.control.deciding import FactsDenied
from everyhop.control.policy_view import PolicyView
from everyhop.core.errors import NotFound, TokenError, Unavailable
from everyhop.dataplane._names import asks_for_facts
from everyhop.issuing import ExchangeRequest, TokenType
from everyhop.policy import parse_policy
from everyhop.tokens.codes import TokenCode


@pytest.fixture
async def bench(tmp_path):
    made = TokenBench(tmp_path)
    await made.start()
    yield made
    made.close()


def shown(operation, **more):
    return Shown(**{"caller": str(STOREFRONT), "x5t": X5T, "operation": operation, **more})


async def refused(judging):
    with pytest.raises(TokenError) as caught:
        await judging
    return caught.value.token_code


def api_key(bench, *scopes):
    created = bench.server.works.api_keys.create(owner="acme", scopes=scopes or ("storefront.browse",))
    return created.key.reveal().decode(), created.entry.lookup


def txn(bench, key, **more):
    """A transaction token for an API key, made at the edge service."""
    issued = bench.server.works.service.exchange(
        ExchangeRequest(
            caller=str(STOREFRONT),
            subject_token=key,
            subject_token_type=TokenType.API_KEY,
            requested_token_type=TokenType.TRANSACTION,
            **more,
        )
    )
    return issued.token


# -- ingress, refused


async def test_nothing_is_judged_before_policy_and_keys_are_there(bench):
    fresh = Credentials(tokens=bench.tokens, exchanger=bench.link, spend=None, clock=bench.clock)
    with pytest.raises(Unavailable):
        await fresh.ingress("orders", shown("create"))


async def test_a_missing_token(bench):
    assert await refused(bench.credentials.ingress("orders", shown("create"))) == TokenCode.MISSING_TOKEN


@pytest.mark.parametrize("token", ["x", "a.b.c", "a.b.c.d.e", "." * 9000])
async def test_a_malformed_token(bench, token):
    judging = bench.credentials.ingress("orders", shown("create", token=token))
    assert await refused(judging) == TokenCode.TOKEN_MALFORMED


async def test_a_token_of_another_service_or_for_another_operation(bench):
    for operation, token in (("pay", bench.mint()), ("create", bench.mint(operation="pay"))):
        judging = bench.credentials.ingress("orders", shown(operation, token=token))
        assert await refused(judging) == TokenCode.AUDIENCE_MISMATCH


async def test_a_stolen_token_with_the_thiefs_own_certificate(bench):
    stolen = bench.mint()
    judging = bench.credentials.ingress(
        "orders", shown("create", caller=str(THIEF), x5t=OTHER_X5T, token=stolen)
    )
    assert await refused(judging) == TokenCode.BINDING_MISMATCH


async def test_a_token_of_the_certificate_before(bench):
    judging = bench.credentials.ingress("orders", shown("create", x5t=OTHER_X5T, token=bench.mint()))
    assert await refused(judging) == TokenCode.BINDING_MISMATCH


async def test_without_a_certificate_a_bound_token_is_worth_nothing(bench):
    judging = bench.credentials.ingress("orders", shown("create", x5t=None, token=bench.mint()))
    assert await refused(judging) == TokenCode.BINDING_MISMATCH


async def test_a_scope_that_does_not_hold_the_operation(bench):
    token = bench.mint(scope=frozenset({"list"}))
    judging = bench.credentials.ingress("orders", shown("create", token=token))
    assert await refused(judging) == TokenCode.INSUFFICIENT_SCOPE


async def test_an_expired_token(bench):
    token = bench.mint()
    bench.clock.move(seconds=306)
    judging = bench.credentials.ingress("orders", shown("create", token=token))
    assert await refused(judging) == TokenCode.TOKEN_EXPIRED


async def test_a_revoked_token_and_a_revoked_key(bench):
    token, other = bench.mint(), bench.mint()
    assert (await bench.credentials.ingress("orders", shown("create", token=token))).until
    bench.server.works.service.revoke(token, asker="admin")
    await bench.push()
    judging = bench.credentials.ingress("orders", shown("create", token=token))
    assert await refused(judging) == TokenCode.TOKEN_REVOKED
    assert (await bench.credentials.ingress("orders", shown("create", token=other))).until
    await bench.control.tokens.revoke_key((await bench.control.tokens.signing_keys())[0].kid)
    await bench.push()
    judging = bench.credentials.ingress("orders", shown("create", token=other))
    assert await refused(judging) == TokenCode.UNKNOWN_KEY_ID
    assert (await bench.credentials.ingress("orders", shown("create", token=bench.mint()))).until


async def test_a_replay_and_a_crowd_with_one_token(bench):
    token = bench.mint(operation="pay")
    crowd = [bench.credentials.ingress("orders", shown("pay", token=token)) for _ in range(50)]
    results = await asyncio.gather(*crowd, return_exceptions=True)
    assert sum(not isinstance(result, Exception) for result in results) == 1
    assert {r.token_code for r in results if isinstance(r, TokenError)} == {TokenCode.TOKEN_REPLAYED}
    assert await refused(bench.credentials.ingress("orders", shown("pay", token=token))) == "TOKEN_REPLAYED"


async def test_a_refused_call_does_not_spend_the_token(bench):
    token = bench.mint(operation="pay")
    judging = bench.credentials.ingress("orders", shown("pay", x5t=OTHER_X5T, token=token))
    assert await refused(judging) == TokenCode.BINDING_MISMATCH
    assert (await bench.credentials.ingress("orders", shown("pay", token=token))).until is None


async def test_a_required_user_who_is_not_there_or_is_not_one(bench):
    assert await refused(bench.credentials.ingress("orders", shown("mine"))) == TokenCode.USER_REQUIRED
    judging = bench.credentials.ingress("orders", shown("mine", txn=bench.mint()))
    assert await refused(judging) == TokenCode.TOKEN_MALFORMED
    assert await refused(bench.credentials.ingress("orders", shown("ours", txn="x"))) == "TOKEN_MALFORMED"


async def test_a_user_of_a_revoked_key(bench):
    key, lookup = api_key(bench)
    token = txn(bench, key)
    assert (await bench.credentials.ingress("orders", shown("ours", txn=token))).user == f"apikey:{lookup}"
    await bench.control.tokens.revoke_api_key(lookup)
    await bench.push()
    assert await refused(bench.credentials.ingress("orders", shown("ours", txn=token))) == "TOKEN_REVOKED"


async def test_a_client_with_a_key_is_no_user_where_one_is_required(bench):
    key, _ = api_key(bench)
    judging = bench.credentials.ingress("orders", shown("mine", txn=txn(bench, key)))
    assert await refused(judging) == TokenCode.USER_REQUIRED
    key, _ = api_key(bench, "storefront.personal")
    assert await refused(bench.credentials.edge("storefront", outside("personal", key))) == "USER_REQUIRED"


async def test_an_operation_or_a_caller_that_the_policy_does_not_know(bench):
    with pytest.raises(NotFound):
        await bench.credentials.ingress("orders", shown("nothing"))
    with pytest.raises(NotFound):
        await bench.credentials.ingress("orders", shown("create", caller="spiffe://shop.example/x"))


# -- ingress, believed


async def test_a_good_token_is_remembered_until_its_end(bench):
    passed = await bench.credentials.ingress("orders", shown("create", token=bench.mint()))
    assert passed.until == int(bench.clock.now().timestamp()) + 300
    assert passed.headers == {}
    assert passed.remove == ("txn-token", "x-everyhop-user", "x-everyhop-user-roles")


async def test_a_user_passes_with_the_earliest_end(bench):
    key, lookup = api_key(bench)
    token = txn(bench, key)
    passed = await bench.credentials.ingress("orders", shown("ours", txn=token))
    assert passed.headers == {"x-everyhop-user": f"apikey:{lookup}", "x-everyhop-user-roles": ""}
    assert passed.remove == ()
    assert passed.until == int(bench.clock.now().timestamp()) + 300


async def test_a_user_is_not_looked_at_where_the_rule_says_none(bench):
    key, _ = api_key(bench)
    passed = await bench.credentials.ingress(
        "orders", shown("create", token=bench.mint(), txn=txn(bench, key))
    )
    assert passed.user is None
    assert "txn-token" in passed.remove


def test_headers_about_a_user_are_printable_ascii():
    class User:
        subject = "zoë, 100%\r\n"
        roles = ("a,b", "c d")

    assert user_headers(User()) == {
        "x-everyhop-user": "zo%C3%AB%2C%20100%25%0D%0A",
        "x-everyhop-user-roles": "a%2Cb,c%20d",
    }


async def test_a_sidecar_that_is_still_at_the_policy_before_is_judged_by_it(bench):
    text = POLICY.replace(
        "create: {route: POST /orders, token: required}", "create: {route: POST /orders, token: operation}"
    )
    stricter = PolicyView(parse_policy({"p.yaml": text.encode()}))
    token = bench.mint()
    bench.credentials.apply_policy(stricter, frozenset({"orders"}))
    assert (await bench.credentials.ingress("orders", shown("create", token=token))).until
    bench.credentials.apply_policy(stricter)
    judging = bench.credentials.ingress("orders", shown("create", token=token))
    assert await refused(judging) == TokenCode.AUDIENCE_MISMATCH


ZONES = """\
version: 1
trust_domain: shop.example
services: {storefront: {}, orders: {operations: {list: GET /orders}}}
allow: [{from: storefront, to: orders, operations: [list]@WHEN@}]
"""
AGENTS = ", when: \"now.getHours('Europe/Paris') > 23\""
ENVOYS = ", when: now.getHours() > 23"


def view_of(when):
    return PolicyView(parse_policy({"p.yaml": ZONES.replace("@WHEN@", when).encode()}))


def test_the_agent_is_needed_only_where_envoy_does_not_decide():
    for when, asks in (("", False), (ENVOYS, False), (AGENTS, True)):
        view = view_of(when)
        assert view.asks(str(STOREFRONT), "orders", "list") is asks
        assert view.checks_credentials("orders") is asks
    assert view_of(AGENTS).asks(str(THIEF), "orders", "list")  # not declared: nothing is taken for granted
    assert not view_of(AGENTS).checks_credentials("nobody")


@pytest.mark.parametrize("when", [ENVOYS, AGENTS])
async def test_what_a_sidecar_leaves_to_the_agent_is_decided_whatever_the_policy_of_today_says(bench, when):
    """Its filter may be one policy behind: the call passed that one only so far."""
    bench.credentials.apply_policy(view_of(when))
    call = shown("list", method="GET", path="/orders")
    with pytest.raises(FactsDenied) as refused_call:
        await bench.credentials.ingress("orders", replace(call, asks=True))
    assert refused_call.value.why.decision.reason == "condition-false"
    if when is ENVOYS:
        assert (await bench.credentials.ingress("orders", call)).why is None


async def test_a_call_that_was_left_is_refused_where_the_policy_of_today_has_no_rule(bench):
    text = ZONES.replace("@WHEN@", "").replace("allow:", "deny:")
    bench.credentials.apply_policy(PolicyView(parse_policy({"p.yaml": text.encode()})))
    with pytest.raises(FactsDenied):
        await bench.credentials.ingress("orders", shown("list", method="GET", path="/orders", asks=True))


def test_the_letter_that_leaves_a_call_to_the_agent():
    assert asks_for_facts("0123456789abcdef|allowed+sxUc|-")
    assert asks_for_facts("0123456789abcdef|allowed+c|allow[0]")
    assert asks_for_facts("")  # what is no verdict says nothing, and then the facts decide
    assert asks_for_facts("x")
    for verdict in (
        "0123456789abcdef|allowed|c",
        "0123456789abcdef|allowed+s|c+c",
        "0|condition-false|-",
    ):
        assert not asks_for_facts(verdict)


# -- egress


async def test_an_egress_gives_each_call_a_token_of_its_own(bench):
    x5t = bench.identities.current(STOREFRONT).x5t
    given = [await bench.credentials.egress("storefront", "orders", "pay", x5t[:12]) for _ in range(10)]
    tokens = {passed.headers["authorization"] for passed in given}
    assert len(tokens) == 10
    for passed in given:
        token = passed.headers["authorization"].removeprefix("Bearer ")
        assert (await bench.credentials.ingress("orders", shown("pay", x5t=x5t, token=token))).until is None


async def test_an_egress_with_a_certificate_that_is_not_in_use(bench):
    for generation in ("", "nothing", X5T[:12]):
        with pytest.raises(Unavailable):
            await bench.credentials.egress("storefront", "orders", "pay", generation)


async def test_an_egress_without_a_server(bench):
    bench.link.down = True
    x5t = bench.identities.current(STOREFRONT).x5t
    with pytest.raises(Unavailable):
        await bench.credentials.egress("storefront", "orders", "pay", x5t[:12])


# -- edge


def outside(operation, token=None, source="192.0.2.7"):
    return Shown(caller="outside", x5t=None, operation=operation, token=token, source=source)


async def test_a_stranger_without_a_credential_or_with_a_false_one(bench):
    key, _ = api_key(bench)
    assert await refused(bench.credentials.edge("storefront", outside("browse"))) == "MISSING_TOKEN"
    for false in ("eh_live_key_nothing", key[:-1] + ("0" if key[-1] != "0" else "1"), "x", "a.b.c"):
        code = await refused(bench.credentials.edge("storefront", outside("browse", false)))
        assert code in {"TOKEN_INVALID", "TOKEN_MALFORMED"}
    assert bench.link.exchanges == 2  # the server is not asked about what only looks like a key


async def test_an_access_token_of_ours_is_no_credential_of_a_stranger(bench):
    judging = bench.credentials.edge("storefront", outside("browse", bench.mint()))
    assert await refused(judging) == TokenCode.AUDIENCE_MISMATCH


async def test_a_key_for_another_operation_or_another_service(bench):
    key, _ = api_key(bench)
    assert await refused(bench.credentials.edge("storefront", outside("hidden", key))) == "INSUFFICIENT_SCOPE"
    with pytest.raises(NotFound):
        await bench.credentials.edge("storefront", outside("nothing", key))


async def test_a_revoked_key_ends_although_it_was_just_used(bench):
    key, lookup = api_key(bench)
    passed = await bench.credentials.edge("storefront", outside("browse", key))
    assert passed.remove == ("authorization",)
    assert passed.until is None
    await bench.control.tokens.revoke_api_key(lookup)
    await bench.push()
    assert await refused(bench.credentials.edge("storefront", outside("browse", key))) == "TOKEN_INVALID"


async def test_the_same_credential_is_exchanged_once_in_half_a_minute(bench):
    key, _ = api_key(bench)
    for _ in range(5):
        await bench.credentials.edge("storefront", outside("browse", key))
    assert bench.link.exchanges == 1
    await bench.credentials.edge("storefront", outside("browse", key, source="192.0.2.8"))
    assert bench.link.exchanges == 2
    bench.clock.move(seconds=31)
    await bench.credentials.edge("storefront", outside("browse", key))
    assert bench.link.exchanges == 3


async def test_the_exchanged_token_goes_on_where_a_user_may(bench):
    key, lookup = api_key(bench, "storefront.browse", "storefront.plain")
    passed = await bench.credentials.edge("storefront", outside("browse", key))
    assert passed.headers["x-everyhop-user"] == f"apikey:{lookup}"
    there = await bench.credentials.ingress("orders", shown("ours", txn=passed.headers["txn-token"]))
    assert there.user == f"apikey:{lookup}"
    passed = await bench.credentials.edge("storefront", outside("plain", key))
    assert passed.headers == {}
    assert "txn-token" in passed.remove
    assert spiffe_id("storefront") == STOREFRONT
