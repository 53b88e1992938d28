# SPDX-License-Identifier: Apache-2.0
"""The AuthZEN endpoints: who is heard, what is refused, and how; the decision point behind them is a fake."""

import asyncio
import json
from types import SimpleNamespace

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from tests.support.decision_points import RecordsPoint
from tests.support.identity import FakeClock

from everyhop.api.authzen_app import AuthzenDoor, base_urls
from everyhop.api.authzen_clients import Peps
from everyhop.api.oauth_discovery import Endpoints
from everyhop.apikeys import ApiKeyPrincipal
from everyhop.apikeys.model import ApiKeyRefused, TooManyFailures
from everyhop.authzen import PageTokens
from everyhop.control.responding import BlocksInForce
from everyhop.core.errors import TokenError, Unavailable
from everyhop.core.secret import Secret
from everyhop.issuing import PDP_AUDIENCE
from everyhop.jose.encoding import encode_base64url
from everyhop.tokens.access import AccessToken
from everyhop.tokens.codes import TokenCode
from everyhop.tokens.dpop import access_token_hash
from everyhop.tokens.expectation import check
from everyhop.tokens.mint import Es256Signer
from everyhop.tokens.replay import MemoryReplayGuard

LOCAL = "https://127.0.0.1:8443"
ISSUER = "https://auth.example/shop"
RECORDS = "spiffe://shop.example/service/records"
ORDERS = "spiffe://shop.example/service/orders"
HASH = "ab" * 32
X5T = encode_base64url(bytes.fromhex(HASH))
EVALUATE = "/access/v1/evaluation"
BATCH = "/access/v1/evaluations"
SEARCH = "/access/v1/search/subject"
ASK = {
    "subject": {"type": "user", "id": "ann"},
    "action": {"name": "write"},
    "resource": {"type": "record", "id": "r1"},
}
KEY = "eh_live_key_abcdefgh_" + "x" * 32 + "_000000"


def certificate(spiffe_id=RECORDS):
    return {
        "x-forwarded-client-cert": f"By=spiffe://shop.example/everyhop/server;Hash={HASH};URI={spiffe_id}"
    }


class FakeTokens:
    """Tokens by their text, checked as the token service checks them."""

    def __init__(self):
        self.known = {}

    def add(self, text, *, client_id=RECORDS, audience=PDP_AUDIENCE, x5t=None, jkt=None, actors=()):
        self.known[text] = AccessToken(
            issuer=ISSUER,
            subject=client_id,
            client_id=client_id,
            audience=audience,
            scope=frozenset(),
            jti="j",
            issued_at=0,
            expires_at=2**40,
            kid="k",
            x5t=x5t,
            jkt=jkt,
            actors=actors,
        )

    def accept(self, token, expected):
        if token not in self.known:
            raise TokenError(TokenCode.TOKEN_INVALID, "no token of ours")
        check(self.known[token], expected)
        return self.known[token]


class FakeKeys:
    def authenticate(self, presented, source=None):
        if source == "203.0.113.66":
            raise TooManyFailures(17)
        if presented != KEY:
            raise ApiKeyRefused("unknown")
        return ApiKeyPrincipal(
            lookup="abcdefgh",
            owner="gateway",
            environment="live",
            kind="key",
            scopes=frozenset({"records.read"}),
            expires_at=FakeClock().now(),
        )


class Session(RecordsPoint):
    """The fake decision point with the end of a session."""

    forbidden = 0
    fails = False

    def close(self):
        if self.fails:
            raise Unavailable("the disk is full")
        self.closed = True


