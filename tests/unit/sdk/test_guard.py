# SPDX-License-Identifier: Apache-2.0
"""The guard refuses everything that is not exactly allowed; every refusal has its code and is recorded."""

import json
import logging
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from everyhop.anomaly.model import Block, BlockMode, Blocks, Subject
from everyhop.core.errors import AccessDenied, InputError, Unavailable
from everyhop.sdk import Guard, Peer, Refusal, Request, ServiceContext
from everyhop.sdk.decisions import log_decision
from everyhop.testing import Authority, Issuer, context_document, service_context

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {workload: [{run: true}]}
  reporting: {workload: [{run: true}]}
  intruder: {workload: [{run: true}]}
  orders:
    workload: [{run: true}]
    operations:
      list: GET /orders
      read: GET /orders/{id}
      admin: GET /orders/@admin
      pay: {route: POST /pay, token: required}
      charge: {route: POST /charge, token: operation, once: true}
      mine: GET /mine
      maybe: GET /maybe
      both: {route: POST /both, token: required}
    probes: [GET /healthz]
allow:
  - {from: storefront, to: orders, operations: [list, read, pay, charge]}
  - {from: storefront, to: orders, operations: [mine, both], user: required}
  - {from: storefront, to: orders, operations: [maybe], user: optional}
  - {from: reporting, to: orders, operations: [list, pay]}
  - {from: outside, to: orders, operations: [pay]}
  - {from: outside, to: orders, operations: [mine], user: required}
