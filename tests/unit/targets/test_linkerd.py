# SPDX-License-Identifier: Apache-2.0
"""Linkerd's objects: what must never be written, and what is."""

import re

import pytest
import yaml
from tests.support.crds import Definitions, objects_of
from tests.support.linkerd_mesh import Client, LinkerdMesh

from everyhop.policy import parse_policy
from everyhop.targets.compiling import compile_policy
from everyhop.targets.intents import Intents
from everyhop.targets.linkerd.clients import Clients, mesh_authentication
from everyhop.targets.view import View

SHOP = """
version: 1
trust_domain: shop.example
services:
  checkout: {operations: {x: GET /}}
  admin: {operations: {x: GET /}}
  users:
    operations:
      me: GET /users/me
      read: GET /users/{id}
      write: PUT /users/{id}
      files: GET /files/{path...}
      watch: {grpc: shop.v1.Users/Watch}
      live: {websocket: /live}
    probes: [GET /healthz]
  db: {tcp: 5432}
  alone: {operations: {x: GET /}}
allow:
  - {from: checkout, to: users, operations: [read, files, watch, live]}
  - {from: [admin, checkout], to: users, operations: [write]}
  - {from: admin, to: users, operations: [me]}
  - {from: checkout, to: db}
"""


def compiled(text, *beside):
    snapshot = parse_policy({"everyhop.yaml": text.encode()})
    (found,) = compile_policy(snapshot, ["linkerd"], beside=beside)
    return found


def objects(text, *beside):
    return list(objects_of(file.content for file in compiled(text, *beside).files))


def of_kind(found, kind):
    return [one for one in found if one["kind"] == kind]


def codes(text, *beside):
    return [(one.code, one.is_error) for one in compiled(text, *beside).diagnostics]


def identity(account, namespace="default"):
    return f"{account}.{namespace}.serviceaccount.identity.linkerd.shop.example"


def admits(found, caller, method, path, **client):
    mesh = LinkerdMesh(found)
    who = Client(identity=None if caller is None else identity(caller), **client)
    return mesh.admits_call("default", {"app": "users"}, 8080, who, method, path)


# -- traps, by name


def test_required_authentication_refs_are_never_empty():
    """An empty list would open the target to everybody from everywhere, and the schema takes it."""
    for policy in of_kind(objects(SHOP), "AuthorizationPolicy"):
        assert len(policy["spec"]["requiredAuthenticationRefs"]) == 1


def test_an_empty_set_of_clients_is_refused():
    snapshot = parse_policy({"everyhop.yaml": SHOP.encode()})
    with pytest.raises(ValueError, match="somebody"):
        mesh_authentication(View(Intents(snapshot), "linkerd"), "default", Clients(callers=()))


def test_nothing_is_allowed_at_a_server_that_has_routes():
    """Authorizations of the Server are added to those of every route."""
    found = objects(SHOP)
    routed = {
        parent["name"]
        for route in of_kind(found, "HTTPRoute")
        for parent in route["spec"]["parentRefs"]
        if parent["kind"] == "Server"
    }
    targets = [one["spec"]["targetRef"] for one in of_kind(found, "AuthorizationPolicy")]
    assert {one["name"] for one in targets if one["kind"] == "Server"} == {"server-db"}
    assert not routed & {"server-db"}
    assert all(one["kind"] in {"Server", "HTTPRoute"} for one in targets)


def test_every_reference_names_an_object_that_is_there():
    """A name that is none makes Linkerd ignore the authorization: a silent 403."""
    found = objects(SHOP + "targets: {probe_networks: [10.0.0.0/8]}\n")
    there = {(one["kind"], one["metadata"]["name"]) for one in found}
    for policy in of_kind(found, "AuthorizationPolicy"):
        references = [policy["spec"]["targetRef"], *policy["spec"]["requiredAuthenticationRefs"]]
        assert {(one["kind"], one["name"]) for one in references} <= there
    for route in of_kind(found, "HTTPRoute"):
        for parent in route["spec"]["parentRefs"]:
            assert (parent["kind"], parent["name"]) in there


def test_a_server_without_an_open_door_has_a_route_all_the_same():
    """Without one, Linkerd lets what the pod declares as a probe be asked from everywhere, without an identity."""
    found = objects(SHOP)
    mesh = LinkerdMesh(found, declared_probes=("/healthz", "/admin"))
    stranger = Client(identity=None)
    for name in ("alone", "admin", "users"):
        for path in ("/healthz", "/admin", "/"):
            assert not mesh.admits_call("default", {"app": name}, 8080, stranger, "GET", path), (name, path)
    without = [one for one in found if not one["metadata"]["name"].startswith("closed-")]
    bare = LinkerdMesh(without, declared_probes=("/admin",))
    assert bare.admits_call("default", {"app": "alone"}, 8080, stranger, "GET", "/admin")


