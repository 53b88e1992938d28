# SPDX-License-Identifier: Apache-2.0
"""AuthZEN through the server's face: the whole scenario by mTLS, then tokens, API keys, and what is refused there."""

import json
import ssl
import sys
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
from trust_domain import trust_domain

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance" / "authzen"))

import run_scenario
import scenario
from authzen_policies import CERTIFICATION

POLICY = CERTIFICATION.replace("CALLER", "[gateway, outside]").replace(
    "services:\n", "services:\n  intruder: {workload: [{run: true}]}\n"
)
EVALUATE = "/access/v1/evaluation"
ASK = scenario.ask(scenario.ALICE, scenario.WRITE, scenario.ONE)
PDP_AUDIENCE = "urn:everyhop:authzen"


@pytest.fixture(scope="module")
def domain():
    with trust_domain(POLICY) as started:
        for name in ("gateway", "intruder", "records"):
            started.cli("svid", "fetch", name, "--write", str(started.root / name))
        yield started


@pytest.fixture(scope="module")
def base(domain):
    return domain.json("status")["urls"]["authzen"]


@pytest.fixture(scope="module")
def clients(domain, base):
    """Clients by the service whose certificate they show; None shows none."""
    made = {}
    for name in ("gateway", "intruder", "records", None):
        context = ssl.create_default_context(cafile=domain.root / "gateway" / "bundle.pem")
        if name is not None:
            context.load_cert_chain(domain.root / name / "svid.pem", domain.root / name / "key.pem")
        made[name] = httpx.Client(verify=context, base_url=base, timeout=20)
    yield made
    for client in made.values():
        client.close()


def test_strangers_are_refused(clients):
    answer = clients[None].post(EVALUATE, json=ASK)
    assert (answer.status_code, answer.text) == (401, "authenticate as a PEP")
    forged = {
        "x-forwarded-client-cert": "By=x;Hash=" + "ab" * 32 + ";URI=spiffe://shop.example/service/gateway"
    }
    assert clients[None].post(EVALUATE, json=ASK, headers=forged).status_code == 401
    assert clients[None].post(EVALUATE, json=ASK, headers={"authorization": "Bearer x"}).status_code == 401


def test_a_service_that_neither_calls_nor_is_called_is_refused(clients):
    asked = {**ASK, "context": {"caller": "gateway"}}
    assert clients["intruder"].post(EVALUATE, json=asked).status_code == 403
    answer = clients["intruder"].post(EVALUATE, json=ASK)  # about a call of its own: an answer, and it is no
    assert (answer.status_code, answer.json()["decision"]) == (200, False)


def test_too_much_is_refused(clients):
    deep = b'{"a":' * 200 + b"1" + b"}" * 200
    for body, statuses in (
        (b"x" * 70_000, {400, 413}),
        (deep, {400}),
        (json.dumps({**ASK, "evaluations": [{}] * 10_000}).encode(), {400}),
    ):
        path = "/access/v1/evaluations"
        answer = clients["gateway"].post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in statuses


def test_the_scenario(clients, base):
    found, problems = scenario.discover(clients["gateway"], base)
    assert problems == []
    pdp = scenario.Pdp(clients["gateway"], found)
    assert [problem for check in scenario.CHECKS for problem in scenario.run(pdp, check)] == []
    assert scenario.run_pages(pdp) == []
    assert scenario.discover(clients["gateway"], base.replace("127.0.0.1", "localhost"))[1] == []


def test_the_runner_for_any_pdp(domain, base, capsys):
    held = domain.root / "gateway"
    files = ["--cacert", held / "bundle.pem", "--cert", held / "svid.pem", "--key", held / "key.pem"]
    assert run_scenario.main([base, *map(str, files)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert all(line.endswith("passed") for line in lines)
    page = (Path(__file__).parents[2] / "docs" / "reference" / "authzen.md").read_text(encoding="utf-8")
    assert "\n".join(lines) in page
    assert run_scenario.main([base, *map(str, files[:2])]) == 1  # a PEP that nobody knows passes nothing


def test_a_decision_can_be_explained_by_its_id(domain, clients):
    denied = scenario.ask(scenario.ALICE, scenario.WRITE, scenario.ARCHIVED)
    answer = clients["gateway"].post(EVALUATE, json=denied).json()
    assert answer["decision"] is False
    shown = domain.json("why", answer["context"]["decision_id"])
    assert shown["record"]["reason"] == answer["context"]["reason"] == "condition-false"
    assert shown["record"]["detail"]["pep"] == "spiffe://shop.example/service/gateway"
    assert "resource.status" in shown["text"]
    (line,) = [line for line in domain.cli("log", "show").splitlines() if shown["record"]["id"] in line]
    assert "gateway -> records PUT /records/record-2 (asked over authzen)" in line


def token(client, audience=PDP_AUDIENCE):
    form = urlencode({"grant_type": "client_credentials", "audience": audience})
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = client.post("/oauth/token", content=form, headers=headers)
    assert answer.status_code == 200, answer.text
    return {"authorization": f"Bearer {answer.json()['access_token']}"}


def test_a_token_counts_for_the_decision_point_alone(clients):
    good, other = token(clients["gateway"]), token(clients["gateway"], "records")
    assert clients["gateway"].post(EVALUATE, json=ASK, headers=good).json()["decision"] is True
    assert clients["gateway"].post(EVALUATE, json=ASK, headers=other).status_code == 401
    assert clients["intruder"].post(EVALUATE, json=ASK, headers=good).status_code == 401
    assert clients[None].post(EVALUATE, json=ASK, headers=good).status_code == 401


def test_an_api_key_asks_about_its_scopes(domain, clients):
    made = domain.json("apikey", "create", "--owner", "edge", "--scope", "records.read")
    headers = {"authorization": f"Bearer {made['key']}"}
    read = scenario.ask(scenario.ALICE, scenario.READ, scenario.ONE)
    assert clients[None].post(EVALUATE, json=read, headers=headers).json()["decision"] is True
    assert clients[None].post(EVALUATE, json=ASK, headers=headers).status_code == 403
    wrong = {"authorization": f"Bearer {made['key'][:-1]}x"}
    assert clients[None].post(EVALUATE, json=read, headers=wrong).status_code == 401


def test_refusals_are_recorded(domain, clients):
    clients["intruder"].post(EVALUATE, json={**ASK, "context": {"caller": "gateway"}})
    lines = domain.cli("log", "show", "--all", "-n", "200", "-o", "json").splitlines()
    details = [json.loads(line).get("detail", {}) for line in lines]
    assert any(d.get("error") == "access_denied" and d.get("endpoint") == EVALUATE for d in details)
