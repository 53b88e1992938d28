# SPDX-License-Identifier: Apache-2.0
"""The compiled nginx, haproxy and Envoy for real, before an application and with the product's authorizer: refused first."""

import json
import os
import subprocess

import pytest
from tests.integration.targets.conftest import compiled, identity
from tests.integration.targets.test_envoy import CALLERS, METHODS, PATHS
from tests.support.envoy_pair import Mesh, foreign_ca, wait_for
from tests.support.foreign_proxies import NGINX, Authorizer
from tests.support.identity import new_key
from tests.support.target_proxies import HAPROXY, Asker, ask, start_envoy, start_haproxy, start_nginx

from everyhop.control.asking import AskingProxy
from everyhop.core.decision import Effect

POLICY = """\
version: 1
trust_domain: shop.example
services:
  web: {}
  job: {}
  orders:
    operations:
      list: GET /orders
      read: GET /orders/{id}
      create: POST /orders
      mine: GET /orders/mine
      files: GET /public/{rest...}
      region: GET /region
      pay: {route: POST /pay, token: required}
      hear: GET /hear
      live: {websocket: "/live/{room}"}
    probes: [GET /healthz]
  guarded:
    operations:
      own: {route: "GET /things/{id}", resource: application}
      every: GET /things/all
      other: GET /Things/1
  rpc: {operations: {get: {grpc: shop.v1.Rpc/Get}}}
  people: {operations: {plain: GET /plain, mine: GET /mine}}
attributes: {request: {headers: [x-region]}}
allow:
  - {from: web, to: orders, operations: [list, read, create, files, pay, live, hear]}
  - {from: job, to: orders, operations: [list, read, create]}
  - {from: web, to: orders, operations: [region], when: "request.headers['x-region'] == 'eu'"}
  - {from: web, to: rpc, operations: all}
  - {from: web, to: guarded, operations: [every, other]}
  - {from: web, to: guarded, operations: [own]}
  - {from: web, to: people, operations: [plain]}
  - {from: web, to: people, operations: [mine], user: optional}
  - {from: job, to: people, operations: [mine]}
deny:
  - {from: job, to: orders, operations: [create], reason: jobs only read}
targets:
  SETTINGS
"""
FORMS = {
    "nginx": (NGINX, start_nginx, "http"),
    "haproxy": (HAPROXY, start_haproxy, "http"),
    "envoy": ("envoy", start_envoy, "grpc"),
}
DECIDES = "envoy"  # by itself, and asks only what facts decide
FORGED = [
    ("X-Everyhop-Caller", identity("root")),
    ("X-Everyhop-User", "root"),
    ("X-Original-URI", "/orders"),
    ("X-Original-Method", "GET"),
    ("X-Client-Certificate", "none"),
    ("X-Client-Address", "10.0.0.1"),
    ("X-HTTP-Method-Override", "DELETE"),
    ("X-Forwarded-Uri", "/orders"),
    ("X-Forwarded-Client-Cert", f"URI={identity('web')}"),
    ("Txn-Token", "e30.e30.x"),
]


@pytest.fixture(scope="module", params=list(FORMS))
def form(request):
    """Each proxy in turn."""
    if FORMS[request.param][0] is None:
        pytest.skip(f"no {request.param} on this machine (`make peers` installs it)")
    return request.param


@pytest.fixture(scope="module")
def found(form):
    return compiled(form, f"{form}: {{authorizer: 'unix:/run/everyhop/authorizer-http.sock'}}", POLICY)


def started(mesh, form, files, service, authorizer):
    _, start, speaks = FORMS[form]
    socket = mesh.root / "nobody.sock" if authorizer is None else getattr(authorizer, speaks)
    return start(mesh, files, service, socket)


@pytest.fixture(scope="module")
def mesh():
    with Mesh(POLICY.replace("  SETTINGS", "  {}").replace("targets:\n  {}", "targets: {}")) as mesh:
        for service in ("orders", "guarded", "rpc", "people"):
            mesh.app(service)
        yield mesh


@pytest.fixture(scope="module")
def authorizer(mesh):
    proxy = AskingProxy(uid=os.getuid(), services=("orders", "guarded", "rpc", "people"))
    with Authorizer(mesh, proxy) as started:
        yield started


@pytest.fixture(scope="module")
def proxy(mesh, form, authorizer, found):
    with started(mesh, form, found.files, "orders", authorizer) as proxy:
        yield proxy


def test_no_certificate_and_a_foreign_one_reach_nobody(mesh, proxy):
    before = list(mesh.apps["orders"].seen)
    for context in (mesh.context(None, None), foreign(mesh)):
        answer = ask(mesh, proxy, "GET", "/orders", context=context)
        assert answer is None or answer[0] == 400
    assert mesh.apps["orders"].seen == before


