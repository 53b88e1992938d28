# SPDX-License-Identifier: Apache-2.0
"""Three readings of Istio's own cases: our evaluator on the policies, and our RBAC evaluator on the filters that Istio's tests expect.

Needs a checkout of istio/istio 1.30 or later, named by EVERYHOP_ISTIO; nothing of it is kept here.
"""

import os
import random
from pathlib import Path

import pytest
import yaml
from tests.support.istio_upstream import BELIEVE_ALL, shapes

from everyhop.evaluators.envoy_rbac import read_filter, read_rules
from everyhop.evaluators.istio import Istio
from everyhop.evaluators.istio.tokens import verdict
from everyhop.evaluators.model import Wire
from everyhop.manifests import read_manifests

REQUESTS = 2_000
PLACE = "pilot/pkg/security/authz/builder/testdata"
DOMAINS = ("cluster.local", "other")
HTTP = {
    "allow-empty-rule": (),
    "allow-full-rule": (),
    "allow-host-before-111": (),
    "allow-nil-rule": (),
    "allow-path": (),
    "custom-bad-multiple-providers": (),
    "custom-simple-http": (),
    "deny-and-allow": (),
    "deny-empty-rule": (),
    "dry-run-allow": (),
    "dry-run-allow-and-deny": (),
    "dry-run-mix": (),
    "multiple-policies": (),
    "simple-policy-multiple-td-aliases": ("td1", "cluster.local", "some-td"),
    "simple-policy-principal-with-wildcard": ("td1", "foobar"),
    "simple-policy-td-aliases": ("td1", "cluster.local"),
    "single-policy": (),
    "td-aliases-source-principal": ("new-td", "old-td", "some-trustdomain"),
    "trust-domains": (),
}
"""Cases of HTTP and, first the mesh's own, the trust domains that upstream's test gives them."""
SATISFIABLE = (
    "custom-bad-multiple-providers",
    "custom-simple-http",
    "deny-and-allow",
    "dry-run-mix",
    "multiple-policies",
    "simple-policy-multiple-td-aliases",
    "simple-policy-principal-with-wildcard",
    "simple-policy-td-aliases",
    "td-aliases-source-principal",
    "trust-domains",
)
"""Cases which some requests meet and some do not; the others ask for what cannot be, such as a path that is not ``*``."""
CONDITIONS = (
    "allow-full-rule",
    "allow-host-before-111",
    "allow-path",
    "deny-and-allow",
    "multiple-policies",
    "simple-policy-multiple-td-aliases",
    "single-policy",
    "td-aliases-source-principal",
    "trust-domains",
)
"""Cases whose conditions are compared one by one, so that a contradiction among them hides nothing."""
TCP = ("allow-both-http-tcp", "allow-only-http", "custom-both-http-tcp", "deny-both-http-tcp", "dry-run-mix")
OUTPUTS = {"custom-simple-http": "custom-grpc-provider"}
"""Where the expected filters have another name than the policies."""


@pytest.fixture(scope="module")
def testdata():
    named = os.environ.get("EVERYHOP_ISTIO", "")
    if not named or not (Path(named) / PLACE).is_dir():
        pytest.skip("EVERYHOP_ISTIO does not name a checkout of istio/istio")
    return Path(named) / PLACE


def filters_of(place, name):
    """Return every set of expected filters, by variant, that is there."""
    stem = OUTPUTS.get(name, name)
    for prefix in ("", "extended-"):
        files = [place / f"{prefix}{stem}-out{number}.yaml" for number in ("", "1", "2")]
        values = [yaml.safe_load(file.read_text()) for file in files if file.exists()]
        if values:
            yield prefix, [read_filter(value["typedConfig"]) for value in values if "rbac" in value["name"]]


def compared(place, name, domains, wire):
    """Compare one case over its requests; return how many were compared and how many of them were let pass."""
    text = (place / f"{name}-in.yaml").read_bytes()
    policies = read_manifests({"in.yaml": text})
    rules = [rule for one in policies for rule in one.spec.get("rules") or () if rule is not None]
    domain, *aliases = domains or ("cluster.local",)
    istio = Istio(
        read_manifests({"in.yaml": text, "tokens.yaml": BELIEVE_ALL}),
        trust_domain=domain,
        aliases=aliases,
        filter_metadata={},
    )
    variants = list(filters_of(place, name))
    assert variants
    asks = any(one.spec.get("action") == "CUSTOM" for one in policies) and "bad" not in name
    done = passed = 0
    for shape in shapes(rules, (*DOMAINS, *domains), random.Random(f"{name} {wire}"), REQUESTS):
        outcome = istio.evaluate(shape.request(wire))
        attempt = shape.attempt(wire)
        for _, filters in variants:
            if asks:
                ours = outcome.asks is not None
                theirs = any(one.shadow_rules.matching(attempt) is not None for one in filters)
            else:
                ours = outcome.allowed
                theirs = all(one.allows(attempt) for one in filters)
            assert ours == theirs, (name, shape, outcome)
            done += 1
            passed += ours
    return done, passed


