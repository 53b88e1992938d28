# SPDX-License-Identifier: Apache-2.0
"""Conditions in the whole product: one that Envoy decides, one that the agent decides, and records that tell both."""

from __future__ import annotations

import json
from functools import partial

from trust_domain import POLICY, TrustDomainUnderTest, trust_domain, wait_until

HEADERS = "attributes: {request: {headers: [x-region]}}\n"
OPEN = "operations: [list, read]"
ENVOY = "request.headers['x-region'] == 'eu'"
AGENT = f"{ENVOY} && now.getHours('Europe/Paris') >= 0"


def _conditioned(condition: str) -> str:
    assert OPEN in POLICY
    return POLICY.replace(OPEN, f'{OPEN}, when: "{condition}"', 1) + HEADERS


def _call(domain: TrustDomainUnderTest, region: str | None) -> tuple[str, dict[str, object]]:
    """Return the status of a call, and its record at the callee."""
    header = () if region is None else ("-H", f"x-region: {region}")
    curl = ("curl", "-sS", "--max-time", "10", "-D", "-", "-o", "/dev/null")
    head = domain.once("storefront", *curl, *header, "http://orders/orders").stdout.splitlines()
    fields = dict(line.lower().split(": ", 1) for line in head if ": " in line)
    known = {"x-everyhop-decision", "x-seen-decision"} & fields.keys()
    status = head[0].split()[1]
    records = wait_until(
        lambda: [
            r
            for r in domain.records(service="orders")
            if not known or r["id"] in {fields[name] for name in known}
        ],
        what="the record",
    )
    return status, dict(records[0] if known else records[-1])


def test_envoy_and_the_agent_decide_alike_and_an_edit_moves_the_decision() -> None:
    with trust_domain(_conditioned(ENVOY)) as domain:
        domain.serve()
        for condition, where in ((ENVOY, "envoy"), (AGENT, "agent")):
            if condition == AGENT:
                before = domain.status()["snapshot"]
                domain.edit_policy(f'"{ENVOY}"', f'"{AGENT}"')
                domain.wait_applied(before)
            placed = json.loads(domain.cli("policy", "show", str(domain.policy), "--placement", "-o", "json"))
            assert [c for rule in placed["rules"] for c in rule["cases"]] == [where]
            for region, status, reason in (
                ("us", "403", "condition-false"),
                (None, "403", "condition-error"),
                ("eu,us", "403", "condition-error"),
            ):
                found, record = _call(domain, region)
                assert (found, record["reason"]) == (status, reason), (where, region)
            found, record = _call(domain, "eu")
            assert found == "200"
            passed = wait_until(partial(_passed, domain), what="the record of the call that passed")
            assert (passed[-1]["decision"], passed[-1]["reason"]) == ("allow", "allowed"), where


def _passed(domain: TrustDomainUnderTest) -> list[dict[str, object]]:
    """Return the records of calls that passed by the rule, under the policy in force."""
    snapshot = domain.status()["snapshot"]
    records = domain.records(service="orders")
    return [r for r in records if r.get("rule") == "allow[0]" and r["snapshot"] == snapshot]
