# SPDX-License-Identifier: Apache-2.0
"""``policy prove --target envoy``: every kind of request, asked of the engine and of the real Envoy."""

import json

import pytest
from tests.integration.targets.conftest import compiled, identity

from everyhop.cli.__main__ import main
from everyhop.core.errors import InputError
from everyhop.proving import describe, prove_policy
from everyhop.runtime.target_envoys import EnvoyEvaluator, envoy_builder

ASKING = "envoy: {authorizer: 'unix:/run/everyhop/authorizer.sock'}"
ORDERS = "envoy/orders/bootstrap.json"
SMALL = """\
version: 1
trust_domain: shop.example
services:
  web: {}
  job: {}
  orders: {operations: {list: GET /orders, read: "GET /orders/{id}"}}
allow:
  - {from: web, to: orders, operations: all}
targets:
  SETTINGS
"""


def proven(found, files=None):
    with envoy_builder() as envoy:
        return prove_policy(found.snapshot, ["envoy"], manifests=files, builders={"envoy": envoy})


def test_files_without_an_envoy_are_no_proof():
    with pytest.raises(InputError, match=r"there is no bootstrap\.json"):
        EnvoyEvaluator({"a.yaml": b"{}"}, trust_domain="shop.example")
    with pytest.raises(InputError, match="another bootstrap of orders"):
        document = b'{"node": {"cluster": "orders"}}'
        files = {"a/bootstrap.json": document, "b/bootstrap.json": document}
        EnvoyEvaluator(files, trust_domain="shop.example")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            f'"{identity("web")}": {{\n',
            f'"{identity("job")}": {{\n',
            "orders: GET /orders from `job` gets through: 200",
        ),
        (
            "GET /orders/[^/]+",
            "GET /orders/.+",
            "orders: GET /orders/a/b from `web` (two segments for id) gets through: 200",
        ),
        (
            '"prefix": "spiffe://shop.example/"',
            '"prefix": "spiffe://"',
            None,  # the bundle still holds our authorities alone
        ),
    ],
    ids=["another-caller", "more-segments", "any-trust-domain"],
)
def test_a_bootstrap_that_was_widened_by_hand_is_caught_with_the_request(old, new, says):
    found = compiled("envoy", "envoy: {}", SMALL)
    changed = found.files[ORDERS].decode().replace(old, new).encode()
    assert changed != found.files[ORDERS]
    shown = describe(proven(found, {**found.files, ORDERS: changed}))
    assert shown["verdict"] == ("equal" if says is None else "wider")
    assert says is None or says in [one["says"] for one in shown["counterexamples"]]


def denials(document):
    """Every place where the policy's filter refuses, in the order of the text."""
    if isinstance(document, dict):
        if document.get("action") == "DENY":
            yield document
        for inner in document.values():
            yield from denials(inner)
    elif isinstance(document, list):
        for inner in document:
            yield from denials(inner)


@pytest.mark.parametrize("which", range(5))
def test_each_refusal_that_is_turned_into_a_permission_is_caught(which):
    found = compiled("envoy", "envoy: {}", SMALL)
    document = json.loads(found.files[ORDERS])
    refusals = list(denials(document))
    assert len(refusals) == 5
    refusals[which]["action"] = "ALLOW"
    proof = proven(found, {**found.files, ORDERS: json.dumps(document).encode()})
    assert proof.verdict.value == "wider"


def test_the_policy_of_these_tests_is_proven_equal():
    assert proven(compiled("envoy", ASKING)).verdict.value == "equal"


def test_the_command_says_so(tmp_path, capsys):
    policy = tmp_path / "everyhop.yaml"
    policy.write_text(SMALL.replace("SETTINGS", "envoy: {}"))
    assert main(["policy", "prove", str(policy), "--target", "envoy", "-o", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["verdict"] == "equal"
    assert said["requests"] > 100
