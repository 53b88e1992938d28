# SPDX-License-Identifier: Apache-2.0
"""A policy that lets more in: planned, replayed on real calls, refused, held back, approved by another user."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from trust_domain import TrustDomainUnderTest, trust_domain, wait_until

from everyhop.control.local_link import LocalLink
from everyhop.core.errors import EveryhopError
from everyhop.demo.otheruser import NOBODY, as_nobody, can_change_user

pytestmark = [pytest.mark.timeout(240)]
OPEN = "operations: [list, read]"
WIDER = "operations: [list, read, create]"
NARROWER = "operations: [list]"


def call(domain: TrustDomainUnderTest, method: str, path: str) -> int:
    answer = domain.json("call", "orders", method, path, "--as", "storefront", code=None)
    return int(answer["status"])


def policy_records(domain: TrustDomainUnderTest) -> list[tuple[Any, ...]]:
    found = domain.records(kind="policy")
    return [(r["operation"], r.get("caller"), r.get("decision"), r.get("reason")) for r in found]


@pytest.fixture
def approvals() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="eh-approve-", dir="/tmp"))
    directory.chmod(0o755)
    yield directory / "s"
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.skipif(not can_change_user(), reason="needs a second user: run as root")
def test_from_a_plan_to_the_approval_of_another_user(approvals: Path) -> None:
    settings = {"two_person": "true", "approvers": str(NOBODY), "approval_socket": str(approvals)}
    with trust_domain(**settings) as domain:
        domain.serve()
        text = domain.policy.read_text(encoding="utf-8")
        wider, narrower = domain.root / "wider.yaml", domain.root / "narrower.yaml"
        wider.write_text(text.replace(OPEN, WIDER), encoding="utf-8")
        narrower.write_text(text.replace(OPEN, NARROWER), encoding="utf-8")
        assert [call(domain, "GET", f"/orders/{n}") for n in (7, 8)] == [200, 200]
        assert call(domain, "POST", "/orders") == 403
        wait_until(lambda: len(domain.records(service="orders")) >= 3, what="the calls are recorded")

        # plan, and its exit codes
        assert "nothing changes" in domain.cli("policy", "plan", str(domain.policy), code=0)
        assert "access does not widen" in domain.cli("policy", "plan", str(narrower), code=10)
        plan = domain.json("policy", "plan", str(wider), code=11)
        assert [change["door"] for change in plan["gained"]] == ["create"]
        flipped = domain.json("policy", "plan", str(narrower), "--since", "1h", code=10)["replay"]
        assert [(e["outcome"], e["operation"], e["count"]) for e in flipped["edges"]] == [("lost", "read", 2)]
        flipped = domain.json("policy", "diff", str(wider), "--replay", "1000", code=11)["replay"]
        assert [(e["outcome"], e["operation"], e["count"]) for e in flipped["edges"]] == [
            ("gained", "create", 1)
        ]

        # apply: refused, then proposed
        before = domain.status()["snapshot"]
        assert "not applied" in domain.cli("policy", "apply", str(wider), code=11)
        domain.cli("policy", "apply", str(wider), "--accept", before, code=5)
        assert domain.status()["snapshot"] == before
        proposed = domain.json("policy", "apply", str(wider), "--accept", plan["after"])
        assert (proposed["applied"], proposed["pending"]) == (False, plan["after"])
        assert "waits for approval" in domain.cli("status")
        assert "orders.create" in domain.cli("policy", "pending")

        # the proposer cannot approve it, by neither door; another user can
        domain.cli("policy", "approve", plan["after"], code=3)
        domain.cli("policy", "approve", plan["after"], "--socket", str(approvals), code=4)
        assert call(domain, "POST", "/orders") == 403

        def ask(method: str, path: str, body: dict[str, str] | None = None) -> str:
            link = LocalLink(approvals)
            try:
                return json.dumps(link.get(path) if method == "GET" else link.post(path, body))
            except EveryhopError as error:
                return error.code

        assert as_nobody(lambda: ask("GET", "/v1/status")) == "NOT_FOUND"
        assert as_nobody(lambda: ask("POST", "/v1/policy/approve", {"hash": before})) == "CONFLICT"
        approved = as_nobody(lambda: ask("POST", "/v1/policy/approve", {"hash": plan["after"]}))
        assert json.loads(approved) == {"snapshot": plan["after"], "applied": True}
        wait_until(lambda: call(domain, "POST", "/orders") == 200, what="the policy is in force")
        assert policy_records(domain)[1:] == [
            ("apply", "uid:0", "deny", "not-confirmed"),
            ("apply", "uid:0", "deny", "another-hash"),
            ("propose", "uid:0", None, None),
            ("approve", "uid:0", "deny", "same-person"),
            ("approve", f"uid:{NOBODY}", "deny", "another-hash"),
            ("apply", f"uid:{NOBODY}", None, None),
        ]

        # a text that comes by file is held back as well; one that only closes is not
        domain.edit_policy(
            "allow:\n", "allow:\n  - {from: intruder, to: orders, operations: [list, create]}\n"
        )
        pending = wait_until(lambda: domain.status()["pending_policy"], what="held back")
        assert pending["proposer"] == "file:uid:0"
        domain.policy.write_text(text, encoding="utf-8")
        wait_until(lambda: domain.status()["pending_policy"] is None, what="withdrawn")
        wait_until(lambda: call(domain, "POST", "/orders") == 403, what="closed at once")
