# SPDX-License-Identifier: Apache-2.0
"""Guard rails in CEL refuse what the webhook's rules refuse: the same table of objects, evaluated by Google's CEL."""

import pytest
import yaml
from cel_expr_python import cel
from tests.support.admission_cases import CASES, DEFAULT_DENIES, NO_DEFAULT_DENIES

from everyhop.admission.default_deny import DENY_KINDS
from everyhop.admission.judging import RULES, judge
from everyhop.admission.model import Code
from everyhop.policy import parse_policy
from everyhop.targets._guard_expressions import expressions
from everyhop.targets.compiling import compile_policy

POLICY = b"""
version: 1
trust_domain: shop.example
services: {a: {operations: {x: GET /}}}
targets: {namespace: shop, admission: {url: "https://hop.example:8443/"}}
"""


@pytest.fixture(scope="module")
def environment():
    return cel.NewEnv(variables={"object": cel.Type.DYN, "oldObject": cel.Type.DYN, "request": cel.Type.DYN})


def holds(environment, expression, **values):
    """A real cluster treats an error as a refusal (failurePolicy Fail)."""
    answer = environment.compile(expression).eval(data=values)
    assert str(answer.type()) != "ERROR", (expression, answer.value())
    return answer.value() is True


@pytest.mark.parametrize("name", CASES)
def test_the_expressions_say_what_the_rules_say(environment, name):
    document, _ = CASES[name]
    group, kind = document["apiVersion"].rpartition("/")[0], document["kind"]
    found = {
        rule.code
        for rule in RULES
        if rule.concerns(group, kind)
        and not all(holds(environment, text, object=document) for text in expressions(rule.code, group, kind))
    }
    assert found == {f.code for f in judge(document)}


@pytest.mark.parametrize("operation", ["DELETE", "UPDATE"])
@pytest.mark.parametrize("name", [*DEFAULT_DENIES, *NO_DEFAULT_DENIES])
def test_what_refuses_by_default_cannot_go(environment, name, operation):
    old = {**DEFAULT_DENIES, **NO_DEFAULT_DENIES}[name]
    group, kind = old["apiVersion"].rpartition("/")[0], old["kind"]
    new = {
        **old,
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "podSelector": {"matchLabels": {"a": "b"}}},
    }
    (text,) = expressions(Code.DEFAULT_DENY_REMOVED, group, kind)
    values = {
        "oldObject": old,
        "object": {} if operation == "DELETE" else new,
        "request": {"operation": operation},
    }
    assert holds(environment, text, **values) is (name in NO_DEFAULT_DENIES)
    assert holds(environment, text, oldObject=old, object=old, request={"operation": "UPDATE"})


def test_every_rule_has_a_policy_that_is_bound_and_fails_closed():
    (compilation,) = compile_policy(parse_policy({"everyhop.yaml": POLICY}), ["admission"])
    rails, webhook = (list(yaml.safe_load_all(file.content)) for file in compilation.files)
    policies = {
        one["metadata"]["name"]: one["spec"] for one in rails if one["kind"] == "ValidatingAdmissionPolicy"
    }
    bindings = {one["spec"]["policyName"]: one["spec"] for one in rails if one["kind"].endswith("Binding")}
    kinds = sum(len(g.resources) for rule in RULES for g in rule.kinds) + sum(
        len(g.resources) for g in DENY_KINDS
    )
    assert len(policies) == kinds
    assert policies.keys() == bindings.keys()
    for name, spec in policies.items():
        assert spec["failurePolicy"] == "Fail"
        assert spec["validations"]
        assert "Deny" in bindings[name]["validationActions"]
        assert bindings[name]["matchResources"]["namespaceSelector"]["matchExpressions"][0]["values"] == [
            "shop"
        ]
    (configuration,) = webhook
    (hook,) = configuration["webhooks"]
    assert hook["clientConfig"] == {"url": "https://hop.example:8443/admission/validate"}
    assert (hook["failurePolicy"], hook["sideEffects"], hook["admissionReviewVersions"]) == (
        "Fail",
        "None",
        ["v1"],
    )
    watched = {
        (rule["apiGroups"][0], r)
        for rule in hook["rules"]
        for r in rule["resources"]
        if "CREATE" in rule["operations"]
    }
    assert watched == {(g.group, r) for rule in RULES for g in rule.kinds for r in g.resources.values()}
    assert [rule["apiGroups"] for rule in hook["rules"] if rule["operations"] == ["DELETE"]] == [
        [g.group] for g in DENY_KINDS
    ]


def test_without_an_address_there_is_no_webhook_and_a_plain_one_is_refused():
    plain = POLICY.replace(b', admission: {url: "https://hop.example:8443/"}', b"")
    (compilation,) = compile_policy(parse_policy({"everyhop.yaml": plain}), ["admission"])
    assert [file.path for file in compilation.files] == ["admission/guard-rails.yaml"]
    (compilation,) = compile_policy(
        parse_policy({"everyhop.yaml": POLICY.replace(b"https:", b"http:")}), ["admission"]
    )
    assert compilation.failed
