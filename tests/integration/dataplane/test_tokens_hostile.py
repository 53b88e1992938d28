# SPDX-License-Identifier: Apache-2.0
"""Hostile tokens at a real ingress with the product's own check behind it: the codes are those of the verifier."""

import hashlib
import json
import time
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.envoy_pair import Mesh, exchange, request_bytes, wait_for
from tests.support.http2_client import Http2Client
from tests.support.workloads import RealClock
from tests.vectors.hostile_tokens import Signer, hostile_tokens, hostile_txn_tokens, maker, txn_maker

from everyhop.api.ext_authz import ExternalAuthorization, authorization_server
from everyhop.control.credentials import Credentials
from everyhop.control.policy_view import PolicyView
from everyhop.dataplane._protobuf import encode_resource
from everyhop.dataplane.configuration import FILTER, Configuration, Resource
from everyhop.dataplane.enforcement import filter_file
from everyhop.dataplane.token_memory import program
from everyhop.jose import Jwk
from everyhop.tokens import KeySet, PinnedKey, Revocations, StaticKeys, TokenVerifier, x5t_s256
from everyhop.tokens.replay import MemoryReplayGuard
from everyhop.tokens.verifier import spend
from everyhop.wire.sockets import UnixListener
from everyhop.x509.csr import build_csr
from everyhop.x509.keys import generate_private_key

POLICY = """\
version: 1
trust_domain: shop.example
services:
  orders: {}
  thief: {}
  sibling: {operations: {charge: {route: POST /v1/charges, token: required}}}
  payments:
    operations:
      charge: {route: POST /v1/charges, token: required}
      refund: {route: POST /v1/refunds, token: operation}
      void: {route: POST /v1/voids, token: operation}
      payout: {route: POST /v1/payouts, token: required, once: true}
      mine: GET /v1/mine
      watch: {grpc: shop.v1.Payments/Watch, token: required}
allow:
  - {from: [orders, thief], to: [payments, sibling], operations: [charge]}
  - {from: [orders, thief], to: payments, operations: [refund, void, payout, watch]}
  - {from: orders, to: payments, operations: [mine], user: required}
"""
ISSUER = "https://127.0.0.1:8443"
SIGNER = Signer(ec.generate_private_key(ec.SECP256R1()), "k1")
KEYS = KeySet([PinnedKey.pin(Jwk(key=SIGNER.key.public_key(), kid="k1", use="sig"))])
CHARGE, REFUND, VOID = ("POST", "/v1/charges"), ("POST", "/v1/refunds"), ("POST", "/v1/voids")
PAYOUT, MINE = ("POST", "/v1/payouts"), ("GET", "/v1/mine")
TOO_LARGE = 431
_LONGEST = 15 * 1024  # with the other headers, more is refused before anybody looks at it


class Bank:
    """The callee with the agent's real check, and callers with certificates of their own."""

    def __init__(self, mesh):
        self.mesh = mesh
        self.asked = 0
        self.orders = self.certificate("orders")
        self.thief = self.certificate("thief")
        mesh.call(self._serve)
        mesh.sidecar("payments")
        mesh.sidecar("sibling")

    async def _serve(self):
        self.verifier = TokenVerifier(
            StaticKeys(KEYS), issuer=ISSUER, trust_domain="shop.example", clock=RealClock()
        )

        guard = MemoryReplayGuard(RealClock())

        async def use_up(token):
            spend(token, guard)

        credentials = Credentials(tokens=None, exchanger=None, spend=use_up, clock=RealClock())
        credentials.apply_policy(PolicyView(self.mesh.snapshot))
        credentials.apply_verifier(self.verifier)
        judge = credentials.ingress

        async def counted(service, shown):
            self.asked += 1
            return await judge(service, shown)

        credentials.ingress = counted
        self._server = authorization_server(ExternalAuthorization(credentials, self.mesh))
        self._listener = UnixListener.bind(self.mesh.root / "authz.sock", mode=0o600)
        await self._server.start(self._listener)

    def close(self):
        self.mesh.call(self._server.close)
        self._listener.close()

    def certificate(self, service):
        """Return a certificate of a service that nobody had before."""
        key = generate_private_key()
        chain = self.mesh.authority.sign(self.mesh.spiffe_id(service), build_csr(key)).chain
        return SimpleNamespace(der=chain[0], key=key, x5t=x5t_s256(chain[0]))

    def common(self, operation="charge", *, shown=None, service="payments"):
        return {
            "issuer": ISSUER,
            "service": service,
            "operation": operation,
            "peer": self.mesh.spiffe_id("orders"),
            "x5t": (shown or self.orders).x5t,
            "now": int(time.time()),
        }

    def token(self, operation="charge", *, shown=None, per_operation=False, **claims):
        return maker(SIGNER, **self.common(operation, shown=shown), per_operation=per_operation).with_claims(
            **claims
        )

    def user(self):
        return {
            "issuer": ISSUER,
            "trust_domain": "shop.example",
            "requester": self.mesh.spiffe_id("orders"),
            "now": int(time.time()),
        }

    def connect(self, shown=None, target="payments", alpn=("http/1.1",)):
        shown = shown or self.orders
        return self.mesh.connect(target, self.mesh.context(shown.der, shown.key, alpn=alpn))

    def ask(self, call, *tokens, shown=None, target="payments", connection=None):
        """Return status and code of a call that shows these access tokens."""
        headers = [("Authorization", f"Bearer {token}") for token in tokens]
        if connection is not None:
            return outcome(*exchange(connection, request_bytes(*call, headers=headers)))
        with self.connect(shown, target) as once:
            return outcome(*exchange(once, request_bytes(*call, headers=headers)))


