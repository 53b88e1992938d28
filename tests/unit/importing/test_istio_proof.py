# SPDX-License-Identifier: Apache-2.0
"""An existing mesh, imported, compiled back and asked: what got through before is what gets through, or less where it was said."""

import itertools
import random
from pathlib import Path

import pytest
import yaml

from everyhop.authz import Engine
from everyhop.evaluators.istio import Istio
from everyhop.evaluators.model import Request, Wire, Workload
from everyhop.importing import Fate, import_policy
from everyhop.manifests import read_manifests
from everyhop.policy import parse_policy
from everyhop.targets import compile_policy

BOOKSHOP = (Path(__file__).parents[3] / "examples" / "bookshop" / "mesh.yaml").read_bytes()
METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS")
PATHS = (
    "/", "/books", "/books/", "/books/7", "/books/7/price", "/books/7/8/price", "/books/admin", "/books/admin/",
    "/books/admin/x", "/books/admin/price", "/booksx", "/books/7/reviews", "/books/7/reviews/", "/books/7/reviews/1/2",
    "/books/7/Reviews", "/orders", "/orders/", "/orders/7", "/orders?x=1", "/other",
)  # fmt: skip
PODS = {
    "front": ("books", {"app": "front"}, 8080),
    "catalogue": ("books", {"app": "catalogue"}, 8080),
    "reviews": ("books", {"app": "reviews", "version": "v2"}, 9080),
    "ratings-db": ("books", {"app": "ratings-db"}, 5432),
    "checkout": ("money", {"app": "checkout"}, 8080),
}


def pod(name):
    namespace, labels, port = PODS.get(name, ("books", {"app": name}, 1))
    return Workload(name=name, namespace=namespace, service_account=name, labels=labels, ports=(port,))


def requests():
    """Yield every pair of pods, with strangers and plaintext, on every path, method and port; as HTTP and as bytes."""
    peers = [
        (name, f"spiffe://cluster.local/ns/{pod(name).namespace}/sa/{name}") for name in (*PODS, "stranger")
    ]
    peers += [("front", "spiffe://far.example/ns/books/sa/front"), ("front", None), ("reviews", None)]
    for (caller, peer), target in itertools.product(peers, PODS):
        for port in (8080, 9080, 5432, 15020):
            for method, path in itertools.product(METHODS, PATHS):
                yield Request(
                    source=pod(caller), target=pod(target), port=port, peer=peer, method=method, path=path,
                    host=f"{target}.shop",
                )  # fmt: skip
            yield Request(source=pod(caller), target=pod(target), port=port, peer=peer, wire=Wire.TCP)


REQUESTS = tuple(requests())


def mesh(files):
    evaluator = Istio(read_manifests(files), trust_domain="cluster.local")
    return lambda request: evaluator.evaluate(request).allowed


def policy_of(text):
    engine = Engine(parse_policy({"everyhop.yaml": text}))

    def allowed(request):
        service = engine.snapshot.services[request.target.name]
        place = engine.snapshot.targets.place(service.name)
        if request.peer is None or request.port != (place.port if service.tcp is None else service.tcp):
            return False
        if service.tcp is not None:  # what is spoken there is bytes, calls too
            return engine.decide_tcp(caller=request.peer, target=service.name).is_allowed
        if request.wire is Wire.TCP:
            return False
        return engine.decide(
            caller=request.peer, target=service.name, method=request.method, path=request.path
        ).is_allowed

    return allowed


def compiled(text):
    (one,) = compile_policy(parse_policy({"everyhop.yaml": text}), ["istio"])
    assert not [found.render() for found in one.diagnostics if found.is_error]
    return {file.path: file.content for file in one.files}


def told(request):
    name = f"{request.method} {request.path}" if request.wire is Wire.HTTP else "tcp"
    foreign = " of far.example" if request.peer and "far.example" in request.peer else ""
    return f"{request.source.name}{foreign} {request.peer is not None} {request.target.name}:{request.port} {name}"


def differences(before, after):
    wider, narrower = [], []
    for request in REQUESTS:
        was, now = before(request), after(request)
        if was != now:
            (wider if now else narrower).append(told(request))
    return wider, narrower


def test_a_mesh_that_is_carried_over_wholly_is_enforced_as_before():
    source = {"bookshop.yaml": BOOKSHOP}
    result = import_policy("istio", source)
    assert result.is_whole
    # The one thing that is said beside: a template of Istio takes no bare brackets, which are no part of a path.
    assert {part.code for part in result.parts if part.fate is Fate.ASSUMED} == {
        "istio.ambiguous-paths",
        "istio.brackets",
    }
    before = mesh(source)
    assert sum(map(before, REQUESTS)) > 60
    assert differences(before, policy_of(result.text)) == ([], [])
    assert differences(before, mesh(compiled(result.text))) == ([], [])