def test_no_port_is_called_grpc():
    """Under the protocol gRPC Linkerd looks at GRPCRoutes only, and refuses everything else."""
    servers = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects(SHOP), "Server")}
    assert servers["server-users"]["proxyProtocol"] == "unknown"
    assert servers["server-db"]["proxyProtocol"] == "opaque"
    only = SHOP.replace("alone: {operations: {x: GET /}}", "alone: {operations: {x: {grpc: a.B/C}}}")
    servers = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects(only), "Server")}
    assert servers["server-alone"]["proxyProtocol"] == "HTTP/2"


def test_a_regular_expression_is_one_anchored_group():
    """Linkerd takes the leftmost match first and then asks whether it spans the path: /a|/ab would miss /ab."""
    for route in of_kind(objects(SHOP), "HTTPRoute"):
        for rule in route["spec"]["rules"]:
            for match in rule["matches"]:
                if match["path"]["type"] == "RegularExpression":
                    assert re.fullmatch(r"\^\(\?:.*\)\$", match["path"]["value"])


def test_no_prefix_opens_anything():
    """PathPrefix ignores trailing slashes."""
    found = objects(SHOP)
    opened = {one["spec"]["targetRef"]["name"] for one in of_kind(found, "AuthorizationPolicy")}
    for route in of_kind(found, "HTTPRoute"):
        prefixed = [
            match
            for rule in route["spec"]["rules"]
            for match in rule["matches"]
            if match["path"]["type"] == "PathPrefix"
        ]
        assert not prefixed or route["metadata"]["name"] not in opened


def test_a_literal_beside_a_template_keeps_its_own_clients_whichever_route_is_older():
    """An exact path and an expression are equally specific to Linkerd, and then the older one would decide."""
    found = objects(SHOP)
    for order in (found, found[::-1]):
        assert admits(order, "admin", "GET", "/users/me")
        assert not admits(order, "checkout", "GET", "/users/me")
        assert admits(order, "checkout", "GET", "/users/7")
        assert admits(order, "checkout", "GET", "/users/mel")
        assert not admits(order, "admin", "GET", "/users/7")
        assert admits(order, "checkout", "PUT", "/users/me")
        assert admits(order, "admin", "PUT", "/users/7")


@pytest.mark.parametrize(
    "path",
    [
        "/users/a%2fb", "/users/a%2Fb", "/users/a;b", "/users/..", "/users/.", "/users//", "//users/7", "/users/", "/users",
        "/users/7/", "/users/%61", "/users/%25", "/users/%00", "/users/a\\b", "/files", "/files/..", "/files/a/../b",
        "/files//", "/files/a//b", "/files/%2e%2e/b", "/USERS/7", "/users/7\n", "/live/", "/shop.v1.Users/Watch/x",
    ],
)  # fmt: skip
def test_a_path_that_is_ambiguous_or_another_is_refused(path):
    for method in ("GET", "POST"):
        assert not admits(objects(SHOP), "checkout", method, path)


def test_two_namespaces_of_one_account_are_two_identities():
    text = SHOP + "targets: {services: {admin: {namespace: ops}}}\n"
    found = objects(text)
    names = {tuple(one["spec"]["identities"]) for one in of_kind(found, "MeshTLSAuthentication")}
    assert (identity("admin", "ops"),) in names
    assert (identity("admin"),) not in names


@pytest.mark.parametrize("wildcard", ["*", "*."])
def test_no_identity_is_a_wildcard(wildcard):
    for one in of_kind(objects(SHOP), "MeshTLSAuthentication"):
        assert not any(wildcard in name for name in one["spec"]["identities"])


def test_what_linkerd_cannot_hold_is_refused_by_name_and_left_shut():
    text = SHOP.replace("read: GET /users/{id}", 'read: {route: "GET /users/{id}", token: required}')
    assert ("linkerd.token", True) in codes(text)
    assert not admits(objects(text), "checkout", "GET", "/users/7")
    assert admits(objects(text, "sdk"), "checkout", "GET", "/users/7")
    assert not any(is_error for _, is_error in codes(text, "sdk"))


