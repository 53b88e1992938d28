# SPDX-License-Identifier: Apache-2.0
"""The same requests at six points: pure engine, our sidecar, foreign Envoy over gRPC and HTTP, nginx, Traefik's protocol.

Conditions and users included.  Status and code are the same everywhere, and so are reason, rule and operation in the
records.  Traefik itself cannot be had here: a small client speaks its protocol.
"""

import contextlib
import http.client
import json
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote_from_bytes

import pytest
from tests.integration.proxies.conftest import start_proxy
from tests.support.blocking import MeshBlocks, Now, block_of
from tests.support.envoy_pair import exchange, request_bytes, wait_for
from tests.support.foreign_proxies import NGINX
from tests.support.tokens import mint_txn

from everyhop.anomaly.blocks_codec import encode_blocks
from everyhop.anomaly.looking import find_block
from everyhop.anomaly.model import Blocks
from everyhop.api.ext_authz import ExternalAuthorization, authorization_server
from everyhop.authz import Engine
from everyhop.control.deciding import user_of
from everyhop.core.decision import Reason
from everyhop.policy.facts import Context
from everyhop.wire.sockets import UnixListener
from everyhop.x509.certificates import certificates_to_pem
from everyhop.x509.csr import build_csr
from everyhop.x509.keys import generate_private_key

POLICY = """\
version: 1
trust_domain: shop.example
attributes:
  request: {headers: [x-region]}
roles:
  viewer: [orders.mine]
  clerk: {includes: [viewer], grants: [orders.refund]}
services:
  storefront: {}
  stranger: {}
  web: {}
  orders:
    operations:
      list: GET /orders
      read: GET /orders/{id}
      create: POST /orders
      admin: GET /admin
      region: GET /region
      mine: GET /mine
      refund: POST /refund/{id}
    probes: [GET /healthz]
allow:
  - {from: [storefront, web], to: orders, operations: [list, read, create]}
  - {from: storefront, to: orders, operations: [region], when: "request.headers['x-region'] in ['eu', 'us']"}
  - {from: storefront, to: orders, operations: [mine], user: required}
  - {from: storefront, to: orders, operations: [refund], user: required, when: "request.path_params.id != '0'"}
deny:
  - {from: web, to: orders, operations: [create], reason: the web only reads}
"""
EU = ("X-Region", "eu")


@dataclass(frozen=True)
class Role:
    """Stands for the token of a user with this role, which is made when it is needed: it is good for minutes only."""

    name: str


def with_tokens(headers):
    return tuple((name, txn(value.name) if isinstance(value, Role) else value) for name, value in headers)


def txn(*roles):
    now = int(time.time())
    return mint_txn(
        iat=now - 5,
        exp=now + 295,
        tctx={"idp": "https://idp.example", "kind": "user", "roles": list(roles)},
    )


REQUESTS = [
    ("an unknown operation", "storefront", "GET", "/nothing", ()),
    ("another method", "storefront", "PUT", "/orders", ()),
    ("no rule", "storefront", "GET", "/admin", ()),
    ("a stranger", "stranger", "GET", "/orders", ()),
    ("an undeclared caller", "nobody", "GET", "/orders", ()),
    ("a deny rule", "web", "POST", "/orders", ()),
    ("an empty segment", "storefront", "GET", "//orders", ()),
    ("an encoded letter", "storefront", "GET", "/%6frders", ()),
    ("a parameter", "storefront", "GET", "/orders;x", ()),
    ("a trailing slash", "storefront", "GET", "/orders/", ()),
    ("a condition without its header", "storefront", "GET", "/region", ()),
    ("a condition that does not hold", "storefront", "GET", "/region", (("X-Region", "cn"),)),
    ("a condition with two values", "storefront", "GET", "/region", (EU, ("X-Region", "us"))),
    ("a condition for another caller", "web", "GET", "/region", (EU,)),
    ("no user", "storefront", "GET", "/mine", ()),
    ("a user without a role", "storefront", "GET", "/mine", (("Txn-Token", Role("nobody")),)),
    ("a user whose role does not do", "storefront", "POST", "/refund/7", (("Txn-Token", Role("viewer")),)),
    (
        "a user, and a condition that fails",
        "storefront",
        "POST",
        "/refund/0",
        (("Txn-Token", Role("clerk")),),
    ),
    ("a forged user", "storefront", "GET", "/mine", (("X-Everyhop-User", "alice"),)),
    ("allowed", "storefront", "GET", "/orders", ()),
    ("allowed with a query", "web", "GET", "/orders/7?a=/../b", ()),
    ("a probe", "web", "GET", "/healthz", ()),
    ("a condition that holds", "storefront", "GET", "/region", (EU,)),
    ("a user with a role", "storefront", "GET", "/mine", (("Txn-Token", Role("viewer")),)),
    ("a user with an inherited role", "storefront", "GET", "/mine", (("Txn-Token", Role("clerk")),)),
    ("a user and a condition", "storefront", "POST", "/refund/7", (("Txn-Token", Role("clerk")),)),
]
CODES = {
    Reason.AMBIGUOUS_PATH: (400, "AMBIGUOUS_PATH"),
    Reason.USER_REQUIRED: (401, "USER_REQUIRED"),
}


