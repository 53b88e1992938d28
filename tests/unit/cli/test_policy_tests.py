# SPDX-License-Identifier: Apache-2.0
"""``everyhop policy test``: exit codes for CI, coverage, and generated cases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from everyhop.cli.__main__ import main

POLICY = """\
version: 1
trust_domain: shop.example
services:
  shop: {}
  orders: {operations: {list: GET /orders, tag: PUT /tags}}
allow:
  - {from: shop, to: orders, operations: [list]}
  - {from: shop, to: orders, operations: [tag], when: "request.query.x == 'y'"}
tests:
  - {from: shop, call: GET /orders, to: orders, expect: allow}
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "p.yaml"
    path.write_text(POLICY)
    return path


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([], 0),
        (["--coverage"], 0),
        (["--min-coverage", "25"], 0),
        (["--min-coverage", "26"], 7),
        (["--min-coverage", "100"], 7),
        (["--generate"], 0),
        (["--generate", "--min-coverage", "100"], 7),
    ],
)
def test_exit_codes(policy: Path, options: list[str], code: int) -> None:
    assert main(["policy", "test", str(policy), *options]) == code
    assert main(["policy", "test", str(policy), *options, "-o", "json"]) == code


def test_a_failing_test_counts_before_coverage(policy: Path) -> None:
    policy.write_text(POLICY.replace("expect: allow", "expect: deny"))
    for options in ([], ["--coverage"], ["--min-coverage", "100"], ["--generate"]):
        assert main(["policy", "test", str(policy), *options]) == 1


@pytest.mark.parametrize("text", ["-1", "101", "x", "nan"])
def test_no_percentage(policy: Path, text: str) -> None:
    with pytest.raises(SystemExit):
        main(["policy", "test", str(policy), "--min-coverage", text])


def test_the_output_of_generate_can_be_pasted(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "test", str(policy), "--generate"]) == 0
    generated = capsys.readouterr().out
    assert "# condition-false" in generated
    head = POLICY[: POLICY.index("tests:")]
    policy.write_text(head + generated)
    assert main(["policy", "test", str(policy), "--coverage", "-o", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["coverage"]["rules"][1] == {
        "id": "allow[1]",
        "file": str(policy),
        "line": 8,
        "tests": 1,
        "clauses": [{"text": "request.query['x'] == 'y'", "true": True, "false": True}],
    }
    assert answer["coverage"]["untested_operations"] == ["orders.list"]


def test_the_plain_answer_stays_a_list(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "test", str(policy), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["passed"] is True