def test_a_method_that_no_route_can_name_is_refused():
    text = SHOP.replace("files: GET /files", "files: PROPFIND /files")
    assert ("linkerd.method", True) in codes(text)
    assert not admits(objects(text), "checkout", "PROPFIND", "/files/a")


def test_an_expression_that_would_be_too_long_is_narrower_and_then_refused():
    params = "/".join(f"a{n}/{{p{n}}}" for n in range(6))
    text = SHOP.replace("read: GET /users/{id}", f"read: GET /{params}")
    path = "/" + "/".join(f"a{n}/x" for n in range(6))
    assert ("linkerd.encoded-characters", False) in codes(text)
    assert admits(objects(text), "checkout", "GET", path)
    assert not admits(objects(text), "checkout", "GET", path + "%20")
    params = "/".join(f"a{n}/{{p{n}}}" for n in range(20))
    text = SHOP.replace("read: GET /users/{id}", f"read: GET /{params}")
    assert ("linkerd.path-length", True) in codes(text)


def test_many_matches_are_several_routes_and_each_is_opened():
    doors = "".join(f"      d{n}: GET /d/{n}\n" for n in range(300))
    names = ", ".join(f"d{n}" for n in range(300))
    text = SHOP.replace("      me: GET", doors + "      me: GET").replace(
        "[read, files", f"[{names}, read, files"
    )
    found = objects(text)
    assert admits(found, "checkout", "GET", "/d/0")
    assert admits(found, "checkout", "GET", "/d/299")
    assert not admits(found, "admin", "GET", "/d/299")
    for route in of_kind(found, "HTTPRoute"):
        assert len(route["spec"]["rules"]) <= 16
        assert all(len(rule["matches"]) <= 8 for rule in route["spec"]["rules"])


# -- probes


def test_without_networks_the_kubelet_is_refused_and_that_is_said():
    assert ("linkerd.probe-networks", False) in codes(SHOP)
    found = objects(SHOP)
    assert not of_kind(found, "NetworkAuthentication")
    assert not admits(found, None, "GET", "/healthz", ip="10.1.2.3")
    assert admits(found, "db", "GET", "/healthz")


def test_probes_are_open_to_their_networks_and_to_nothing_else():
    text = SHOP + "targets: {probe_networks: [10.0.0.0/8]}\n"
    assert all(code != "linkerd.probe-networks" for code, _ in codes(text))
    found = objects(text)
    assert admits(found, None, "GET", "/healthz", ip="10.1.2.3")
    assert admits(found, None, "GET", "/healthz?full=1", ip="10.1.2.3")
    assert not admits(found, None, "GET", "/healthz", ip="11.1.2.3")
    assert not admits(found, None, "GET", "/users/7", ip="10.1.2.3")
    assert not admits(found, None, "POST", "/healthz", ip="10.1.2.3")


def test_a_probe_that_is_denied_is_shut_to_its_networks_too():
    text = SHOP + "deny: [{from: any, to: users, reason: closed}]\ntargets: {probe_networks: [10.0.0.0/8]}\n"
    assert not admits(objects(text), None, "GET", "/healthz", ip="10.1.2.3")


# -- outside, tcp, egress


def test_callers_from_outside_need_a_gateway():
    text = SHOP + "  - {from: outside, to: users, operations: [me]}\n"
    assert ("linkerd.gateway", True) in codes(text)
    gateway = "targets: {gateway: {namespace: edge, service_account: front}}\n"
    assert ("linkerd.gateway", True) not in codes(text + gateway)
    mesh = LinkerdMesh(objects(text + gateway))
    front = Client(identity=identity("front", "edge"))
    assert mesh.admits_call("default", {"app": "users"}, 8080, front, "GET", "/users/me")
    assert not mesh.admits_call("default", {"app": "users"}, 8080, front, "GET", "/users/7")


def test_a_tcp_service_is_opened_at_its_server():
    mesh = LinkerdMesh(objects(SHOP))
    labels = {"app": "db"}
    assert mesh.admits_connection("default", labels, 5432, Client(identity=identity("checkout")))
    assert not mesh.admits_connection("default", labels, 5432, Client(identity=identity("admin")))
    assert not mesh.admits_connection("default", labels, 5432, Client(identity=None))


EGRESS = "targets: {egress: {stripe: {host: api.stripe.com, from: [%s]}}%s}\n"


