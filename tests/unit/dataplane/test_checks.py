# SPDX-License-Identifier: Apache-2.0
import json
import re

import pytest

from everyhop.dataplane import _names as names
from everyhop.dataplane.checks import edge_check, egress_check, ingress_checks, needs_of
from everyhop.dataplane.render import render_sidecar
from everyhop.dataplane.token_memory import memory_filter, no_memory
from everyhop.policy import parse_policy
from everyhop.policy.model import TokenMode, UserMode

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {}
  web: {}
  plain: {operations: {list: GET /orders}}
  tokens:
    operations:
      list: GET /list
      read: {route: GET /read, token: required}
      admin: {route: GET /admin, token: operation, once: true}
    probes: [GET /healthz]
  users: {operations: {mine: GET /mine, maybe: GET /maybe, nobody: GET /nobody}}
  ledger: {tcp: 5432}
allow:
  - {from: [storefront, web], to: [plain, tokens], operations: all}
  - {from: storefront, to: users, operations: [mine, nobody], user: required}
  - {from: storefront, to: users, operations: [maybe], user: optional}
  - {from: web, to: users, operations: [mine, maybe]}
  - {from: outside, to: users, operations: [mine], user: required}
deny:
  - {from: storefront, to: users, operations: [nobody], reason: closed}
