# SPDX-License-Identifier: Apache-2.0
"""Tokens between the processes: minted by commands, judged by Envoy, renewed and revoked while calls go on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from trust_domain import SERVER, TrustDomainUnderTest, trust_domain, wait_until

from everyhop.control.local_link import LocalLink
from everyhop.core.errors import EveryhopError

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront:
    workload: [{run: true}]
    operations: {browse: GET /browse, hidden: GET /hidden}
  intruder: {workload: [{run: true}]}
  orders:
    workload: [{run: true}]
    operations:
      list: {route: GET /orders, token: required}
      read: {route: "GET /orders/{id}", token: operation}
      create: {route: POST /orders, token: required}
      pay: {route: POST /pay, token: operation, once: true}
    probes: [GET /healthz]
allow:
  - {from: storefront, to: orders, operations: [list, read, pay]}
  - {from: intruder, to: orders, operations: [list]}
  - {from: outside, to: storefront, operations: [browse], user: optional}
detect: {mode: observe}  # a load with refused calls is no attack here
"""


def admin(domain: TrustDomainUnderTest) -> LocalLink:
    """Return the owner's link to the server."""
    return LocalLink(domain.state / "run" / "admin.sock", timeout=40.0)


def mint(domain: TrustDomainUnderTest, audience: str, *more: str, caller: str = "storefront") -> str:
    """Mint with the command."""
    return domain.cli("token", "mint", "--from", caller, "--for", audience, *more).strip()


def piped(domain: TrustDomainUnderTest, text: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command with a standard input."""
    command = [sys.executable, "-m", "everyhop", *arguments]
    return subprocess.run(
        command, env=domain.environment, input=text, capture_output=True, timeout=60, check=False
    )


def verified(domain: TrustDomainUnderTest, text: bytes, *more: str) -> tuple[int, list[dict[str, Any]]]:
    """Return exit code and answers of ``token verify`` for orders."""
    done = piped(domain, text, "token", "verify", "--service", "orders", *more, "-")
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def called(
    domain: TrustDomainUnderTest, method: str, path: str, *headers: str, caller: str = "storefront"
) -> tuple[int, Any]:
    """Call orders' ingress with the SVID of a caller; return status and parsed body."""
    arguments = [part for header in headers for part in ("-H", header)]
    answer = domain.json("call", "orders", method, path, "--as", caller, *arguments, code=None)
    return answer["status"], json.loads(answer["body"])


@pytest.fixture(scope="module")
def domain() -> Iterator[TrustDomainUnderTest]:
    """A trust domain with tokens, and one ready instance of orders."""
    with trust_domain(POLICY) as started:
        started.serve()
        yield started


# -- refused


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--from", "storefront", "--for", "nowhere"), 6),
        (("--from", "nobody", "--for", "orders"), 6),
        (("--from", "storefront", "--for", "orders", "--scope", "orders.create"), 3),
        (("--from", "storefront", "--for", "orders#create"), 3),
        (("--from", "storefront", "--for", "orders#nothing"), 3),
        (("--from", "orders", "--for", "storefront"), 3),
        (("--from", "storefront", "--for", "orders", "--certificate", "/nowhere.pem"), 2),
    ],
)
def test_no_token_beyond_the_policy(
    domain: TrustDomainUnderTest, arguments: tuple[str, ...], code: int
) -> None:
    text = domain.cli("token", "mint", *arguments, code=code)
    assert text.startswith("everyhop: ")


def test_every_line_is_answered(domain: TrustDomainUnderTest) -> None:
    token = mint(domain, "orders").encode()
    text = b"\n".join([token, b"", b"\xff\xfe", b"a" * 300_000, token[:-2], b"{}", token + b"\r", token])
    code, answers = verified(domain, text)
    assert code == 3
    assert [answer["code"] for answer in answers] == [
        None,
        "MISSING_TOKEN",
        "TOKEN_MALFORMED",
        "TOKEN_MALFORMED",
        answers[4]["code"],
        "TOKEN_MALFORMED",
        None,
        None,
    ]
    assert answers[4]["code"] in {"TOKEN_MALFORMED", "TOKEN_INVALID"}
    assert set(answers[1]) == {"ok", "code"}