CHANGES = {
    "a prefix by character": (
        "paths: [/books, /books/*]",
        "paths: [/books*]",
        "istio.path-prefix",
        {"front True catalogue:8080 GET /booksx"},
    ),
    "no caller named": (
        '        - source: {principals: [cluster.local/ns/books/sa/reviews]}\n      to:\n        - operation: {ports: ["5432"]}',
        '        - source: {notNamespaces: [x]}\n      to:\n        - operation: {ports: ["5432"]}',
        "istio.caller-pattern",
        {"stranger True ratings-db:5432", "front of far.example True ratings-db:5432"},
    ),
    "another port": (
        'methods: [POST], paths: [/orders], ports: ["8080"]',
        'methods: [POST], paths: [/orders], ports: ["8080", "9080"]',
        "istio.port",
        {"front True checkout:9080 POST /orders", "front True checkout:9080 POST /orders?x=1"},
    ),
    "plaintext": (
        "metadata: {name: default, namespace: money}\nspec: {mtls: {mode: STRICT}}",
        "metadata: {name: default, namespace: money}\nspec: {mtls: {mode: PERMISSIVE}}",
        "istio.plaintext",
        set(),
    ),
    "a whole namespace": (
        "- source: {principals: [cluster.local/ns/books/sa/front]}\n      to:\n        - operation: {methods: [GET, POST]",
        "- source: {namespaces: [books]}\n      to:\n        - operation: {methods: [GET, POST]",
        "istio.caller-pattern",
        {
            f"{caller} True reviews:9080 {call}"
            for caller in ("stranger", "front of far.example")
            for call in ("GET /books/7/reviews", "POST /books/7/reviews", "DELETE /books/7/reviews/", "DELETE /books/7/reviews/1/2")
        },
    ),
    "accounts": (
        "- source: {principals: [cluster.local/ns/books/sa/front]}\n      to:\n        - operation: {methods: [POST], paths: [/orders]",
        "- source: {serviceAccounts: [books/front]}\n      to:\n        - operation: {methods: [POST], paths: [/orders]",
        "istio.any-trust-domain",
        {
            f"front of far.example True checkout:8080 {call}"
            for call in ("POST /orders", "POST /orders?x=1", "GET /orders/", "GET /orders/7")
        },
    ),
    "a host": (
        'methods: [POST], paths: [/orders], ports: ["8080"]',
        'methods: [POST], paths: [/orders], ports: ["8080"], hosts: ["checkout.shop"]',
        "istio.hosts",
        {"front True checkout:8080 POST /orders", "front True checkout:8080 POST /orders?x=1"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_lost_is_what_was_said_and_nothing_is_won(name):
    old, new, code, lost = CHANGES[name]
    text = BOOKSHOP.decode()
    assert old in text
    source = {"bookshop.yaml": text.replace(old, new, 1).encode()}
    result = import_policy("istio", source)
    assert code in {part.code for part in result.parts if part.is_lost}
    wider, narrower = differences(mesh(source), mesh(compiled(result.text)))
    assert wider == []
    found = {one.partition(":5432")[0] + ":5432" if ":5432" in one else one for one in narrower}
    assert {one for one in found if " False " not in one} == lost


def random_mesh(chance):
    """Return policies with anything in them that an operator writes, over the pods of the shop."""

    def source():
        kind = chance.randrange(9)
        principals = [
            f"cluster.local/ns/{pod(n).namespace}/sa/{n}" for n in chance.sample([*PODS, "stranger"], 2)
        ]
        return [
            {"principals": principals},
            {"principals": ["*"]},
            {
                "principals": [
                    chance.choice(["cluster.local/ns/books/*", "*/sa/front", "far.example/ns/books/sa/front"])
                ]
            },
            {"namespaces": [chance.choice(["books", "money", "b*"])]},
            {"notNamespaces": ["money"]},
            {"notPrincipals": principals},
            {"serviceAccounts": ["books/front"]},
            {"principals": principals, "notPrincipals": principals[:1]},
            {"namespaces": ["books"], "notPrincipals": principals[:1]},
        ][kind]

    def operation():
        patterns = [
            "/books", "/books/*", "/books*", "/books/{*}/price", "/books/{**}", "/orders/*", "*/price", "*", "/", "*s",
            "/books/admin*", "/books/{*}/reviews",
        ]  # fmt: skip
        found = {}
        if chance.random() < 0.7:
            found["methods"] = chance.sample(["GET", "POST", "DELETE", "*", "P*"], chance.randint(1, 2))
        if chance.random() < 0.2:
            found["notMethods"] = ["DELETE"]
        if chance.random() < 0.8:
            found["paths"] = chance.sample(patterns, chance.randint(1, 3))
        if chance.random() < 0.2:
            found["notPaths"] = chance.sample(patterns, 1)
        if chance.random() < 0.3:
            found["ports"] = [chance.choice(["8080", "9080", "5432"])]
        if chance.random() < 0.05:
            found["hosts"] = ["x.shop"]
        return found

    def rule():
        found = {}
        if chance.random() < 0.8:
            found["from"] = [{"source": source()} for _ in range(chance.randint(1, 2))]
        if chance.random() < 0.9:
            made = [one for one in (operation() for _ in range(chance.randint(1, 2))) if one]
            if made:
                found["to"] = [{"operation": one} for one in made]
        if chance.random() < 0.1:
            found["when"] = [chance.choice([
                {"key": "source.namespace", "values": ["books"]},
                {"key": "destination.port", "values": ["8080"]},
                {"key": "request.headers[x-a]", "values": ["b"]},
                {"key": "source.ip", "values": ["10.0.0.0/8"]},
            ])]  # fmt: skip
        return found

    for index in range(chance.randint(2, 6)):
        action = chance.choice(["ALLOW", "ALLOW", "ALLOW", "DENY"])
        namespace = chance.choice(["books", "money", "books", "istio-system"])
        spec = {"action": action, "rules": [rule() for _ in range(chance.randint(1, 2))]}
        if chance.random() < 0.7:
            spec["selector"] = {"matchLabels": {"app": chance.choice(list(PODS))}}
        yield {
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": f"p{index}", "namespace": namespace}, "spec": spec,
        }  # fmt: skip


WORKLOADS = [
    one
    for one in yaml.safe_load_all(BOOKSHOP)
    if one["kind"] in {"Deployment", "StatefulSet", "PeerAuthentication"}
]
SOME = REQUESTS[::17]


@pytest.mark.parametrize("has_workloads", [True, False], ids=["workloads", "policies-alone"])
@pytest.mark.parametrize("seed", range(16))
def test_no_random_mesh_becomes_wider(seed, has_workloads):
    chance = random.Random(seed)
    documents = [*random_mesh(chance), *(WORKLOADS if has_workloads else WORKLOADS[:2])]
    source = {"mesh.yaml": yaml.safe_dump_all(documents).encode()}
    result = import_policy("istio", source)
    engine = Engine(parse_policy({"everyhop.yaml": result.text}))
    before, after = mesh(source), policy_of(result.text)
    for request in SOME:
        service = engine.snapshot.services.get(request.target.name)
        if (
            service is None
            or engine.snapshot.targets.place(service.name).namespace != request.target.namespace
        ):
            continue
        assert before(request) or not after(request), told(request)
        if not after(request) and before(request):
            assert not result.is_whole or any(part.fate is Fate.ASSUMED for part in result.parts), told(
                request
            )


OWN = """
version: 1
trust_domain: shop.example
services:
  web: {}
  batch: {}
  pay:
    operations:
      charge: POST /v1/charges
      read: "GET /v1/charges/{id}"
      files: "GET /files/{path...}"
      special: GET /files/special
  ledger: {tcp: 5432}
allow:
  - {from: web, to: pay, operations: [charge, files]}
  - {from: [web, batch], to: pay, operations: [read]}
  - {from: batch, to: pay, operations: [special]}
  - {from: pay, to: ledger}
deny:
  - {from: batch, to: pay, operations: [charge]}
targets: {istio: {accept: [ambiguous-paths]}, namespace: money}
"""


def test_what_was_compiled_is_imported_as_it_was():
    result = import_policy("istio", compiled(OWN.encode()))
    before, after = (Engine(parse_policy({"everyhop.yaml": text})) for text in (OWN.encode(), result.text))
    assert result.is_whole
    calls = [
        ("POST", "/v1/charges"), ("GET", "/v1/charges/7"), ("GET", "/files/"), ("GET", "/files/a/b"), ("GET", "/files/special"),
        ("GET", "/v1/charges"), ("POST", "/files/a"), ("GET", "/files/special/x"),
    ]  # fmt: skip
    for caller in ("web", "batch", "pay", "ledger"):
        for method, path in calls:
            was = before.decide(
                caller=f"spiffe://shop.example/service/{caller}", target="pay", method=method, path=path
            )
            now = after.decide(
                caller=f"spiffe://shop.example/ns/money/sa/{caller}", target="pay", method=method, path=path
            )
            assert was.is_allowed == now.is_allowed, (caller, method, path)
        if "ledger" in after.snapshot.services:
            was = before.decide_tcp(caller=f"spiffe://shop.example/service/{caller}", target="ledger")
            now = after.decide_tcp(caller=f"spiffe://shop.example/ns/money/sa/{caller}", target="ledger")
            assert was.is_allowed == now.is_allowed, caller


def test_a_clients_token_is_no_users():
    text = OWN.replace(
        "charge: POST /v1/charges", "charge: {route: POST /v1/charges, token: required}"
    ).replace(
        "targets: {istio: {accept: [ambiguous-paths]}",
        'targets: {tokens: {issuer: "https://everyhop.example", jwks_uri: "https://everyhop.example/keys"}, '
        "istio: {accept: [ambiguous-paths, token-binding]}",
    )
    result = import_policy("istio", compiled(text.encode()))
    assert "istio.request-principals" in {part.code for part in result.parts if part.is_lost}
    assert not parse_policy({"everyhop.yaml": result.text}).user_issuers
