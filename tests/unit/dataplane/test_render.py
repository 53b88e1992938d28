# SPDX-License-Identifier: Apache-2.0
import base64
import json

import pytest
from hypothesis import HealthCheck, given, settings
from tests.strategies import policies

from everyhop.core.errors import NotFound
from everyhop.core.secret import Secret
from everyhop.dataplane.model import AppPort, Limits
from everyhop.dataplane.render import render_sidecar
from everyhop.policy import parse_policy

ENDPOINTS = {"orders": (("127.0.0.1", 22001), ("127.0.0.1", 22003)), "ledger": (("127.0.0.1", 22005),)}
KINDS = {"xds", "eds", "rds", "ecds"}


def rendered(snapshot, sidecar, endpoints=ENDPOINTS):
    return {
        name: json.loads(content) for name, content in render_sidecar(snapshot, sidecar, endpoints).items()
    }


def edited(old, new):
    from tests.unit.dataplane.conftest import POLICY

    assert old in POLICY
    return parse_policy({"policy.yaml": POLICY.replace(old, new)})


def values(document, key):
    """Yield every value under a key, however deep."""
    if isinstance(document, dict):
        for name, inner in document.items():
            if name == key:
                yield inner
            yield from values(inner, key)
    elif isinstance(document, list):
        for inner in document:
            yield from values(inner, key)


def manager(files, listener):
    return listener_of(files, listener)["filter_chains"][0]["filters"][0]["typed_config"]


def listener_of(files, name):
    return next(r for r in files["xds/lds.json"]["resources"] if r["name"] == name)


def test_the_same_input_gives_the_same_bytes(snapshot, make_sidecar):
    shuffled = {name: tuple(reversed(places)) for name, places in reversed(ENDPOINTS.items())}
    assert render_sidecar(snapshot, make_sidecar(), ENDPOINTS) == render_sidecar(
        snapshot, make_sidecar(), shuffled
    )


def test_an_undeclared_service_is_refused(snapshot, make_sidecar):
    with pytest.raises(NotFound):
        render_sidecar(snapshot, make_sidecar("nobody"), {})


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(policies())
def test_every_file_is_complete(make_sidecar, snapshot):
    for service in snapshot.services:
        sidecar = make_sidecar(service)
        files = rendered(snapshot, sidecar, {})
        assert {name.partition("/")[0] for name in files} == KINDS | {"bootstrap.json"}
        for document in files.values():
            for source in values(document, "path_config_source"):
                relative = source["path"].removeprefix(f"{sidecar.directory}/")
                assert relative in files
                assert (
                    source["watched_directory"]["path"] == f"{sidecar.directory}/{relative.partition('/')[0]}"
                )
        names = {name.partition("/")[2].removesuffix(".json") for name in files}
        referred = [
            *values(files["xds/lds.json"], "route_config_name"),
            *values(files["xds/cds.json"], "service_name"),
        ]
        assert set(referred) <= names
        clusters = {c["name"] for c in files["xds/cds.json"]["resources"]} | {"sds"}
        for name in ("rds/ingress.json", "rds/egress.json", "xds/lds.json"):
            assert set(values(files[name], "cluster")) - {"everyhop"} <= clusters
        assert all(name in str(files["xds/lds.json"]) for name in ("ingress", "egress", "egress-socket"))


def test_envoy_watches_no_file(snapshot, make_sidecar):
    """Each watch costs one of a user's 128 inotify instances."""
    files = rendered(snapshot, make_sidecar())
    assert not [v for document in files.values() for v in values(document, "path_config_source")]
    bootstrap = files["bootstrap.json"]["dynamic_resources"]
    assert bootstrap["ads_config"]["api_type"] == "DELTA_GRPC"
    assert "ads" in bootstrap["lds_config"]
    assert "ads" in bootstrap["cds_config"]


def test_no_secret_in_any_file(snapshot, make_sidecar):
    secret = b"a very secret value"
    files = render_sidecar(snapshot, make_sidecar("storefront", egress_secret=Secret(secret)), ENDPOINTS)
    for content in files.values():
        assert secret not in content
        assert base64.b64encode(b"storefront:" + secret) not in content


