# SPDX-License-Identifier: Apache-2.0
"""The standalone Envoy as text: what must stand there, and what must not.  What it does is tested with the real one."""

import json

import pytest
from tests.support.golden_proxies import check_golden

from everyhop.core.errors import InputError
from everyhop.policy import parse_policy
from everyhop.targets import compile_policy
from everyhop.targets.envoy.transport import server_tls

POLICY = """
version: 1
trust_domain: shop.example
services:
  web: {}
  sdk: {}
  orders:
    operations:
      list: GET /orders
      pay: {route: POST /pay, token: required}
      say: POST /say
      see: GET /see
  db: {tcp: 5432}
  trap: {canary: true}
attributes: {request: {headers: [x-region]}}
allow:
  - {from: web, to: orders, operations: [list, pay]}
  - {from: web, to: orders, operations: [say], user: required}
  - {from: outside, to: orders, operations: [see]}
  - {from: web, to: db, when: "caller.name == 'web'"}
targets:
"""
ASKED = "authorizer: 'unix:/run/a.sock'"
GATEWAY = "  gateway: {namespace: edge, service_account: gw, labels: {app: gw}}\n"


def compiled(settings, beside=()):
    snapshot = parse_policy({"everyhop.yaml": (POLICY + settings).encode()})
    (found,) = compile_policy(snapshot, ["envoy"], beside=beside)
    return {file.path: json.loads(file.content) for file in found.files}, found


def manager(files, service="orders"):
    (listener,) = files[f"envoy/{service}/bootstrap.json"]["static_resources"]["listeners"]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


def values(document, key):
    if isinstance(document, dict):
        for name, inner in document.items():
            if name == key:
                yield inner
            yield from values(inner, key)
    elif isinstance(document, list):
        for inner in document:
            yield from values(inner, key)


def verdicts(files, service="orders", key="matcher"):
    """The names of what is let through."""
    config = next(f for f in manager(files, service)["http_filters"] if f["name"] == "authz")["typed_config"]
    actions = [one["typed_config"] for one in values(config[key], "action") if isinstance(one, dict)]
    return sorted({one["name"].partition("|")[2] for one in actions if one.get("action") == "ALLOW"})


def codes(found):
    return sorted({one.code for one in found.diagnostics if one.is_error})


def test_an_empty_list_of_callers_is_everybody_so_it_is_never_written():
    with pytest.raises(ValueError, match="lets everybody in"):
        server_tls("/d", (), [])


def test_an_authorizer_on_tcp_shows_an_identity_or_is_refused():
    with pytest.raises(InputError, match="authorizer_identity"):
        compiled("  envoy: {authorizer: 'auth.example:9443'}")
    with pytest.raises(InputError, match="authorizer_identity"):
        compiled("  envoy: {authorizer: 'auth.example:9443', authorizer_identity: nobody}")
    files, _ = compiled("  envoy: {authorizer: 'auth.example:9443', authorizer_identity: sdk}")
    clusters = files["envoy/orders/bootstrap.json"]["static_resources"]["clusters"]
    (asked,) = [one for one in clusters if one["name"] == "authorizer"]
    assert asked["type"] == "STRICT_DNS"
    names = list(values(asked, "match_typed_subject_alt_names"))
    assert names == [[{"san_type": "URI", "matcher": {"exact": "spiffe://shop.example/service/sdk"}}]]


def test_doors_that_facts_decide_stay_shut_without_an_authorizer():
    files, found = compiled("  envoy: {}")
    assert verdicts(files) == ["allowed|allow[0]"]
    assert "checks" not in [one["name"] for one in manager(files)["http_filters"]]
    assert {"envoy.token", "envoy.user", "envoy.outside"} <= set(codes(found))


def test_what_the_sdk_holds_beside_it_is_opened_without_asking():
    files, found = compiled("  envoy: {}", beside=("sdk",))
    assert "allowed+s|allow[0]" in verdicts(files)
    assert "checks" not in [one["name"] for one in manager(files)["http_filters"]]
    assert "envoy.token" not in codes(found)


