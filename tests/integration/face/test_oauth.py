# SPDX-License-Identifier: Apache-2.0
"""The OAuth endpoints through the real face: what the RFCs say, clause by clause; the refusals first."""

import base64
import hashlib
import json
import time
from datetime import timedelta
from urllib.parse import urlencode

import jwt
import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwk as joserfc_jwk, jwt as joserfc_jwt
from tests.support.face_under_test import FaceUnderTest

from everyhop.anomaly.model import Block, BlockMode, Blocks, Subject
from everyhop.x509.certificates import certificates_to_pem

CC = {"grant_type": "client_credentials"}
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
API_KEY = "urn:everyhop:params:oauth:grant-type:api-key"
JWT_SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
TXN = "urn:ietf:params:oauth:token-type:txn_token"


@pytest.fixture(scope="module")
def storefront(face):
    return face.svid("storefront")


@pytest.fixture(scope="module")
def orders(face):
    return face.svid("orders")


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Prover:
    """A client's DPoP key (RFC 9449), written with PyJWT."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        numbers = self.key.public_key().public_numbers()
        self.jwk = {
            "kty": "EC",
            "crv": "P-256",
            "x": b64(numbers.x.to_bytes(32, "big")),
            "y": b64(numbers.y.to_bytes(32, "big")),
        }
        canonical = json.dumps({k: self.jwk[k] for k in ("crv", "kty", "x", "y")}, separators=(",", ":"))
        self.jkt = b64(hashlib.sha256(canonical.encode()).digest())

    def proof(self, url, *, htm="POST", age=0, jti=None, header=None, key=None, typ="dpop+jwt"):
        claims = {
            "jti": jti or b64(hashlib.sha256(repr(time.monotonic_ns()).encode()).digest()[:12]),
            "htm": htm,
            "htu": url,
            "iat": int(time.time()) - age,
        }
        return jwt.encode(
            claims, key or self.key, "ES256", headers={"typ": typ, "jwk": self.jwk, **(header or {})}
        )


def refused(answer, error, status=400):
    """Check the form of a refusal (RFC 6749 section 5.2)."""
    assert answer.status == status, answer
    assert answer.header("content-type") == "application/json"
    assert answer.header("cache-control") == "no-store"
    assert answer.header("pragma") == "no-cache"
    body = answer.json
    assert set(body) == {"error", "error_description"}
    assert body["error"] == error, body
    assert all(32 <= ord(c) <= 126 and c not in '"\\' for c in body["error_description"])
    return body["error_description"]


# --- the blocked


@pytest.mark.parametrize("text", ["identity:spiffe://shop.example/service/storefront", "address:127.0.0.1"])
@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/introspect", "/oauth/revoke"])
def test_a_blocked_client_or_address_gets_nothing_else(face, storefront, path, text):
    form = {**CC, "audience": "orders", "token": "x"}
    now = face.clock.now()
    held = Block(
        subject=Subject.parse(text),
        mode=BlockMode.BLOCK,
        since=now,
        until=now + timedelta(seconds=60),
        reason="test",
        by="test",
    )
    face.blocks.put(Blocks.build([held], sequence=face.blocks().sequence + 1))
    try:
        answer = face.form(path, form, held=storefront)
        assert refused(answer, "temporarily_unavailable", 429) == "blocked"
        assert 1 <= int(answer.header("retry-after")) <= 61
    finally:
        face.blocks.put(Blocks(sequence=face.blocks().sequence + 1))
    assert face.form(path, form, held=storefront).status != 429


# --- RFC 6749: the request


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "invalid_request"),
        ({"grant_type": ""}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "authorization_code", "code": "x"}, "unsupported_grant_type"),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, "unsupported_grant_type"),
        ({"grant_type": "CLIENT_CREDENTIALS"}, "unsupported_grant_type"),
        (CC, "invalid_target"),
        ({**CC, "audience": "nowhere"}, "invalid_target"),
        ({**CC, "audience": "spiffe://shop.example/service/nowhere"}, "invalid_target"),
        ({**CC, "audience": "spiffe://other.example/service/orders"}, "invalid_target"),
        ({**CC, "audience": "orders", "resource": "payments"}, "invalid_target"),
        ({**CC, "resource": "spiffe://shop.example/service/orders#list"}, "invalid_target"),
        ({**CC, "audience": "payments"}, "invalid_target"),  # nothing granted there
        ({**CC, "audience": "payments#charge"}, "invalid_target"),
        ({**CC, "audience": "orders#nothing"}, "invalid_target"),
        ({**CC, "audience": "orders", "scope": "orders.create"}, "invalid_scope"),
        ({**CC, "audience": "orders", "scope": "orders.list orders.create"}, "invalid_scope"),
        ({**CC, "audience": "orders", "scope": "payments.charge"}, "invalid_scope"),
        ({**CC, "audience": "orders", "scope": 'a"b'}, "invalid_scope"),
    ],
)
def test_requests_that_are_refused(face, storefront, form, error):
    refused(face.form("/oauth/token", form, held=storefront), error)


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/introspect", "/oauth/revoke"])
@pytest.mark.parametrize(
    "body",
    [
        [("grant_type", "client_credentials"), ("grant_type", "client_credentials")],
        [("token", "a"), ("token", "b")],
        [("client_id", "a"), ("client_id", "a")],
        b"grant_type=client_credentials&audience=%zz",
        b"grant_type=client_credentials&audience=%ff",
        b"grant_type=client_credentials&audience=a%00b",
    ],
)
def test_forms_that_could_be_read_twice(face, storefront, path, body):
    refused(face.form(path, body, held=storefront), "invalid_request")


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/introspect", "/oauth/revoke"])
@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "text/plain",
        "multipart/form-data",
        "application/x-www-form-urlencoded; charset=latin-1",
    ],
)
def test_another_content_type(face, storefront, path, content_type):
    body = urlencode({**CC, "audience": "orders", "token": "x"}).encode()
    refused(face.form(path, body, held=storefront, content_type=content_type), "invalid_request")


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/introspect", "/oauth/revoke"])
def test_nothing_is_read_from_the_query(face, storefront, path):
    query = urlencode({**CC, "audience": "orders", "token": "x", "access_token": "x"})
    refused(
        face.form(f"{path}?{query}", {**CC, "audience": "orders", "token": "x"}, held=storefront),
        "invalid_request",
    )


# --- RFC 6749 section 2.3, RFC 8705, RFC 7521: the client


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/introspect", "/oauth/revoke"])
def test_clients_that_are_refused(face, storefront, path):
    form = {**CC, "audience": "orders", "token": "x"}
    refused(face.form(path, form), "invalid_client", 401)
    refused(face.form(path, {**form, "client_id": storefront.spiffe_id}), "invalid_client", 401)
    refused(
        face.form(path, {**form, "client_id": face.spiffe_id("orders")}, held=storefront),
        "invalid_client",
        401,
    )
    secret = {**form, "client_id": storefront.spiffe_id, "client_secret": "hunter2-hunter2"}
    answer = face.form(path, secret, held=storefront)
    refused(answer, "invalid_client", 401)
    assert b"hunter2" not in answer.body


@pytest.mark.parametrize(("value", "scheme"), [("Basic YTpodW50ZXIy", "Basic"), ("Bearer hunter2", "Bearer")])
def test_the_authorization_header_is_no_way_to_authenticate(face, storefront, value, scheme):
    answer = face.form(
        "/oauth/token", {**CC, "audience": "orders"}, held=storefront, headers=[("authorization", value)]
    )
    refused(answer, "invalid_client", 401)
    assert answer.header("www-authenticate") == f'{scheme} realm="everyhop"'
    assert b"hunter2" not in answer.body


def test_the_face_s_own_identity_is_no_client(face):
    from tests.support.face_under_test import Held

    from everyhop.spiffe import SpiffeId
    from everyhop.x509.csr import build_csr
    from everyhop.x509.keys import encode_private_key, generate_private_key

    key = generate_private_key()
    own = "spiffe://shop.example/everyhop/server"
    issued = face.authority.issue_x509(SpiffeId.parse(own), build_csr(key))
    held = Held(own, issued.chain_der, encode_private_key(key).reveal())
    refused(face.token(held, audience="orders"), "invalid_client", 401)


def assertion(face, service="storefront", *audience, **more):
    token = face.jwt_svid(service, *(audience or (face.issuer,)), **more)
    return {**CC, "audience": "orders", "client_assertion_type": JWT_SPIFFE, "client_assertion": token}


def test_assertions_that_are_refused(face, storefront):
    proof = [("dpop", Prover().proof(face.url + "/oauth/token"))]

    def ask(form, **more):
        return face.form("/oauth/token", form, headers=proof, **more)

    refused(ask(assertion(face, "storefront", "https://elsewhere.example")), "invalid_client", 401)
    refused(
        ask(assertion(face, "storefront", face.issuer, "https://elsewhere.example")), "invalid_client", 401
    )
    refused(ask(assertion(face, "storefront", face.issuer + "/")), "invalid_client", 401)
    other_type = {
        **assertion(face),
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    }
    refused(ask(other_type), "invalid_client", 401)
    for broken in ("x", "a.b.c", assertion(face)["client_assertion"][:-4] + "AAAA"):
        answer = ask({**assertion(face), "client_assertion": broken})
        refused(answer, "invalid_client", 401)
    refused(
        ask({k: v for k, v in assertion(face).items() if k != "client_assertion_type"}), "invalid_client", 401
    )
    refused(ask({**assertion(face), "client_id": face.spiffe_id("orders")}), "invalid_client", 401)
    refused(ask(assertion(face), held=storefront), "invalid_request")  # two ways at once
    over = assertion(face, "storefront", face.issuer, ttl=timedelta(seconds=1))
    time.sleep(1.1)
    refused(ask(over), "invalid_client", 401)


def test_an_access_token_of_ours_is_no_assertion(face, storefront):
    token = face.token(storefront, audience="orders").json["access_token"]
    form = {**assertion(face), "client_assertion": token}
    refused(face.form("/oauth/token", form), "invalid_client", 401)


# --- RFC 9449: DPoP


def test_proofs_that_are_refused(face, storefront):
    url, prover = face.url + "/oauth/token", Prover()
    good = prover.proof(url)
    bad = {
        "nothing": None,
        "no token": "x",
        "two": [good, prover.proof(url)],
        "another address": prover.proof(face.url + "/oauth/introspect"),
        "another host": prover.proof("https://elsewhere.example/oauth/token"),
        "another method": prover.proof(url, htm="GET"),
        "old": prover.proof(url, age=120),
        "of the future": prover.proof(url, age=-120),
        "another key": prover.proof(url, key=Prover().key),
        "another type": prover.proof(url, typ="jwt"),
        "private key": prover.proof(url, header={"jwk": {**prover.jwk, "d": "AAAA"}}),
    }
    for what, proof in bad.items():
        proofs = [] if proof is None else proof if isinstance(proof, list) else [proof]
        answer = face.form("/oauth/token", assertion(face), headers=[("dpop", p) for p in proofs])
        refused(answer, "invalid_dpop_proof"), what
    assert face.form("/oauth/token", assertion(face), headers=[("dpop", good)]).status == 200
    refused(face.form("/oauth/token", assertion(face), headers=[("dpop", good)]), "invalid_dpop_proof")


@pytest.mark.parametrize("audience", ["", "/oauth/token"])
def test_an_assertion_with_a_proof(face, audience):
    prover = Prover()
    answer = face.form(
        "/oauth/token",
        assertion(face, "storefront", face.issuer + audience),
        headers=[("dpop", prover.proof(face.url + "/oauth/token"))],
    )
    assert answer.status == 200, answer
    assert answer.json["token_type"] == "DPoP"
    assert verified(face, answer.json["access_token"])["cnf"] == {"jkt": prover.jkt}


def test_a_certificate_with_a_proof_is_bound_to_the_proof(face, storefront):
    prover = Prover()
    answer = face.form(
        "/oauth/token",
        {**CC, "audience": "orders"},
        held=storefront,
        headers=[("dpop", prover.proof(face.url + "/oauth/token"))],
    )
    assert answer.json["token_type"] == "DPoP"
    assert verified(face, answer.json["access_token"])["cnf"] == {"jkt": prover.jkt}


# --- RFC 6749 section 4.4, RFC 8705, RFC 9068: the token


def verified(face, token, *, audience="orders"):
    """Verify with PyJWT by the JWKS as it is served."""
    keys = jwt.PyJWKSet.from_dict(face.call("GET", "/jwks").json)
    header = jwt.get_unverified_header(token)
    key = next(k for k in keys.keys if k.key_id == header["kid"])
    return jwt.decode(token, key, algorithms=["ES256"], audience=audience, issuer=face.issuer)


@pytest.mark.parametrize(
    "asked",
    [
        {"audience": "orders"},
        {"audience": "spiffe://shop.example/service/orders"},
        {"resource": "spiffe://shop.example/service/orders"},
        {"audience": "orders", "scope": "orders.list"},
        {"scope": "orders.list"},
        {"audience": "orders", "scope": "list"},
        {"audience": "orders", "unknown": "ignored", "empty": ""},
    ],
)
def test_client_credentials_by_certificate(face, storefront, asked):
    answer = face.token(storefront, client_id=storefront.spiffe_id, **asked)
    assert answer.status == 200, answer
    assert answer.header("cache-control") == "no-store"
    assert answer.header("content-type") == "application/json"
    body = answer.json
    assert set(body) == {"access_token", "token_type", "expires_in", "scope"}
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 300, "orders.list")
    assert jwt.get_unverified_header(body["access_token"])["typ"] == "at+jwt"
    claims = verified(face, body["access_token"])
    assert claims["sub"] == claims["client_id"] == storefront.spiffe_id
    assert claims["cnf"] == {"x5t#S256": b64(hashlib.sha256(storefront.chain[0]).digest())}


def test_an_audience_of_one_operation(face, orders):
    token = face.token(orders, audience="payments#charge").json["access_token"]
    assert verified(face, token, audience="payments#charge")["scope"] == "payments.charge"


def test_joserfc_verifies_too(face, storefront):
    token = face.token(storefront, audience="orders").json["access_token"]
    keys = joserfc_jwk.KeySet.import_key_set(face.call("GET", "/jwks").json)
    assert joserfc_jwt.decode(token, keys, algorithms=["ES256"]).claims["aud"] == "orders"


# --- RFC 8693: exchange


def exchange(face, held, **parameters):
    return face.form("/oauth/token", {"grant_type": EXCHANGE, **parameters}, held=held)


def test_exchanges_that_are_refused(face, storefront, orders):
    received = face.token(storefront, audience="orders").json["access_token"]
    given = {"subject_token": received, "subject_token_type": ACCESS}
    refused(exchange(face, orders), "invalid_request")
    refused(exchange(face, orders, subject_token=received), "invalid_request")
    refused(exchange(face, orders, subject_token_type=ACCESS), "invalid_request")
    refused(exchange(face, orders, **given), "invalid_target")
    refused(exchange(face, orders, **given, audience="nowhere"), "invalid_target")
    refused(exchange(face, orders, **given, audience="payments#refund"), "invalid_target")
    refused(
        exchange(face, orders, **given, audience="payments#charge", scope="payments.refund"), "invalid_scope"
    )
    refused(
        exchange(face, orders, **given, audience="payments#charge", requested_token_type="urn:x"),
        "invalid_request",
    )
    refused(
        exchange(face, orders, **{**given, "subject_token_type": "urn:x"}, audience="payments#charge"),
        "invalid_request",
    )
    refused(
        exchange(face, orders, **{**given, "subject_token": "x"}, audience="payments#charge"),
        "invalid_request",
    )
    refused(
        exchange(face, orders, **given, audience="payments#charge", actor_token=received), "invalid_request"
    )
    refused(exchange(face, orders, **given, requested_token_type=TXN), "invalid_request")
    refused(exchange(face, orders, **given, requested_token_type=TXN, audience="orders"), "invalid_target")
    # The thief: another service with its own valid certificate.
    refused(exchange(face, face.svid("stranger"), **given, audience="payments#charge"), "invalid_request")
    assert received.encode() not in exchange(face, orders, **given, audience="nowhere").body


def test_an_exchange_names_who_acts(face, storefront, orders):
    received = face.token(storefront, audience="orders").json["access_token"]
    answer = exchange(
        face, orders, subject_token=received, subject_token_type=ACCESS, audience="payments#charge"
    )
    assert answer.status == 200, answer
    body = answer.json
    assert set(body) == {"access_token", "issued_token_type", "token_type", "expires_in", "scope"}
    assert body["issued_token_type"] == ACCESS
    claims = verified(face, body["access_token"], audience="payments#charge")
    assert claims["sub"] == storefront.spiffe_id
    assert claims["client_id"] == claims["act"]["sub"] == orders.spiffe_id
    assert body["expires_in"] <= 300


@pytest.fixture(scope="module")
def api_key(face):
    """A key for the edge, from one address only."""
    created = face.api_keys.create(
        owner="partner", scopes=["edge.enter"], environment="test", sources=["192.0.2.0/24"]
    )
    return created.key.reveal().decode()


def test_an_api_key_of_the_edge_becomes_a_transaction(face, api_key):
    edge, orders = face.svid("edge"), face.svid("orders")
    form = {"grant_type": API_KEY, "api_key": api_key, "source": "192.0.2.7"}
    answer = face.form("/oauth/token", form, held=edge)
    assert answer.status == 200, answer
    body = answer.json
    assert (body["issued_token_type"], body["token_type"]) == (TXN, "N_A")
    claims = verified(face, body["access_token"], audience="shop.example")
    assert jwt.get_unverified_header(body["access_token"])["typ"] == "txntoken+jwt"
    assert claims["sub"].startswith("apikey:")
    assert claims["req_wl"] == edge.spiffe_id
    assert claims["rctx"] == {"ip": "192.0.2.7"}

    # The next hop narrows it, and has an access token on the client's behalf.
    given = {"subject_token": body["access_token"], "subject_token_type": TXN}
    narrower = exchange(face, orders, **given, requested_token_type=TXN, audience="shop.example")
    assert verified(face, narrower.json["access_token"], audience="shop.example")["txn"] == claims["txn"]
    refused(
        exchange(face, orders, **given, requested_token_type=TXN, scope="edge.enter more"), "invalid_scope"
    )
    refused(exchange(face, orders, **given, requested_token_type=TXN, roles="admin"), "invalid_scope")
    refused(exchange(face, face.svid("stranger"), **given, requested_token_type=TXN), "unauthorized_client")

    # And the same by the standard's own grant.
    key_type = "urn:everyhop:params:oauth:token-type:api_key"
    same = {"subject_token": api_key, "subject_token_type": key_type, "source": "192.0.2.7"}
    assert exchange(face, edge, **same, requested_token_type=TXN).status == 200


@pytest.mark.parametrize("source", [None, "198.51.100.1"])
def test_an_api_key_from_elsewhere(face, api_key, source):
    form = {"grant_type": API_KEY, "api_key": api_key, **({} if source is None else {"source": source})}
    refused(face.form("/oauth/token", form, held=face.svid("edge")), "invalid_request")


def test_an_api_key_away_from_the_edge(face, api_key, orders):
    form = {"grant_type": API_KEY, "api_key": api_key, "source": "192.0.2.7"}
    refused(face.form("/oauth/token", form, held=orders), "unauthorized_client")


def test_an_outside_client_with_a_proof_alone(face, api_key):
    """Its key is taken at the edge; here, nobody without an SVID is a client."""
    proof = Prover().proof(face.url + "/oauth/token")
    answer = face.form("/oauth/token", {"grant_type": API_KEY, "api_key": api_key}, headers=[("dpop", proof)])
    refused(answer, "invalid_client", 401)
    assert api_key.encode() not in answer.body


def test_api_keys_that_are_refused(face, storefront):
    form = {"grant_type": API_KEY, "api_key": "eh_live_sk_hunter2"}
    refused(face.form("/oauth/token", form), "invalid_client", 401)
    answer = face.form("/oauth/token", form, held=face.svid("edge"))
    refused(answer, "invalid_request")
    assert b"hunter2" not in answer.body
    refused(face.form("/oauth/token", {"grant_type": API_KEY}, held=face.svid("edge")), "invalid_request")


# --- RFC 7662: introspection


def test_introspection(face, storefront, orders):
    token = face.token(storefront, audience="orders").json["access_token"]
    refused(face.form("/oauth/introspect", {}, held=orders), "invalid_request")
    refused(face.form("/oauth/introspect", {"token": token}), "invalid_client", 401)
    answer = face.form("/oauth/introspect", {"token": token, "token_type_hint": "refresh_token"}, held=orders)
    assert answer.status == 200
    assert answer.header("cache-control") == "no-store"
    claims = verified(face, token)
    said = answer.json
    assert said["active"] is True
    assert {k: said[k] for k in ("iss", "sub", "client_id", "aud", "scope", "jti", "iat", "exp", "cnf")} == {
        k: claims[k] for k in ("iss", "sub", "client_id", "aud", "scope", "jti", "iat", "exp", "cnf")
    }
    assert face.form("/oauth/introspect", {"token": token}, held=storefront).json["active"] is True
    for asker, what in ((face.svid("stranger"), token), (orders, "x"), (orders, token[:-4] + "AAAA")):
        answer = face.form("/oauth/introspect", {"token": what}, held=asker)
        assert (answer.status, answer.json) == (200, {"active": False})


# --- RFC 7009: revocation


def test_revocation(face, storefront, orders):
    token = face.token(storefront, audience="orders").json["access_token"]
    refused(face.form("/oauth/revoke", {}, held=storefront), "invalid_request")
    refused(face.form("/oauth/revoke", {"token": token}), "invalid_client", 401)
    refused(face.form("/oauth/revoke", {"token": token}, held=orders), "unauthorized_client")
    assert face.form("/oauth/introspect", {"token": token}, held=orders).json["active"] is True
    for _ in range(2):  # a token that is over is revoked as well as any (section 2.2)
        answer = face.form("/oauth/revoke", {"token": token, "token_type_hint": "x"}, held=storefront)
        assert (answer.status, answer.body) == (200, b"")
        assert answer.header("cache-control") == "no-store"
    assert face.form("/oauth/introspect", {"token": token}, held=orders).json == {"active": False}
    assert face.form("/oauth/revoke", {"token": "unknown"}, held=storefront).status == 200
    received = {"subject_token": token, "subject_token_type": ACCESS}
    refused(exchange(face, orders, **received, audience="payments#charge"), "invalid_request")


# --- RFC 7517, RFC 8414, OpenID Connect Discovery


def test_the_jwks_is_cached_as_long_as_it_says(face):
    answer = face.call("GET", "/jwks")
    assert answer.status == 200
    assert answer.header("content-type") == "application/jwk-set+json"
    assert answer.header("cache-control") == "public, max-age=300"
    tag = answer.header("etag")
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        again = face.call("GET", "/jwks", headers=[("if-none-match", known)])
        assert (again.status, again.body, again.header("etag")) == (304, b"", tag)
    assert face.call("GET", "/jwks", headers=[("if-none-match", '"x"')]).status == 200
    head = face.call("HEAD", "/jwks")
    assert (head.status, head.body) == (200, b"")
    for key in answer.json["keys"]:
        assert not {"d", "p", "q", "k"} & set(key)
        assert {"kid", "alg", "use", "kty"} <= set(key)


def test_the_jwks_follows_the_state():
    with FaceUnderTest(jwks_max_age=timedelta(seconds=7)) as own:
        first = own.call("GET", "/jwks")
        assert first.header("cache-control") == "public, max-age=7"
        own.keys.prepare()
        second = own.call("GET", "/jwks", headers=[("if-none-match", first.header("etag"))])
        assert second.status == 200
        assert len(second.json["keys"]) == len(first.json["keys"]) + 1


def test_metadata(face):
    answer = face.call("GET", "/.well-known/oauth-authorization-server")
    assert answer.header("content-type") == "application/json"
    metadata = AuthorizationServerMetadata(answer.json)
    metadata.validate()
    assert metadata["issuer"] == face.issuer
    assert metadata["tls_client_certificate_bound_access_tokens"] is True
    for member in ("token_endpoint", "jwks_uri", "introspection_endpoint", "revocation_endpoint"):
        assert metadata[member].startswith(face.issuer + "/")
    openid = face.call("GET", "/.well-known/openid-configuration").json
    assert openid["issuer"] == face.issuer
    assert openid["jwks_uri"] == metadata["jwks_uri"]
    assert openid["id_token_signing_alg_values_supported"] == ["ES256"]


def test_an_issuer_with_a_path():
    with FaceUnderTest(issuer="https://auth.shop.example/mesh") as own:
        for path in (
            "/.well-known/oauth-authorization-server/mesh",
            "/mesh/.well-known/openid-configuration",
            "/.well-known/oauth-authorization-server",
        ):
            assert own.call("GET", path).json["issuer"] == "https://auth.shop.example/mesh"
        assert own.call("GET", "/mesh/jwks").json == own.call("GET", "/jwks").json
        held = own.svid("storefront")
        answer = own.form("/mesh/oauth/token", {**CC, "audience": "orders"}, held=held)
        assert verified(own, answer.json["access_token"])["iss"] == "https://auth.shop.example/mesh"
        prover = Prover()
        for url in (own.url + "/oauth/token", "https://auth.shop.example/mesh/oauth/token"):
            form = assertion(own, "storefront", own.issuer)
            assert own.form("/oauth/token", form, headers=[("dpop", prover.proof(url))]).status == 200


def test_pyjwt_s_client_finds_the_key(face, storefront, tmp_path):
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(certificates_to_pem(face.authority.bundle().x509_authorities))
    token = face.token(storefront, audience="orders").json["access_token"]
    client = jwt.PyJWKClient(face.url + "/jwks", ssl_context=face.context())
    key = client.get_signing_key_from_jwt(token)
    assert (
        jwt.decode(token, key, algorithms=["ES256"], audience="orders", issuer=face.issuer)["aud"] == "orders"
    )


# --- records


def test_refusals_are_recorded_without_secrets():
    with FaceUnderTest() as own:
        held = own.svid("storefront")
        own.token(held, audience="nowhere")
        own.token(held, audience="orders", scope="orders.create")
        own.form("/oauth/token", {**CC, "client_secret": "hunter2"}, held=held)
        own.form("/oauth/token", {"grant_type": "password", "password": "hunter2"})
        own.form("/oauth/token", {**CC, "audience": "orders"})
        own.token(held, audience="orders")
        records = own.records()
        errors = [r.detail.get("error") for r in records if r.decision == "deny"]
        assert errors == [
            "invalid_target",
            "invalid_scope",
            "invalid_client",
            "unsupported_grant_type",
            "invalid_client",
        ]
        assert "hunter2" not in repr(records)
        assert [r.caller for r in records[:2]] == [held.spiffe_id] * 2
        assert records[-2].detail["source"] == "127.0.0.1"


def test_strangers_cannot_fill_the_audit_log():
    with FaceUnderTest() as own:
        context = own.context()
        import http.client

        with own.connect(context) as secure:
            connection = http.client.HTTPConnection("127.0.0.1")
            connection.sock = secure
            for _ in range(300):
                connection.request(
                    "POST",
                    "/oauth/token",
                    body=b"grant_type=x",
                    headers={"content-type": "application/x-www-form-urlencoded"},
                )
                assert connection.getresponse().read()
        assert 90 <= len(own.records()) <= 150
