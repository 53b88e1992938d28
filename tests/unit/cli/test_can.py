# SPDX-License-Identifier: Apache-2.0
"""``everyhop can`` with facts: what is refused, what is explained, and that the patch does what it says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from everyhop.cli.__main__ import main

POLICY = """\
version: 1
trust_domain: shop.example
attributes:
  user: {department: string, clearance: int, tags: strings}
  device: {managed: bool}
  resource: {owner: string}
  request: {headers: [x-region]}
roles:
  viewer: [orders.list]              # a list
  reader:
    - orders.read
  clerk: {includes: [viewer], grants: [orders.create]}
  boss: {includes: [clerk]}
  staff:
    groups: [Staff]
    includes: [viewer]
services:
  shop: {}
  batch: {}
  orders:
    operations:
      list: GET /orders
      read: "GET /orders/{id}"
      create: POST /orders
      purge: DELETE /orders
      tag: PUT /tags
  ledger: {tcp: 5432}
allow:
  # people
  - {from: shop, to: orders, operations: [list, read, create], user: required}
  - {from: shop, to: orders, operations: [tag], user: required, when: "user.department == 'sales' && device.managed"}
  - {from: batch, to: orders, operations: [list]}   # no user
deny:
  - {from: any, to: orders, operations: [create], when: "now.getHours('UTC') < 7", reason: not at night}
tests:
  - {from: batch, call: POST /orders, to: orders, at: 2026-05-01T12:00:00Z, expect: deny}
directory:
  resources:
    order: {service: orders, parameter: id, items: {"7": {owner: dora}}}