def outcome(status, headers, body):
    """Check that a refusal says what it may say and no more; return status and code."""
    if status == 200:
        return 200, ""
    problem = json.loads(body)
    assert set(problem) == {"type", "title", "status", "code", "decision"}
    assert headers["content-type"] == "application/problem+json"
    if status in {401, 403} and problem["code"] != "ACCESS_DENIED":
        assert headers["www-authenticate"].startswith('Bearer realm="everyhop"')
    return status, problem["code"]


@pytest.fixture(scope="module")
def bank():
    with Mesh(POLICY) as mesh:
        bank = Bank(mesh)
        yield bank
        bank.close()


def expected(case):
    status = 403 if case.code == "INSUFFICIENT_SCOPE" else 401
    return status, case.code


@pytest.mark.parametrize("per_operation", [False, True], ids=["service", "operation"])
def test_the_hostile_set(bank, per_operation):
    operation, call = ("refund", REFUND) if per_operation else ("charge", CHARGE)
    cases = hostile_tokens(SIGNER, **bank.common(operation), per_operation=per_operation)
    shown = [case for case in cases if case.fits_a_header]
    assert len(shown) > 150
    wrong = []
    with bank.connect() as connection:
        for case in shown:
            is_long = len(case.token) > _LONGEST
            for _ in range(2):
                found = bank.ask(call, case.token, connection=None if is_long else connection)
                if found != expected(case) and not (is_long and found[0] == TOO_LARGE):
                    wrong.append((case.name, found, expected(case)))
    assert wrong == []
    assert bank.ask(call, bank.token(operation, per_operation=per_operation)) == (200, "")


def test_the_hostile_set_over_http2_and_for_grpc(bank):
    cases = [
        c for c in hostile_tokens(SIGNER, **bank.common()) if c.fits_a_header and len(c.token) < _LONGEST
    ]
    with bank.connect(alpn=("h2",)) as connection:
        client = Http2Client(connection)
        for case in cases:
            headers = [("authorization", f"Bearer {case.token}")]
            status, found, body = client.request("POST", "/v1/charges", headers=headers)[:3]
            assert outcome(status, dict(found), body) == expected(case), case.name
            grpc = [*headers, ("content-type", "application/grpc"), ("te", "trailers")]
            status, found, *_ = client.request("POST", "/shop.v1.Payments/Watch", headers=grpc)
            found = dict(found)
            assert (status, found["grpc-status"]) == (200, "16" if expected(case)[0] == 401 else "7"), (
                case.name
            )


def test_the_hostile_set_of_users(bank):
    wrong = []
    with bank.connect() as connection:
        for case in hostile_txn_tokens(SIGNER, **bank.user()):
            if not case.fits_a_header or len(case.token) > _LONGEST:
                continue
            answer = exchange(connection, request_bytes(*MINE, headers=[("Txn-Token", case.token)]))
            if outcome(*answer) != expected(case):
                wrong.append((case.name, outcome(*answer), expected(case)))
        assert wrong == []
        good = txn_maker(SIGNER, **bank.user()).good()
        status, _, body = exchange(connection, request_bytes(*MINE, headers=[("Txn-Token", good)]))
        seen = dict(json.loads(body)["headers"])
        assert (status, seen["x-everyhop-user"], seen["txn-token"]) == (200, "alice", good)
        assert outcome(*exchange(connection, request_bytes(*MINE))) == (401, "USER_REQUIRED")
        two = [("Txn-Token", good), ("txn-token", good)]
        assert outcome(*exchange(connection, request_bytes(*MINE, headers=two))) == (401, "TOKEN_MALFORMED")


def test_a_good_token_is_asked_about_once(bank):
    token = bank.token(jti="once-asked")
    before = bank.asked
    with bank.connect() as connection:
        for _ in range(5):
            assert bank.ask(CHARGE, token, connection=connection) == (200, "")
    assert bank.asked == before + 1


def test_missing_and_two(bank):
    good = bank.token()
    assert bank.ask(CHARGE) == (401, "MISSING_TOKEN")
    assert bank.ask(CHARGE, good) == (200, "")
    assert bank.ask(CHARGE, good, good) == (401, "TOKEN_MALFORMED")
    assert bank.ask(CHARGE, good, "x") == (401, "TOKEN_MALFORMED")