class World:
    """One door with everything behind it."""

    def __init__(self):
        self.clock = FakeClock()
        self.tokens = FakeTokens()
        self.notes = []
        self.peps = []
        self.sessions = []
        self.fails = False
        endpoints = Endpoints(issuer=ISSUER, local=LOCAL)
        services = {RECORDS: "records", ORDERS: "orders"}
        self.looked = []
        door = AuthzenDoor(
            blocks=BlocksInForce(),
            peps=Peps(
                service_of=services.get,
                tokens=self.tokens,
                keys=FakeKeys(),
                clock=self.clock,
                replay=MemoryReplayGuard(self.clock),
            ),
            sessions=self.open,
            tokens=PageTokens(Secret(b"k" * 32)),
            refusals=SimpleNamespace(note=lambda **values: self.notes.append(values)),
            endpoints=endpoints,
            names=base_urls(LOCAL, ("pdp.example", "::1")),
            clock=self.clock,
            work=self.work,
            watch=SimpleNamespace(refused=lambda texts, shown: self.looked.append((list(texts), shown))),
        )
        self.app = Starlette(routes=door.routes())

    def open(self, pep):
        self.peps.append(pep)
        session = Session(asker=pep.name)
        session.fails = self.fails
        self.sessions.append(session)
        return session

    async def work(self, call):
        return await asyncio.to_thread(call)

    async def ask(self, path, body=b"", *, method="POST", host="127.0.0.1:8443", **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json", "host": host}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=LOCAL) as client:
            return await client.request(
                method, path, content=content, headers=[(n, v) for n, v in sent.items() if v is not None]
            )


@pytest.fixture
def world():
    return World()


def proof(signer, *, token, url=LOCAL + EVALUATE, method="POST", jti="p1", now=None, clock=None):
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": _public(signer)}
    claims = {
        "jti": jti,
        "htm": method,
        "htu": url,
        "iat": int((clock or FakeClock()).now().timestamp()),
        "ath": access_token_hash(token),
    }
    signing = ".".join(encode_base64url(json.dumps(part).encode()) for part in (header, claims))
    return f"{signing}.{encode_base64url(signer.sign(signing.encode()))}"


def _public(signer):
    members = signer.public().to_members()
    return {name: members[name] for name in ("kty", "crv", "x", "y")}


# --- nobody


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Basic dTpw"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer a b"},
        {"authorization": "Bearer unknown"},
        {"authorization": "DPoP unknown"},
        {"authorization": f"Bearer {KEY[:-1]}1"},
        {"x_forwarded_client_cert": "nonsense"},
        certificate("spiffe://shop.example/service/stranger"),
        {"x_forwarded_client_cert": certificate()["x-forwarded-client-cert"] + ";URI=" + ORDERS},
        {**certificate(), "authorization": "Bearer unknown"},
        {"x_api_key": KEY},
        {"x_everyhop_service": "records"},
    ],
)
@pytest.mark.parametrize("path", [EVALUATE, BATCH, SEARCH])
async def test_nobody_is_refused_with_401(world, headers, path):
    for body in (ASK, b"{", b"x" * 100_000):
        answer = await world.ask(path, body, **headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer ")
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.text == "authenticate as a PEP"
    assert world.sessions == []
    assert {note["error"] for note in world.notes} == {"unauthenticated"}


async def test_a_source_that_guesses_keys_is_told_to_wait(world):
    answer = await world.ask(EVALUATE, ASK, authorization=f"Bearer {KEY}", x_everyhop_source="203.0.113.66")
    assert (answer.status_code, answer.headers["retry-after"]) == (401, "17")


@pytest.mark.parametrize(
    "headers",
    [
        {**certificate(), "authorization": f"Bearer {KEY}"},
        {"authorization": f"DPoP {KEY}"},
        {"authorization": f"Bearer {KEY}", "dpop": "x"},
        {**certificate(), "dpop": "x"},
    ],
)
async def test_two_ways_at_once_are_400(world, headers):
    assert (await world.ask(EVALUATE, ASK, **headers)).status_code == 400


@pytest.mark.parametrize(
    "claims",
    [
        {"audience": "records", "x5t": X5T},
        {"audience": "urn:everyhop:authzen#x", "x5t": X5T},
        {"audience": LOCAL, "x5t": X5T},
        {"x5t": encode_base64url(b"x" * 32)},
        {"client_id": ORDERS, "x5t": X5T},
        {},
        {"x5t": X5T, "actors": (RECORDS,)},
        {"jkt": "A" * 43},
    ],
)
async def test_tokens_that_do_not_count(world, claims):
    world.tokens.add("token", **claims)
    answer = await world.ask(EVALUATE, ASK, authorization="Bearer token", **certificate())
    assert answer.status_code == 401


async def test_a_certificate_bound_token_without_its_certificate(world):
    world.tokens.add("token", x5t=X5T)
    assert (await world.ask(EVALUATE, ASK, authorization="Bearer token")).status_code == 401
    assert (await world.ask(EVALUATE, ASK, authorization="DPoP token", **certificate())).status_code == 401


# --- somebody


async def test_a_certificate_is_a_pep(world):
    answer = await world.ask(EVALUATE, ASK, **certificate())
    assert (answer.status_code, answer.json()["decision"]) == (200, True)
    assert (world.peps[0].name, world.peps[0].service) == (RECORDS, "records")
    assert world.sessions[0].closed


async def test_a_bound_token_is_a_pep(world):
    world.tokens.add("token", x5t=X5T)
    answer = await world.ask(EVALUATE, ASK, authorization="Bearer token", **certificate())
    assert answer.status_code == 200
    assert world.peps[0].service == "records"


async def test_an_api_key_is_a_pep_with_its_scopes(world):
    answer = await world.ask(EVALUATE, ASK, authorization=f"Bearer {KEY}")
    assert answer.status_code == 200
    assert (world.peps[0].name, world.peps[0].service) == ("apikey:abcdefgh", None)
    assert world.peps[0].scopes == {"records.read"}


async def test_a_dpop_token_is_a_pep_once(world):
    from everyhop.jose.jwk import thumbprint

    signer = Es256Signer("k", ec.generate_private_key(ec.SECP256R1()))
    world.tokens.add("token", jkt=thumbprint(signer.public().key))
    shown = {"authorization": "DPoP token", "dpop": proof(signer, token="token", clock=world.clock)}
    assert (await world.ask(EVALUATE, ASK, **shown)).status_code == 200
    assert (await world.ask(EVALUATE, ASK, **shown)).status_code == 401  # the proof is used up
    for wrong in (
        {"jti": "p2", "url": LOCAL + BATCH},
        {"jti": "p3", "method": "GET"},
        {"jti": "p4", "token": "another"},
        {"jti": "p5", "url": "https://evil.example" + EVALUATE},
    ):
        made = proof(signer, **{"token": "token", "clock": world.clock, **wrong})
        assert (await world.ask(EVALUATE, ASK, authorization="DPoP token", dpop=made)).status_code == 401
    other = Es256Signer("k", ec.generate_private_key(ec.SECP256R1()))
    made = proof(other, token="token", jti="p6", clock=world.clock)
    assert (await world.ask(EVALUATE, ASK, authorization="DPoP token", dpop=made)).status_code == 401
    assert (await world.ask(EVALUATE, ASK, authorization="Bearer token", dpop=made)).status_code == 401


# --- bad requests


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/xml", "application/json;charset=ascii"]
)
async def test_other_content_types_are_400(world, content_type):
    answer = await world.ask(EVALUATE, ASK, content_type=content_type, **certificate())
    assert answer.status_code == 400
    assert answer.text == "the content type is application/json"


