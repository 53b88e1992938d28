# SPDX-License-Identifier: Apache-2.0
"""``log shadow`` and ``policy suggest`` on traffic that a test makes up: limits that are said, patches, exit codes."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from everyhop.authz.traffic import Seen
from everyhop.cli import traffic as module
from everyhop.cli.__main__ import main
from everyhop.cli.traffic import Traffic, moment_before
from everyhop.core.errors import InputError

POLICY = """\
version: 1
trust_domain: shop.example
services:
  shop: {}
  batch: {}
  orders: {operations: {list: GET /orders, read: "GET /orders/{id}", create: POST /orders}}
allow:
  - {from: shop, to: orders, operations: [list, read]}   # shop
  - {from: shop, to: orders, operations: [create]}
shadow:
  - {from: batch, to: orders}
"""
NOW = datetime(2026, 5, 31, tzinfo=UTC)


def seen(caller: str, operation: str | None, **more: Any) -> Seen:
    base = {
        "point": "ingress",
        "caller": f"spiffe://shop.example/service/{caller}",
        "target": "orders",
        "operation": operation,
        "call": None,
        "decision": "allow",
        "reason": "allowed",
        "rule": None,
        "would": None,
        "would_reason": None,
        "would_rule": None,
        "user": False,
        "count": 3,
        "first": NOW,
        "last": NOW,
        "example": "id-1",
    }
    return Seen(**{**base, **more})


SHADOWED = seen("batch", "list", reason="shadowed", would="deny", would_reason="no-rule")
REFUSED = seen("batch", "read", decision="deny", reason="no-rule")


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVERYHOP_STATE", str(tmp_path / "state"))
    (tmp_path / "everyhop.yaml").write_text(POLICY)
    return tmp_path / "everyhop.yaml"


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Any:
    def give(*groups: Seen, **more: Any) -> None:
        base = {
            "groups": list(groups),
            "now": NOW,
            "since": NOW - timedelta(days=30),
            "records_from": NOW - timedelta(days=90),
            "policy_from": NOW - timedelta(days=90),
            "counted": sum(group.count for group in groups),
            "left_out": 0,
        }
        monkeypatch.setattr(module, "read_traffic", lambda *_, **__: Traffic(**{**base, **more}))

    return give


def answer(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert main([*arguments, "-o", "json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "-1d", "30", "2026-05-31", "2026-05-31T00:00:00", "999999999999d"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InputError):
        moment_before(text, NOW)


def test_times() -> None:
    assert moment_before("24h", NOW) == NOW - timedelta(days=1)
    assert moment_before("999999999d", NOW) == NOW - timedelta(days=3650)
    assert moment_before("2026-05-01T00:00:00Z", NOW) == datetime(2026, 5, 1, tzinfo=UTC)


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"records_from": NOW - timedelta(days=6)}, "records reach back 6d only"),
        ({"policy_from": NOW - timedelta(days=2)}, "the policy in force is 2d old"),
        ({"records_from": None}, "no decision is recorded"),
        ({"left_out": 7}, "7 decisions are of too many kinds"),
    ],
)
def test_limits_are_said_in_every_form(
    recorded: Any, more: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(seen("shop", "list"), **more)
    assert words in " ".join(answer(capsys, "policy", "suggest")["limits"])
    assert main(["policy", "suggest"]) == 0
    assert words in capsys.readouterr().out
    assert main(["policy", "suggest", "-o", "patch"]) == 0
    assert words in capsys.readouterr().err
    assert main(["log", "shadow"]) == 0
    assert words in capsys.readouterr().out


@pytest.mark.usefixtures("policy")
def test_nothing_is_unused_where_not_everything_was_told_apart(
    recorded: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(seen("shop", "list"), left_out=1)
    found = answer(capsys, "policy", "suggest")
    assert (found["narrow"], found["patch"]) == ([], "")
    assert main(["policy", "suggest"]) == 0
    assert "nothing is said about what was not used" in capsys.readouterr().out


def test_the_patch_narrows_and_opens_only_when_asked(
    policy: Path, recorded: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(seen("shop", "list"), REFUSED)
    found = answer(capsys, "policy", "suggest")
    assert [n["kind"] for n in found["narrow"]] == ["too-wide", "unused"]
    assert "+  - {from: batch" not in found["patch"]
    assert found["candidates"][0]["suggestion"]["edits"][0]["add_to"] == "allow"
    assert main(["policy", "suggest", "--open", "-o", "patch"]) == 0
    patch = capsys.readouterr().out
    subprocess.run(
        ["patch", "-p1"], cwd=policy.parent, input=patch, text=True, check=True, capture_output=True
    )
    assert policy.read_text() == POLICY.replace("[list, read]}   # shop", "[list]}   # shop").replace(
        "  - {from: shop, to: orders, operations: [create]}\n",
        "  - {from: batch, to: orders, operations: [read]}\n",
    )


@pytest.mark.usefixtures("policy")
def test_what_shadow_would_break(recorded: Any, capsys: pytest.CaptureFixture[str]) -> None:
    recorded(SHADOWED)
    found = answer(capsys, "log", "shadow")
    assert [(f["from"], f["operation"], f["count"], f["example"]) for f in found["would_break"]] == [
        ("batch", "list", 3, "id-1")
    ]
    assert "+  - {from: batch, to: orders, operations: [list]}" in found["patch"]
    answer(capsys, "log", "shadow", "--check", code=1)
    recorded(seen("shop", "list", would="allow", would_reason="allowed", would_rule="allow[1]"))
    found = answer(capsys, "log", "shadow", "--check")
    assert (len(found["would_break"]), len(found["would_open"]), found["patch"]) == (0, 1, None)


@pytest.mark.usefixtures("policy")
def test_nothing_seen_is_nothing_said(recorded: Any, capsys: pytest.CaptureFixture[str]) -> None:
    recorded()
    assert main(["policy", "suggest"]) == 0
    assert "nothing to suggest" in capsys.readouterr().out
    assert main(["log", "shadow", "--check"]) == 0
    assert "nothing would change" in capsys.readouterr().out


@pytest.mark.usefixtures("policy")
def test_text_of_callers_cannot_drive_the_terminal(recorded: Any, capsys: pytest.CaptureFixture[str]) -> None:
    evil = {
        "call": "GET /\x1b[2J",
        "would_reason": "unknown-operation",
        "would": "deny",
        "reason": "shadowed",
    }
    recorded(
        seen("batch", None, **evil),
        seen("batch", None, call="GET /\x1b]0;x", decision="deny", reason="no-rule"),
    )
    for verb in (["log", "shadow"], ["policy", "suggest", "--open"]):
        assert main(verb) == 0
        assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("verb", [["log", "shadow"], ["policy", "suggest"]])
@pytest.mark.usefixtures("policy")
def test_without_a_server_the_fix_is_named(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(verb) == 4
    assert "everyhop up" in capsys.readouterr().err
