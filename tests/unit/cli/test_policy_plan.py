# SPDX-License-Identifier: Apache-2.0
"""``everyhop policy plan`` and ``apply``: exit codes, contracts, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from everyhop.cli.__main__ import main

POLICY = """\
version: 1
trust_domain: shop.example
services: {shop: {}, orders: {operations: {list: GET /orders, read: "GET /orders/{id}"}}}
allow: [{from: shop, to: orders, operations: [list]}]
tests: [{from: shop, call: GET /orders, to: orders, expect: allow}]
"""
WIDER = POLICY.replace("operations: [list]}]", "operations: [list, read]}]")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    for name, text in (
        ("old", POLICY),
        ("wider", WIDER),
        ("failing", WIDER.replace("expect: allow", "expect: deny")),
        ("other", POLICY.replace("shop.example", "other.example")),
        ("broken", "version: 1"),
    ):
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("new", "old", "code"),
    [
        ("broken", "old", 2),
        ("old", "broken", 2),
        ("failing", "old", 2),
        ("other", "old", 5),
        ("missing", "old", 2),
        ("wider", "old", 11),
        ("old", "wider", 10),
        ("old", "old", 0),
    ],
)
def test_exit_codes(texts: Path, new: str, old: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["policy", "plan", str(texts / f"{new}.yaml"), "--policy", str(texts / f"{old}.yaml")]) == code
    )
    capsys.readouterr()


def test_the_contract(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(
        ["policy", "diff", str(texts / "wider.yaml"), "--policy", str(texts / "old.yaml"), "-o", "json"]
    )
    plan = json.loads(capsys.readouterr().out)
    assert code == 11
    assert list(plan) == [
        "before",
        "after",
        "same",
        "wider",
        "gained",
        "lost",
        "terms",
        "routes",
        "unexplored",
        "counts",
    ]
    (change,) = plan["gained"]
    assert change["callers"] == {"group": "services", "names": ["shop"], "count": 1}
    assert (change["service"], change["door"], change["users"], change["depends_on_facts"]) == (
        "orders",
        "read",
        None,
        False,
    )
    example = change["example"]
    assert (example["before"]["reason"], example["after"]["reason"]) == ("no-rule", "allowed")
    # the command that is shown gives the answer that is shown, under either policy
    import shlex

    argv = shlex.split(example["command"])[1:]
    assert main([*argv, "--policy", str(texts / "old.yaml")]) == 3
    assert main([*argv, "--policy", str(texts / "wider.yaml")]) == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    "arguments", [["--replay", "0"], ["--replay", "x"], ["--replay", "5", "--since", "1h"]]
)
def test_bad_arguments(texts: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["policy", "plan", str(texts / "wider.yaml"), *arguments])
    capsys.readouterr()


@pytest.mark.parametrize(
    "arguments",
    [["plan", "wider.yaml"], ["apply", "wider.yaml"], ["pending"], ["approve", "0" * 64], ["refuse", "0"]],
)
def test_without_a_trust_domain(
    texts: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(texts)
    assert main(["policy", *arguments, "--state", str(texts / "s")]) == 4
    assert "everyhop up" in capsys.readouterr().err


def test_facts_that_are_wrong_are_refused(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["can", "shop", "GET /orders", "orders", "--policy", str(texts / "old.yaml"), "--facts"]
    assert main([*base, '{"usr": 1}']) == 2
    assert "did you mean 'user'" in capsys.readouterr().err
    assert main(["can", "outside", "GET /orders", "orders", "--policy", str(texts / "old.yaml")]) == 3
    assert "outside" in capsys.readouterr().out
