# SPDX-License-Identifier: Apache-2.0
"""Gatekeeper's Rego refuses what the webhook's rules refuse: the same table of objects, evaluated by a Rego engine."""

import json

import pytest
import regopy
import yaml
from tests.support.admission_cases import CASES

from everyhop.admission.judging import RULES, judge
from everyhop.policy import parse_policy
from everyhop.targets.compiling import compile_policy
from everyhop.targets.gatekeeper import rego_of

POLICY = b"""
version: 1
trust_domain: shop.example
services: {a: {operations: {x: GET /}}}
targets: {gatekeeper: {namespaces: [shop, pay]}}
"""


def violations(code, document):
    interpreter = regopy.Interpreter()
    interpreter.add_module("rule", rego_of(code))
    interpreter.set_input_term(json.dumps({"review": {"object": document}}))
    output = interpreter.query(f"x = data.everyhop.{code.value.replace('-', '_')}.violation")
    return output.binding("x").json()


@pytest.mark.parametrize("name", CASES)
def test_the_modules_say_what_the_rules_say(name):
    document, _ = CASES[name]
    group, kind = document["apiVersion"].rpartition("/")[0], document["kind"]
    found = {
        rule.code
        for rule in RULES
        if rule.concerns(group, kind) and json.loads(violations(rule.code, document))
    }
    assert found == {f.code for f in judge(document)}


def test_every_rule_has_a_template_and_a_constraint_that_denies():
    (compilation,) = compile_policy(parse_policy({"everyhop.yaml": POLICY}), ["gatekeeper"])
    objects = list(yaml.safe_load_all(compilation.files[0].content))
    kinds = {
        one["spec"]["crd"]["spec"]["names"]["kind"]: one
        for one in objects
        if one["kind"] == "ConstraintTemplate"
    }
    constraints = {
        one["kind"]: one["spec"] for one in objects if one["apiVersion"].startswith("constraints.")
    }
    assert len(kinds) == len(RULES)
    assert kinds.keys() == constraints.keys()
    for kind, template in kinds.items():
        assert template["metadata"]["name"] == kind.lower()  # Gatekeeper asks for it
        assert constraints[kind]["enforcementAction"] == "deny"
        assert constraints[kind]["match"]["namespaces"] == ["shop", "pay"]
