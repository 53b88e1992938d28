# SPDX-License-Identifier: Apache-2.0
"""A real Envoy reads the expressions that our evaluators read: what they match, and how large their programs are.

Cilium's HTTP rules are matchers of Envoy on ``:method``, ``:authority``, ``:path`` and headers, behind the normalisation that Cilium
turns on; so each rule is given to Envoy as a route and asked with the raw paths that are asked of the evaluator.
"""

import json
import re
import socket
import subprocess
from itertools import product

import pytest
from tests.support.envoy_pair import free_port, wait_for
from tests.support.meshes import call, manifests, pod

from everyhop.dataplane.envoy import locate_envoy
from everyhop.evaluators.cilium import CiliumEvaluator
from everyhop.evaluators.regex import program_size

RULES = (
    {"method": "POST", "path": "/v1/payments(\\?.*)?"},
    {"path": "^/v1/x/[^/?]+/y(\\?.*)?$"},
    {"path": "/a|/ab"},
    {"path": "/(?:a|ab)c?"},
    {"path": "/hdr/[^/]+"},
    {"path": "(?i)/V1/(?-i:x)[a-c]*"},
    {"path": "/v1/.{2,4}"},
    {"path": "/[[:alpha:]]+\\.[\\d]{1,3}"},
    {"method": "GET|HEAD", "host": "pay\\.shop(:[0-9]+)?"},
    {"headers": ["x-a", "X-B: 1"]},
    {"headers": ["x-a 2"]},
    {},
)
PATHS = (
    "/", "/v1/payments", "/v1/payments?a=1&b=/../c", "/v1/payments/", "/v1/paymentsx", "/V1/payments", "/v1/x/7/y", "/v1/x/7/y?q=/",
    "/v1/x/7/8/y", "/v1/x//y", "/a", "/ab", "/abc", "/ac", "/hdr/1?q=1", "/hdr/1?q=/2", "/v1/xab", "/V1/xab", "/v1/Xab", "/v1/abcd",
    "/v1/abcde", "/file.12", "/file.1234", "//v1//payments", "/v1/./payments", "/v1/q/../payments", "/v1/%70ayments", "/v1%2Fpayments",
    "/v1%5cpayments", "/v1\\payments", "/v1/payments%00", "/v1/payments#x", "/v1/payments/..", "/%2e%2e/v1/payments", "/v1/payments;x=1",
)  # fmt: skip
ASKED = (
    ("POST", "pay.shop", {}),
    ("GET", "pay.shop:80", {"x-a": ("2",), "x-b": ("1",)}),
    ("HEAD", "payxshop", {"x-a": ("3", "2")}),
)
SIZED = (
    "/", "^/abc$", "abc$", "^(GET|HEAD)$", "GET|POST", ".*", "a*b*", "a+b+", ".*foo.*", "[^/]+", "\\W", "(?i)abc", "a{2,4}", "[^/]{1,5}",
    "abc|abd|xyz", "abc|xyz|abd", "abc|abcd", "^/v1/payments(\\?.*)?$", "/v1/payments(\\?.*)?", "^/v1/x/[^/?]+/y(\\?.*)?$",
    "^/v1/x/[0-9a-fA-F]{8}$", "[A-Za-z0-9._~-]+", "^(?:abc){2}/(?:a)?$", "^/(?i:%2[a-f])[x-z]$", "(?:ab)*c", "((?:a|bc)+)?d",
)  # fmt: skip


def expression(text):
    return {"string_match": {"safe_regex": {"regex": text}}}


def matchers(rule):
    """Return what Cilium makes of a rule (pkg/envoy, getHTTPRule)."""
    names = {"method": ":method", "host": ":authority", "path": ":path"}
    for key, name in names.items():
        if key in rule:
            yield {"name": name, **expression(rule[key])}
    for header in rule.get("headers", ()):
        name, space, value = header.partition(" ")
        match = {"string_match": {"exact": value}} if space else {"present_match": True}
        yield {"name": name.rstrip(":"), **match}


def configuration(port, routes, runtime):
    answers = [
        {"match": {"prefix": "/", "headers": headers}, "direct_response": {"status": 200}}
        for headers in routes
    ]
    answers.append({"match": {"prefix": "/"}, "direct_response": {"status": 403}})
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "x",
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": answers}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    listener = {
        "name": "l",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return {
        "static_resources": {"listeners": [listener]},
        "layered_runtime": {"layers": [{"name": "s", "static_layer": runtime}]},
    }


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    port, directory = free_port(), tmp_path_factory.mktemp("envoy")
    routes = [
        [{"name": "x-case", "string_match": {"exact": str(case)}}, *matchers(rule)]
        for case, rule in enumerate(RULES)
    ]
    file = directory / "envoy.json"
    file.write_text(json.dumps(configuration(port, routes, {})))
    argv = [
        str(locate_envoy()),
        "-c",
        str(file),
        "--use-dynamic-base-id",
        "--concurrency",
        "1",
        "-l",
        "error",
    ]
    with (directory / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        try:
            wait_for(lambda: socket.create_connection(("127.0.0.1", port)), what=(directory / "log")).close()
            yield port
        finally:
            process.terminate()


def answer(port, case, method, path, host, headers):
    lines = [
        f"{method} {path} HTTP/1.1",
        f"host: {host}",
        f"x-case: {case}",
        "connection: close",
        "content-length: 0",
    ]
    lines += [f"{name}: {value}" for name, values in headers.items() for value in values]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        found = connection.recv(4096)  # its status line comes at once; Envoy closes a second later
    return int(found.split(b" ", 2)[1])


@pytest.mark.parametrize("case", range(len(RULES)), ids=[json.dumps(rule) for rule in RULES])
def test_a_rule_lets_pass_what_envoy_lets_pass(proxy, case):
    policy = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {
            "endpointSelector": {},
            "ingress": [
                {
                    "toPorts": [
                        {"ports": [{"port": "8080", "protocol": "TCP"}], "rules": {"http": [RULES[case]]}}
                    ]
                }
            ],
        },
    }
    evaluator = CiliumEvaluator(manifests(json.dumps(policy)))
    source, target = pod("a"), pod("b")
    seen = set()
    for path, (method, host, headers) in product(PATHS, ASKED):
        request = call(source, target, method, path, host=host, headers=headers)
        status = answer(proxy, case, method, path, host, headers)
        seen.add(status == 200)
        assert evaluator.evaluate(request).allowed is (status == 200), (path, method, status)
    assert seen == {True, False}  # no case in which everything or nothing passes


def test_the_size_of_a_program_is_what_envoy_reports(tmp_path):
    routes = [[{"name": ":path", **expression(text)}] for text in SIZED]
    file = tmp_path / "envoy.json"
    file.write_text(
        json.dumps(
            configuration(
                0, routes, {"re2.max_program_size.error_level": 10_000, "re2.max_program_size.warn_level": 0}
            )
        )
    )
    done = subprocess.run(
        [locate_envoy(), "--mode", "validate", "-c", file, "--use-dynamic-base-id", "-l", "warning"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = dict(re.findall(r"regex '(.*)' RE2 program size of (\d+) > max program size of 0", done.stderr))
    assert {text: int(size) for text, size in found.items()} == {text: program_size(text) for text in SIZED}