async def test_encoded_bodies_are_400(world):
    assert (await world.ask(EVALUATE, ASK, content_encoding="gzip", **certificate())).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
        b" " * (64 * 1024 + 1),
        b"x" * 1_000_000,
        json.dumps({**ASK, "evaluations": [{}] * 10_000}).encode(),
        json.dumps({**ASK, "subject": "ann"}).encode(),
    ],
)
@pytest.mark.parametrize("path", [EVALUATE, BATCH, SEARCH])
async def test_bodies_that_are_400(world, body, path):
    if b"evaluations" in body and path != BATCH:
        return  # an unknown member there
    if b'"ann"' in body and path == SEARCH:
        body = body.replace(b'"ann"', b"7")
    answer = await world.ask(path, body, **certificate())
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/plain")
    assert 0 < len(answer.text) < 200


async def test_what_a_pep_may_not_ask_is_403_and_noted(world):
    secret = {**ASK, "resource": {"type": "secret", "id": "x"}}
    answer = await world.ask(EVALUATE, secret, **certificate())
    assert answer.status_code == 403
    assert world.notes[-1]["caller"] == RECORDS
    assert world.notes[-1]["error"] == "access_denied"
    answer = await world.ask(
        BATCH, {**secret, "evaluations": [{}, {"resource": ASK["resource"]}]}, **certificate()
    )
    assert [item["decision"] for item in answer.json()["evaluations"]] == [False, True]