"""
STOREFRONT = "spiffe://shop.example/service/storefront"
REPORTING = "spiffe://shop.example/service/reporting"
INTRUDER = "spiffe://shop.example/service/intruder"

authority = Authority()
CERTIFICATE = authority.issue("storefront")
OTHER = authority.issue("reporting")
PEER = Peer(spiffe_id=STOREFRONT, x5t=CERTIFICATE.x5t)
THIEF = Peer(spiffe_id=REPORTING, x5t=OTHER.x5t)


class World:
    def __init__(self):
        self.issuer = Issuer()
        self.context = service_context(POLICY, "orders", self.issuer)
        self.decided = []
        self.guard = Guard(self, decisions=self.decided.append)

    def renew(self):
        self.context = service_context(POLICY, "orders", self.issuer)

    def pay(self, **overrides):
        return self.issuer.access(
            "storefront", "orders", **{"scope": ["orders.pay"], "x5t": CERTIFICATE.x5t, **overrides}
        )

    def charge(self, **overrides):
        return self.issuer.access("storefront", "orders", "charge", **{"x5t": CERTIFICATE.x5t, **overrides})

    def check(self, method="GET", path=b"/orders", headers=(), peer=PEER, **more):
        return self.guard.check(
            Request(method=method, raw_path=path, headers=list(headers), peer=peer, **more)
        )

    def refused(self, *args, **named):
        with pytest.raises(Refusal) as caught:
            self.check(*args, **named)
        refusal, decided = caught.value, self.decided[-1]
        assert not decided.allowed
        assert (decided.status, decided.code) == (refusal.status, refusal.code)
        assert decided.decision_id == refusal.decision_id
        assert json.loads(refusal.body) == {
            "type": "about:blank",
            "title": refusal.title,
            "status": refusal.status,
            "code": refusal.code,
            "decision": refusal.decision_id,
        }
        return refusal


@pytest.fixture
def world():
    return World()


def bearer(token):
    return (b"authorization", b"Bearer " + token.encode())


def user(token):
    return (b"Txn-Token", token.encode())


# -- who


def test_nobody_is_refused(world):
    refusal = world.refused(peer=None)
    assert (refusal.status, refusal.code) == (403, "MISSING_IDENTITY")


SIDECAR = [(b"x-everyhop-caller", STOREFRONT.encode())]


def xfcc(uri=STOREFRONT, digest=None):
    from base64 import urlsafe_b64decode

    digest = digest or urlsafe_b64decode(CERTIFICATE.x5t + "=").hex()
    return (
        b"x-forwarded-client-cert",
        f"By=spiffe://shop.example/service/orders;Hash={digest};URI={uri}".encode(),
    )


def test_identity_headers_are_not_believed_off_the_sidecar_socket(world):
    headers = [*SIDECAR, xfcc(), (b"x-everyhop-user", b"root")]
    assert world.refused(headers=headers, peer=None).code == "MISSING_IDENTITY"
    verified = world.check(headers=[(b"x-everyhop-caller", INTRUDER.encode())])
    assert verified.caller.spiffe_id == STOREFRONT
    assert not verified.caller.via_sidecar


@pytest.mark.parametrize(
    "headers",
    [
        [],
        SIDECAR * 2,
        [*SIDECAR, (b"X-Everyhop-Caller", INTRUDER.encode())],
        [(b"x-everyhop-caller", b"")],
        [(b"x-everyhop-caller", STOREFRONT.encode() + b", " + INTRUDER.encode())],
        [(b"x-everyhop-caller", STOREFRONT.encode() + b"\xe9")],
    ],
)
def test_on_the_sidecar_socket_exactly_one_caller_is_named(world, headers):
    assert world.refused(headers=headers, peer=None, via_sidecar=True).code == "MISSING_IDENTITY"


def test_on_the_sidecar_socket_the_peer_is_not_used(world):
    assert world.refused(via_sidecar=True).code == "MISSING_IDENTITY"
    assert world.check(headers=SIDECAR, peer=THIEF, via_sidecar=True).caller.spiffe_id == STOREFRONT


def test_the_sidecars_decision_id_is_kept_and_a_strangers_is_not(world):
    named = [(b"x-everyhop-decision", b"abc-123")]
    assert world.check(headers=SIDECAR + named, peer=None, via_sidecar=True).decision_id == "abc-123"
    assert world.check(headers=named).decision_id != "abc-123"
    odd = [(b"x-everyhop-decision", b"a\x00b"), (b"x-everyhop-decision", b"x")]
    assert world.check(headers=SIDECAR + odd, peer=None, via_sidecar=True).decision_id not in {"x", "a\x00b"}


# -- where


@pytest.mark.parametrize(
    "path",
    [
        b"//orders",
        b"/orders/../pay",
        b"/orders/./1",
        b"/orders/%2e%2e/pay",
        b"/orders%2f1",
        b"/orders/%00",
        b"/orders/1;a=b",
        b"/orders\\1",
        b"/orders/%40admin",
        b"/orders/%6c",
        b"/orders/%",
        b"/orders/\xc3\xa9",
        b"http://x/orders",
        b"",
        b"*",
        b"/orders#x",
    ],
)
def test_an_ambiguous_path_is_400(world, path):
    refusal = world.refused(path=path)
    assert (refusal.status, refusal.code) == (400, "AMBIGUOUS_PATH")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", b"/"),
        ("get", b"/orders"),
        ("HEAD", b"/orders"),
        ("DELETE", b"/orders"),
        ("GET", b"/orders/"),
        ("GET", b"/orders/1/2"),
        ("GET", b"/ORDERS"),
        ("CONNECT", b"/orders"),
        ("G" * 9999, b"/orders"),
    ],
)
def test_what_is_not_declared_is_403(world, method, path):
    refusal = world.refused(method=method, path=path)
    assert (refusal.status, refusal.code) == (403, "ACCESS_DENIED")


def test_a_caller_without_rule_is_403(world):
    assert world.refused(peer=Peer(spiffe_id=INTRUDER)).code == "ACCESS_DENIED"
    assert world.refused(path=b"/orders/1", peer=THIEF).code == "ACCESS_DENIED"
    assert world.refused(path=b"/orders/@admin").code == "ACCESS_DENIED"
    for odd in ("spiffe://shop.example/service/storefron", STOREFRONT.upper(), STOREFRONT + "/", "outside"):
        assert world.refused(peer=Peer(spiffe_id=odd)).code == "ACCESS_DENIED"


def test_allowed_calls_name_caller_operation_and_rule(world):
    verified = world.check(path=b"/orders/7?x=1")
    assert (verified.operation, verified.rule, str(verified.caller)) == ("read", "allow[0]", STOREFRONT)
    assert (verified.caller.service, verified.user, verified.token) == ("storefront", None, None)
    assert world.decided[-1].allowed
    assert world.check(path=b"/healthz", peer=Peer(spiffe_id=INTRUDER)).operation == "probes[0]"


# -- the token


def test_a_missing_token_is_challenged_without_an_error(world):
    refusal = world.refused("POST", b"/pay")
    assert (refusal.status, refusal.code) == (401, "MISSING_TOKEN")
    assert dict(refusal.headers)["www-authenticate"] == 'Bearer realm="everyhop"'


def test_a_token_in_the_query_is_no_token(world):
    token = world.pay()
    assert world.refused("POST", b"/pay?access_token=" + token.encode()).code == "MISSING_TOKEN"
    for query in (b"access_token=x", b"a=1&access%5ftoken=x", b"a&access_token"):
        assert world.refused("POST", b"/pay?" + query, [bearer(token)]).code == "TOKEN_MALFORMED"
        assert world.refused("POST", b"/pay", [bearer(token)], query=query).code == "TOKEN_MALFORMED"


@pytest.mark.parametrize(
    "shape",
    [
        lambda t: [b"Bearer " + t, b"Bearer " + t],
        lambda t: [b"Bearer " + t + b", Bearer " + t],
        lambda t: [b"Bearer " + t + b"," + t],
        lambda t: [b"DPoP " + t],
        lambda t: [b"Basic " + t],
        lambda t: [t],
        lambda t: [b"Bearer"],
        lambda t: [b"Bearer "],
        lambda t: [b"Bearer " + t + b" x"],
        lambda t: [b"Bearer\t" + t],
        lambda t: [b"Bearer " + t + b"\x00"],
        lambda t: [b"Bearer " + t + b"\xff"],
        lambda t: [b"", b"Bearer " + t],
    ],
)
def test_anything_but_one_bearer_token_is_malformed(world, shape):
    headers = [(b"Authorization", value) for value in shape(world.pay().encode())]
    refusal = world.refused("POST", b"/pay", headers)
    assert (refusal.status, refusal.code) == (401, "TOKEN_MALFORMED")
    assert 'error="invalid_token"' in dict(refusal.headers)["www-authenticate"]


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        ({"exp": 1, "iat": 0}, "TOKEN_EXPIRED"),
        ({"iss": "https://elsewhere.test"}, "UNAUTHORIZED_ISSUER"),
        ({"aud": "payments"}, "AUDIENCE_MISMATCH"),
        ({"aud": "orders#charge"}, "AUDIENCE_MISMATCH"),
        ({"scope": ["orders.list"]}, "INSUFFICIENT_SCOPE"),
        ({"scope": ["payments.pay"]}, "INSUFFICIENT_SCOPE"),
        ({"x5t": None}, "BINDING_MISMATCH"),
        ({"x5t": OTHER.x5t}, "BINDING_MISMATCH"),
        ({"cnf": {"jkt": "0" * 43}}, "BINDING_MISMATCH"),
        ({"client_id": REPORTING, "sub": REPORTING}, "BINDING_MISMATCH"),
        ({"header": {"typ": "JWT"}}, "TOKEN_INVALID"),
        ({"header": {"typ": "txntoken+jwt"}}, "TOKEN_INVALID"),
        ({"header": {"kid": "nobody"}}, "UNKNOWN_KEY_ID"),
        ({"jti": None}, "TOKEN_MALFORMED"),
    ],
)
def test_a_bad_token_has_its_code(world, overrides, code):
    refusal = world.refused("POST", b"/pay", [bearer(world.pay(**overrides))])
    assert refusal.code == code
    assert refusal.status == (403 if code == "INSUFFICIENT_SCOPE" else 401)


def test_a_stolen_token_with_the_thiefs_own_certificate_is_refused(world):
    refusal = world.refused("POST", b"/pay", [bearer(world.pay())], peer=THIEF)
    assert refusal.code == "BINDING_MISMATCH"


def test_a_token_of_the_certificate_before_the_rotation_is_refused(world):
    renewed = Peer(spiffe_id=STOREFRONT, x5t=authority.issue("storefront").x5t)
    assert world.refused("POST", b"/pay", [bearer(world.pay())], peer=renewed).code == "BINDING_MISMATCH"


def test_a_bound_token_needs_a_known_certificate(world):
    unknown = Peer(spiffe_id=STOREFRONT)
    assert world.refused("POST", b"/pay", [bearer(world.pay())], peer=unknown).code == "BINDING_MISMATCH"


@pytest.mark.parametrize(
    "certificate",
    [
        None,
        xfcc(uri=REPORTING),
        xfcc(digest="0" * 64),
        xfcc(digest="XYZ"),
        (xfcc()[0], xfcc()[1] + b"," + xfcc()[1]),
        (xfcc()[0], xfcc()[1] + b';URI="x"'),
        (xfcc()[0], xfcc()[1] + f";URI={STOREFRONT}".encode()),
    ],
)
def test_behind_the_sidecar_the_digest_must_be_that_callers(world, certificate):
    headers = [*SIDECAR, bearer(world.pay()), *([certificate] if certificate else [])]
    assert world.refused("POST", b"/pay", headers, peer=None, via_sidecar=True).code == "BINDING_MISMATCH"


def test_behind_the_sidecar_a_good_token_is_verified_again(world):
    verified = world.check(
        "POST", b"/pay", [*SIDECAR, xfcc(), bearer(world.pay())], peer=None, via_sidecar=True
    )
    assert verified.token.client_id == STOREFRONT
    assert verified.caller.via_sidecar


def test_one_operations_token_does_not_open_another(world):
    assert world.refused("POST", b"/pay", [bearer(world.charge())]).code == "AUDIENCE_MISMATCH"
    assert world.refused("POST", b"/charge", [bearer(world.pay())]).code == "AUDIENCE_MISMATCH"


def test_single_use(world):
    token = world.charge()
    assert world.check("POST", b"/charge", [bearer(token)]).token.jti
    assert world.refused("POST", b"/charge", [bearer(token)]).code == "TOKEN_REPLAYED"
    assert world.check("POST", b"/charge", [bearer(world.charge())])


def test_a_refused_token_is_not_used_up(world):
    token = world.charge()
    assert (
        world.refused("POST", b"/charge", [bearer(token)], peer=Peer(spiffe_id=STOREFRONT)).code
        == "BINDING_MISMATCH"
    )
    assert world.check("POST", b"/charge", [bearer(token)])


def test_revocation_and_rotation_reach_what_was_seen_before(world):
    token = world.pay()
    jti = world.check("POST", b"/pay", [bearer(token)]).token.jti
    world.issuer.revoke(jti=jti)
    world.renew()
    assert world.refused("POST", b"/pay", [bearer(token)]).code == "TOKEN_REVOKED"
    second = world.pay()
    assert world.check("POST", b"/pay", [bearer(second)])
    world.issuer.rotate()
    world.renew()
    assert world.check("POST", b"/pay", [bearer(second)])
    world.issuer.rotate(forget=True)
    world.renew()
    assert world.refused("POST", b"/pay", [bearer(second)]).code == "UNKNOWN_KEY_ID"


def test_another_issuer_in_the_context_ends_the_old_ones_tokens(world):
    token = world.pay()
    assert world.check("POST", b"/pay", [bearer(token)])
    world.issuer = Issuer(issuer="https://other.test")
    world.renew()
    assert world.refused("POST", b"/pay", [bearer(token)]).code == "UNKNOWN_KEY_ID"


# -- the user


def test_user_required(world):
    refusal = world.refused(path=b"/mine")
    assert (refusal.status, refusal.code) == (401, "USER_REQUIRED")
    assert dict(refusal.headers)["www-authenticate"] == 'Bearer realm="everyhop"'


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        ({"exp": 1, "iat": 0}, "TOKEN_EXPIRED"),
        ({"aud": "other.example"}, "AUDIENCE_MISMATCH"),
        ({"iss": "https://elsewhere.test"}, "UNAUTHORIZED_ISSUER"),
        ({"header": {"typ": "at+jwt"}}, "TOKEN_INVALID"),
        ({"header": {"alg": "none"}}, "TOKEN_INVALID"),
        ({"tctx": {"roles": ["admin"]}}, "TOKEN_MALFORMED"),
    ],
)
@pytest.mark.parametrize("path", [b"/mine", b"/maybe"])
def test_a_bad_user_token_is_refused_also_where_it_is_optional(world, path, overrides, code):
    assert (
        world.refused(path=path, headers=[user(world.issuer.transaction("alice", **overrides))]).code == code
    )


def test_a_forged_or_altered_user_is_refused(world):
    head, claims, signature = world.issuer.transaction("alice").split(".")
    other = Issuer().transaction("alice", header={"kid": world.issuer.kid})
    altered = world.issuer.transaction("root").split(".")[1]
    for token in (
        other,
        f"{head}.{altered}.{signature}",
        f"{head}.{claims}.",
        f"{head}.{claims}.{signature[:-2]}AA",
    ):
        assert world.refused(path=b"/mine", headers=[user(token)]).status == 401


def test_an_access_token_is_no_user_token(world):
    assert world.refused(path=b"/mine", headers=[user(world.pay())]).code == "TOKEN_MALFORMED"


def test_two_user_tokens_are_malformed(world):
    token = world.issuer.transaction("alice")
    for headers in ([user(token)] * 2, [user(token + "," + token)], [user("")], [(b"txn-token", b"\xff")]):
        assert world.refused(path=b"/mine", headers=headers).code == "TOKEN_MALFORMED"


def test_the_caller_must_be_allowed_before_a_user_is_believed(world):
    token = world.issuer.transaction("alice")
    assert world.refused(path=b"/mine", headers=[user(token)], peer=THIEF).code == "ACCESS_DENIED"
    assert world.decided[-1].user is None


def test_a_user_where_none_is_asked_for_is_not_believed(world):
    verified = world.check(headers=[user(world.issuer.transaction("alice"))])
    assert verified.user is None
    assert verified.txn_token is None


def test_the_user_is_what_the_token_says(world):
    tctx = {
        "idp": "https://idp.test",
        "kind": "user",
        "roles": ["clerk"],
        "acr": "mfa",
        "amr": ["pwd", "otp"],
        "auth_time": 5,
        "email": "a@b.c",
    }
    token = world.issuer.transaction("alice", tctx=tctx, scope="buying")
    found = world.check(path=b"/mine", headers=[user(token)]).user
    assert (found.subject, found.roles, found.issuer) == ("alice", {"clerk"}, "https://idp.test")
    assert (found.acr, found.amr, found.auth_time, found.email) == ("mfa", ("pwd", "otp"), 5, "a@b.c")
    assert found.requester == STOREFRONT
    assert found.scope == {"buying"}
    assert world.decided[-1].user == "alice"


def test_a_client_with_an_api_key_is_no_user_where_one_is_required(world):
    client = user(world.issuer.transaction("apikey:abcdefgh", kind="client"))
    assert world.refused(path=b"/mine", headers=[client]).code == "USER_REQUIRED"
    assert world.check(path=b"/maybe", headers=[client]).user.kind == "client"


def test_both_are_needed_where_both_are_asked_for(world):
    access = world.pay(scope=["orders.both"])
    txn = world.issuer.transaction("alice")
    assert world.refused("POST", b"/both", [user(txn)]).code == "MISSING_TOKEN"
    assert world.refused("POST", b"/both", [bearer(access)]).code == "USER_REQUIRED"
    assert world.check("POST", b"/both", [bearer(access), user(txn)]).user.subject == "alice"


# -- from outside


def test_outside_only_through_the_sidecar_and_without_access_token(world):
    outside = [(b"x-everyhop-caller", b"outside")]
    assert world.refused("POST", b"/pay", outside, peer=None).code == "MISSING_IDENTITY"
    verified = world.check("POST", b"/pay", outside, peer=None, via_sidecar=True)
    assert verified.caller.is_outside
    assert verified.caller.service is None
    assert world.refused(headers=outside, peer=None, via_sidecar=True).code == "ACCESS_DENIED"
    assert world.refused(path=b"/mine", headers=outside, peer=None, via_sidecar=True).code == "USER_REQUIRED"


# -- when things are missing or broken


@pytest.mark.parametrize(
    "error", [Unavailable("not yet"), AccessDenied("withdrawn"), RuntimeError("secret-detail")]
)
def test_without_a_context_everything_is_refused(error, caplog):
    class Source:
        @property
        def context(self) -> ServiceContext:
            raise error

    guard = Guard(Source(), decisions=lambda _: None)
    with caplog.at_level(logging.CRITICAL + 1, logger="everyhop"), pytest.raises(Refusal) as refused:
        guard.check(Request(method="GET", raw_path=b"/healthz", headers=[], peer=PEER))
    assert (refused.value.status, refused.value.code) == (503, "UNAVAILABLE")
    assert b"secret" not in refused.value.body


def test_a_replay_store_that_fails_refuses(world):
    class Broken:
        def use(self, jti, expires_at):
            raise OSError("down")

    guard = Guard(world, replay=Broken(), decisions=lambda _: None)
    with pytest.raises(Refusal) as refused:
        guard.check(Request(method="POST", raw_path=b"/charge", headers=[bearer(world.charge())], peer=PEER))
    assert refused.value.code == "TOKEN_REPLAYED"


def test_nothing_secret_is_logged_or_shown(world, caplog):
    token, txn = world.pay(scope=["orders.both"]), world.issuer.transaction("alice")
    guard = Guard(world, decisions=log_decision)
    good = Request(method="POST", raw_path=b"/both?key=s3cret", headers=[bearer(token), user(txn)], peer=PEER)
    bad = Request(
        method="POST", raw_path=b"/both?key=s3cret", headers=[bearer(token + "x"), user(txn)], peer=PEER
    )
    with caplog.at_level(logging.DEBUG):
        shown = repr(guard.check(good)) + repr(good)
        with pytest.raises(Refusal) as refused:
            guard.check(bad)
    shown += caplog.text + repr(refused.value) + str(refused.value)
    for secret in (token, txn, token.split(".")[2], txn.split(".")[2], "s3cret"):
        assert secret not in shown
    assert re.search(r"allowed POST /both: ALLOWED .*user=alice", shown)
    assert "refused POST /both" in shown


def test_a_new_policy_applies_to_the_next_call(world):
    assert world.check(path=b"/orders/1")
    world.context = service_context(
        POLICY.replace("[list, read, pay, charge]", "[list]"), "orders", world.issuer
    )
    assert world.refused(path=b"/orders/1").code == "ACCESS_DENIED"


def test_a_body_is_checked_only_for_a_verified_call_and_recorded():
    policy = POLICY.replace(
        "pay: {route: POST /pay, token: required}", 'pay: {route: POST /pay, body: "b.json"}'
    )
    files = {"everyhop.yaml": policy.encode(), "b.json": b'{"type": "object"}'}
    decided = []
    guard = Guard(service_context(files, "orders", Issuer()), decisions=decided.append, max_body=100)
    verified = guard.check(Request(method="POST", raw_path=b"/pay", headers=[], peer=PEER))
    assert verified.checks_body
    guard.check_body(verified, ["application/json"], b"{}")
    with pytest.raises(Refusal) as refused:
        guard.check_body(verified, ["application/json"], b"[]")
    assert refused.value.status == 422
    assert (decided[-1].allowed, decided[-1].code) == (False, "BODY_INVALID")
    with pytest.raises(Refusal) as refused:
        guard.check_body(verified, ["application/json"], b" " * 101)
    assert refused.value.status == 413


# -- more than one reading


def test_a_flaw_that_the_glue_found_is_refused_and_recorded(world):
    refusal = world.refused(flaw="the server kept only the decoded path")
    assert (refusal.status, refusal.code) == (400, "AMBIGUOUS_PATH")
    refusal = world.refused(bad_header="nobody may send x-everyhop-caller")
    assert (refusal.status, refusal.code) == (400, "BAD_REQUEST")
    assert world.decided[-1].reason == "ambiguous-header"


def test_strangers_do_not_learn_what_is_ambiguous(world):
    assert world.refused(peer=None, flaw="x").code == "MISSING_IDENTITY"


def test_fields_with_two_readings_are_refused(world):
    for headers in ([(b"host", b"a"), (b"host", b"b")], [(b"a_b", b"x")], [(b"content-length", b"-1")]):
        refusal = world.refused(headers=headers)
        assert (refusal.status, refusal.code) == (400, "BAD_REQUEST")


def test_a_websocket_only_where_one_is_declared(world):
    for options in ({"is_websocket": True}, {"headers": [(b"upgrade", b"websocket")]}):
        assert world.refused(**options).code == "ACCESS_DENIED"
        assert world.decided[-1].reason == "wrong-protocol"


def test_a_refusal_by_the_application_is_recorded_under_the_id_of_the_call(world):
    from everyhop.sdk import require, serving

    verified = world.check()
    with serving(verified), pytest.raises(Refusal) as caught:
        require("admin")
    decided = world.decided[-1]
    assert (decided.allowed, decided.reason, decided.operation) == (False, "other-operation", "list")
    assert decided.decision_id == caught.value.decision_id == verified.decision_id
    assert (decided.method, decided.path) == ("GET", "/orders")


# -- the blocked


def blocked(world, *texts, seconds=60):
    now = datetime.now(UTC)
    found = [
        Block(
            subject=Subject.parse(text),
            mode=BlockMode.BLOCK,
            since=now,
            until=now + timedelta(seconds=seconds),
            reason="",
            by="",
        )
        for text in texts
    ]
    world.context = replace(world.context, blocks=Blocks.build(found, sequence=1))


def test_a_blocked_caller_is_told_when_to_come_back_before_anything_else(world):
    blocked(world, f"identity:{STOREFRONT}")
    for path in (b"/orders", b"//orders", b"/orders/@admin", b"/nothing"):
        refusal = world.refused(path=path)
        assert (refusal.status, refusal.code) == (429, "BLOCKED")
        assert 59 <= int(dict(refusal.headers)["retry-after"]) <= 61
        assert world.decided[-1].reason == "blocked"
    assert world.check(peer=THIEF).caller.spiffe_id == REPORTING


def test_a_blocked_user_and_an_access_token_for_one(world):
    blocked(world, "user:alice")
    txn = world.issuer.transaction("alice")
    assert world.refused(path=b"/mine", headers=[user(txn)]).code == "BLOCKED"
    assert world.check(path=b"/mine", headers=[user(world.issuer.transaction("bob"))])


def test_the_end_of_a_block_needs_no_message(world):
    blocked(world, f"identity:{STOREFRONT}", seconds=-1)
    assert world.check()


def test_a_context_says_who_is_blocked_and_an_unknown_kind_is_refused_whole(world):
    document = json.loads(context_document(POLICY, "orders", world.issuer))
    assert not ServiceContext.parse(json.dumps(document).encode()).blocks.by_subject
    entry = {"subject": "user:alice", "since": "2026-06-01T12:00:00Z"}
    document["blocks"] = {"sequence": 3, "blocks": [entry]}
    parsed = ServiceContext.parse(json.dumps(document).encode())
    assert list(parsed.blocks.by_subject) == [Subject.parse("user:alice")]
    document["blocks"] = {"sequence": 3, "blocks": [{**entry, "subject": "planet:mars"}]}
    with pytest.raises(InputError):
        ServiceContext.parse(json.dumps(document).encode())


@pytest.mark.parametrize("allowed", [True, False])
def test_a_decision_names_the_trace_of_the_call(world, allowed):
    header = (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    if allowed:
        world.check(headers=[header])
    else:
        world.refused(headers=[header], peer=Peer(spiffe_id=INTRUDER))
    assert world.decided[-1].trace == "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"
    world.check(headers=[header, header])  # two of them are none
    assert world.decided[-1].trace == ""
    world.check()
    assert world.decided[-1].trace == ""
