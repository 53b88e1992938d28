# SPDX-License-Identifier: Apache-2.0
"""ClientIntents of each version: the same calls become the same rules, and nothing beside them."""

import itertools

import pytest
import yaml

from everyhop.authz import Engine
from everyhop.core.errors import InputError
from everyhop.importing import Fate, import_policy
from everyhop.policy import parse_policy


def intents(version, client, calls, namespace="shop"):
    second = version.startswith("v2")
    return {
        "apiVersion": f"k8s.otterize.com/{version}",
        "kind": "ClientIntents",
        "metadata": {"name": client, "namespace": namespace},
        "spec": {
            "workload" if second else "service": {"name": client},
            "targets" if second else "calls": calls,
        },
    }


def imported(*documents):
    result = import_policy("otterize", {"intents.yaml": yaml.safe_dump_all(documents).encode()})
    return result, Engine(parse_policy({"everyhop.yaml": result.text}))


def open_calls(engine, *, callers=("web", "job"), target="cart"):
    calls = ("GET /items", "POST /items", "GET /items/7", "DELETE /items/7", "GET /other")
    return {
        f"{caller} {call}"
        for caller, call in itertools.product(callers, calls)
        if engine.decide(
            caller=f"spiffe://cluster.local/ns/shop/sa/{caller}",
            target=target,
            method=call.split(" ")[0],
            path=call.split(" ")[1],
        ).is_allowed
    }


def codes(result):
    return {part.code for part in result.parts if part.is_lost}


HTTP = [{"path": "/items", "methods": ["GET", "POST"]}, {"path": "/items/*", "methods": ["DELETE"]}]


@pytest.mark.parametrize(
    ("version", "call"),
    [
        ("v1alpha3", {"name": "cart", "type": "http", "HTTPResources": HTTP}),
        ("v1beta1", {"name": "cart", "type": "http", "HTTPResources": HTTP}),
        ("v2alpha1", {"kubernetes": {"name": "cart", "kind": "Deployment", "http": HTTP}}),
        ("v2beta1", {"kubernetes": {"name": "cart", "kind": "Deployment", "http": HTTP}}),
        ("v2beta1", {"kubernetes": {"name": "cart.shop", "http": HTTP}}),
    ],
)
def test_paths_keep_their_own_methods(version, call):
    result, engine = imported(intents(version, "web", [call]))
    assert open_calls(engine) == {"web GET /items", "web POST /items", "web DELETE /items/7"}
    assert result.is_whole
    assert {part.code for part in result.parts if part.fate is Fate.ASSUMED} <= {"otterize.account"}


def test_a_call_without_paths_is_every_operation():
    result, engine = imported(intents("v2beta1", "web", [{"kubernetes": {"name": "cart"}}]))
    assert len(open_calls(engine)) == 5
    assert "otterize.every-operation" in {part.code for part in result.parts}


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ({"kafka": {"name": "queue", "topics": [{"name": "orders", "operations": ["consume"]}]}}, "otterize.kafka"),
        ({"sql": {"name": "db"}}, "otterize.sql"),
        ({"aws": {"arn": "arn:aws:s3:::x", "actions": ["s3:GetObject"]}}, "otterize.aws"),
        ({"gcp": {"resource": "x"}}, "otterize.gcp"),
        ({"azure": {"scope": "x"}}, "otterize.azure"),
        ({"service": {"name": "cart"}}, "otterize.service"),
        ({"internet": {"ips": ["192.0.2.1"], "ports": [443]}}, "otterize.ips"),
        ({"internet": {"domains": ["*.example.com"], "ports": [443]}}, "otterize.domain"),
        ({"internet": {"domains": ["api.example.com"]}}, "otterize.ports"),
        ({"kubernetes": {"name": "cart", "http": [{"path": "/a*", "methods": ["GET"]}]}}, "otterize.path-prefix"),
        ({"kubernetes": {"name": "cart", "http": [{"path": "/a", "methods": ["TRACE", "GET"]}]}}, "otterize.method"),
    ],
)  # fmt: skip
def test_what_is_no_call_between_services_is_said(target, code):
    result, engine = imported(intents("v2beta1", "web", [target]))
    assert codes(result) == {code}
    assert (
        open_calls(engine, callers=("web",), target="cart" if "cart" in engine.snapshot.services else "web")
        == set()
    )


def test_hosts_outside_become_egress():
    targets = [{"internet": {"domains": ["api.example.com"], "ports": [443, 8443]}}]
    result, engine = imported(intents("v2beta1", "web", targets), intents("v2beta1", "job", targets))
    assert result.is_whole
    assert [(one.host, one.port, one.callers) for one in engine.snapshot.targets.egress] == [
        ("api.example.com", 443, ("job", "web")),
        ("api.example.com", 8443, ("job", "web")),
    ]


def test_services_and_workloads_are_found_in_manifests():
    deployment = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"template": {"metadata": {"labels": {"app": "the-cart"}}, "spec": {
            "serviceAccountName": "cart-sa", "containers": [{"name": "c", "ports": [{"containerPort": 9000}]}]}}},
    }  # fmt: skip
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "carts", "namespace": "shop"},
        "spec": {"selector": {"app": "the-cart"}},
    }  # fmt: skip
    for target in ({"service": {"name": "carts"}}, {"kubernetes": {"name": "cart"}}):
        _, engine = imported(deployment, service, intents("v2beta1", "web", [target]))
        place = engine.snapshot.targets.place("cart-sa")
        assert (place.service_account, dict(place.labels), place.port) == (
            "cart-sa",
            {"app": "the-cart"},
            9000,
        )
        assert len(open_calls(engine, callers=("web",), target="cart-sa")) == 5


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (intents("v9", "web", []), "v9 is not read"),
        (intents("v2beta1", "", []), "it names no client"),
        (intents("v2beta1", "web", {}) | {"spec": {"workload": {"name": "web"}, "targets": {"x": 1}}}, "targets is no list"),
        (intents("v2beta1", "web", [{"kubernetes": {"name": "a"}, "sql": {}}]), "a target is of one kind"),
        (intents("v2beta1", "web", [{"kubernetes": []}]), "kubernetes is no mapping"),
        (intents("v2beta1", "web", [{"kubernetes": {}}]), "it has no name"),
        (intents("v1beta1", "web", [{"type": "http"}]), "it has no name"),
        (intents("v2beta1", "web", [{"kubernetes": {"name": "a", "http": ["x"]}}]), "expected paths with methods"),
        ({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}, "there are no ClientIntents"),
    ],
)  # fmt: skip
def test_what_is_no_intent_is_refused(document, message):
    with pytest.raises(InputError, match=message):
        imported(document)
