# SPDX-License-Identifier: Apache-2.0
"""Accounts: nothing is mounted that nobody asked for, and a token is bound to one audience."""

import pytest
from tests.support.crds import objects_of
from tests.support.kube import codes, compiled

POLICY = """
version: 1
trust_domain: shop.example
services:
  web: {operations: {home: GET /}}
  pay: {operations: {charge: {route: POST /v1/payments, token: required}}}
  db: {tcp: 5432}
allow:
  - {from: web, to: pay, operations: [charge]}
  - {from: pay, to: db}
targets:
  namespace: shop
  services: {db: {namespace: data, service_account: database}}
  tokens: {issuer: "https://id.shop.example/", jwks_uri: "https://id.shop.example/jwks"}
"""


def accounts(policy=POLICY):
    return compiled(policy, "serviceaccounts")


def one(compilation, path):
    (file,) = [file for file in compilation.files if file.path == f"serviceaccounts/{path}"]
    return list(objects_of([file.content]))


def pod(compilation, path):
    (patch,) = one(compilation, path)
    return patch["spec"]["template"]["spec"]


def test_a_life_that_kubernetes_does_not_give_is_refused():
    found = accounts(POLICY + "  serviceaccounts: {token_seconds: 599s}\n")
    assert codes(found, errors=True) == ["token-seconds"]
    assert found.files == ()


def test_without_an_issuer_no_pod_gets_a_token():
    found = accounts("\n".join(line for line in POLICY.splitlines() if "tokens:" not in line) + "\n")
    assert codes(found) == ["tokens"]
    assert "volumes" not in pod(found, "patches/shop/web.yaml")


@pytest.mark.parametrize("path", ["patches/shop/pay.yaml", "patches/data/db.yaml"])
def test_who_needs_no_token_gets_none(path):
    assert set(pod(accounts(), path)) == {"serviceAccountName", "automountServiceAccountToken"}


def test_nothing_is_mounted_by_itself():
    found = accounts()
    made = [*one(found, "accounts/shop.yaml"), *one(found, "accounts/data.yaml")]
    assert {(each["metadata"]["namespace"], each["metadata"]["name"]) for each in made} == {
        ("shop", "web"),
        ("shop", "pay"),
        ("data", "database"),
    }
    for each in made:
        assert each["automountServiceAccountToken"] is False
        assert set(each) == {"apiVersion", "kind", "metadata", "automountServiceAccountToken"}
    assert pod(found, "patches/data/db.yaml")["automountServiceAccountToken"] is False
    assert pod(found, "patches/data/db.yaml")["serviceAccountName"] == "database"


def test_a_token_has_one_audience_and_is_read_only():
    spec = pod(accounts(POLICY + "  serviceaccounts: {token_seconds: 900s}\n"), "patches/shop/web.yaml")
    (volume,) = spec["volumes"]
    assert volume["projected"]["sources"] == [
        {
            "serviceAccountToken": {
                "audience": "https://id.shop.example/oauth/token",
                "expirationSeconds": 900,
                "path": "token",
            }
        }
    ]
    (container,) = spec["containers"]
    assert container["name"] == "web"
    assert container["volumeMounts"] == [
        {"name": volume["name"], "mountPath": "/var/run/secrets/everyhop", "readOnly": True}
    ]


def test_the_component_names_every_file():
    found = accounts()
    (component,) = one(found, "kustomization.yaml")
    named = {*component["resources"], *(patch["path"] for patch in component["patches"])}
    assert {f"serviceaccounts/{path}" for path in named} | {"serviceaccounts/kustomization.yaml"} == {
        file.path for file in found.files
    }
    assert {patch["target"]["kind"] for patch in component["patches"]} == {"Deployment|StatefulSet|DaemonSet"}


def test_it_is_the_same_twice():
    assert accounts() == accounts()