def test_a_token_in_the_query_is_refused_however_good_the_other(bank):
    good = bank.token(jti="beside-a-query")
    with bank.connect() as connection:
        for query, expected in (
            ("", (200, "")),
            ("?page=2", (200, "")),
            (f"?access_token={good}", (401, "TOKEN_MALFORMED")),
            ("?a=1&access_token=x", (401, "TOKEN_MALFORMED")),
        ):
            call = (CHARGE[0], CHARGE[1] + query)
            assert bank.ask(call, good, connection=connection) == expected
    assert bank.ask((CHARGE[0], f"{CHARGE[1]}?access_token={good}")) == (401, "MISSING_TOKEN")


def test_a_thief_with_a_valid_certificate_of_its_own(bank):
    stolen = bank.token()
    assert bank.ask(CHARGE, stolen) == (200, "")
    assert bank.ask(CHARGE, stolen, shown=bank.thief) == (401, "BINDING_MISMATCH")
    assert bank.ask(CHARGE, stolen, shown=bank.certificate("orders")) == (401, "BINDING_MISMATCH")
    digest = hashlib.sha256(bank.orders.der).hexdigest()
    peer = f"By={bank.mesh.spiffe_id('payments')};Hash={digest};URI={bank.mesh.spiffe_id('orders')}"
    forged = [("Authorization", f"Bearer {stolen}"), ("X-Forwarded-Client-Cert", peer)]
    with bank.connect(bank.thief) as connection:
        answer = exchange(connection, request_bytes(*CHARGE, headers=forged))
    assert outcome(*answer) == (401, "BINDING_MISMATCH")
    assert bank.ask(CHARGE, stolen) == (200, "")


def test_another_service_and_another_operation(bank):
    token = bank.token()
    assert bank.ask(CHARGE, token, target="sibling") == (401, "AUDIENCE_MISMATCH")
    assert bank.ask(REFUND, token) == (401, "AUDIENCE_MISMATCH")
    narrow = bank.token("refund", per_operation=True)
    assert bank.ask(REFUND, narrow) == (200, "")
    assert bank.ask(VOID, narrow) == (401, "AUDIENCE_MISMATCH")
    assert bank.ask(PAYOUT, token)[1] == "INSUFFICIENT_SCOPE"


def test_after_the_certificate_has_changed(bank):
    renewed = bank.certificate("orders")
    assert bank.ask(CHARGE, bank.token(), shown=renewed) == (401, "BINDING_MISMATCH")
    assert bank.ask(CHARGE, bank.token(shown=renewed), shown=renewed) == (200, "")


def test_single_use(bank):
    token = bank.token("payout", jti="single")
    assert bank.ask(PAYOUT, token) == (200, "")
    assert bank.ask(PAYOUT, token) == (401, "TOKEN_REPLAYED")
    payments = bank.mesh.sidecars["payments"]
    replayed = wait_for(lambda: [r for r in payments.lines() if r.reason == "TOKEN_REPLAYED"])
    assert (replayed[-1].decision, replayed[-1].operation, replayed[-1].status) == ("deny", "payout", 401)


def test_a_token_ends_while_it_is_remembered(bank):
    now = int(time.time())
    token = bank.token(exp=now + 2, iat=now - 10)
    with bank.connect() as connection:
        assert bank.ask(CHARGE, token, connection=connection) == (200, "")
        wait_for(lambda: bank.ask(CHARGE, token, connection=connection) == (401, "TOKEN_EXPIRED"), seconds=10)
        assert time.time() >= now + 2


def test_a_revoked_token_ends_within_a_second(bank):
    token = bank.token(jti="to-be-revoked")
    with bank.connect() as connection:
        assert bank.ask(CHARGE, token, connection=connection) == (200, "")
        bank.verifier.revoke(Revocations(jtis={"to-be-revoked": int(time.time()) + 300}))
        bank.mesh.epoch += "-revoked"
        began = time.monotonic()
        bank.mesh.apply()
        wait_for(lambda: bank.ask(CHARGE, token, connection=connection)[0] == 401, seconds=1)
        took = time.monotonic() - began
        assert bank.ask(CHARGE, token, connection=connection) == (401, "TOKEN_REVOKED")
    print(f"revoked to refused: {took * 1000:.0f} ms")
    assert took < 1


def test_the_hostile_set_with_a_broken_memory(bank):
    configs = bank.mesh.secrets.configs
    good = configs.published("payments")
    resources = {kind: dict(found) for kind, found in good.resources.items()}
    (resource,) = filter_file("memory", program("function envoy_on_request(h) error('x') end"), "x")[
        "resources"
    ]
    resources[FILTER]["memory"] = Resource("broken", encode_resource(resource)[1])
    bank.mesh.call(configs.publish, "payments", Configuration(label="c" * 64, resources=resources))
    time.sleep(0.2)
    with bank.connect() as connection:
        for case in hostile_tokens(SIGNER, **bank.common())[::5]:
            if case.fits_a_header and len(case.token) < _LONGEST:
                assert bank.ask(CHARGE, case.token, connection=connection) == expected(case), case.name
        before = bank.asked
        for _ in range(3):
            assert bank.ask(CHARGE, bank.token(jti="asked-each-time"), connection=connection) == (200, "")
        assert bank.asked == before + 3
