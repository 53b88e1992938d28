# SPDX-License-Identifier: Apache-2.0
"""Canaries in a whole trust domain: used at each door, found within a second, and answered."""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from trust_domain import TrustDomainUnderTest, trust_domain, wait_until

from everyhop.core.clock import parse_rfc3339

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront:
    workload: [{run: true}]
    operations: {browse: GET /browse}
  intruder: {workload: [{run: true}]}
  thief: {workload: [{run: true}]}
  orders:
    workload: [{run: true}]
    operations: {list: {route: GET /orders, token: required}}
    probes: [GET /healthz]
  vault-backup: {canary: true}
allow:
  - {from: outside, to: storefront, operations: [browse]}
  - {from: [storefront, intruder, thief], to: orders, operations: [list]}
"""
DOMAIN = "spiffe://shop.example/service/"
# A call through the workload's own sidecar to a name that nothing opens.
CALL = """\
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen("http://vault-backup/v1/secret").status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


@pytest.fixture(scope="module")
def domain() -> Iterator[TrustDomainUnderTest]:
    with trust_domain(POLICY) as made:
        made.serve("storefront", options=("--edge", "0"))
        made.serve("orders")
        yield made


def create(domain: TrustDomainUnderTest, kind: str, *more: str) -> tuple[str, str]:
    """Return id and text."""
    made = domain.json("canary", "create", kind, "--name", f"a {kind}", *more)
    return made["canary"]["id"], made["text"]


def found(domain: TrustDomainUnderTest, canary: str) -> dict[str, Any]:
    """Wait for the finding about a canary; it must be there within a second of the use's record."""

    def look() -> dict[str, Any] | None:
        records = [r for r in domain.records(kind="finding") if f"canary {canary}" in r["detail"]["title"]]
        return records[0] if records else None

    return wait_until(look)


def use_of(domain: TrustDomainUnderTest, finding: dict[str, Any]) -> dict[str, Any]:
    """Return the record that a finding names as evidence."""
    every = [*domain.records(kind="token"), *domain.records()]
    return next(record for record in every if record["id"] == finding["detail"]["evidence"])


def delay(domain: TrustDomainUnderTest, finding: dict[str, Any]) -> float:
    """Return the seconds from the record of the use to that of the finding."""
    times = [parse_rfc3339(record["time"]) for record in (use_of(domain, finding), finding)]
    return (times[1] - times[0]).total_seconds()


def outside(domain: TrustDomainUnderTest, token: str) -> httpx.Response:
    bundle = domain.root / "bundle.pem"
    if not bundle.exists():
        domain.cli("svid", "fetch", "storefront", "--write", str(domain.root / "id"))
        bundle.write_bytes((domain.root / "id" / "bundle.pem").read_bytes())
    context = ssl.create_default_context(cafile=str(bundle))
    context.check_hostname = False
    place = domain.ready("storefront")[0]["edge"]
    with httpx.Client(verify=context, trust_env=False) as client:
        return client.get(f"https://{place}/browse", headers={"authorization": f"Bearer {token}"})


def called(domain: TrustDomainUnderTest, caller: str, *headers: str) -> tuple[int, Any]:
    arguments = [part for header in headers for part in ("-H", header)]
    answer = domain.json("call", "orders", "GET", "/orders", "--as", caller, *arguments, code=None)
    return answer["status"], json.loads(answer["body"])


def test_the_log_and_a_key_that_is_refused_look_like_any_other(domain):
    canary, text = create(domain, "api-key")
    other = domain.cli("apikey", "create", "--owner", "acme", "--scope", "storefront.browse").strip()
    domain.cli("apikey", "revoke", other.split("_")[3])
    answers = [outside(domain, token) for token in (text, other)]
    assert [(a.status_code, a.json()["code"]) for a in answers] == [(401, "TOKEN_INVALID")] * 2
    made = [r for r in domain.records(kind="token") if r["operation"] == "create-api-key"]
    assert {tuple(sorted(record["detail"])) for record in made} == {
        ("api_key", "commitment", "expires_at", "owner", "scopes")
    }
    finding = found(domain, canary)
    assert finding["operation"] == "canary"
    assert finding["detail"]["severity"] == "critical"
    assert finding["caller"] == "address:127.0.0.1"
    assert delay(domain, finding) < 1.0
    listed = domain.json("canary", "list")["canaries"]
    assert [(c["id"], c["lookup"]) for c in listed] == [(canary, text.split("_")[3])]


def test_a_secret_at_an_ingress_quarantines_the_workload_that_showed_it(domain):
    canary, text = create(domain, "secret", "--response", "quarantine", "--prefix", "ghp_")
    status, body = called(domain, "thief", f"authorization: Bearer {text}")
    assert (status, body["code"]) == (401, "TOKEN_MALFORMED")
    finding = found(domain, canary)
    assert finding["caller"] == f"identity:{DOMAIN}thief"
    assert finding["reason"] == "quarantined"
    blocks = wait_until(lambda: [b for b in domain.json("blocks")["blocks"] if "thief" in b["subject"]])
    assert blocks[0]["mode"] == "quarantine"
    assert text not in json.dumps(domain.records(limit=1000))


def test_a_call_to_a_service_that_is_a_canary_quarantines_its_caller(domain):
    made = domain.json("canary", "create", "service", "--name", "vault-backup", "--response", "quarantine")
    assert made["is_declared"]
    done = domain.once("intruder", sys.executable, "-c", CALL)
    assert done.stdout.strip() == "403", done.stderr
    finding = found(domain, made["canary"]["id"])
    assert finding["caller"] == f"identity:{DOMAIN}intruder"
    assert finding["reason"] == "quarantined"
    assert use_of(domain, finding)["reason"] == "undeclared-destination"


def test_a_secret_at_the_token_endpoint_is_found(domain):
    canary, text = create(domain, "secret")
    url = domain.status()["urls"]["issuer"]
    outside(domain, "nothing")  # the bundle
    context = ssl.create_default_context(cafile=str(domain.root / "bundle.pem"))
    context.check_hostname = False
    with httpx.Client(verify=context, trust_env=False) as client:
        answer = client.post(
            f"{url}/oauth/token",
            data={"grant_type": "client_credentials", "client_secret": text, "client_id": "x"},
        )
    assert answer.status_code == 401
    assert found(domain, canary)["caller"] == "address:127.0.0.1"


def test_a_block_follows_a_key_and_an_ended_canary_only_alerts(domain):
    canary, text = create(domain, "api-key", "--response", "block")
    assert outside(domain, text).status_code == 401
    assert found(domain, canary)["reason"] == "blocked"
    answer = wait_until(lambda: (a := outside(domain, text)).status_code == 429 and a)
    assert answer.json()["code"] == "BLOCKED"
    domain.cli("unblock", "address:127.0.0.1", "--reason", "a test")
    assert domain.json("canary", "end", canary)["state"] == "ended"
    wait_until(lambda: outside(domain, text).status_code == 401)
    assert domain.json("blocks")["blocks"] == [
        b for b in domain.json("blocks")["blocks"] if "address" not in b["subject"]
    ]