class Points:
    """Every point that can be asked, with the engine's own answer."""

    def __init__(self, mesh, authorizer, proxies):
        self.mesh, self.authorizer, self.proxies = mesh, authorizer, proxies
        self.engine = Engine(mesh.snapshot)

    def pure(self, caller, method, path, headers):
        verifier = self.authorizer.worker.credentials._verifier
        token = dict(headers).get("Txn-Token")
        context = Context(
            now=datetime.now(UTC),
            user=None
            if token is None
            else user_of(verifier.transaction(token), self.mesh.snapshot.attributes.of("user")),
            headers={"x-region": tuple(value for name, value in headers if name == "X-Region")}
            if any(name == "X-Region" for name, _ in headers)
            else {},
            source_ip="127.0.0.1",
        )
        decision = self.engine.decide(
            caller=self.mesh.spiffe_id(caller), target="orders", method=method, path=path, context=context
        )
        return decision, (200, "") if decision.is_allowed else CODES.get(
            decision.reason, (403, "ACCESS_DENIED")
        )

    def asked(self, form, caller, method, path, headers):
        """Return (status, code) and the record at a point."""
        if form == "traefik":
            return self._traefik(caller, method, path, headers)
        request = request_bytes(method, path, headers=headers)
        context = self.mesh.client(caller)
        if form == "sidecar":
            with self.mesh.connect("orders", context) as connection:
                status, answered, body = exchange(connection, request)
        else:
            with self.proxies[form][0].connect(context) as connection:
                status, answered, body = exchange(connection, request)
        decision = answered.get("x-everyhop-decision") or answered["x-seen-decision"]
        point = self.mesh.sidecars["orders"] if form == "sidecar" else self.proxies[form][1]
        return (status, "" if status == 200 else json.loads(body)["code"]), point.record(decision)

    def _traefik(self, caller, method, path, headers):
        leaf = self.mesh.authority.sign(self.mesh.spiffe_id(caller), build_csr(generate_private_key())).chain[
            0
        ]
        said = [
            ("X-Forwarded-Method", method),
            ("X-Forwarded-Uri", path),
            ("X-Forwarded-Host", "orders.shop.example"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Tls-Client-Cert", quote_from_bytes(certificates_to_pem([leaf]))),
            *headers,
        ]
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(self.authorizer.http))
            sock.sendall(request_bytes("GET", "/traefik/orders", headers=said))
            answer = http.client.HTTPResponse(sock)
            answer.begin()
            body = answer.read()
        decision = answer.getheader("x-everyhop-decision")
        code = "" if answer.status == 200 else json.loads(body)["code"]
        return (answer.status, code), self.authorizer.record(decision)


