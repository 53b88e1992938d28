# SPDX-License-Identifier: Apache-2.0
"""A bootstrap at its places of a proof: what decides is not touched, and what is not ours is refused."""

import json
from pathlib import Path

import pytest

from everyhop.core.errors import InputError
from everyhop.evaluators.model import Request, Wire, Workload
from everyhop.policy import parse_policy
from everyhop.runtime.target_caller import _message
from everyhop.runtime.target_places import Places, is_tcp, moved, secret_files, service_of
from everyhop.targets import compile_policy

POLICY = b"""
version: 1
trust_domain: shop.example
services:
  web: {}
  orders: {operations: {list: GET /orders, pay: {route: POST /pay, token: required}}}
  db: {tcp: 5432}
allow:
  - {from: web, to: orders, operations: all}
  - {from: web, to: db}
targets: {envoy: {authorizer: "unix:/run/a.sock"}}
"""
PLACES = Places(Path("/p"))
HERE = Workload(name="x", namespace="", service_account="x", labels={})


@pytest.fixture(scope="module")
def files():
    (found,) = compile_policy(parse_policy({"everyhop.yaml": POLICY}), ["envoy"])
    return {file.path: file.content for file in found.files}


def bootstrap(files, service="orders", change=lambda document: None):
    document = json.loads(files[f"envoy/{service}/bootstrap.json"])
    change(document)
    return json.dumps(document).encode()


def second_listener(document):
    document["static_resources"]["listeners"].append(document["static_resources"]["listeners"][0])


def second_chain(document):
    chains = document["static_resources"]["listeners"][0]["filter_chains"]
    chains.append(chains[0])


def no_filter(document):
    document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"] = []


def another_cluster(document):
    document["static_resources"]["clusters"].append({"name": "elsewhere"})


@pytest.mark.parametrize("change", [second_listener, second_chain, no_filter, another_cluster])
def test_what_another_hand_added_is_refused_and_not_passed_over(files, change):
    with pytest.raises(InputError):
        moved(bootstrap(files, change=change), PLACES, "mark")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"static_resources": {}}', b'{"node": 1}'])
def test_what_is_no_bootstrap_is_refused(content):
    with pytest.raises(InputError):
        moved(content, PLACES, "mark")
    with pytest.raises(InputError):
        service_of(content)


def test_only_places_change(files):
    before = json.loads(files["envoy/orders/bootstrap.json"])
    after = json.loads(moved(files["envoy/orders/bootstrap.json"], PLACES, "mark"))
    assert after.pop("admin")["address"]["pipe"]["mode"] == 0o600
    assert after["static_resources"]["listeners"].pop()["name"] == "app"
    assert after["static_resources"]["listeners"][0].pop("address")["socket_address"] == {
        "address": "127.0.0.1",
        "port_value": 0,
    }
    del before["static_resources"]["listeners"][0]["address"]
    policy = [
        document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        for document in (before, after)
    ]
    for manager in policy:
        (asking,) = [one for one in manager["http_filters"] if one["name"] == "checks"]
        del asking["typed_config"]["grpc_service"]["timeout"]
    assert policy[0] == policy[1]
    text = json.dumps(after)
    assert "/etc/everyhop" not in text
    assert "/run/a.sock" not in text
    assert set(secret_files(PLACES)) == {"svid.json", "bundle.json"}


def test_kinds_and_names(files):
    assert is_tcp(files["envoy/db/bootstrap.json"])
    assert not is_tcp(files["envoy/orders/bootstrap.json"])
    assert service_of(files["envoy/db/bootstrap.json"]) == "db"


@pytest.mark.parametrize(
    "more", [{"path": "/a\r\nx: y"}, {"method": "GET /b HTTP/1.1\r\n\r\nGET"}, {"headers": {"x": ("a\nb",)}}]
)
def test_one_request_is_never_two(more):
    given = {"source": HERE, "target": HERE, "port": 1, "peer": None, "method": "GET", "path": "/"} | more
    with pytest.raises(InputError, match="line break"):
        _message(Request(**given))


def test_a_request_goes_out_as_it_stands():
    request = Request(
        source=HERE,
        target=HERE,
        port=1,
        peer=None,
        method="POST",
        path="/a//b/%2e%2E?x=\xff",
        host="orders",
        headers={"x-region": ("eu", "us")},
        wire=Wire.HTTP,
    )
    assert _message(request) == (
        b"POST /a//b/%2e%2E?x=\xff HTTP/1.1\r\nhost: orders\r\ncontent-length: 0\r\nx-region: eu\r\nx-region: us\r\n\r\n"
    )
