# SPDX-License-Identifier: Apache-2.0
"""Blocks as the owner orders them: everywhere in a moment, over restarts, until lifted or over; and quarantine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from oidc_issuer import OidcIssuer
from tests.e2e.test_edge import POLICY, key_for, outside, refused, seen, user_token
from trust_domain import TrustDomainUnderTest, trust_domain, wait_until

CURL = ("curl", "-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}")


@pytest.fixture(scope="module")
def issuer() -> Iterator[OidcIssuer]:
    made = OidcIssuer()
    yield made
    made.close()


@pytest.fixture(scope="module")
def shop(issuer) -> Iterator[TrustDomainUnderTest]:
    with trust_domain(POLICY.replace("@ISSUER@", issuer.url)) as made:
        made.serve("storefront", options=("--edge", "0"))
        made.serve("orders")
        yield made


@pytest.fixture
def domain(shop) -> Iterator[TrustDomainUnderTest]:
    yield shop
    for block in shop.json("blocks")["blocks"]:
        shop.cli("unblock", block["subject"], "--reason", "the test is over")


def block(domain, subject, *more, verb="block"):
    answer = domain.json(verb, subject, "--reason", "a test", *more)
    assert answer["lagging"] == []
    assert answer["agents"] == 1
    return answer


def status_of(domain, path="/orders", *headers):
    options = [part for header in headers for part in ("-H", header)]
    return domain.once("storefront", *CURL, *options, f"http://orders{path}").stdout


# -- what is refused


def test_orders_that_make_no_sense(domain):
    for arguments, code in (
        (("block", "ordres", "--reason", "x"), 6),
        (("block", "address:0.0.0.0", "--reason", "x"), 5),
        (("block", "spiffe://shop.example/everyhop/server", "--reason", "x"), 5),
        (("block", "orders", "--reason", " "), 2),
        (("block", "orders", "--for", "never", "--reason", "x"), 2),
        (("quarantine", "user:alice", "--reason", "x"), 2),
        (("unblock", "orders", "--reason", "x"), 6),
    ):
        domain.cli(*arguments, code=code)
    assert domain.json("blocks")["blocks"] == []


def test_a_blocked_service_is_refused_and_told_why_it_was(domain):
    assert status_of(domain) == "200"
    answer = block(domain, "storefront", "--for", "1h")
    assert answer["milliseconds"] < 1000
    assert answer["calls"] == ["orders"]
    assert status_of(domain) == "429"
    answered = domain.json("call", "orders", "GET", "/orders", "--as", "storefront", code=1)
    assert answered["status"] == 429
    decision = answered["body"]["decision"] if isinstance(answered["body"], dict) else ""
    record = wait_until(
        lambda: [
            r
            for r in domain.records(service="orders")
            if r["reason"] == "blocked" and (not decision or r["id"] == decision)
        ],
        what="the record",
    )[-1]
    why = domain.cli("why", record["id"])
    assert "is blocked, before any rule of the policy is asked" in why
    assert "a test" in why
    assert "everyhop unblock storefront" in why
    assert "storefront may call list (GET /orders) on orders" in why
    assert "is blocked for now" in domain.cli("can", "storefront", "GET /orders", "orders", code=3)
    domain.cli("unblock", "storefront", "--reason", "over")
    assert status_of(domain) == "200"
    assert "is not any more" in domain.cli("why", record["id"])


def test_no_token_for_the_blocked(domain):
    block(domain, "storefront")
    said = domain.cli("token", "mint", "--from", "storefront", "--for", "orders", code=3)
    assert "blocked" in said
    domain.cli("unblock", "storefront", "--reason", "over")
    assert domain.cli("token", "mint", "--from", "storefront", "--for", "orders").count(".") == 2


def test_a_user_at_the_edge_and_wherever_it_was_remembered(domain, issuer):
    token = user_token(issuer)
    txn = seen(outside(domain, "/mine", token))["txn-token"]
    for _ in range(2):  # the second one is answered by Envoy's memory
        assert status_of(domain, "/mine", f"Txn-Token: {txn}") == "200"
    block(domain, "user:alice", "--for", "10m")
    response = outside(domain, "/mine", token)
    assert refused(response) == (429, "BLOCKED")
    assert 590 <= int(response.headers["retry-after"]) <= 601
    assert status_of(domain, "/mine", f"Txn-Token: {txn}") == "429"
    record = wait_until(
        lambda: [r for r in domain.records(service="storefront") if r["reason"] == "blocked"], what="a record"
    )[-1]
    assert (record["point"], record["detail"]["block"], record["detail"]["user"]) == ("edge", "user", "alice")
    assert outside(domain, "/mine", user_token(issuer, sub="bob")).status_code == 200


def test_an_api_key_is_recorded_by_its_public_part_and_blocked_by_it(domain):
    key, other = key_for(domain, "storefront.browse"), key_for(domain, "storefront.browse")
    lookup = key.split("_")[3]
    assert outside(domain, "/browse", key).status_code == 200
    allowed = wait_until(
        lambda: [r for r in domain.records(service="storefront") if r["detail"].get("api_key") == lookup],
        what="a record with the key",
    )
    assert allowed[-1]["decision"] == "allow"
    block(domain, f"key:{lookup}")
    assert refused(outside(domain, "/browse", key)) == (429, "BLOCKED")
    assert outside(domain, "/browse", other).status_code == 200
    denied = wait_until(
        lambda: [
            r for r in domain.records(service="storefront") if r["detail"].get("block") == f"api-key:{lookup}"
        ],
        what="a record",
    )
    assert (denied[-1]["reason"], denied[-1]["detail"]["api_key"]) == ("blocked", lookup)


def test_an_address_at_the_edge_alone(domain, issuer):
    block(domain, "address:127.0.0.1", "--for", "5m")
    assert refused(outside(domain, "/browse", user_token(issuer))) == (429, "BLOCKED")
    assert status_of(domain) == "200"


def test_a_block_ends_by_itself(domain):
    block(domain, "storefront", "--for", "1s")
    assert status_of(domain) in {"429", "200"}
    wait_until(lambda: status_of(domain) == "200", what="the block is over")
    assert domain.json("blocks")["blocks"] == []
    wait_until(
        lambda: "expired" in domain.cli("log", "show", "--all", "-o", "json"), what="its end is recorded"
    )


# -- quarantine


def test_a_quarantine_ends_identity_tokens_and_connections_and_lifting_it_brings_all_back(domain):
    before = domain.ready("orders")[0]
    with socket_to(before["ingress"]) as held:
        answer = block(domain, "orders", verb="quarantine")
        assert answer["milliseconds"] < 2000  # of a machine that is doing something else
        assert answer["called_by"] == ["storefront"]
        assert held.recv(1) == b""  # cut
    assert status_of(domain) == "503"
    for arguments in (
        ("svid", "fetch", "orders", "--write", str(domain.root / "q")),
        ("token", "mint", "--from", "orders", "--for", "storefront"),
        ("call", "storefront", "GET", "/browse", "--as", "orders"),
    ):
        assert "quarantined" in domain.cli(*arguments, code=3)
    assert "quarantined" in domain.once("orders", "true").stderr
    (instance,) = domain.status()["services"]["orders"]["instances"]
    assert (instance["state"], instance["pid"]) == ("quarantined", before["pid"])
    assert instance["svid_expires_at"] is None
    domain.cli("unquarantine", "orders", "--reason", "it was clean")
    wait_until(lambda: status_of(domain) == "200", what="it is back")
    assert domain.ready("orders")[0]["pid"] == before["pid"]


def socket_to(place):
    import socket

    host, _, port = place.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=5)


# -- restarts


@pytest.mark.parametrize("killed", ["server", "agent"])
def test_a_block_survives(domain, killed):
    block(domain, "storefront")
    pid = domain.child_pids()[killed]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), what="it is gone")
    wait_until(
        lambda: domain.cli("blocks", "-o", "json", code=None).count("storefront"),
        seconds=60,
        what="the server is back",
    )
    answers: list[str] = []
    wait_until(
        lambda: answers.append(status_of(domain)) or answers[-1] != "",
        seconds=60,
        what="a workload can be started",
    )
    assert answers[-1] == "429"
    sequence = domain.json("blocks")["sequence"]
    wait_until(
        lambda: all(a["block_sequence"] == sequence for a in domain.status()["agents"]),
        what="it is confirmed",
    )