def test_a_call_without_and_with_the_wrong_token(domain: TrustDomainUnderTest) -> None:
    cases = [
        ((), 401, "MISSING_TOKEN"),
        (("authorization: Bearer x.y.z",), 401, "TOKEN_MALFORMED"),
        ((f"authorization: Bearer {mint(domain, 'orders#read')}",), 401, "AUDIENCE_MISMATCH"),
        ((f"authorization: Bearer {mint(domain, 'orders', caller='intruder')}",), 401, "BINDING_MISMATCH"),
    ]
    for headers, status, code in cases:
        seen, body = called(domain, "GET", "/orders", *headers)
        assert (seen, body["code"]) == (status, code)
        assert set(body) == {"type", "title", "status", "code", "decision"}

        def recorded(wanted: str = body["decision"]) -> list[dict[str, Any]]:
            return [r for r in domain.records() if r["id"] == wanted]

        (record,) = wait_until(recorded, what="the refusal is recorded")
        assert (record["decision"], record["reason"]) == ("deny", code)


def test_a_stolen_token_with_the_thiefs_certificate(domain: TrustDomainUnderTest) -> None:
    stolen = mint(domain, "orders")
    assert called(domain, "GET", "/orders", f"authorization: Bearer {stolen}")[0] == 200
    seen, body = called(domain, "GET", "/orders", f"authorization: Bearer {stolen}", caller="intruder")
    assert (seen, body["code"]) == (401, "BINDING_MISMATCH")


def test_why_tells_the_policy_from_the_credential(domain: TrustDomainUnderTest) -> None:
    """The policy lets the call in; what was shown was no token, and the log says both."""
    _, body = called(domain, "GET", "/orders", "authorization: Bearer x.y.z")
    wait_until(lambda: any(r["id"] == body["decision"] for r in domain.records()), what="the record is there")
    answer = domain.json("why", body["decision"])
    assert answer["credential"]["code"] == "TOKEN_MALFORMED"
    assert answer["explanation"]["decision"] == "allow"
    shown = domain.cli("why", body["decision"])
    assert "the policy opens list of orders to this caller, but its credential was refused" in shown
    assert "to mend it: " in shown


def test_a_token_for_one_call_is_good_for_one(domain: TrustDomainUnderTest) -> None:
    header = f"authorization: Bearer {mint(domain, 'orders#pay')}"
    assert called(domain, "POST", "/pay", header)[0] == 200
    seen, body = called(domain, "POST", "/pay", header)
    assert (seen, body["code"]) == (401, "TOKEN_REPLAYED")


# -- minted


def test_another_library_believes_the_token(domain: TrustDomainUnderTest) -> None:
    truth = admin(domain).get("/v1/token-truth")
    token = mint(domain, "orders#read")
    key = jwt.PyJWKSet.from_dict(truth["jwks"])[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, algorithms=["ES256"], audience="orders#read", issuer=truth["issuer"])
    assert claims["scope"] == "orders.read"
    assert claims["sub"] == claims["client_id"] == "spiffe://shop.example/service/storefront"
    assert claims["exp"] - claims["iat"] == 300


def test_verify_and_inspect_agree_with_files_too(domain: TrustDomainUnderTest) -> None:
    truth = admin(domain).get("/v1/token-truth")
    keys = domain.root / "jwks.json"
    keys.write_text(json.dumps(truth["jwks"]))
    directory = domain.root / "id"
    token = mint(domain, "orders", "--write", str(directory)).encode()
    offline = ("--jwks", str(keys), "--issuer", truth["issuer"])
    certificate = ("--certificate", str(directory / "svid.pem"))
    assert verified(domain, token, *offline, *certificate, "--operation", "list")[0] == 0
    for more, code in (
        (("--operation", "create"), "INSUFFICIENT_SCOPE"),
        (("--now", "2099-01-01T00:00:00Z"), "TOKEN_EXPIRED"),
        (("--caller", "spiffe://shop.example/service/intruder"), "BINDING_MISMATCH"),
    ):
        assert verified(domain, token, *offline, *more) == (3, [{"ok": False, "code": code}])
    elsewhere = verified(domain, token, "--jwks", str(keys), "--issuer", "https://elsewhere")
    assert elsewhere == (3, [{"ok": False, "code": "UNAUTHORIZED_ISSUER"}])
    shown = json.loads(piped(domain, token, "token", "inspect", "-o", "json").stdout)
    assert (shown["verified"], shown["kind"], shown["expired"]) == (False, "access token", False)
    assert piped(domain, b"nothing", "token", "inspect").returncode == 2