def foreign(mesh):
    key, ca = new_key(), foreign_ca()
    leaf = ca.leaf(uri=identity("web"), key=key, not_before=ca.not_before, not_after=ca.not_after)
    return mesh.context(leaf, key)


def test_every_door_is_the_engine_s(mesh, proxy, found):
    asked, wrong = 0, []
    with Asker(mesh, proxy) as asker:
        for caller in CALLERS:
            for path in PATHS:
                for method in METHODS if path == "/orders" else ("GET", "POST"):
                    expected = decided(found, caller, method, path)
                    status = asker.ask(caller, method, path)
                    asked += status is not None
                    if (status == 200) != expected:
                        wrong.append((caller, method, path, status, expected))
    assert not wrong
    assert asked > 300


def decided(found, caller, method, path):
    decision = found.engine.decide(caller=identity(caller), target="orders", method=method, path=path)
    return decision.effect is Effect.ALLOW


def test_the_application_gets_the_bytes_that_were_decided_on(mesh, proxy):
    target = "/public/a%20b/c?x=%2e%2e&y=//"
    status, _, body = ask(mesh, proxy, "GET", target)
    assert status == 200
    assert json.loads(body)["line"].startswith(f"GET {target} HTTP/1.1")


def test_forged_headers_open_nothing_and_arrive_nowhere(mesh, form, proxy):
    assert ask(mesh, proxy, "GET", "/admin", headers=FORGED)[0] == 403
    underscored = [("X_Everyhop_User", "root")]
    dropped = ask(mesh, proxy, "GET", "/orders", headers=underscored)
    if form != "nginx":
        assert dropped[0] in {400, 403}
    else:
        assert "x_everyhop_user" not in dropped[2].decode().lower()
    status, _, body = ask(mesh, proxy, "GET", "/orders", headers=FORGED)
    assert status == 200
    seen = {name.lower(): value for name, value in json.loads(body)["headers"]}
    assert seen["x-everyhop-caller"] == identity("web")
    assert seen["x-everyhop-operation"] == "list"
    forged = {name.lower() for name, _ in FORGED} - {"x-everyhop-caller"}
    if form == DECIDES:  # these say something to the authorizer over HTTP only
        forged -= {"x-client-certificate", "x-client-address"}
        assert seen.pop("x-forwarded-client-cert").startswith("By=")  # Envoy's own
    assert not forged & set(seen)


def test_facts_decide_where_the_policy_says_so(mesh, proxy):
    assert ask(mesh, proxy, "GET", "/region")[0] == 403
    assert ask(mesh, proxy, "GET", "/region", headers=[("X-Region", "us")])[0] == 403
    assert ask(mesh, proxy, "GET", "/region", headers=[("X-Region", "eu")])[0] == 200
    status, headers, body = ask(mesh, proxy, "POST", "/pay")
    assert (status, json.loads(body)["code"]) == (401, "MISSING_TOKEN")
    assert headers["www-authenticate"].startswith("Bearer")


def test_a_user_s_token_arrives_nowhere_unless_somebody_verified_it(mesh, form, authorizer, found):
    token = [("Txn-Token", "e30.e30.x")]
    with started(mesh, form, found.files, "people", authorizer) as proxy:
        assert ask(mesh, proxy, "GET", "/mine", headers=token)[0] == 401
        for caller, path in (("web", "/plain"), ("job", "/mine")):
            status, _, body = ask(mesh, proxy, "GET", path, caller=caller, headers=token)
            assert status == 200
            assert "txn-token" not in {name.lower() for name, _ in json.loads(body)["headers"]}
        assert ask(mesh, proxy, "GET", "/mine")[0] == 200


def test_two_targets_in_one_request_are_refused(mesh, proxy):
    for path in ("http://orders/orders", "https://evil/orders"):
        assert ask(mesh, proxy, "GET", path)[0] == 400
    assert ask(mesh, proxy, "GET", "/orders", headers=[("Host", "evil")])[0] == 400


def test_nobody_asks_the_authorizer_by_hand(mesh, proxy):
    assert ask(mesh, proxy, "GET", "/.everyhop")[0] in {403, 404}
    assert ask(mesh, proxy, "GET", "/nginx/orders")[0] == 403


def test_websockets_only_where_they_are_declared(mesh, proxy):
    upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "ZXZlcnlob3AgcHJvdmVzIQ=="),
    ]
    assert ask(mesh, proxy, "GET", "/orders", headers=upgrade)[0] == 403
    assert ask(mesh, proxy, "GET", "/live/1", caller="job", headers=upgrade)[0] == 403
    other = [(name, "h2c" if name == "Upgrade" else value) for name, value in upgrade]
    status, _, body = ask(mesh, proxy, "GET", "/live/1", headers=other)
    assert status == 403 or "upgrade" not in {name.lower() for name, _ in json.loads(body)["headers"]}
    assert ask(mesh, proxy, "GET", "/live/1", headers=upgrade)[0] == 101