@pytest.fixture(scope="module")
def points(mesh, authorizer, by_xfcc):
    if NGINX is None:
        pytest.skip("no nginx on this machine (`make peers` installs it)")

    async def serve():
        made.append(authorization_server(ExternalAuthorization(authorizer.worker.credentials, mesh)))
        made.append(UnixListener.bind(mesh.root / "authz.sock", mode=0o600))
        await made[0].start(made[1])

    async def stop():
        await made[0].close()
        made[1].close()

    made = []
    mesh.call(serve)
    mesh.sidecar("orders")
    proxies = {}
    for form in ("envoy", "envoy-http", "nginx"):
        proxies[form] = (
            start_proxy(mesh, form, authorizer, by_xfcc),
            by_xfcc if form == "envoy-http" else authorizer,
        )
    yield Points(mesh, authorizer, proxies)
    for proxy, _ in proxies.values():
        proxy.stop()
    mesh.call(stop)


@pytest.mark.parametrize("form", ["sidecar", "envoy", "envoy-http", "nginx", "traefik"])
@pytest.mark.parametrize("asking", REQUESTS, ids=[name for name, *_ in REQUESTS])
def test_the_same_everywhere(points, asking, form):
    _, caller, method, path, headers = asking
    headers = with_tokens(headers)
    decision, expected = points.pure(caller, method, path, headers)
    answered, record = points.asked(form, caller, method, path, headers)
    assert answered == expected
    assert (record.decision, record.reason, record.rule, record.operation) == (
        decision.effect,
        decision.reason,
        decision.rule,
        decision.operation,
    )
    assert record.snapshot in {decision.snapshot, decision.snapshot[:16]}


@pytest.mark.parametrize(
    ("blocked", "caller", "path", "headers"),
    [
        ("identity:spiffe://shop.example/service/storefront", "storefront", "/orders", ()),
        ("identity:spiffe://shop.example/service/storefront", "storefront", "//orders", ()),
        ("identity:spiffe://shop.example/service/storefront", "storefront", "/admin", ()),
        ("identity:spiffe://shop.example/service/nobody", "nobody", "/orders", ()),
        ("user:alice", "storefront", "/mine", (("Txn-Token", Role("viewer")),)),
    ],
    ids=["allowed otherwise", "ambiguous", "denied otherwise", "undeclared", "a user"],
)
@pytest.mark.parametrize("form", ["sidecar", "envoy", "envoy-http", "nginx", "traefik"])
def test_the_blocked_are_refused_alike(points, form, blocked, caller, path, headers):
    """What the pure question says (:func:`find_block`) is what each point does, before the policy has its say."""
    with blocking(points, block_of(blocked)) as held:
        user = "alice" if headers else None
        assert find_block(held, Now().now(), identity=points.mesh.spiffe_id(caller), subject=user)
        answered, record = points.asked(form, caller, "GET", path, with_tokens(headers))
        assert answered == (429, "BLOCKED")
        assert (record.decision, record.reason, record.rule, record.status) == ("deny", "blocked", None, 429)
        told = {"block": "user", "user": "alice"} if headers else {"block": blocked}
        assert {key: record.detail.get(key) for key in told} == told
        other = points.asked(form, "web", "GET", "/orders", ())
        assert other[0] == (200, "")
    if headers or (path == "/orders" and caller == "storefront"):
        assert points.asked(form, caller, "GET", path, with_tokens(headers))[0] == (200, "")


@contextlib.contextmanager
def blocking(points, *found):
    """Have these in force at every point."""
    held = Blocks.build(found, sequence=1)
    workers = {id(point): point.worker for _, point in points.proxies.values()}
    workers[id(points.authorizer)] = points.authorizer.worker

    def take(blocks):
        for worker in workers.values():
            worker.blocks.take(encode_blocks(blocks))

    mesh = points.mesh
    overlay = MeshBlocks(mesh)
    mesh.call(take, held)
    overlay.put(*found)
    wait_for(lambda: overlay.confirmed("orders"))
    try:
        yield held
    finally:
        mesh.call(take, Blocks(sequence=2))
        overlay.put()
        wait_for(lambda: overlay.confirmed("orders"))


def test_the_table_holds_both(points):
    effects = [points.pure(*asking[1:4], with_tokens(asking[4]))[0].is_allowed for asking in REQUESTS]
    assert effects.count(True) >= 7
    assert effects.count(False) >= 15
