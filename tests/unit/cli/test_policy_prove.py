# SPDX-License-Identifier: Apache-2.0
"""``policy prove``: what it refuses, its exit codes, its JSON, and a counterexample in words."""

import json

import pytest

from everyhop.cli.__main__ import main
from everyhop.policy import parse_policy
from everyhop.targets import compile_policy

POLICY = """
version: 1
trust_domain: shop.example
services:
  checkout: {operations: {list: GET /}}
  intruder: {operations: {x: GET /x}}
  payment-processor: {operations: {pay: POST /v1/payments}}
allow:
  - {from: checkout, to: payment-processor, operations: [pay]}
targets: {namespace: shop}
"""
TOKENS = POLICY.replace("POST /v1/payments", "{route: POST /v1/payments, token: required}")


@pytest.fixture
def policy(tmp_path):
    found = tmp_path / "everyhop.yaml"
    found.write_text(POLICY)
    return found


def compiled(tmp_path, target):
    directory = tmp_path / "manifests"
    for file in compile_policy(parse_policy({"everyhop.yaml": POLICY.encode()}), [target])[0].files:
        place = directory / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.content)
    return directory


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "istoi"], "istoi"),
        (["--target", "serviceaccounts"], "decides nothing"),
        (["--target", "istio", "--manifests", "nowhere"], "no manifests here"),
        (["--target", "istio", "--with", "linkedr"], "linkedr"),
    ],
)
def test_what_cannot_be_proven_is_refused(policy, capsys, arguments, said):
    assert main(["policy", "prove", str(policy), *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("target", [" ", ","])
def test_no_target_is_a_mistake_of_the_command(policy, target):
    with pytest.raises(SystemExit) as caught:
        main(["policy", "prove", str(policy), "--target", target])
    assert caught.value.code == 2


def test_manifests_that_a_system_would_reject_are_refused(policy, tmp_path, capsys):
    directory = tmp_path / "manifests"
    directory.mkdir()
    (directory / "a.yaml").write_text(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: shop}\n"
        "spec: {action: ALLOW, ruls: []}\n"
    )
    assert main(["policy", "prove", str(policy), "--target", "istio", "--manifests", str(directory)]) == 2
    assert "ruls" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["istio", "linkerd"])
def test_what_is_compiled_is_equal(policy, capsys, target):
    assert main(["policy", "prove", str(policy), "--target", target, "--exact"]) == 0
    assert f"{target}: equal to the policy" in capsys.readouterr().out


def test_a_widened_manifest_is_caught_with_the_request_that_gets_through(policy, tmp_path, capsys):
    directory = compiled(tmp_path, "istio")
    file = directory / "istio" / "shop.yaml"
    known, added = "- shop.example/ns/shop/sa/checkout", "- shop.example/ns/shop/sa/intruder"
    text = file.read_text()
    index = text.index(known, text.index("name: allow-payment-processor"))
    indent = text[text.rindex("\n", 0, index) + 1 : index]
    file.write_text(f"{text[:index]}{added}\n{indent}{text[index:]}")
    line = next(n for n, one in enumerate(text.splitlines(), 1) if "name: allow-payment-processor" in one) - 3
    assert main(["policy", "prove", str(policy), "--target", "istio", "--manifests", str(directory)]) == 1
    out = capsys.readouterr().out
    assert "payment-processor: POST /v1/payments from `intruder` gets through" in out
    assert f"AuthorizationPolicy shop/allow-payment-processor ({file}:{line})" in out
    main(["policy", "prove", str(policy), "--target", "istio", "--manifests", str(directory), "-o", "json"])
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == found["targets"]["istio"]["verdict"] == "wider"
    first = found["counterexamples"][0]
    assert first["request"]["from"]["certificate"] == "spiffe://shop.example/ns/shop/sa/intruder"
    assert (first["request"]["method"], first["request"]["path"]) == ("POST", "/v1/payments")
    assert first["enforced"]["at"] == f"{file}:{line}"
    assert set(found) == {"verdict", "requests", "counterexamples", "narrower", "accepted", "targets"}


def test_what_a_target_cannot_hold_is_narrower_and_announced(tmp_path, capsys):
    policy = tmp_path / "everyhop.yaml"
    policy.write_text(TOKENS)
    command = ["policy", "prove", str(policy), "--target", "linkerd", "-o", "json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "narrower"
    assert found["targets"]["linkerd"]["unannounced"] == 0
    assert "linkerd.token" in found["narrower"][0]["announced"]
    assert main([*command, "--exact"]) == 1
    capsys.readouterr()
    assert main([*command, "--exact", "--with", "sdk"]) == 0


def test_an_outer_bound_alone_is_narrower_and_beside_a_mesh_equal(policy, capsys):
    assert main(["policy", "prove", str(policy), "--target", "networkpolicy"]) == 0
    assert "as compiling said" in capsys.readouterr().out
    assert main(["policy", "prove", str(policy), "--target", "istio,networkpolicy", "--exact"]) == 0
    out = capsys.readouterr().out
    assert "istio with networkpolicy: equal" in out
    assert "networkpolicy with istio: equal" in out