def test_calls_through_the_sidecars_need_nothing_of_the_application(domain: TrustDomainUnderTest) -> None:
    script = (
        "import urllib.request as u\n"
        "for m, p in (('GET','/orders'),('GET','/orders/7'),('POST','/pay'),('POST','/pay')):\n"
        "    print(u.urlopen(u.Request('http://orders' + p, method=m, data=b'' if m == 'POST' else None)).status)"
    )
    done = domain.once("storefront", sys.executable, "-c", script)
    assert done.stdout.split() == ["200"] * 4, done.stderr


def test_a_revocation_reaches_the_agents(domain: TrustDomainUnderTest) -> None:
    token = mint(domain, "orders")
    header = f"authorization: Bearer {token}"
    assert called(domain, "GET", "/orders", header)[0] == 200
    assert piped(domain, token.encode(), "token", "revoke").returncode == 0
    began = time.monotonic()
    wait_until(lambda: agent_holds(domain), seconds=10, what="the agent holds the revocation")
    assert (
        time.monotonic() - began < 5
    )  # a push; the figure that users get is in docs/explanation/performance.md
    seen, body = called(domain, "GET", "/orders", header)
    assert (seen, body["code"]) == (401, "TOKEN_REVOKED")
    assert piped(domain, token.encode(), "token", "revoke").returncode == 1
    assert verified(domain, token.encode()) == (3, [{"ok": False, "code": "TOKEN_REVOKED"}])


def agent_answers(domain: TrustDomainUnderTest) -> bool:
    """Tell whether the agent that runs now is ready."""
    try:
        LocalLink(domain.state / "run" / "agent.sock", timeout=2.0).get("/v1/ready")
    except EveryhopError:
        return False
    return True


def agent_holds(domain: TrustDomainUnderTest) -> bool:
    """Tell whether every agent holds what the server published last."""
    status = domain.status()
    return all(agent["token_sequence"] >= status["token_sequence"] for agent in status["agents"])


def test_nothing_secret_is_in_a_log_or_open_to_others(domain: TrustDomainUnderTest) -> None:
    for name in ("server", "agent"):
        assert "eyJ" not in domain.log(name)
    assert "eyJ" not in "".join(path.read_text() for path in (domain.state / "envoy").rglob("*.json"))
    assert (domain.state / "run" / "authz.sock").stat().st_mode & 0o077 == 0


# -- while calls go on


def test_rotations_fail_no_call(domain: TrustDomainUnderTest) -> None:
    result = domain.load("--pause", "0.01")
    link = admin(domain)
    for _ in range(20):
        link.post("/v1/signing-keys/rotate", {"now": True, "timeout": 20.0})
    link.post("/v1/rotate", {"kind": "x509", "timeout": 20.0})
    time.sleep(1.0)
    keys = link.get("/v1/signing-keys")["signing_keys"]
    assert [key["state"] for key in keys].count("active") == 1
    seen = domain.finish_load(result)
    assert seen["wrong"] == []
    assert seen["good"] > 50


def test_without_a_server_calls_go_on(domain: TrustDomainUnderTest) -> None:
    server = domain.child_pids()["server"]
    result = domain.load("--pause", "0.01")
    os.kill(server, signal.SIGSTOP)
    try:
        time.sleep(3.0)
    finally:
        os.kill(server, signal.SIGCONT)
    seen = domain.finish_load(result)
    assert seen["wrong"] == []
    wait_until(lambda: agent_holds(domain), what="the agent is connected again")