def test_tls_in_both_directions_is_1_3_only_without_resumption(snapshot, make_sidecar):
    files = rendered(snapshot, make_sidecar("storefront"))
    for parameters in [
        *values(files["xds/lds.json"], "tls_params"),
        *values(files["xds/cds.json"], "tls_params"),
    ]:
        assert set(parameters.values()) == {"TLSv1_3"}
        assert len(parameters) == 2
    tls = listener_of(files, "ingress")["filter_chains"][0]["transport_socket"]["typed_config"]
    assert tls["require_client_certificate"] is True
    assert tls["disable_stateless_session_resumption"] is True
    assert tls["disable_stateful_session_resumption"] is True
    upstream = [c for c in files["xds/cds.json"]["resources"] if c["name"].startswith("to-")]
    assert upstream
    for cluster in upstream:
        config = cluster["transport_socket"]["typed_config"]
        assert config["max_session_keys"] == 0
        (exact,) = values(config, "match_typed_subject_alt_names")
        expected = f"spiffe://shop.example/service/{cluster['name'].removeprefix('to-')}"
        assert exact == [{"san_type": "URI", "matcher": {"exact": expected}}]


def test_only_the_ingress_listens_for_others(snapshot, make_sidecar):
    files = rendered(snapshot, make_sidecar("storefront", ingress=("10.0.0.5", 21001)))
    for listener in files["xds/lds.json"]["resources"]:
        address = listener["address"]
        if listener["name"] == "ingress":
            assert address["socket_address"] == {"address": "10.0.0.5", "port_value": 21001}
            assert listener["filter_chains"][0]["transport_socket"]["typed_config"][
                "require_client_certificate"
            ]
        elif "pipe" in address:
            assert address["pipe"]["mode"] == 0o600
        else:
            assert address["socket_address"]["address"] == "127.0.0.1"
            assert manager(files, listener["name"])["http_filters"][0]["name"] == "secret"
        if "socket_address" in address:
            assert listener["enable_reuse_port"] is False
    admin = files["bootstrap.json"]["admin"]["address"]
    assert admin == {"pipe": {"path": "/state/run/admin.sock", "mode": 0o600}}


def test_paths_pass_as_they_are_and_headers_do_not(snapshot, make_sidecar):
    files = rendered(snapshot, make_sidecar())
    for name in ("ingress", "egress", "egress-socket"):
        config = manager(files, name)
        assert config["normalize_path"] is False
        assert config["merge_slashes"] is False
        assert config["path_with_escaped_slashes_action"] == "KEEP_UNCHANGED"
        assert config["common_http_protocol_options"]["headers_with_underscores_action"] == "REJECT_REQUEST"
        removed = json.dumps(config["early_header_mutation_extensions"])
        for family in (
            "x-everyhop-",
            "x-forwarded-",
            "x-envoy-",
            "x-original-",
            "x-rewrite-url",
            "forwarded",
        ):
            assert f'"{family}"' in removed
        assert config["http_filters"][-1]["name"] == "router"
    assert manager(files, "ingress")["http_protocol_options"]["allow_absolute_url"] is False
    assert manager(files, "ingress")["forward_client_cert_details"] == "SANITIZE_SET"
    assert manager(files, "egress")["forward_client_cert_details"] == "SANITIZE"


def test_the_policy_stands_before_the_application(snapshot, make_sidecar):
    for service in ("orders", "ledger", "idle"):
        filters = manager(rendered(snapshot, make_sidecar(service)), "ingress")["http_filters"]
        checks = [] if service == "ledger" else ["memory", "checks"]
        assert [f["name"] for f in filters if f["name"] != "key"] == ["blocked", "authz", *checks, "router"]
        discovery = next(f for f in filters if f["name"] == "authz")["config_discovery"]
        assert discovery["default_config"]["rules"] == {"action": "ALLOW", "policies": {}}
        assert discovery["config_source"]["initial_fetch_timeout"] == "0s"


