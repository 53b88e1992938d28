# SPDX-License-Identifier: Apache-2.0
"""Registration entries become services with the same identities, selected by what the policy language knows."""

import json

import pytest
import yaml

from everyhop.core.errors import InputError
from everyhop.importing import import_policy
from everyhop.policy import parse_policy


def entry(path, *selectors, domain="shop.example", **further):
    pairs = [{"type": kind, "value": value} for kind, _, value in (text.partition(":") for text in selectors)]
    return {"id": "x", "spiffe_id": {"trust_domain": domain, "path": path}, "selectors": pairs, **further}


def imported(*entries):
    text = json.dumps({"entries": list(entries), "next_page_token": ""}).encode()
    return checked(import_policy("spire", {"entries.json": text}))


def from_yaml(*documents):
    return checked(import_policy("spire", {"ids.yaml": yaml.safe_dump_all(documents).encode()}))


def checked(result):
    return result, parse_policy({"everyhop.yaml": result.text})


def codes(result):
    return {part.code for part in result.parts if part.is_lost}


def test_processes_keep_their_identities_and_selectors():
    result, snapshot = imported(
        entry("/payments", "unix:uid:1000", "unix:path:/usr/bin/payments"),
        entry("/payments", "unix:uid:1001"),
        entry("/deep/web", "unix:user:web"),
    )
    assert result.is_whole
    payments = snapshot.services["payments"]
    assert str(payments.spiffe_id) == "spiffe://shop.example/payments"
    assert sorted(sorted(map(str, one)) for one in payments.workload) == [
        ["unix:path:/usr/bin/payments", "unix:uid:1000"],
        ["unix:uid:1001"],
    ]
    assert str(snapshot.services["web"].spiffe_id) == "spiffe://shop.example/deep/web"
    assert not snapshot.rules


def test_pods_keep_their_places():
    result, snapshot = imported(
        entry("/ns/shop/sa/cart", "k8s:ns:shop", "k8s:sa:cart", "k8s:pod-label:app:basket")
    )
    place = snapshot.targets.place("cart")
    assert result.is_whole
    assert (place.namespace, place.service_account, dict(place.labels)) == ("shop", "cart", {"app": "basket"})


def test_two_identities_of_the_same_pods_have_one_place():
    _, snapshot = imported(entry("/a", "k8s:ns:x", "k8s:sa:s"), entry("/b", "k8s:ns:x", "k8s:sa:s"))
    assert snapshot.targets.place("a").service_account == "s"
    assert snapshot.targets.place("b").service_account == "b"


@pytest.mark.parametrize(
    ("one", "code"),
    [
        (entry("/b", "docker:label:x:y"), "spire.selector"),
        (entry("/b", "unix:uid:1", "k8s:ns:x"), "spire.selector"),
        (entry("/b", "unix:uid:1", "unix:uid:2"), "spire.selector"),
        (entry("/b", "unix:uid:1", admin=True), "spire.privileged"),
        (entry("/b", "unix:uid:1", downstream=True), "spire.privileged"),
        (entry("/b", "unix:uid:1", federates_with=["x"]), "spire.federates-with"),
        (entry("/b", "unix:uid:1", dns_names=["x"]), "spire.dns-names"),
        (entry("/b", "unix:uid:1", store_svid=True), "spire.store-svid"),
        (entry("/b", "unix:uid:1", domain="far.example"), "spire.trust-domain"),
        (entry("/everyhop/b", "unix:uid:1"), "spire.reserved"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_the_language_has_no_word_for_is_said(one, code):
    result, snapshot = imported(entry("/a", "unix:uid:7"), one)
    assert codes(result) == {code}
    if code == "spire.selector":
        assert snapshot.services["b"].workload == ()


def test_objects_of_the_controller_manager():
    static = {
        "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterStaticEntry", "metadata": {"name": "s"},
        "spec": {"spiffeID": "spiffe://shop.example/batch", "parentID": "spiffe://shop.example/agent", "selectors": ["unix:user:batch"]},
    }  # fmt: skip
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "cart-1", "namespace": "shop", "labels": {"app": "cart"}},
        "spec": {"serviceAccountName": "cart-sa", "containers": []},
    }  # fmt: skip
    templated = {
        "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterSPIFFEID", "metadata": {"name": "t"},
        "spec": {
            "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}",
            "podSelector": {"matchLabels": {"app": "cart"}},
        },
    }  # fmt: skip
    result, snapshot = from_yaml(static, pod, templated)
    assert result.is_whole
    assert {str(one.spiffe_id) for one in snapshot.services.values()} == {
        "spiffe://shop.example/batch",
        "spiffe://shop.example/ns/shop/sa/cart-sa",
    }
    assert dict(snapshot.targets.place("cart-sa").labels) == {"app": "cart"}
    for change, code in (
        ({"spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/{{ .NodeMeta.UID }}"}, "spire.template"),
        ({"podSelector": {"matchLabels": {"app": "none"}}}, "spire.no-workload"),
        ({"workloadSelectorTemplates": ["docker:x:y"]}, "spire.selector-templates"),
    ):
        changed = templated | {"spec": templated["spec"] | change}
        result, _ = from_yaml(static, pod, changed)
        assert codes(result) == {code}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "no registration entry"),
        (["x"], "is no mapping"),
        ([{"selectors": []}], "has no SPIFFE ID"),
        ([entry("/..")], "entries\\[0\\]"),
    ],
)
def test_what_is_no_entry_is_refused(entries, message):
    with pytest.raises(InputError, match=message):
        imported(*entries)
