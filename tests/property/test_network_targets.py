# SPDX-License-Identifier: Apache-2.0
"""What compiles to the network, judged by evaluators that know nothing of the compilers, against the engine."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given, settings, strategies as st
from tests.strategies import policies, requests_for

from everyhop.authz import Engine
from everyhop.evaluators.cilium import CiliumEvaluator
from everyhop.evaluators.cluster_network_policy import ClusterNetworkPolicyEvaluator
from everyhop.evaluators.model import Request, Wire, Workload
from everyhop.evaluators.network_policy import NetworkPolicyEvaluator
from everyhop.manifests import read_manifests
from everyhop.policy.targets import TargetSettings
from everyhop.targets import compile_policy
from everyhop.targets.intents import Intents

STRANGERS = (
    Workload(name="stranger", namespace="default", service_account="default", labels={"app": "stranger"}),
    Workload(name="unlabelled", namespace="default", service_account="alpha", labels={}),
    Workload(
        name="elsewhere",
        namespace="other",
        service_account="alpha",
        labels={"app": "alpha"},
        namespace_labels={"kubernetes.io/metadata.name": "other"},
    ),
)


def workload(snapshot, name):
    place = snapshot.targets.place(name)
    return Workload(
        name=name,
        namespace=place.namespace,
        service_account=place.service_account,
        labels=place.labels,
        namespace_labels={"kubernetes.io/metadata.name": place.namespace},
    )


def written(snapshot, target, *beside):
    (compilation,) = compile_policy(snapshot, [target], beside=beside)
    return compilation, read_manifests({file.path: file.content for file in compilation.files})


def placed(snapshot, target):
    options = MappingProxyType({target: MappingProxyType({"accept": ("mtls",)})})
    return replace(snapshot, targets=TargetSettings(options=options))


@settings(max_examples=80)
@given(st.data())
def test_cilium_lets_through_what_the_engine_allows(data):
    snapshot = placed(data.draw(policies()), "cilium")
    compilation, manifests = written(snapshot, "cilium")
    evaluator = CiliumEvaluator(manifests, normalises=False)
    engine = Engine(snapshot)
    owners = {str(service.spiffe_id): name for name, service in snapshot.services.items()}
    is_exact = not {one.code for one in compilation.diagnostics} & {"cilium.overlap", "cilium.regex-size"}
    for asked in data.draw(st.lists(requests_for(snapshot), min_size=1, max_size=15)):
        target = snapshot.services.get(asked.target)
        if target is None or target.tcp is not None:
            continue
        caller = owners.get(asked.caller)
        allowed = engine.decide(
            caller=asked.caller, target=asked.target, method=asked.method, path=asked.path
        ).is_allowed
        sources = STRANGERS if caller is None else (workload(snapshot, caller),)
        for source in sources:
            request = Request(
                source=source,
                target=workload(snapshot, asked.target),
                port=8080,
                peer=None,
                method=asked.method,
                path=asked.path,
            )
            outcome = evaluator.evaluate(request)
            assert not (outcome.allowed and not allowed), (asked, outcome)
            if allowed and is_exact and asked.path.isascii():
                assert outcome.allowed, (asked, outcome)


@pytest.mark.parametrize(
    ("target", "evaluator"),
    [("networkpolicy", NetworkPolicyEvaluator), ("clusternetworkpolicy", ClusterNetworkPolicyEvaluator)],
)
@settings(max_examples=40)
@given(snapshot=policies())
def test_the_network_opens_a_port_to_those_who_may_pass_some_door(snapshot, target, evaluator):
    snapshot = placed(snapshot, target)
    compilation, manifests = written(snapshot, target, "sdk")
    assert not compilation.failed
    judge = evaluator(manifests)
    intents = Intents(snapshot)
    for service in intents:
        if service.service.is_canary:
            continue
        end = workload(snapshot, service.name)
        for source in (*(workload(snapshot, name) for name in snapshot.services), *STRANGERS):
            for port in (service.port, service.port + 1):
                request = Request(source=source, target=end, port=port, peer=None, wire=Wire.TCP)
                may_pass = source.name in service.callers and port == service.port
                assert judge.evaluate(request).allowed == may_pass, (source.name, service.name, port)