def test_an_edit_of_rules_leaves_listeners_and_clusters_alone(snapshot, make_sidecar):
    before = render_sidecar(snapshot, make_sidecar("orders"), ENDPOINTS)
    other = edited(b"operations: [list], reason", b"operations: [read], reason")
    after = render_sidecar(other, make_sidecar("orders"), ENDPOINTS)
    assert {name for name in after if after[name] != before[name]} == {
        "ecds/authz.json",
        "ecds/memory.json",
        "rds/ingress.json",
        "rds/egress.json",
    }


@pytest.mark.parametrize(
    ("service", "old", "new", "changes"),
    [
        ("ledger", b"  - {from: storefront, to: ledger}\n", b"", True),
        ("ledger", b"operations: [list], reason", b"operations: [read], reason", False),
        (
            "orders",
            b"operations: [list], reason",
            b"operations: [live], reason",
            False,
        ),  # ledger never had it
        (
            "orders",
            b"{from: storefront, to: orders, operations: all}",
            b"{from: [storefront, idle], to: orders, operations: all}",
            True,
        ),
        (
            "orders",
            b"{from: storefront, to: orders, operations: all}",
            b"{from: storefront, to: orders, operations: [watch, live]}",
            False,
        ),
        ("storefront", b"  - {from: storefront, to: ledger}\n", b"", False),
    ],
)
def test_connections_that_stay_open_are_ended_when_their_permissions_change(
    make_sidecar, snapshot, service, old, new, changes
):
    def chain(of):
        return listener_of(rendered(of, make_sidecar(service)), "ingress")["filter_chains"][0]["name"]

    assert (chain(snapshot) != chain(edited(old, new))) is changes


def test_egress_knows_only_what_may_be_reached(snapshot, make_sidecar):
    def hosts(service):
        config = rendered(snapshot, make_sidecar(service))["rds/egress.json"]["resources"][0]
        return {h["name"]: h["domains"] for h in config["virtual_hosts"]}

    assert hosts("storefront") == {
        "ledger": ["ledger", "ledger.shop.example"],
        "orders": ["orders", "orders.shop.example"],
        "undeclared": ["*"],
    }
    assert set(hosts("idle")) == {"orders", "undeclared"}  # for its probe
    config = rendered(snapshot, make_sidecar("storefront"))["rds/egress.json"]["resources"][0]
    for host in config["virtual_hosts"]:
        matches = [json.dumps(route["match"]) for route in host["routes"]]
        assert '{"connect_matcher": {}}' in matches  # without one, CONNECT would be answered 404


def test_the_decision_id_stays_with_the_request(snapshot, make_sidecar):
    """Without it, the answer to a connection that failed, and its log line, would have none."""
    config = rendered(snapshot, make_sidecar("storefront"))["rds/egress.json"]["resources"][0]
    for host in config["virtual_hosts"]:
        assert "x-everyhop-decision" not in host.get("request_headers_to_remove", [])


def test_upgrades_are_possible_only_where_declared(snapshot, make_sidecar):
    (host,) = rendered(snapshot, make_sidecar())["rds/ingress.json"]["resources"][0]["virtual_hosts"]
    opened = [r["match"] for r in host["routes"] if "upgrade_configs" in r.get("route", {})]
    assert [m["safe_regex"]["regex"] for m in opened] == ["/live/[^/]+"]
    order = [
        m.get("path") or m.get("safe_regex", {}).get("regex") for m in (r["match"] for r in host["routes"])
    ]
    assert order.index("/live/info") < order.index("/live/[^/]+")
    files = rendered(snapshot, make_sidecar())
    assert all(c["enabled"] is False for c in manager(files, "ingress")["upgrade_configs"])


def test_two_hosts_are_refused_first(snapshot, make_sidecar):
    (host,) = rendered(snapshot, make_sidecar())["rds/ingress.json"]["resources"][0]["virtual_hosts"]
    assert host["routes"][0]["match"]["headers"] == [
        {"name": ":authority", "string_match": {"safe_regex": {"regex": r".*[^A-Za-z0-9._~%\[\]:-].*"}}}
    ]
    assert host["routes"][0]["direct_response"] == {"status": 400}


