# SPDX-License-Identifier: Apache-2.0
"""NetworkPolicies: every edge that is written is one that the network lets through, and what is not is said."""

import itertools
import random

import pytest
import yaml

from everyhop.authz import Engine
from everyhop.core.errors import InputError
from everyhop.evaluators.model import Request, Wire, Workload
from everyhop.evaluators.network_policy import NetworkPolicyEvaluator
from everyhop.importing import Fate, import_policy
from everyhop.manifests import read_manifests
from everyhop.policy import parse_policy

NAMES = ("web", "api", "db", "job")


def deployment(name, port=8080, namespace="shop", labels=None):
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "template": {
                "metadata": {"labels": labels or {"app": name}},
                "spec": {
                    "serviceAccountName": name,
                    "containers": [{"name": "c", "ports": [{"name": "main", "containerPort": port}]}],
                },
            }
        },
    }


def policy(name, spec, namespace="shop"):
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def app(name):
    return {"podSelector": {"matchLabels": {"app": name}}}


def tcp(port):
    return [{"protocol": "TCP", "port": port}]


WORKLOADS = [deployment("web"), deployment("api"), deployment("db", 5432), deployment("job")]
DENY_ALL = policy("deny-all", {"podSelector": {}, "policyTypes": ["Ingress"]})


def source(*documents):
    return {"net.yaml": yaml.safe_dump_all(documents).encode()}


def imported(*documents):
    result = import_policy("networkpolicy", source(*documents))
    return result, Engine(parse_policy({"everyhop.yaml": result.text}))


def edges(engine, names=NAMES):
    return {
        (caller, target)
        for caller, target in itertools.product(names, names)
        if engine.snapshot.services[target].tcp is not None
        and engine.decide_tcp(caller=f"spiffe://cluster.local/ns/shop/sa/{caller}", target=target).is_allowed
    }


def codes(result):
    return {part.code for part in result.parts if part.is_lost}


def ingress(target, *rules):
    return policy(f"to-{target}", {"podSelector": {"matchLabels": {"app": target}}, "ingress": list(rules)})


def test_edges_and_ports_are_carried_over():
    result, engine = imported(*WORKLOADS, DENY_ALL, ingress("db", {"from": [app("api")], "ports": tcp(5432)}))
    assert edges(engine) == {("api", "db")}
    assert engine.snapshot.services["db"].tcp == 5432
    assert result.is_whole
    assert {part.code for part in result.parts if part.fate is Fate.ASSUMED} == {"networkpolicy.layer-4"}
    assert "# NetworkPolicy shop/to-db ingress[0] (net.yaml:" in result.text.decode()


def test_an_edge_needs_the_egress_of_its_source_too():
    shut = policy("job-out", {"podSelector": {"matchLabels": {"app": "job"}}, "policyTypes": ["Egress"]})
    only = policy(
        "web-out",
        {"podSelector": {"matchLabels": {"app": "web"}}, "egress": [{"to": [app("db")], "ports": tcp(1)}]},
    )
    _, engine = imported(
        *WORKLOADS, DENY_ALL, shut, only,
        ingress("db", {"from": [app("api"), app("job"), app("web")], "ports": tcp(5432)}),
    )  # fmt: skip
    assert edges(engine) == {("api", "db")}