def test_a_host_outside_is_opened_where_the_whole_namespace_may_call_it():
    text = SHOP + EGRESS % ("admin", ", services: {admin: {namespace: pay}}")
    found = objects(text)
    assert [one["metadata"]["namespace"] for one in of_kind(found, "EgressNetwork")] == ["default", "pay"]
    assert all(one["spec"] == {"trafficPolicy": "Deny"} for one in of_kind(found, "EgressNetwork"))
    (route,) = of_kind(found, "TLSRoute")
    assert route["metadata"]["namespace"] == "pay"
    assert route["spec"]["hostnames"] == ["api.stripe.com"]
    assert route["spec"]["parentRefs"][0]["port"] == 443


def test_a_host_outside_that_some_of_a_namespace_may_call_is_refused():
    text = SHOP + EGRESS % ("admin", "")
    assert ("linkerd.egress-callers", True) in codes(text)
    assert not of_kind(objects(text), "TLSRoute")
    assert of_kind(objects(text), "EgressNetwork")
    assert of_kind(objects(text, "cilium"), "TLSRoute")


# -- what is written


def test_ports_without_a_server_are_closed_too():
    (namespace,) = of_kind(objects(SHOP), "Namespace")
    assert namespace["metadata"]["annotations"]["config.linkerd.io/default-inbound-policy"] == "deny"
    assert all(one["spec"]["accessPolicy"] == "deny" for one in of_kind(objects(SHOP), "Server"))


def test_grpc_is_a_post_and_websocket_a_get():
    found = objects(SHOP)
    assert admits(found, "checkout", "POST", "/shop.v1.Users/Watch")
    assert not admits(found, "checkout", "GET", "/shop.v1.Users/Watch")
    assert admits(found, "checkout", "GET", "/live?room=1")


def test_a_query_is_no_part_of_the_path():
    found = objects(SHOP)
    assert admits(found, "checkout", "GET", "/users/7?x=/../..")
    assert admits(found, "checkout", "GET", "/files/?x")


def test_time_limits_and_attempts_are_routes_of_the_service():
    found = objects(SHOP + "targets: {services: {users: {timeout: 5s, retries: 2}}}\n")
    routes = {one["metadata"]["name"]: one for one in of_kind(found, "HTTPRoute")}
    calls, retries = routes["calls-users"], routes["retries-users"]
    for route in (calls, retries):
        assert route["spec"]["parentRefs"] == [{"group": "core", "kind": "Service", "name": "users"}]
        assert route["spec"]["rules"][0]["timeouts"] == {"request": "5s"}
    assert "method" not in calls["spec"]["rules"][0]["matches"][0]
    assert {one["method"] for one in retries["spec"]["rules"][0]["matches"]} == {"GET", "HEAD", "OPTIONS"}
    assert retries["metadata"]["annotations"]["retry.linkerd.io/limit"] == "2"


def test_a_canary_has_no_objects():
    text = SHOP.replace("services:\n", "services:\n  trap: {canary: true}\n")
    assert b"trap" not in b"".join(file.content for file in compiled(text).files)


def test_names_are_labels_and_one_object_each():
    found = objects(SHOP + "targets: {probe_networks: [10.0.0.0/8]}\n")
    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in found]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name) for _, _, name in names)


def test_the_output_hangs_on_nothing_but_the_policy():
    assert compiled(SHOP) == compiled(SHOP)
    (file,) = compiled(SHOP).files
    assert file.path == "linkerd/default.yaml"
    assert file.content.startswith(b"# Generated by everyhop for linkerd; do not edit.\n")
    assert b"users.me: allow[2] at everyhop.yaml:" in file.content


def test_a_reader_of_yaml_1_1_reads_the_same():
    (file,) = compiled(SHOP).files
    for one in yaml.safe_load_all(file.content):
        assert isinstance(one["metadata"]["name"], str)


# -- schemas


def test_objects_fit_their_definitions(shared_material):
    definitions = Definitions(shared_material / "schemas", "linkerd")
    chapter = "targets: {probe_networks: [10.0.0.0/8], services: {users: {timeout: 5s, retries: 2}}}\n"
    for one in objects(SHOP + chapter):
        if one["kind"] != "Namespace":
            assert definitions.problem(one) is None, one
    for one in of_kind(
        objects(SHOP + EGRESS % ("admin", ", services: {admin: {namespace: pay}}")), "EgressNetwork"
    ):
        assert definitions.problem(one) is None


def test_the_definitions_would_see_a_mistake(shared_material):
    definitions = Definitions(shared_material / "schemas", "linkerd")
    route = of_kind(objects(SHOP), "HTTPRoute")[0]
    route["spec"]["rules"][0]["matches"][0]["method"] = "PROPFIND"
    assert definitions.problem(route) is not None