def test_the_application_by_socket_by_port_and_not_yet(snapshot, make_sidecar):
    def addresses(app):
        return list(values(rendered(snapshot, make_sidecar(app=app))["eds/app.json"], "address"))

    assert addresses(None) == []
    assert addresses(AppPort(8000))[0] == {"socket_address": {"address": "127.0.0.1", "port_value": 8000}}
    assert addresses(make_sidecar().app) == [{"pipe": {"path": "/state/run/app.sock"}}]
    files = render_sidecar(snapshot, make_sidecar(), ENDPOINTS)
    changed = render_sidecar(snapshot, make_sidecar(app=None), ENDPOINTS)
    assert {name for name in files if files[name] != changed[name]} == {"eds/app.json"}


def test_a_service_named_like_one_of_our_clusters(make_sidecar):
    policy = b"""
version: 1
trust_domain: shop.example
services: {app: {operations: {a: GET /}}, sds: {operations: {a: GET /}}, ingress: {tcp: 1}, egress: {tcp: 2}}
allow:
  - {from: any, to: [app, sds], operations: all}
  - {from: any, to: [ingress, egress]}
"""
    files = rendered(parse_policy({"p.yaml": policy}), make_sidecar("app"))
    clusters = [c["name"] for c in files["xds/cds.json"]["resources"]]
    listeners = [listener["name"] for listener in files["xds/lds.json"]["resources"]]
    assert len(set(clusters)) == len(clusters) == 6
    assert len(set(listeners)) == len(listeners)


def test_limits_arrive(snapshot, make_sidecar):
    limits = Limits(
        connections=77, header_count=9, header_bytes=4096, headers_timeout=1.5, buffer_bytes=65536
    )
    files = rendered(snapshot, make_sidecar(limits=limits))
    config = manager(files, "ingress")
    assert config["max_request_headers_kb"] == 4
    assert config["request_headers_timeout"] == "1.5s"
    assert config["common_http_protocol_options"]["max_headers_count"] == 9
    assert listener_of(files, "ingress")["per_connection_buffer_limit_bytes"] == 65536
    (layer,) = files["bootstrap.json"]["layered_runtime"]["layers"]
    limit = {"listener": {"ingress": {"connection_limit": 77}}}
    assert layer["static_layer"]["envoy"] == {"resource_limits": limit}


def test_what_stays_open_is_ended_when_its_condition_changes(make_sidecar):
    text = """\
{version: 1, trust_domain: shop.example, services: {a: {}, b: {operations: {live: {websocket: /live}, list: GET /}}},
 allow: [{from: a, to: b, operations: [live] @LIVE@}, {from: a, to: b, operations: [list] @LIST@}]}
"""

    def chain(live="", listed=""):
        written = text.replace("@LIVE@", live).replace("@LIST@", listed)
        policy = parse_policy({"p.yaml": written.encode()})
        return listener_of(rendered(policy, make_sidecar("b")), "ingress")["filter_chains"][0]["name"]

    early, paris = ", when: now.getHours() < 8", ", when: \"now.getHours('Europe/Paris') < 8\""
    assert len({chain(), chain(early), chain(paris)}) == 3
    assert chain() == chain(listed=early)


def test_what_envoy_decides_needs_no_checks(make_sidecar):
    text = """\
{version: 1, trust_domain: shop.example, services: {a: {}, b: {operations: {list: GET /}}},
 allow: [{from: a, to: b, operations: [list], when: "now.getHours(@ZONE@) < 8"}]}
"""
    for zone, checked in (("", False), ("'+02:00'", False), ("'Europe/Paris'", True)):
        policy = parse_policy({"p.yaml": text.replace("@ZONE@", zone).encode()})
        files = rendered(policy, make_sidecar("b"))
        host = files["rds/ingress.json"]["resources"][0]["virtual_hosts"][0]
        assert ("typed_per_filter_config" in host) is checked
        assert ("+c|" in json.dumps(files["ecds/authz.json"])) is checked
