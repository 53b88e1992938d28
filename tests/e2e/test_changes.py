# SPDX-License-Identifier: Apache-2.0
"""Policy edits, key rotation and crashes while calls go on."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from trust_domain import TrustDomainUnderTest, trust_domain, wait_until

OPEN = "operations: [list, read]"
CLOSED = "operations: [list]"


@pytest.fixture
def own() -> object:
    with trust_domain() as started:
        started.serve()
        yield started


def _call(domain: TrustDomainUnderTest, path: str = "/orders/7") -> int:
    try:
        code = domain.json("call", "orders", "GET", path, "--as", "storefront", code=None)
    except json.JSONDecodeError:
        return 0  # nobody listens there at this moment
    return int(code["status"])


def test_a_bad_text_changes_nothing_and_is_shown(own: TrustDomainUnderTest) -> None:
    before = own.status()["snapshot"]
    own.edit_policy(OPEN, "operations: [list, reed]")
    rejected = wait_until(lambda: own.status()["rejected_policy"], what="refused")
    assert rejected["problems"][0]["suggestion"] == "did you mean 'read'?"
    assert rejected["problems"][0]["line"] == 14
    assert own.status()["snapshot"] == before
    assert "was refused" in own.cli("status")
    assert "did you mean 'read'" in own.cli("policy", "apply", str(own.policy), code=2)
    assert _call(own) == 200
    own.edit_policy("operations: [list, reed]", OPEN)
    wait_until(lambda: own.status()["rejected_policy"] is None, what="accepted again")


def test_a_withdrawn_right_ends_on_an_open_connection_within_a_second(own: TrustDomainUnderTest) -> None:
    from everyhop.cli.__main__ import build_parser
    from everyhop.cli.verbs.svid import fetch_svid
    from everyhop.runtime.mtls import client_context

    args = build_parser().parse_args(["svid", "show", "storefront", "--state", str(own.state)])
    svid = fetch_svid(args, "storefront")
    host, _, port = own.ready("orders")[0]["ingress"].rpartition(":")
    context = client_context(svid["chain"], svid["key"], svid["bundle"])
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=5)
    connection.connect()
    kept = connection.sock

    def status() -> int:
        connection.request("GET", "/orders/7", headers={"host": "orders"})
        answer = connection.getresponse()
        answer.read()
        assert connection.sock is kept
        return answer.status

    assert status() == 200
    own.edit_policy(OPEN, CLOSED)
    edited = time.monotonic()
    wait_until(lambda: status() == 403, seconds=5, what="refused on the same connection")
    elapsed = time.monotonic() - edited
    own.edit_policy(CLOSED, OPEN)
    wait_until(lambda: status() == 200, seconds=5, what="allowed again")
    connection.close()
    print(f"enforced after {elapsed * 1000:.0f} ms")


def test_reload_under_load_fails_no_legitimate_and_permits_no_illegitimate_request(
    own: TrustDomainUnderTest,
) -> None:
    result = own.load()
    for number in range(20):
        before = own.status()["snapshot"]
        if number % 2 == 0:
            own.edit_policy("allow:\n", "allow:\n  - {from: intruder, to: orders, operations: [create]}\n")
        else:
            own.edit_policy("allow:\n  - {from: intruder, to: orders, operations: [create]}\n", "allow:\n")
        own.wait_applied(before)
    seen = own.finish_load(result)
    assert seen["wrong"] == []
    assert seen["good"] > 100
    assert seen["bad"] > 100


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_reloads_under_load(own: TrustDomainUnderTest) -> None:
    result = own.load()
    for number in range(100):
        before = own.status()["snapshot"]
        if number % 2 == 0:
            own.edit_policy("allow:\n", "allow:\n  - {from: intruder, to: orders, operations: [create]}\n")
        else:
            own.edit_policy("allow:\n  - {from: intruder, to: orders, operations: [create]}\n", "allow:\n")
        own.wait_applied(before)
    seen = own.finish_load(result)
    assert seen["wrong"] == []


def test_a_token_that_is_asked_for_anew_and_no_more_fails_no_request(own: TrustDomainUnderTest) -> None:
    """Callers bring it before the callee asks, and go on until it no longer does."""
    plain, asking = "read: GET /orders/{id}\n", 'read: {route: "GET /orders/{id}", token: required}\n'
    alone = 'read: {route: "GET /orders/{id}", token: operation}\n'
    result = own.load()
    for old, new in ((plain, asking), (asking, alone), (alone, asking), (asking, plain)) * 2:
        before = own.status()["snapshot"]
        own.edit_policy(old, new)
        own.wait_applied(before)
    seen = own.finish_load(result)
    assert seen["wrong"] == []
    assert seen["good"] > 100


def test_rotation_of_the_authority_under_load_fails_no_request(own: TrustDomainUnderTest) -> None:
    result = own.load()
    serials = set()
    for _ in range(4):
        own.cli("keys", "rotate")
        serials.add(
            own.json("svid", "show", "orders")["issuer"] + own.json("svid", "show", "orders")["serial"]
        )
        time.sleep(0.5)
    own.cli("keys", "rotate", "--kind", "jwt")
    seen = own.finish_load(result)
    assert seen["wrong"] == []
    assert len(serials) == 4


@pytest.mark.parametrize("victim", ["server", "agent"])
def test_kill_nine_of_server_or_agent_touches_no_traffic(own: TrustDomainUnderTest, victim: str) -> None:
    result = own.load()
    before = own.child_pids()[victim]
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: own.child_pids().get(victim, before) != before, what=f"{victim} was restarted")
    wait_until(lambda: own.ready("orders"), what="everything is known again")
    own.cli("keys", "rotate")
    edited = own.status()["snapshot"]
    own.edit_policy("allow:\n", "allow:\n  - {from: intruder, to: orders, operations: [list]}\n")
    own.wait_applied(edited)
    seen = own.finish_load(result)
    assert seen["wrong"] == []
    assert seen["good"] > 50


def test_kill_nine_of_an_envoy_harms_only_its_own_instance(own: TrustDomainUnderTest) -> None:
    own.serve()
    result = own.load()
    victim = own.ready("orders")[0]
    os.kill(victim["envoy_pid"], signal.SIGKILL)
    wait_until(
        lambda: any(i["id"] == victim["id"] and i["envoy_restarts"] == 1 for i in own.ready("orders")),
        what="the sidecar was restarted",
    )
    wait_until(lambda: _call(own) == 200, what="it serves")
    seen = own.finish_load(result)
    # Calls on the wire to the killed sidecar may break; forbidden ones must not pass, and the rest goes on.
    assert all(w["call"] == "GET /orders/7" or w["status"] != 200 for w in seen["wrong"])
    assert len(seen["wrong"]) < 0.1 * seen["good"]


def test_nothing_is_lost_while_the_server_is_down(own: TrustDomainUnderTest) -> None:
    assert own.up_process is not None
    pids = own.child_pids()
    result = own.load("--pause", "0.02")
    os.kill(own.up_process.pid, signal.SIGSTOP)  # so that nobody restarts the server meanwhile
    os.kill(pids["server"], signal.SIGKILL)
    time.sleep(1.5)
    os.kill(own.up_process.pid, signal.SIGCONT)
    wait_until(lambda: own.child_pids().get("server", 0) not in {0, pids["server"]}, what="restarted")
    wait_until(lambda: own.ready("orders"), what="it serves")
    seen = own.finish_load(result)
    assert seen["wrong"] == []
    total = seen["good"] + seen["bad"]

    def recorded() -> int:
        page: list[dict[str, object]] = []
        cursor = 0
        from everyhop.control.local_link import LocalLink

        link = LocalLink(own.state / "run" / "admin.sock")
        while True:
            answer = link.get("/v1/records", kind="decision", service="orders", after=cursor, limit=1000)
            page += [r for r in answer["records"] if r["point"] == "ingress"]
            if not answer["more"]:
                return len({r["id"] for r in page})
            cursor = answer["cursor"]

    wait_until(lambda: recorded() >= total, what="every decision is stored")
    assert recorded() == total
    spools = [p for p in (own.state / "spool").iterdir() if p.is_dir()]
    assert spools


def test_a_removed_service_loses_identity_and_traffic(own: TrustDomainUnderTest) -> None:
    svid_before = own.json("svid", "show", "storefront")
    assert svid_before
    client = own.run("storefront", "sleep", "60", wait=False)
    wait_until(lambda: own.status()["services"]["storefront"]["instances"], what="storefront runs")
    before = own.status()["snapshot"]
    own.edit_policy("  storefront: {workload: [{run: true}]}\n", "")
    own.edit_policy("from: storefront", "from: intruder")
    own.wait_applied(before)
    assert "no service" in own.cli("svid", "show", "storefront", code=6)
    assert own.once("storefront", "true").returncode == 6
    assert client.poll() is None
    own.edit_policy("services:\n", "services:\n  storefront: {workload: [{run: true}]}\n")
    wait_until(lambda: "storefront" in own.status()["services"], what="declared again")


def test_the_sidecar_of_a_removed_service_closes_and_opens_again(own: TrustDomainUnderTest) -> None:
    host, _, port = own.ready("orders")[0]["ingress"].rpartition(":")
    text = own.policy.read_text()
    before = own.status()["snapshot"]
    own.policy.write_text(
        "version: 1\ntrust_domain: shop.example\nservices:\n  storefront: {workload: [{run: true}]}\n"
    )
    own.wait_applied(before)

    def closed() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) != 0

    wait_until(closed, what="the ingress is closed")
    own.policy.write_text(text)
    wait_until(lambda: _call(own) == 200 if own.ready("orders") else False, what="it serves again")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_fifty_workloads_started_and_stopped(own: TrustDomainUnderTest) -> None:
    import sys

    from trust_domain import SERVER

    started = [own.run("orders", sys.executable, str(SERVER), "unix", wait=False) for _ in range(50)]
    wait_until(lambda: len(own.ready("orders")) == 51, seconds=180, what="all are ready")
    assert {_call(own) for _ in range(5)} == {200}
    for process in started:
        process.terminate()
    for process in started:
        process.wait(60)
    wait_until(lambda: len(own.ready("orders")) == 1, what="all are gone")
    wait_until(lambda: len(list((own.state / "envoy").iterdir())) == 1, what="their files are gone")
    wait_until(lambda: len(list((own.state / "spool").iterdir())) == 1, what="spools are handed over")
    assert _call(own) == 200
    assert Path(own.state / "run" / "workload.sock").exists()