def test_whatever_is_not_plainly_settled_is_asked():
    """The match is inverted: a verdict that Envoy lost, or one in another form, is a question."""
    files, _ = compiled(f"  envoy: {{{ASKED}}}")
    (asking,) = [one["typed_config"] for one in manager(files)["http_filters"] if one["name"] == "checks"]
    assert asking["filter_enabled_metadata"]["invert"] is True
    assert asking["failure_mode_allow"] is False
    assert asking["include_peer_certificate"] is True
    assert "filter_enabled" not in asking


def test_a_connection_that_only_facts_decide_is_refused_even_with_an_authorizer():
    files, found = compiled(f"  envoy: {{{ASKED}}}")
    assert "envoy.condition" in codes(found)
    (listener,) = files["envoy/db/bootstrap.json"]["static_resources"]["listeners"]
    assert "ALLOW" not in json.dumps(listener)
    names = list(values(listener, "match_typed_subject_alt_names"))
    assert names == [[{"san_type": "URI", "matcher": {"exact": "spiffe://shop.example"}}]]


def test_callers_from_outside_come_through_the_gateway_or_not_at_all():
    _, found = compiled("  envoy: {}")
    assert "envoy.outside" in codes(found)
    files, found = compiled(GATEWAY + "  envoy: {}")
    assert "envoy.outside" not in codes(found)
    maps = json.dumps(manager(files))
    assert "spiffe://shop.example/ns/edge/sa/gw" in maps
    _, found = compiled(GATEWAY + "  trust_domain: mesh.example\n  envoy: {}")
    assert "envoy.outside" in codes(found)


def test_a_user_s_token_gets_in_only_where_somebody_verifies_it():
    removed = {"remove_on_match": {"key_matcher": {"exact": "txn-token"}}}

    def first(files):
        return next(values(manager(files)["early_header_mutation_extensions"], "mutations"))

    files, _ = compiled("  envoy: {}")
    assert removed in first(files)
    for files, _ in (compiled(f"  envoy: {{{ASKED}}}"), compiled("  envoy: {}", beside=("sdk",))):
        assert removed not in first(files)
        assert "users" in [one["name"] for one in manager(files)["http_filters"]]


def test_paths_are_never_rewritten_and_escaped_slashes_are_refused():
    config = manager(compiled("  envoy: {}")[0])
    assert config["normalize_path"] is False
    assert config["merge_slashes"] is False
    assert config["path_with_escaped_slashes_action"] == "REJECT_REQUEST"
    assert config["http_protocol_options"]["allow_absolute_url"] is False


def test_only_tls_1_3_with_a_certificate_of_the_trust_domain():
    files, _ = compiled("  envoy: {}")
    (listener,) = files["envoy/orders/bootstrap.json"]["static_resources"]["listeners"]
    tls = listener["filter_chains"][0]["transport_socket"]["typed_config"]
    assert tls["require_client_certificate"] is True
    assert tls["common_tls_context"]["tls_params"] == {
        "tls_minimum_protocol_version": "TLSv1_3",
        "tls_maximum_protocol_version": "TLSv1_3",
    }
    (prefix,) = next(values(tls, "match_typed_subject_alt_names"))
    assert prefix["matcher"] == {"prefix": "spiffe://shop.example/"}
    assert listener["enable_reuse_port"] is False


def test_trap_only_secrets_lie_in_watched_directories():
    files, _ = compiled("  envoy: {certificates: /certs, directory: /conf}")
    watched = {one["path"] for one in values(list(files.values()), "watched_directory")}
    assert watched == {"/certs", "/conf/db", "/conf/orders", "/conf/sdk", "/conf/web"}
    assert "/dev/" not in json.dumps(list(files.values()))


def test_a_canary_has_no_proxy():
    files, _ = compiled("  envoy: {}")
    assert not [path for path in files if "/trap/" in path]


def test_nobody_can_administer_it():
    files, _ = compiled("  envoy: {}")
    assert "admin" not in files["envoy/orders/bootstrap.json"]


def test_rules_and_their_places_are_said_where_json_has_no_comments():
    files, _ = compiled("  envoy: {}")
    about = files["envoy/orders/bootstrap.json"]["node"]["metadata"]["everyhop"]
    assert about["rules"]["allow[0]"] == "everyhop.yaml:17:5"
    assert "do not edit" in about["generated"]


def test_golden():
    check_golden("envoy")
