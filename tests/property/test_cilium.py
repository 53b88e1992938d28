# SPDX-License-Identifier: Apache-2.0
"""Random policies compiled to Cilium let nothing in that the engine refuses, and all that it does not say it refuses."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from types import MappingProxyType

from hypothesis import given, settings, strategies as st
from tests.strategies import policies, requests_for, to_files
from tests.support.kube import cilium_egress, cilium_ingress, objects, pod_of

from everyhop.authz import Engine
from everyhop.policy import parse_policy
from everyhop.policy.targets import TargetSettings
from everyhop.targets import compile_policy

ALONE = TargetSettings(options=MappingProxyType({"cilium": MappingProxyType({"accept": ("mtls",)})}))


@settings(max_examples=150)
@given(st.data())
def test_what_gets_through_is_what_the_engine_allows(data):
    snapshot = replace(data.draw(policies()), targets=ALONE)
    (compilation,) = compile_policy(snapshot, ["cilium"])
    written = list(objects(compilation).values())
    engine = Engine(snapshot)
    owners = {str(service.spiffe_id): name for name, service in snapshot.services.items()}
    said = {one.code for one in compilation.diagnostics}
    is_exact = not said & {"cilium.overlap", "cilium.regex-size"}
    for request in data.draw(st.lists(requests_for(snapshot), min_size=1, max_size=25)):
        target = snapshot.services.get(request.target)
        caller = owners.get(request.caller)
        if target is None or caller is None or target.tcp is not None:
            continue
        allowed = engine.decide(
            caller=request.caller, target=request.target, method=request.method, path=request.path
        ).is_allowed
        source, pod = pod_of(snapshot, caller), pod_of(snapshot, request.target)
        through = cilium_ingress(written, source, pod, 8080, request.method, request.path)
        assert not (through and not allowed), (request, "wider")
        if allowed and is_exact and request.path.isascii():
            assert through, (request, "narrower without a word")
        if through:
            assert cilium_egress(written, source, pod, 8080), (request, "in but not out")


ROUTES = ("/a", "/{x}", "/a/b", "/a/{y}", "/{x}/b", "/{x}/{y}", "/a/{r...}", "/{r...}", "/a/", "/{x}/")
PATHS = ["/" + "/".join(parts) for size in (1, 2, 3) for parts in product(("a", "b", "c", ""), repeat=size)]


@settings(max_examples=100)
@given(
    st.lists(st.sampled_from(ROUTES), min_size=2, max_size=4, unique=True),
    st.lists(st.tuples(st.sampled_from(("web", "admin")), st.integers(0, 3)), min_size=1, max_size=5),
)
def test_routes_that_overlap_open_no_door_of_another(routes, rules):
    operations = {f"o{number}": f"GET {route}" for number, route in enumerate(routes)}
    document = {
        "version": 1,
        "trust_domain": "shop.example",
        "services": {"web": {}, "admin": {}, "pay": {"operations": operations}},
        "allow": [
            {"from": caller, "to": "pay", "operations": [f"o{number % len(routes)}"]}
            for caller, number in rules
        ],
    }
    snapshot = replace(parse_policy(to_files(document)), targets=ALONE)
    (compilation,) = compile_policy(snapshot, ["cilium"])
    written = list(objects(compilation).values())
    engine = Engine(snapshot)
    is_exact = not any(one.is_error for one in compilation.diagnostics)
    for name, path in product(("web", "admin"), PATHS):
        caller = str(snapshot.services[name].spiffe_id)
        allowed = engine.decide(caller=caller, target="pay", method="GET", path=path).is_allowed
        through = cilium_ingress(written, pod_of(snapshot, name), pod_of(snapshot, "pay"), 8080, "GET", path)
        assert not (through and not allowed), (name, path, "wider")
        assert through == allowed or not is_exact, (name, path, "narrower without a word")


@given(policies())
def test_tcp_ports_are_exact(snapshot):
    snapshot = replace(snapshot, targets=ALONE)
    (compilation,) = compile_policy(snapshot, ["cilium"])
    written = list(objects(compilation).values())
    engine = Engine(snapshot)
    for target, service in snapshot.services.items():
        if service.tcp is None:
            continue
        for name, caller in snapshot.services.items():
            allowed = engine.decide_tcp(caller=str(caller.spiffe_id), target=target).is_allowed
            source, pod = pod_of(snapshot, name), pod_of(snapshot, target)
            assert cilium_ingress(written, source, pod, service.tcp, "", "") == allowed
            assert cilium_egress(written, source, pod, service.tcp) == allowed
