# SPDX-License-Identifier: Apache-2.0
"""The hostile set and every forgery of a user, at every place that the SDK enforces in: the same code everywhere."""

import socket
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from tests.support.enforcement_points import GRPC_PATH, POINTS
from tests.vectors.hostile_tokens import Signer, hostile_tokens, hostile_txn_tokens, maker, txn_maker

from everyhop.sdk.guard import Guard
from everyhop.sdk.model import Peer
from everyhop.testing import service_context
from everyhop.tokens.codes import TokenCode, status_of
from everyhop.tokens.mint import Es256Signer
from everyhop.x509.keys import generate_private_key

ISSUER = "https://issuer.test"
NOW = int(time.time())
PEER = Peer(spiffe_id="spiffe://shop.example/service/orders", x5t="A" * 43)
SIGNER = Signer(generate_private_key(), "k1")
COMMON = {
    "issuer": ISSUER,
    "service": "payments",
    "operation": "charge",
    "peer": PEER.spiffe_id,
    "x5t": PEER.x5t,
    "now": NOW,
}
TXN_COMMON = {"issuer": ISSUER, "trust_domain": "shop.example", "requester": PEER.spiffe_id, "now": NOW}
HTTP_CASES = [case for case in hostile_tokens(SIGNER, **COMMON) if case.fits_a_header]
TXN_CASES = [case for case in hostile_txn_tokens(SIGNER, **TXN_COMMON) if case.fits_a_header]


class FixedClock:
    def now(self):
        return datetime.fromtimestamp(NOW, UTC)


def guard_for(point, *, token="required", user="none", signer=SIGNER):
    door = f"grpc: {GRPC_PATH[1:]}" if point.startswith("grpc") else "route: POST /v1/charges"
    policy = f"""
version: 1
trust_domain: shop.example
services:
  orders: {{workload: [{{run: true}}]}}
  payments:
    workload: [{{run: true}}]
    operations:
      charge: {{{door}, token: {token}}}
allow:
  - {{from: orders, to: payments, operations: [charge], user: {user}}}
"""
    if user != "none":
        policy += "users: {issuers: [{issuer: 'https://idp.example', audience: shop}]}\n"
    public = Es256Signer(signer.kid, signer.key).public().to_members()
    truth = SimpleNamespace(
        issuer=ISSUER, sequence=1, jwks={"keys": [public]}, revoked={"kids": [], "jtis": {}, "txns": {}}
    )
    return Guard(
        service_context(policy, "payments", truth), clock=FixedClock(), decisions=lambda decided: None
    )


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing that is sent to us makes us call anybody: only Unix sockets may be connected."""
    real = socket.socket.connect
    tried = []

    def connect(self, address):
        if self.family != socket.AF_UNIX:
            tried.append(address)
            raise AssertionError(f"an outbound connection to {address}")
        return real(self, address)

    def resolve(*arguments, **named):
        tried.append(arguments)
        raise AssertionError(f"a look-up of {arguments}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield
    assert not tried


def bearer(token):
    return [("authorization", f"Bearer {token}")]


@pytest.mark.parametrize("point", POINTS)
def test_every_hostile_token_gets_its_code(point):
    found = POINTS[point](guard_for(point), PEER, [bearer(case.token) for case in HTTP_CASES])
    wrong = [
        (case.name, case.code, got)
        for case, got in zip(HTTP_CASES, found, strict=True)
        if got != (status_of(TokenCode(case.code)), case.code)
    ]
    assert wrong == []
    assert len(HTTP_CASES) > 110


@pytest.mark.parametrize("point", POINTS)
def test_every_hostile_transaction_token_gets_its_code(point):
    guard = guard_for(point, token="none", user="required")
    found = POINTS[point](guard, PEER, [[("txn-token", case.token)] for case in TXN_CASES])
    wrong = [
        (case.name, case.code, got)
        for case, got in zip(TXN_CASES, found, strict=True)
        if got != (status_of(TokenCode(case.code)), case.code)
    ]
    assert wrong == []


@pytest.mark.parametrize("point", POINTS)
def test_the_good_ones_pass_and_what_is_near_them_does_not(point):
    good = maker(SIGNER, **COMMON).good()
    thief = Peer(spiffe_id=PEER.spiffe_id, x5t="B" * 43)
    other = Peer(spiffe_id="spiffe://shop.example/service/storefront", x5t=PEER.x5t)
    ask, guard = POINTS[point], guard_for(point)
    assert ask(guard, PEER, [bearer(good), bearer(good)]) == [(200, "")] * 2
    assert ask(guard, PEER, [[]]) == [(401, "MISSING_TOKEN")]
    assert ask(guard, PEER, [[*bearer(good), *bearer(good)]]) == [(401, "TOKEN_MALFORMED")]
    assert ask(guard, PEER, [[("authorization", f"DPoP {good}")]]) == [(401, "TOKEN_MALFORMED")]
    assert ask(guard, PEER, [[("authorization", "")]]) == [(401, "TOKEN_MALFORMED")]
    assert ask(guard, thief, [bearer(good)]) == [(401, "BINDING_MISMATCH")]
    assert ask(guard, other, [bearer(good)]) == [(403, "ACCESS_DENIED")]
    assert ask(guard, None, [bearer(good)]) == [(403, "MISSING_IDENTITY")]


# -- forged users

STRANGER = Signer(generate_private_key(), "k1")
FORGED = {
    "nothing": ([], "USER_REQUIRED"),
    "a header instead of a token": ([("x-everyhop-user", "alice"), ("x-user", "alice")], "USER_REQUIRED"),
    "an unsigned token": (
        [("txn-token", txn_maker(SIGNER, **TXN_COMMON).good().rpartition(".")[0] + ".")],
        "TOKEN_INVALID",
    ),
    "a token of another key": ([("txn-token", txn_maker(STRANGER, **TXN_COMMON).good())], "TOKEN_INVALID"),
    "a token of another issuer": (
        [("txn-token", txn_maker(SIGNER, **{**TXN_COMMON, "issuer": "https://evil.test"}).good())],
        "UNAUTHORIZED_ISSUER",
    ),
    "a token of another trust domain": (
        [("txn-token", txn_maker(SIGNER, **{**TXN_COMMON, "trust_domain": "evil.example"}).good())],
        "AUDIENCE_MISMATCH",
    ),
    "an access token": ([("txn-token", maker(SIGNER, **COMMON).good())], "TOKEN_MALFORMED"),
    "two tokens": ([("txn-token", txn_maker(SIGNER, **TXN_COMMON).good())] * 2, "TOKEN_MALFORMED"),
    "a token as bearer": (
        [("authorization", f"Bearer {txn_maker(SIGNER, **TXN_COMMON).good()}")],
        "USER_REQUIRED",
    ),
}


@pytest.mark.parametrize("point", POINTS)
def test_no_user_can_be_forged(point):
    guard = guard_for(point, token="none", user="required")
    found = POINTS[point](guard, PEER, [headers for headers, _ in FORGED.values()])
    assert dict(zip(FORGED, found, strict=True)) == {name: (401, code) for name, (_, code) in FORGED.items()}
    good = [("txn-token", txn_maker(SIGNER, **TXN_COMMON).good())]
    assert POINTS[point](guard, PEER, [good]) == [(200, "")]
    # The caller itself must be allowed before anything that it says of a user is believed.
    other = Peer(spiffe_id="spiffe://shop.example/service/storefront", x5t=PEER.x5t)
    assert POINTS[point](guard, other, [good]) == [(403, "ACCESS_DENIED")]