def halves(place, name):
    """Return, by policy and rule, the lists of expected permissions and principals, each a list of tests that are ANDed."""
    stem = OUTPUTS.get(name, name)
    found = {}
    for file in sorted(place.glob(f"{stem}-out*.yaml")):
        config = yaml.safe_load(file.read_text())["typedConfig"]
        for part in ("rules", "shadowRules"):
            for key, policy in config.get(part, {}).get("policies", {}).items():
                if "notRule" not in policy["permissions"][0]:
                    found[key] = (
                        [
                            [alone("permissions", e) for e in one["andRules"]["rules"]]
                            for one in policy["permissions"]
                        ],
                        [
                            [alone("principals", e) for e in one["andIds"]["ids"]]
                            for one in policy["principals"]
                        ],
                    )
    return found


def alone(kind, entry):
    """Return the test of one permission or principal alone."""
    policy = {"permissions": [{"any": True}], "principals": [{"any": True}], kind: [entry]}
    rules = read_rules({"policies": {"one": policy}})
    return lambda attempt: rules.matching(attempt) is not None


def ours_of(conditions, facts):
    """Return how many of our fields, each with its twin apart, do not hold."""
    tests = [one.values for one in conditions] + [one.not_values for one in conditions]
    held = [
        test(facts) if index < len(conditions) else not test(facts)
        for index, test in enumerate(tests)
        if test
    ]
    return held.count(False)


@pytest.mark.parametrize("name", CONDITIONS)
def test_each_condition_is_read_alike(testdata, name):
    place = testdata / "http"
    text = (place / f"{name}-in.yaml").read_bytes()
    domain, *aliases = HTTP.get(name) or ("cluster.local",)
    tokens = {"in.yaml": text, "tokens.yaml": BELIEVE_ALL}
    istio = Istio(read_manifests(tokens), trust_domain=domain, aliases=aliases, filter_metadata={})
    theirs = halves(place, name)
    rules = [rule for policy in istio.policies for rule in (part.value for part in policy.parts)]
    done, held = 0, {}
    for shape in shapes(rules, (*DOMAINS, domain, *aliases), random.Random(name), REQUESTS):
        request, attempt = shape.request(Wire.HTTP), shape.attempt(Wire.HTTP)
        facts = istio.facts(request, request.peer, trusts_forwarded=True)
        facts = facts.with_claims(verdict(istio.jwt_rules(request), request).claims)
        for policy in istio.policies:
            for index, rule in enumerate(policy.rules):
                key = f"ns[{policy.manifest.namespace}]-policy[{policy.manifest.name}]-rule[{index}]"
                permissions, principals = theirs[key]
                for k, operation in enumerate(rule.operations or ((),)):
                    for m, source in enumerate(rule.sources or ((),)):
                        expected = [test(attempt) for test in (*permissions[k], *principals[m])]
                        assert ours_of((*operation, *source, *rule.when), facts) == expected.count(False), (
                            shape
                        )
                        for number, one in enumerate(expected):
                            held.setdefault((key, k, m, number), set()).add(one)
                        done += len(expected)
    print(f"{name}: {done} conditions compared")
    # A star alone always holds and its twin never does, so not each of them is seen both ways; over a case both are.
    assert {True, False} == set().union(*held.values())


@pytest.mark.parametrize("name", sorted(HTTP))
def test_a_case_of_http_is_read_alike(testdata, name):
    done, passed = compared(testdata / "http", name, HTTP[name], Wire.HTTP)
    print(f"{name}: {done} answers compared, {passed} of them passed")
    if name in SATISFIABLE:
        assert 0 < passed < done


@pytest.mark.parametrize("name", TCP)
def test_a_case_of_tcp_is_read_alike(testdata, name):
    done, passed = compared(testdata / "tcp", name, (), Wire.TCP)
    print(f"{name}: {done} answers compared, {passed} of them passed")
