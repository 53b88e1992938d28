# SPDX-License-Identifier: Apache-2.0
"""Five hundred bad calls, and then the 429: the whole way, from a sidecar's line to a block at the edge."""

from __future__ import annotations

import json
import ssl
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from trust_domain import TrustDomainUnderTest, trust_domain, wait_until

from everyhop.core.clock import parse_rfc3339

pytestmark = pytest.mark.slow

BUSY_SECONDS = 8.0
"""The sidecar's flush of 0.1 s, the agent's look, two commits, and the way back: the bar is a second on a machine that has
time for it, which benchmarks/bench_limiter.py measures from the record on.  Test machines are shared."""

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront:
    workload: [{run: true}]
    operations: {browse: GET /browse}
  probe: {workload: [{run: true}]}
  orders:
    workload: [{run: true}]
    operations: {list: GET /orders}
allow:
  - {from: outside, to: storefront, operations: [browse]}
  - {from: probe, to: orders, operations: [list]}
detect:
  services: {block_for: 1h}
"""


@pytest.fixture(scope="module")
def domain() -> Iterator[TrustDomainUnderTest]:
    with trust_domain(POLICY) as made:
        made.serve("storefront", options=("--edge", "0"))
        made.serve("orders")
        yield made


def client_of(domain: TrustDomainUnderTest) -> tuple[httpx.Client, str]:
    domain.cli("svid", "fetch", "storefront", "--write", str(domain.root / "id"))
    context = ssl.create_default_context(cafile=str(domain.root / "id" / "bundle.pem"))
    context.check_hostname = False  # it shows the service's SVID
    return httpx.Client(verify=context, trust_env=False), f"https://{domain.ready('storefront')[0]['edge']}"


def findings_of(domain: TrustDomainUnderTest) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for line in domain.cli("findings", "--detector", "rate-anomaly", "-o", "json").splitlines()
    ]


def test_500_bad_calls_and_then_429(domain):
    client, edge = client_of(domain)
    with client:
        for _ in range(500):
            assert client.get(f"{edge}/browse").status_code == 401
        began = time.monotonic()
        answer = wait_until(lambda: (r := client.get(f"{edge}/browse")).status_code == 429 and r, seconds=10)
        took = time.monotonic() - began
    assert answer.json()["code"] == "BLOCKED"
    assert 3500 <= int(answer.headers["retry-after"]) <= 3601
    assert took < BUSY_SECONDS
    alert, block = findings_of(domain)
    assert [(one["answer"], one["observed"]) for one in (alert, block)] == [("alert", 100), ("blocked", 500)]
    assert block["subject"] == "address:127.0.0.1"
    evidence = {record["id"]: record for record in domain.records()}
    assert len(block["evidence"]) == 8
    last = evidence[block["evidence"][-1]]
    delay = (parse_rfc3339(block["time"]) - parse_rfc3339(last["time"])).total_seconds()
    assert 0 <= delay < BUSY_SECONDS
    shown = domain.json("detect", "show", "address:127.0.0.1")
    assert (shown["blocked"], shown["count"]) == (True, 0)
    (blocked,) = domain.json("blocks")["blocks"]
    assert (blocked["by"], blocked["finding"]) == ("detection", block["id"])


def test_unblocked_it_begins_at_zero(domain):
    domain.cli("unblock", "address:127.0.0.1", "--reason", "it was a test")
    client, edge = client_of(domain)
    with client:
        assert wait_until(lambda: client.get(f"{edge}/browse").status_code == 401, seconds=5)
        for _ in range(50):
            assert client.get(f"{edge}/browse").status_code == 401
    shown = wait_until(
        lambda: (s := domain.json("detect", "show", "address:127.0.0.1"))["count"] >= 50 and s, seconds=10
    )
    assert shown["count"] <= 60
    assert shown["blocked"] is False


def test_what_another_policy_would_have_found(domain):
    milder = domain.root / "milder.yaml"
    milder.write_text(POLICY + "  addresses: {alert: 40, block: never}\n", encoding="utf-8")
    told = domain.json("detect", "replay", "--since", "1h", "--policy", str(milder))
    counts = {(entry["detector"], entry["answer"]): entry["count"] for entry in told["counts"]}
    assert counts["rate-anomaly", "alert"] == 1
    assert told["blocked"] == []
    assert "40 calls within 5m" in {finding["title"] for finding in told["findings"]}


def test_the_status_says_what_holds(domain):
    status = domain.json("detect", "status")
    assert status["leading"] is True
    assert status["limits"]["addresses"] == {
        "alert": 100, "block": 500, "block_seconds": 3600, "count": "all", "expected_rate": None
    }  # fmt: skip
    assert "canary" in status["detectors"]
    assert "rate" not in domain.cli("detect", "status").lower().split("detectors:")[0]


PROBING = """
import os, sys, time, urllib.error, urllib.request

def status(path):
    try:
        with urllib.request.urlopen("http://orders" + path, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code

assert status("/orders") == 200
for n in range(500):
    assert status(f"/admin/{n}") == 403
began = time.monotonic()
while (code := status("/orders")) == 200 and time.monotonic() < began + 10:
    time.sleep(0.02)
print(code, time.monotonic() - began)
"""


def test_a_service_that_probes_is_cut_off_from_what_it_may_call(domain):
    done = domain.once("probe", sys.executable, "-c", PROBING, timeout=120)
    assert done.returncode == 0, done.stderr
    code, took = done.stdout.split()
    assert code == "429"
    assert float(took) < BUSY_SECONDS
    found = [one for one in findings_of(domain) if one["subject"].endswith("/probe")]
    assert [(one["answer"], one["observed"]) for one in found] == [("alert", 100), ("blocked", 500)]
    assert found[1]["target"] == "orders"
