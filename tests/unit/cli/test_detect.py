# SPDX-License-Identifier: Apache-2.0
"""``everyhop detect test``: a rehearsal that needs nothing but a policy; and the page says what the program says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from everyhop.cli.__main__ import main

PAGE = (Path(__file__).parents[3] / "docs/reference/detection.md").read_text(encoding="utf-8")
POLICY = "version: 1\ntrust_domain: shop.example\nservices: {orders: {}, batch: {}}\n"


@pytest.fixture
def policy(tmp_path):
    def write(detect=""):
        path = tmp_path / "shop.yaml"
        path.write_text(POLICY + detect, encoding="utf-8")
        return str(path)

    return write


def test_the_page_shows_what_the_program_prints(policy, capsys):
    assert main(["detect", "test", "orders", "--policy", policy(), "--calls", "600"]) == 0
    printed = capsys.readouterr().out
    assert printed.strip() in PAGE
    assert "alert" in printed


def rehearsed(capsys, *arguments):
    assert main(["detect", "test", *arguments, "-o", "json"]) == 0
    return [(one["call"], one["answer"]) for one in json.loads(capsys.readouterr().out)["spoken"]]


@pytest.mark.parametrize(
    ("detect", "arguments", "expected"),
    [
        ("", ("orders", "--outcome", "allowed", "--calls", "2000"), []),
        ("", ("user:alice", "--outcome", "allowed"), [(100, "alert"), (500, "blocked")]),
        ("", ("address:203.0.113.7", "--over", "3h"), []),
        ("detect: {mode: observe}\n", ("orders",), [(100, "alert"), (500, "observed")]),
        ("detect: {exempt: [service:orders]}\n", ("orders",), [(100, "alert"), (500, "exempt")]),
        (
            "detect: {per_service: {batch: {expected_rate: 1/s}}}\n",
            ("batch", "--outcome", "allowed"),
            [(301, "alert")],
        ),
    ],
)
def test_it_says_when_the_policy_would_speak(policy, capsys, detect, arguments, expected):
    assert rehearsed(capsys, *arguments, "--policy", policy(detect)) == expected


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("nobody",), 6), (("orders", "--calls", "0"), 2), (("orders", "--over", "soon"), 2), (("user:",), 2)],
)
def test_nonsense_is_refused(policy, capsys, arguments, code):
    assert main(["detect", "test", *arguments, "--policy", policy()]) == code
    assert capsys.readouterr().err


def test_without_a_server_the_others_say_so(tmp_path, capsys):
    for arguments in (["detect", "status"], ["detect", "show", "orders"], ["findings"]):
        assert main([*arguments, "--state", str(tmp_path)]) == 4
        assert "no trust domain is up" in capsys.readouterr().err