def test_without_the_authorizer_whatever_it_decides_is_refused(mesh, form, found):
    before = list(mesh.apps["orders"].seen)
    path = "/region" if form == DECIDES else "/orders"
    with started(mesh, form, found.files, "orders", None) as proxy:
        status, _, body = ask(mesh, proxy, "GET", path)
        assert (status, json.loads(body)["code"]) == (503, "CHECK_UNAVAILABLE")
    assert mesh.apps["orders"].seen == before


def test_doors_that_the_authorizer_cannot_guard_are_shut_before_it_is_asked(mesh, form, authorizer, found):
    """It would let them pass: what an application decides of resources is nothing that it knows."""
    assert f"{form}.resource" in found.codes
    with started(mesh, form, found.files, "guarded", authorizer) as proxy:
        assert ask(mesh, proxy, "GET", "/things/1")[0] == 403
        assert ask(mesh, proxy, "GET", "/things/1?x")[0] == 403
        assert ask(mesh, proxy, "GET", "/things/all")[0] == 200
        assert ask(mesh, proxy, "GET", "/things/all?x")[0] == 200
        assert ask(mesh, proxy, "GET", "/Things/1")[0] == 200


def test_grpc_reaches_the_application_as_http2(mesh, form, authorizer, found, tmp_path):
    curl = [
        "curl",
        "-sk",
        "--http2",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{http_version}",
        "--max-time",
        "60",
    ]
    with started(mesh, form, found.files, "rpc", authorizer) as proxy:
        for caller, reached in (("job", 0), ("web", 1)):
            before = len(mesh.apps["rpc"].requests)
            pem = client_files(mesh, caller, tmp_path)
            url = f"https://127.0.0.1:{proxy.port}/shop.v1.Rpc/Get"
            more = ["-H", "content-type: application/grpc", "-H", "te: trailers", "-d", "", url]
            done = subprocess.run(
                [*curl, "--cert", pem, *more],
                check=False,
                capture_output=True,
                text=True,
            )
            assert done.stdout in {"200 2", "403 2"}, done.stderr
            assert len(mesh.apps["rpc"].requests) - before == reached


def client_files(mesh, caller, directory):
    from tests.support.foreign_proxies import write_svid

    place = write_svid(mesh, caller, directory / caller)
    pem = place / "both.pem"
    pem.write_bytes((place / "svid.pem").read_bytes() + (place / "key.pem").read_bytes())
    return str(pem)


def test_trap_return_skips_auth_request(mesh, form, authorizer, found):
    """Why no location of nginx answers by itself: the same text with a `return` lets anybody pass."""
    if form != "nginx":
        pytest.skip("a trap of nginx")
    text = found.files["nginx/orders/nginx.conf"].decode()
    assert text.count("proxy_pass http://application;") == 1
    widened = {
        "nginx/orders/nginx.conf": text.replace(
            "proxy_pass http://application;", "return 200 'open';"
        ).encode()
    }
    with start_nginx(mesh, widened, "orders", authorizer.http) as proxy:
        assert ask(mesh, proxy, "GET", "/admin", caller="nobody")[0] == 200


def test_trap_an_action_that_fails_has_allowed_nothing(mesh, form, authorizer, found):
    """haproxy goes on behind an action that broke: what follows refuses whatever was not expressly allowed."""
    if form != "haproxy":
        pytest.skip("a trap of haproxy")
    name = "haproxy/orders/everyhop.lua"
    broken = found.files[name].replace(b"local certificate = escaped_pem(txn)", b'error("broken")')
    with started(mesh, form, found.files | {name: broken}, "orders", authorizer) as proxy:
        assert ask(mesh, proxy, "GET", "/orders")[0] == 503


def test_the_access_log_is_json(mesh, form, proxy):
    assert ask(mesh, proxy, "GET", "/orders/logged?secret=1")[0] == 200
    names = {"nginx": "access.json", "haproxy": "log", "envoy": "envoy.log"}
    log = proxy.directory / names[form]

    def written():
        found = [json.loads(line) for line in log.read_text().split("\n")[:-1] if line.startswith("{")]
        return found if any(line.get("path") == "/orders/logged" for line in found) else None

    lines = wait_for(written, seconds=60)
    (line,) = [line for line in lines if line.get("path") == "/orders/logged"]
    assert (line["caller"], line["operation"], line["status"]) == (identity("web"), "read", 200)
    assert not any("secret" in json.dumps(line) for line in lines)
