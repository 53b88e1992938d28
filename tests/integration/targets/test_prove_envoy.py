# SPDX-License-Identifier: Apache-2.0
"""``policy prove --target envoy`` asks the real Envoy, and finds what was widened in its bootstrap."""

import json

from everyhop.cli.__main__ import main
from everyhop.policy import parse_policy
from everyhop.targets import compile_policy

POLICY = """
version: 1
trust_domain: shop.example
services:
  checkout: {}
  payment-processor: {operations: {pay: POST /v1/payments}}
allow:
  - {from: checkout, to: payment-processor, operations: [pay]}
"""


def test_the_compiled_bootstrap_is_equal(tmp_path, capsys):
    policy = tmp_path / "everyhop.yaml"
    policy.write_text(POLICY)
    assert main(["policy", "prove", str(policy), "--target", "envoy", "-o", "json", "--exact"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "equal"
    assert found["requests"] > 50


def test_a_widened_bootstrap_is_caught(tmp_path, capsys):
    """The route is another one than the policy's, so the wrong path gets through and the right one does not."""
    (tmp_path / "everyhop.yaml").write_text(POLICY)
    widened = POLICY.replace("POST /v1/payments", "'POST /v1/{anything}'")
    compiled = compile_policy(parse_policy({"everyhop.yaml": widened.encode()}), ["envoy"])[0]
    for file in compiled.files:
        place = tmp_path / "manifests" / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.content)
    command = ["policy", "prove", str(tmp_path / "everyhop.yaml"), "--target", "envoy"]
    assert main([*command, "--manifests", str(tmp_path / "manifests")]) == 1
    assert (
        "payment-processor: POST /v1/payment from `checkout` (one character less) gets through"
        in capsys.readouterr().out
    )


def test_files_without_a_bootstrap_are_refused(tmp_path, capsys):
    (tmp_path / "everyhop.yaml").write_text(POLICY)
    (tmp_path / "other.json").write_text("{}")
    command = ["policy", "prove", str(tmp_path / "everyhop.yaml"), "--target", "envoy"]
    assert main([*command, "--manifests", str(tmp_path / "other.json")]) == 2
    assert "bootstrap.json" in capsys.readouterr().err