@pytest.mark.parametrize(
    ("rule", "code", "callers"),
    [
        ({"ports": tcp(5432)}, "networkpolicy.anybody", set(NAMES)),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": tcp(5432)}, "networkpolicy.ip-block", set()),
        ({"from": [{"podSelector": {}}], "ports": tcp(5432)}, "networkpolicy.selector", set(NAMES)),
        ({"from": [{"namespaceSelector": {}}], "ports": tcp(5432)}, "networkpolicy.selector", set(NAMES)),
        (
            {
                "from": [{"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}}],
                "ports": tcp(5432),
            },
            "networkpolicy.selector",
            {"api", "db", "job"},
        ),
        ({"from": [app("api")], "ports": [{"protocol": "UDP", "port": 53}]}, "networkpolicy.protocol", set()),
        ({"from": [app("api")], "ports": [{"port": "unheard"}]}, "networkpolicy.port-name", set()),
        ({"from": [app("api")], "ports": [{"port": 5000, "endPort": 6000}]}, "networkpolicy.port-range", {"api"}),
        ({"from": [app("api")]}, "networkpolicy.every-port", {"api"}),
        ({"from": [app("api")], "ports": [*tcp(5432), *tcp(9999)]}, "networkpolicy.port", {"api"}),
        ({"from": [app("api")], "ports": [{"port": "main"}]}, None, {"api"}),
    ],
)  # fmt: skip
def test_what_is_no_edge_between_services_is_said(rule, code, callers):
    result, engine = imported(*WORKLOADS, DENY_ALL, ingress("db", rule))
    assert edges(engine) == {(caller, "db") for caller in callers}
    assert codes(result) == ({code} if code else set())


def test_pods_that_nothing_isolates_are_closed_here_and_said():
    result, engine = imported(*WORKLOADS, ingress("db", {"from": [app("api")], "ports": tcp(5432)}))
    assert edges(engine) == {("api", "db")}
    assert codes(result) == {"networkpolicy.open"}


def test_without_workloads_only_what_surely_is_opens():
    spec = {"podSelector": {"matchLabels": {"role": "batch"}}, "policyTypes": ["Egress"]}
    allow = ingress("db", {"from": [app("api")], "ports": tcp(5432)})
    _, engine = imported(allow)
    assert edges(engine, ("api", "db")) == {("api", "db")}
    _, engine = imported(allow, policy("maybe", spec))  # pods of api may have this label and then be shut in
    assert edges(engine, ("api", "db")) == set()


def random_policy(chance, index):
    def selector():
        return chance.choice(
            [{}, {"matchLabels": {"app": chance.choice(NAMES)}}, {"matchLabels": {"tier": "x"}},
             {"matchExpressions": [{"key": "tier", "operator": chance.choice(["Exists", "DoesNotExist"])}]},
             {"matchExpressions": [{"key": "app", "operator": "In", "values": chance.sample(NAMES, 2)}]}]
        )  # fmt: skip

    def peer():
        return chance.choice(
            [{"podSelector": selector()}, {"namespaceSelector": {}}, {"ipBlock": {"cidr": "10.1.0.0/16"}},
             {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": selector()}]
        )  # fmt: skip

    def rule(side):
        found = {side: [peer() for _ in range(chance.randint(1, 2))]} if chance.random() < 0.8 else {}
        if chance.random() < 0.8:
            found["ports"] = [{"port": chance.choice([8080, 5432, "main"])}]
        return found

    spec = {"podSelector": selector()}
    if chance.random() < 0.8:
        spec["ingress"] = [rule("from") for _ in range(chance.randint(0, 2))]
    if chance.random() < 0.4:
        spec["egress"] = [rule("to") for _ in range(chance.randint(0, 2))]
    return policy(f"p{index}", spec)


@pytest.mark.parametrize("seed", range(40))
def test_no_edge_is_written_that_the_network_does_not_let_through(seed):
    chance = random.Random(seed)
    workloads = [
        deployment(
            name,
            5432 if name == "db" else 8080,
            labels={"app": name} | ({"tier": "x"} if name in {"web", "db"} else {}),
        )
        for name in NAMES
    ]
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "a"}}}
    documents = [*workloads, space, *(random_policy(chance, index) for index in range(5))]
    evaluator = NetworkPolicyEvaluator(read_manifests(source(*documents)))
    result, engine = imported(*documents)
    written = edges(engine)

    def pod(name):
        labels = {"app": name} | ({"tier": "x"} if name in {"web", "db"} else {})
        return Workload(
            name=name,
            namespace="shop",
            service_account=name,
            labels=labels,
            namespace_labels={"team": "a"},
            ip="10.9.0.1",
        )

    for caller, target in itertools.product(NAMES, NAMES):
        port = engine.snapshot.services[target].tcp
        request = Request(source=pod(caller), target=pod(target), port=port or 1, peer=None, wire=Wire.TCP)
        let_in = evaluator.evaluate(request).allowed
        if (caller, target) in written:
            assert let_in, (caller, target)
        elif port is not None and let_in:  # closed here: then something is said of it
            assert not result.is_whole, (caller, target)


def test_manifests_without_policies_are_refused():
    with pytest.raises(InputError, match="there is no NetworkPolicy"):
        imported(*WORKLOADS)
    with pytest.raises(InputError, match="no policy here names pods"):
        imported(DENY_ALL)


def test_pods_that_share_an_account_call_as_one():
    def shared(name):
        one = deployment(name)
        one["spec"]["template"]["spec"]["serviceAccountName"] = "default"
        return one

    documents = [shared("a"), shared("b"), deployment("db", 5432), DENY_ALL]
    to_a = ingress("db", {"from": [app("a")], "ports": tcp(5432)})
    to_both = ingress("db", {"from": [app("a"), app("b")], "ports": tcp(5432)})
    result, engine = imported(*documents, to_a)
    caller = "spiffe://cluster.local/ns/shop/sa/default"
    assert (
        not engine.decide_tcp(caller=caller, target="db").is_allowed
        if engine.snapshot.services["db"].tcp
        else True
    )
    assert "networkpolicy.shared-account" in codes(result) or not result.is_whole
    _, engine = imported(*documents, to_both)
    assert not any(rule.callers == frozenset({"b"}) for rule in engine.snapshot.rules)