async def test_without_a_record_there_is_no_answer(world):
    world.fails = True
    answer = await world.ask(EVALUATE, ASK, **certificate())
    assert (answer.status_code, answer.text) == (503, "try again in a moment")
    assert answer.headers["retry-after"] == "1"


async def test_another_method_is_refused(world):
    assert (await world.ask(EVALUATE, method="GET", **certificate())).status_code == 405


# --- the identifier of a request


@pytest.mark.parametrize("value", ["a" * 257, "", "\x7f", "a\tb", "é"])
async def test_identifiers_that_cannot_be_sent_back(world, value):
    answer = await world.ask(EVALUATE, ASK, x_request_id=value.encode("latin-1"), **certificate())
    assert answer.status_code == 400
    assert "x-request-id" not in answer.headers


@pytest.mark.parametrize("headers", [certificate(), {}, {**certificate(), "content_type": "x/y"}])
async def test_the_identifier_comes_back_whatever_the_answer(world, headers):
    answer = await world.ask(EVALUATE, ASK, x_request_id="bfe9eb29 ~!", **headers)
    assert answer.headers["x-request-id"] == "bfe9eb29 ~!"
    assert "x-request-id" not in (await world.ask(EVALUATE, ASK, **headers)).headers


# --- metadata


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:9443", "auth.example:8443", "", "a/b"]
)
async def test_a_foreign_name_gets_no_metadata(world, host):
    answer = await world.ask("/.well-known/authzen-configuration", method="GET", host=host)
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("host", "path", "pdp"),
    [
        ("127.0.0.1:8443", "", LOCAL),
        ("PDP.example:8443", "", "https://pdp.example:8443"),
        ("[::1]:8443", "", "https://[::1]:8443"),
        ("auth.example", "/shop", ISSUER),
    ],
)
async def test_the_metadata_names_the_url_that_was_used(world, host, path, pdp):
    answer = await world.ask("/.well-known/authzen-configuration" + path, method="GET", host=host)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert document["policy_decision_point"] == pdp
    assert document["access_evaluation_endpoint"] == pdp + EVALUATE
    path = document["search_subject_endpoint"].removeprefix("https://" + pdp.split("/")[2])
    query = {**ASK, "subject": {"type": "user"}}
    found = await world.ask(path, query, host=host, **certificate())
    assert [entity["id"] for entity in found.json()["results"]] == ["ann"]


# --- what was shown and refused is looked at


@pytest.mark.parametrize(
    "more",
    [{}, certificate(), {"dpop": "x"}],
    ids=["false", "with a certificate", "with a proof"],
)
async def test_a_refused_credential_is_looked_at(world, more):
    answer = await world.ask(EVALUATE, ASK, authorization=f"Bearer {KEY[:-1]}1", **more)
    assert answer.status_code in {400, 401}
    ((texts, shown),) = world.looked
    assert texts[0] == f"{KEY[:-1]}1"
    assert (shown.where, shown.caller) == ("authzen", None)


async def test_nothing_is_looked_at_where_nothing_was_shown_or_refused(world):
    assert (await world.ask(EVALUATE, ASK)).status_code == 401
    assert (await world.ask(EVALUATE, ASK, **certificate())).status_code == 200
    assert world.looked == []