"""


@pytest.fixture(scope="module")
def shop():
    return parse_policy({"policy.yaml": POLICY.encode()})


def rendered(shop, sidecar, **more):
    return {n: json.loads(c) for n, c in render_sidecar(shop, sidecar, {}, **more).items()}


def verdicts(files, name="authz"):
    """Return every name of an enforced action without its snapshot."""
    matcher = json.dumps(files[f"ecds/{name}.json"]["resources"][0]["typed_config"]["matcher"])
    return set(re.findall(r'"[0-9a-f]{16}\|([^"]+)"', matcher))


def host(files, name="ingress"):
    return files[f"rds/{name}.json"]["resources"][0]["virtual_hosts"][0]


def test_needs_are_in_the_verdict(shop, make_sidecar):
    assert verdicts(rendered(shop, make_sidecar("tokens"))) >= {
        "allowed|allow[0]",
        "allowed+s|allow[0]",
        "allowed+ox|allow[0]",
        "probe|services.tokens.probes[0]",
    }
    users = verdicts(rendered(shop, make_sidecar("users")))
    assert {"allowed+U|allow[1]", "allowed+u|allow[2]", "allowed|allow[3]"} <= users
    assert "denied-by-rule|deny[0]" in users  # what is refused needs nothing
    assert not [v for v in verdicts(rendered(shop, make_sidecar("plain"))) if "+" in v]


@pytest.mark.parametrize(
    ("token", "once", "user", "letters"),
    [
        (TokenMode.NONE, False, UserMode.NONE, ""),
        (TokenMode.SERVICE, False, UserMode.OPTIONAL, "su"),
        (TokenMode.OPERATION, True, UserMode.REQUIRED, "oxU"),
    ],
)
def test_letters(shop, token, once, user, letters):
    from dataclasses import replace

    operation = replace(shop.services["plain"].operations[0], token=token, once=once)
    assert needs_of(operation, user) == letters


def test_checks_are_on_only_where_something_is_checked(shop, make_sidecar):
    for service, checked in (("plain", False), ("tokens", True), ("users", True)):
        files = rendered(shop, make_sidecar(service))
        found = host(files).get("typed_per_filter_config", {})
        assert set(found) == ({names.MEMORY, names.CHECKS} if checked else set())
        program = files["ecds/memory.json"]["resources"][0]["typed_config"]["default_source_code"]
        assert ("envoy_on_request" in program["inline_string"]) is checked
    assert "ecds/memory.json" not in rendered(shop, make_sidecar("ledger"))


def test_users_are_taken_off_where_nobody_carries_them(shop, make_sidecar):
    for service, is_removed in (("plain", True), ("tokens", True), ("users", False)):
        removed = host(rendered(shop, make_sidecar(service)))["request_headers_to_remove"]
        assert ("txn-token" in removed) is is_removed


def test_a_requirement_changes_no_listener(shop, make_sidecar):
    without = parse_policy({"policy.yaml": POLICY.replace(", token: required", "").encode()})
    before, after = rendered(without, make_sidecar("tokens")), rendered(shop, make_sidecar("tokens"))
    assert before["xds/lds.json"] == after["xds/lds.json"]


def test_the_question_fails_closed(make_sidecar):
    sidecar = make_sidecar()
    for filters in (
        ingress_checks(sidecar, ("x-region",))[1:],
        [egress_check(sidecar)],
        [edge_check(sidecar, ())],
    ):
        (asking,) = filters
        config = asking["typed_config"]
        assert config["failure_mode_allow"] is False
        assert config["status_on_error"] == {"code": "ServiceUnavailable"}
        assert config["encode_raw_headers"] is True
        assert "with_request_body" not in config
    matcher = ingress_checks(sidecar, ())[1]["typed_config"]["filter_enabled_metadata"]
    assert matcher["invert"] is True
    assert "filter_enabled_metadata" not in egress_check(sidecar)["typed_config"]
    assert "disabled" not in edge_check(sidecar, ())
    assert "filter_enabled_metadata" not in edge_check(sidecar, ())["typed_config"]


def source(config):
    return config["default_source_code"]["inline_string"]


def test_the_program_names_its_snapshot_and_epoch():
    text = source(memory_filter("ab" * 32, "17"))
    assert 'SNAPSHOT, MAX, LONGEST = "abababababababab", 8192, 8192' in text
    assert "revocations 17" in text
    assert "@" not in text
    assert text != source(memory_filter("ab" * 32, "18"))
    assert source(no_memory()).startswith("--")


def test_an_epoch_cannot_leave_its_comment():
    text = source(memory_filter("ab" * 32, '1\nos.execute("x")'))
    assert "os.execute" not in text.replace("os_execute", "").replace("os.execute__x__", "")
    assert len(text.splitlines()) == len(source(memory_filter("ab" * 32, "1")).splitlines())


def test_the_edge_knows_only_the_outside(shop, make_sidecar):
    files = rendered(shop, make_sidecar("users", edge=("0.0.0.0", 8443)))
    found = verdicts(files, "authz-edge")
    assert "allowed+U|allow[4]" in found
    assert not [v for v in found if "allow[1]" in v or "allow[2]" in v or "allow[3]" in v]
    listener = next(r for r in files["xds/lds.json"]["resources"] if r["name"] == "edge")
    chain = listener["filter_chains"][0]
    context = chain["transport_socket"]["typed_config"]
    assert "require_client_certificate" not in context
    assert "validation_context_sds_secret_config" not in context["common_tls_context"]
    assert context["common_tls_context"]["tls_params"]["tls_minimum_protocol_version"] == "TLSv1_3"
    manager = chain["filters"][0]["typed_config"]
    assert [f["name"] for f in manager["http_filters"]] == [
        "blocked-edge",
        "key",
        "authz-edge",
        "checks",
        "router",
    ]
    (early,) = manager["early_header_mutation_extensions"]
    assert {"remove_on_match": {"key_matcher": {"exact": "txn-token"}}} in early["typed_config"]["mutations"]
    assert "authorization" in host(files, "edge")["request_headers_to_remove"]
    bootstrap = files["bootstrap.json"]["layered_runtime"]["layers"][0]["static_layer"]
    assert set(bootstrap["envoy"]["resource_limits"]["listener"]) == {"ingress", "edge"}


def test_a_tcp_service_has_no_edge(shop, make_sidecar):
    files = rendered(shop, make_sidecar("ledger", edge=("0.0.0.0", 8443)))
    assert not [name for name in files if "edge" in name]
    assert "edge" not in [r["name"] for r in files["xds/lds.json"]["resources"]]
