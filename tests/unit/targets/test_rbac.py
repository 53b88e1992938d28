# SPDX-License-Identifier: Apache-2.0
"""Roles: no wildcard, no way around them, and everybody but one group reads only."""

import pytest
from tests.support.crds import objects_of
from tests.support.kube import codes, compiled, objects

from everyhop.targets.rbac import CLUSTER, NAMESPACED

POLICY = """
version: 1
trust_domain: shop.example
services: {web: {}, db: {tcp: 5432}}
allow: [{from: web, to: db}]
targets:
  namespace: shop
  services: {db: {namespace: data}}
  rbac: {group: security}
"""
WRITE = {"create", "update", "patch", "delete"}


def roles(policy=POLICY):
    return compiled(policy, "rbac")


def rules(compilation):
    return {name: one["rules"] for name, one in objects(compilation, "ClusterRole").items()}


def bindings(compilation):
    for kind in ("RoleBinding", "ClusterRoleBinding"):
        for one in objects(compilation, kind).values():
            (subject,) = one["subjects"]
            yield one["metadata"].get("namespace"), one["roleRef"]["name"], subject["kind"], subject["name"]


@pytest.mark.parametrize("group", ["system:authenticated", "system:serviceaccounts", "system:masters"])
def test_a_group_of_kubernetes_is_refused(group):
    found = roles(POLICY.replace("group: security", f"group: '{group}'"))
    assert codes(found, errors=True) == ["group"]
    assert found.files == ()


def test_nothing_is_a_wildcard_and_no_verb_leads_around():
    for made in rules(roles()).values():
        for rule in made:
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
            assert not {"impersonate", "bind", "escalate"} & set(rule["verbs"])
            assert not any("/" in one for one in rule["resources"])  # serviceaccounts/token, pods/exec
            assert not {"pods", "secrets", "roles", "rolebindings", "clusterroles"} & set(rule["resources"])


def test_only_the_group_may_write():
    found = roles()
    writers = {
        name for name, made in rules(found).items() if any(WRITE & set(rule["verbs"]) for rule in made)
    }
    assert writers == {"everyhop-editor", "everyhop-clustereditor"}
    for _, role, kind, subject in bindings(found):
        assert kind == "Group"
        assert subject == ("security" if role in writers else "system:authenticated")


def test_editors_are_bound_in_the_namespaces_of_services_only():
    found = sorted(
        (str(namespace), role) for namespace, role, _, subject in bindings(roles()) if subject == "security"
    )
    assert found == [
        ("None", "everyhop-clustereditor"),
        ("data", "everyhop-editor"),
        ("shop", "everyhop-editor"),
    ]


def test_the_editor_of_a_namespace_has_no_objects_of_the_cluster():
    editor = {
        (rule["apiGroups"][0], one) for rule in rules(roles())["everyhop-editor"] for one in rule["resources"]
    }
    assert ("", "serviceaccounts") in editor
    assert ("cilium.io", "ciliumnetworkpolicies") in editor
    assert ("security.istio.io", "authorizationpolicies") in editor
    assert not any("cluster" in resource for _, resource in editor)


def test_it_says_that_rbac_only_adds():
    assert codes(roles(), errors=False) == ["additive"]


def test_the_namespace_of_everything_is_right():
    found = objects(roles(), "RoleBinding")
    assert set(found) == {
        f"{namespace}/everyhop-{role}" for namespace in ("shop", "data") for role in ("editor", "viewer")
    }


EVERYTHING = """
version: 1
trust_domain: shop.example
services:
  web:
    operations:
      home: GET /
      watch: {grpc: shop.v1.Orders/Watch}
      login: {route: GET /login, token: required}
    probes: [GET /healthz]
  pay: {operations: {charge: POST /v1/payments}}
allow:
  - {from: outside, to: web, operations: [home, watch]}
  - {from: pay, to: web, operations: [login]}
targets:
  namespace: shop
  services: {web: {timeout: 5s, retries: 1}}
  gateway: {namespace: edge, service_account: gate, hosts: [shop.example]}
  probe_networks: [192.0.2.0/24]
  tokens: {issuer: "https://id.shop.example", jwks_uri: "https://id.shop.example/jwks"}
  egress: {maps: {host: maps.example, from: [web]}}
  istio: {authorizer: everyhop}
  ambient: {authorizer: everyhop, waypoint: way}
  gateway-api: {gateway: main}
"""
WRITERS = (
    "istio",
    "ambient",
    "linkerd",
    "cilium",
    "networkpolicy",
    "clusternetworkpolicy",
    "serviceaccounts",
    "gateway-api",
    "admission",
    "gatekeeper",
)
OTHERS = {
    "Namespace",
    "Gateway",
    "Deployment",
    "Component",
}  # of who runs the cluster, the gateway, the service
LATER = {"certificates", "clusterspiffeids"}  # of targets that need more than this policy


def plural(group, kind):
    if group == "constraints.gatekeeper.sh":
        return kind.lower()
    return kind.lower()[:-1] + "ies" if kind.endswith("y") else kind.lower() + "s"


def test_the_roles_are_about_what_we_write_and_nothing_else():
    written = set()
    for target in WRITERS:
        for one in objects_of(file.content for file in compiled(EVERYTHING, target, "sdk").files):
            group = one["apiVersion"].rpartition("/")[0]
            if one["kind"] not in OTHERS:
                written.add((group, plural(group, one["kind"])))
    granted = {
        (group, one) for kinds in (NAMESPACED, CLUSTER) for group, some in kinds.items() for one in some
    }
    assert written - granted == set()
    assert {one for _, one in granted - written} == LATER