"""
NOON = ["--at", "2026-05-01T12:00:00Z"]


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVERYHOP_STATE", str(tmp_path / "state"))
    (tmp_path / "everyhop.yaml").write_text(POLICY, encoding="utf-8")
    return tmp_path / "everyhop.yaml"


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (["--attr", "user.departmnt=sales"], "did you mean 'user.department'?"),
        (["--attr", "service.team=x"], "declares no attribute 'service.team'"),
        (["--attr", "user.id=x"], "declares no attribute 'user.id'"),
        (["--attr", "department=sales"], "did you mean 'user.department'?"),
        (["--attr", "user.department"], "write user.department=sales"),
        (["--attr", "user.clearance=high"], "not a value of type int"),
        (["--attr", "user.clearance=1.5"], "not a value of type int"),
        (["--attr", "device.managed=yes"], "not a value of type bool"),
        (["--attr", "user.department=a", "--attr", "user.department=b"], "stated twice"),
        (["--role", "viewr"], "did you mean 'viewer'?"),
        (["--role", "viewer,clerk"], "declares no role or group"),
        (["--header", "x-regon=eu"], "did you mean 'x-region'?"),
        (["--header", "authorization=x"], "declares no header"),
        (["--header", "x-region"], "write x-region=eu"),
        (["--mfa", "--amr", "pwd"], "say either"),
        (["--issuer", "https://x.example"], "declares no issuer"),
        (["--at", "yesterday"], "not a time"),
        (["--at", "2026-05-01T12:00:00"], "not a time"),
        (["--source-ip", "10.0.0"], "no IP address"),
        (["--resource", "order"], "write TYPE/ID"),
        (["--resource", "ordr/7"], "did you mean 'order'?"),
        (["--user", "a\nb"], "one line"),
    ],
)
def test_what_the_policy_does_not_know_is_refused(
    facts: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["can", "shop", "GET /orders", "orders", *facts]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize(
    ("call", "facts", "reason"),
    [
        ("GET /orders", [], "user-required"),
        ("GET /orders", ["--user", "vera"], "user-not-permitted"),
        ("GET /orders", ["--role", "reader"], "user-not-permitted"),
        ("POST /orders", ["--role", "clerk", "--at", "2026-05-01T03:00:00Z"], "denied-by-rule"),
        ("PUT /tags", ["--role", "boss", *NOON], "user-not-permitted"),
        ("DELETE /orders", ["--role", "boss", *NOON], "no-rule"),
        ("GET /orders//7", ["--role", "reader"], "ambiguous-path"),
    ],
)
def test_denials_keep_their_exit_code(
    call: str, facts: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["can", "shop", call, "orders", *facts, "-o", "json"]) == 3
    assert json.loads(capsys.readouterr().out)["reason"] == reason


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize(
    ("call", "facts"),
    [
        ("GET /orders", ["--role", "viewer"]),
        ("GET /orders", ["--user", "x", "--role", "Staff"]),
        ("GET /orders/7", ["--role", "reader", "--header", "x-region=eu"]),
        ("POST /orders", ["--role", "clerk", *NOON]),
        ("POST /orders", ["--role", "boss", *NOON]),
    ],
)
def test_facts_open_what_they_should(call: str, facts: list[str]) -> None:
    assert main(["can", "shop", call, "orders", *facts]) == 0


def test_every_clause_is_shown_with_what_it_saw(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy.write_text(POLICY.replace("- orders.read", "- orders.read\n    - orders.tag"), encoding="utf-8")
    question = ["can", "shop", "PUT /tags", "orders", "--role", "reader", "--attr", "user.department=it"]
    assert main([*question, "--explain"]) == 3
    out = capsys.readouterr().out
    assert "false user.department == 'sales'  (user.department = it)" in out.replace("'it'", "it").replace(
        '"it"', "it"
    )
    assert "error device.managed" in out
    assert "everyhop.yaml:3" in out
    assert main([*question, "--explain", "-o", "json"]) == 3
    rule = json.loads(capsys.readouterr().out)["rules"][0]
    assert (rule["id"], rule["verdict"], [c["value"] for c in rule["clauses"]]) == (
        "allow[1]",
        "condition-false",
        ["false", "error"],
    )
    open_it = [*question[:-1], "user.department=sales", "--attr", "device.managed=true"]
    assert main(open_it) == 0


NEEDS_PATCH = [
    ("no-rule", "batch", "DELETE /orders", []),
    ("no-rule", "shop", "DELETE /orders", ["--role", "boss"]),
    ("no-rule", "batch", "GET /orders/7", ["--role", "reader"]),
    ("no-rule", "shop", "tcp", []),
    ("unknown-operation", "shop", "PATCH /orders/7", []),
    ("unknown-operation", "shop", "GET /news", []),
    ("user-not-permitted", "shop", "GET /orders/7", ["--role", "viewer"]),
    ("user-not-permitted", "shop", "GET /orders", ["--role", "reader"]),
    ("user-not-permitted", "shop", "GET /orders/7", ["--role", "clerk"]),
    ("user-not-permitted", "shop", "GET /orders/7", ["--role", "boss"]),
    ("user-not-permitted", "shop", "POST /orders", ["--role", "Staff", *NOON]),
]


@pytest.mark.parametrize(("reason", "caller", "call", "facts"), NEEDS_PATCH)
def test_the_patch_applied_allows_the_call(
    policy: Path, reason: str, caller: str, call: str, facts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    target = "ledger" if call == "tcp" else "orders"
    question = ["can", caller, call, target, *facts]
    assert main([*question, "-o", "json"]) == 3
    answer = json.loads(capsys.readouterr().out)
    assert answer["reason"] == reason
    assert answer["patch"], answer["suggestion"]
    patch = ["patch", "-p1", "--fuzz=0"]
    subprocess.run(
        patch, cwd=policy.parent, input=answer["patch"], text=True, check=True, capture_output=True
    )
    assert main(question) == 0
    assert set(POLICY.splitlines()) - set(policy.read_text().splitlines()) <= {
        line for line in POLICY.splitlines() if line.strip().startswith(("viewer:", "clerk:", "boss:"))
    }


def test_without_a_user_a_patched_rule_for_users_stays_closed(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["can", "shop", "DELETE /orders", "orders", "--role", "boss", "-o", "json"]) == 3
    patch = json.loads(capsys.readouterr().out)["patch"]
    subprocess.run(
        ["patch", "-p1"], cwd=policy.parent, input=patch, text=True, check=True, capture_output=True
    )
    assert main(["can", "shop", "DELETE /orders", "orders"]) == 3


def test_a_patch_that_a_test_of_the_policy_forbids_is_not_given(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question = ["can", "batch", "POST /orders", "orders", *NOON]
    assert main([*question, "-o", "json"]) == 3
    assert json.loads(capsys.readouterr().out)["patch"] is None
    assert main([*question, "--explain"]) == 3
    assert "one of the policy's own tests fails" in capsys.readouterr().out
    assert main(["can", "batch", "DELETE /orders", "orders", "--user", "u"]) == 3
    assert "no role that could be granted it" in capsys.readouterr().out
    policy.write_text(POLICY.replace("create], when", "create], id: night, when"), encoding="utf-8")
    assert main(["can", "batch", "POST /orders", "orders", "--at", "2026-05-01T03:00:00Z", "--explain"]) == 3
    assert "no change of the policy is suggested" in capsys.readouterr().out


def test_a_directory_is_patched_in_the_right_file(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    head, allow = policy.read_text().split("allow:\n")
    (folder / "a.yaml").write_text(head)
    (folder / "b.yaml").write_text("version: 1\nallow:\n" + allow)
    assert main(["can", "batch", "DELETE /orders", "orders", "--policy", "p", "-o", "json"]) == 3
    patch = json.loads(capsys.readouterr().out)["patch"]
    assert patch.startswith("--- a/p/b.yaml\n+++ b/p/b.yaml\n")