def test_the_agent_may_die_while_calls_go_on(domain: TrustDomainUnderTest) -> None:
    result = domain.load("--pause", "0.01")
    before = domain.child_pids()["agent"]
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: domain.child_pids().get("agent", before) != before, what="the agent was restarted")
    # What the status says for a while is what the dead one had reported.
    wait_until(lambda: agent_answers(domain), what="the new agent answers")
    wait_until(lambda: domain.ready("orders") and agent_holds(domain), what="everything is known again")
    time.sleep(2.0)
    seen = domain.finish_load(result)
    assert seen["wrong"] == []
    assert seen["good"] > 50


def test_a_revoked_signing_key_ends_its_tokens_and_calls_recover(domain: TrustDomainUnderTest) -> None:
    token = mint(domain, "orders")
    kid = jwt.get_unverified_header(token)["kid"]
    assert "--yes" in domain.cli("keys", "revoke", kid, code=2)
    keys = domain.json("keys", "revoke", kid, "--yes")["signing_keys"]
    assert kid not in {key["kid"] for key in keys}
    wait_until(lambda: agent_holds(domain), what="the agent holds the revocation")
    seen, body = called(domain, "GET", "/orders", f"authorization: Bearer {token}")
    assert (seen, body["code"]) == (401, "UNKNOWN_KEY_ID")
    assert domain.cli("call", "orders", "GET", "/orders", "--as", "storefront", "--token")
    domain.cli("keys", "revoke", kid, "--yes", code=6)


# -- API keys


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_life_of_an_api_key(domain: TrustDomainUnderTest) -> None:
    port = free_port()
    with (domain.root / "edge.err").open("w") as errors:
        edge = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "everyhop",
                "run",
                "storefront",
                "--edge",
                str(port),
                "--",
                sys.executable,
                str(SERVER),
                "unix",
            ],
            env=domain.environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    domain.runs.append(edge)
    wait_until(lambda: domain.ready("storefront") or edge.poll() is not None, what="the edge is ready")
    assert edge.poll() is None, (domain.root / "edge.err").read_text()
    bundle = write_bundle(domain)

    def get(path: str, *headers: str) -> tuple[int, str]:
        command = ["curl", "-s", "--cacert", str(bundle), "-o", "-", "-w", "\n%{http_code}", "-k"]
        for header in headers:
            command += ["-H", header]
        done = subprocess.run(
            [*command, f"https://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=False
        )
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body

    domain.cli("apikey", "create", "--owner", "acme", "--scope", "orders.list", code=2)
    first = domain.json("apikey", "create", "--owner", "acme", "--scope", "storefront.browse")
    header = f"authorization: Bearer {first['key']}"
    assert get("/browse")[0] == 401
    assert get("/browse", "authorization: Bearer eh_live_key_nothing")[0] == 401
    assert get("/hidden", header)[0] == 403
    status, body = get("/browse", header)
    assert status == 200
    assert first["key"] not in body
    received = {name.lower(): value for name, value in json.loads(body)["headers"]}
    assert received["x-everyhop-user"] == f"apikey:{first['entry']['lookup']}"
    second = domain.json("apikey", "rotate", first["entry"]["lookup"], "--overlap", "1h")
    assert get("/browse", f"authorization: Bearer {second['key']}")[0] == 200
    domain.cli("apikey", "rotate", first["entry"]["lookup"], code=5)
    domain.cli("apikey", "revoke", first["entry"]["lookup"])
    wait_until(lambda: get("/browse", header)[0] == 401, seconds=10, what="the key is refused")
    listed = {key["lookup"]: key["state"] for key in domain.json("apikey", "list")["api_keys"]}
    assert listed == {first["entry"]["lookup"]: "revoked", second["entry"]["lookup"]: "active"}
    for name in ("server", "agent"):
        assert "eh_live" not in domain.log(name)


def write_bundle(domain: TrustDomainUnderTest) -> Path:
    """Write the trust bundle as PEM."""
    domain.cli("svid", "fetch", "storefront", "--write", str(domain.root / "edge-id"))
    return domain.root / "edge-id" / "bundle.pem"
