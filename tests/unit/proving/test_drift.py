# SPDX-License-Identifier: Apache-2.0
"""Objects in force against the policy: each kind of drift by its code, and the request that gets through because of it."""

import re
from pathlib import Path

import pytest
import yaml

from everyhop.core.errors import InputError
from everyhop.manifests import read_manifests
from everyhop.policy import parse_policy
from everyhop.proving import Severity, Verdict, find_drift, kinds_of, prove_policy
from everyhop.targets import Feature, compile_policy

POLICY = """
version: 1
trust_domain: cluster.local
services:
  web: {}
  pay:
    operations: {charge: POST /v1/payments, read: GET /v1/payments}
  db: {tcp: 5432}
allow:
  - {from: web, to: pay, operations: [charge]}
  - {from: pay, to: db}
targets:
  namespace: shop
  ambient: {waypoint: wp}
  linkerd: {accept: [ambiguous-paths]}
  cilium: {accept: [mtls]}
"""
TARGETS = ("istio", "ambient", "linkerd", "cilium", "networkpolicy", "clusternetworkpolicy")
SNAPSHOT = parse_policy({"everyhop.yaml": POLICY.encode()})


def compiled(target):
    (one,) = compile_policy(SNAPSHOT, [target])
    return {file.path: file.content for file in one.files}


def objects(target):
    """Return the compiled objects as mappings that a test may change."""
    return [dict(one.document) for one in read_manifests(compiled(target))]


def drift(target, documents, **further):
    files = {"in-force.yaml": yaml.safe_dump_all(documents).encode()}
    (report,) = find_drift(SNAPSHOT, [target], files, **further)
    return report


def codes(report, severity=Severity.WIDENS):
    return {one.code for one in report.findings if one.severity is severity}


def one(report, code):
    (found,) = [found for found in report.findings if found.code == code]
    return found


def istio(kind, name, spec, namespace="shop", **metadata):
    return {
        "apiVersion": "security.istio.io/v1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace, **metadata}, "spec": spec,
    }  # fmt: skip


def named(documents, name):
    return next(document for document in documents if document["metadata"]["name"] == name)


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_compiled_is_in_sync(target):
    (report,) = find_drift(SNAPSHOT, [target], compiled(target))
    assert report.worst in {None, Severity.NOTE}
    assert report.requests > 100
    assert report.objects > 0
    assert report.to_dict()["in_sync"] is True


@pytest.mark.parametrize("target", TARGETS)
def test_what_servers_fill_in_is_no_change(target):
    documents = objects(target)
    for document in documents:
        document["metadata"] = document["metadata"] | {
            "uid": "7", "resourceVersion": "9", "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 2,
        }  # fmt: skip
        document["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}"} | {
            key: value
            for key, value in document["metadata"].get("annotations", {}).items()
            if key != "everyhop/snapshot"
        }
        document["status"] = {"conditions": []}
        if document["kind"] == "AuthorizationPolicy" and "istio" in document["apiVersion"]:
            document["spec"] = {"action": "ALLOW"} | document["spec"]
    report = drift(target, documents)
    assert report.worst in {None, Severity.NOTE}


def test_order_does_not_matter_in_lists_of_alternatives():
    documents = objects("istio")
    for document in documents:
        rules = document.get("spec", {}).get("rules") or []
        for rule in rules:
            rule["to"] = list(reversed(rule.get("to", [])))
    assert drift("istio", documents).worst is None


# -- Istio


def test_a_foreign_allow_is_named_with_the_request_that_it_lets_in():
    spec = {
        "selector": {"matchLabels": {"app": "pay"}},
        "rules": [
            {
                "from": [{"source": {"principals": ["cluster.local/ns/other/sa/thief"]}}],
                "to": [{"operation": {"methods": ["GET"], "paths": ["/v1/backup/*"]}}],
            }
        ],
    }
    report = drift("istio", [*objects("istio"), istio("AuthorizationPolicy", "backdoor", spec)])
    found = one(report, "istio.extra-allow")
    assert found.severity is Severity.WIDENS
    assert found.subject == "AuthorizationPolicy shop/backdoor"
    assert found.span.file == "in-force.yaml"
    request = found.to_dict()["request"]
    assert (request["from"]["certificate"], request["method"], request["path"]) == (
        "spiffe://cluster.local/ns/other/sa/thief",
        "GET",
        "/v1/backup/x",
    )
    assert codes(report) == {"istio.extra-allow"}


def test_an_allow_that_adds_nothing_is_drift_and_no_more():
    spec = {
        "selector": {"matchLabels": {"app": "pay"}},
        "rules": [
            {
                "from": [{"source": {"principals": ["cluster.local/ns/shop/sa/web"]}}],
                "to": [{"operation": {"methods": ["POST"], "paths": ["/v1/payments"], "ports": ["8080"]}}],
            }
        ],
    }
    report = drift("istio", [*objects("istio"), istio("AuthorizationPolicy", "twin", spec)])
    assert codes(report) == set()
    assert "no request was found" in one(report, "istio.extra-allow").message


@pytest.mark.parametrize("namespace", ["shop", "istio-system"])
def test_an_allow_for_everybody_in_the_namespace_or_the_root(namespace):
    report = drift(
        "istio", [*objects("istio"), istio("AuthorizationPolicy", "open", {"rules": [{}]}, namespace)]
    )
    assert codes(report) == {"istio.allow-all"}
    assert one(report, "istio.allow-all").request is not None


def test_the_policies_of_another_namespace_do_not_matter():
    report = drift(
        "istio", [*objects("istio"), istio("AuthorizationPolicy", "open", {"rules": [{}]}, "elsewhere")]
    )
    assert report.findings == []


def test_a_missing_deny_all_lets_everybody_in():
    documents = [d for d in objects("istio") if d["kind"] != "AuthorizationPolicy"]
    report = drift("istio", documents)
    assert {"drift.missing", "istio.no-deny-all"} <= codes(report)
    missing = {found.subject for found in report.findings if found.code == "drift.missing"}
    assert "AuthorizationPolicy shop/everyhop-deny-all" in missing


def test_one_missing_policy_is_laid_the_request_to():
    documents = [d for d in objects("istio") if d["metadata"]["name"] != "everyhop-deny-all"]
    report = drift("istio", documents)
    found = one(report, "drift.missing")
    assert found.severity is Severity.WIDENS  # web has no other ALLOW policy
    assert found.request is not None
    assert found.request.ask.service == "web"


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"mtls": {"mode": "PERMISSIVE"}}, "istio.permissive"),
        ({"mtls": {"mode": "DISABLE"}}, "istio.permissive"),
        (
            {"selector": {"matchLabels": {"app": "pay"}}, "mtls": {"mode": "STRICT"}, "portLevelMtls": {"8080": {"mode": "DISABLE"}}},
            "istio.permissive-port",
        ),
    ],
)  # fmt: skip
def test_mutual_tls_that_is_not_asked_for_widens(spec, code):
    weak = istio("PeerAuthentication", "weak", spec | {"selector": {"matchLabels": {"app": "pay"}}})
    assert code in codes(drift("istio", [*objects("istio"), weak]))


def test_strict_turned_off_is_a_changed_field():
    documents = objects("istio")
    named(documents, "default")["spec"] = {"mtls": {"mode": "PERMISSIVE"}}
    report = drift("istio", documents)
    (change,) = one(report, "drift.changed").changes
    assert (change.path, change.wanted, change.found) == ("spec.mtls.mode", "STRICT", "PERMISSIVE")
    assert {"istio.permissive", "istio.no-strict"} <= codes(report)


def test_a_widened_rule_is_a_changed_field_with_its_request():
    documents = objects("istio")
    named(documents, "allow-pay")["spec"]["rules"][0]["to"][0]["operation"]["methods"] = ["POST", "GET"]
    found = one(drift("istio", documents), "drift.changed")
    assert found.severity is Severity.WIDENS
    assert found.request.ask.request.method == "GET"
    assert [change.found for change in found.changes] == ["GET"]


def test_a_narrowed_rule_is_drift():
    documents = objects("istio")
    named(documents, "allow-pay")["spec"]["rules"][0]["to"][0]["operation"]["paths"] = ["/v2"]
    report = drift("istio", documents)
    # The path /v2 is open now: whoever narrows one thing widens another.
    assert one(report, "drift.changed").request.ask.request.path == "/v2"
    documents = objects("istio")
    named(documents, "allow-pay")["spec"]["rules"] = named(documents, "allow-pay")["spec"]["rules"][:0]
    assert drift("istio", documents).worst is Severity.DRIFTS


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (istio("AuthorizationPolicy", "x", {"action": "DENY", "rules": [{}]}), "istio.extra-deny"),
        (istio("AuthorizationPolicy", "x", {"selector": {"matchLabels": {"app": "nobody"}}, "rules": [{}]}), "istio.unknown-workload"),
        (istio("AuthorizationPolicy", "x", {"rules": [{}]}, annotations={"istio.io/dry-run": "true"}), "istio.dry-run"),
        (
            istio("RequestAuthentication", "x", {"jwtRules": [{"issuer": "https://i.example", "jwksUri": "https://i.example/k"}]}),
            "istio.request-authentication-alone",
        ),
        (istio("PeerAuthentication", "x", {"selector": {"matchLabels": {"app": "nobody"}}, "mtls": {"mode": "STRICT"}}), "istio.unknown-workload"),
        (
            istio("AuthorizationPolicy", "old", {}, labels={"app.kubernetes.io/managed-by": "everyhop"}),
            "drift.leftover",
        ),
    ],
    ids=["deny", "unknown", "dry-run", "lone-jwt", "unknown-peer", "leftover"],
)  # fmt: skip
def test_what_does_nothing_or_takes_away_is_drift(document, code):
    report = drift("istio", [*objects("istio"), document])
    assert codes(report) == set()
    assert code in codes(report, Severity.DRIFTS)


def test_layer_7_that_ztunnel_does_not_have():
    deny = istio(
        "AuthorizationPolicy", "x", {"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/x"]}}]}]}
    )
    assert "istio.ambient-deny-l7" in codes(drift("ambient", [*objects("ambient"), deny]), Severity.DRIFTS)
    assert "istio.ambient-deny-l7" not in codes(drift("istio", [*objects("istio"), deny]), Severity.DRIFTS)


# -- Linkerd


def linkerd(kind, name, spec, version="v1alpha1"):
    return {
        "apiVersion": f"policy.linkerd.io/{version}", "kind": kind,
        "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
    }  # fmt: skip


def server_of(service):
    documents = objects("linkerd")
    return next(
        d["metadata"]["name"]
        for d in documents
        if d["kind"] == "Server" and d["spec"]["podSelector"].get("matchLabels") == {"app": service}
    )


ANYBODY = linkerd("MeshTLSAuthentication", "anybody", {"identities": ["*"]})


@pytest.mark.parametrize(
    ("target", "code"),
    [("Server", "linkerd.server-level"), ("Namespace", "linkerd.namespace-level")],
)
def test_a_policy_at_a_server_opens_every_route(target, code):
    name = server_of("pay") if target == "Server" else "shop"
    spec = {
        "targetRef": {
            "group": "policy.linkerd.io" if target == "Server" else "core",
            "kind": target,
            "name": name,
        },
        "requiredAuthenticationRefs": [
            {"group": "policy.linkerd.io", "kind": "MeshTLSAuthentication", "name": "anybody"}
        ],
    }
    report = drift("linkerd", [*objects("linkerd"), ANYBODY, linkerd("AuthorizationPolicy", "wide", spec)])
    found = one(report, code)
    assert found.severity is Severity.WIDENS
    assert found.request is not None


def test_a_policy_without_authentications_is_for_everybody():
    spec = {
        "targetRef": {"group": "policy.linkerd.io", "kind": "Server", "name": server_of("pay")},
        "requiredAuthenticationRefs": [],
    }
    report = drift("linkerd", [*objects("linkerd"), linkerd("AuthorizationPolicy", "wide", spec)])
    assert "linkerd.no-authentication" in codes(report)


def test_a_servers_access_policy_is_a_changed_field():
    documents = objects("linkerd")
    named(documents, server_of("pay"))["spec"]["accessPolicy"] = "all-unauthenticated"
    report = drift("linkerd", documents)
    assert {"drift.changed", "linkerd.access-policy"} <= codes(report)


def test_the_legacy_authorization_of_servers():
    spec = {"server": {"name": server_of("pay")}, "client": {"unauthenticated": True}}
    report = drift("linkerd", [*objects("linkerd"), linkerd("ServerAuthorization", "old", spec, "v1beta1")])
    assert "linkerd.server-authorization" in codes(report)


# -- networks


def cilium(name, spec):
    return {
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
    }  # fmt: skip


PAY = {"matchLabels": {"app": "pay"}}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"endpointSelector": PAY, "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "web"}}], "toPorts": [{"ports": [{"port": "8080", "protocol": "TCP"}]}]}]},
            {"cilium.extra-allow", "cilium.l4-over-l7"},
        ),
        ({"endpointSelector": PAY, "ingress": [{"fromEntities": ["all"]}]}, {"cilium.entities", "cilium.l4-over-l7"}),
        ({"endpointSelector": PAY, "ingress": [{"toPorts": [{"ports": [{"port": "8080", "protocol": "TCP"}]}]}]}, {"cilium.allow-all", "cilium.l4-over-l7"}),
        ({"endpointSelector": PAY, "ingress": [{}]}, set()),
    ],
    ids=["layer-4", "entities", "nobody-named", "empty"],
)  # fmt: skip
def test_a_rule_of_cilium_without_layer_7_cancels_layer_7(spec, expected):
    report = drift("cilium", [*objects("cilium"), cilium("wide", spec)])
    assert codes(report) == expected
    assert all(found.request is not None for found in report.findings if found.severity is Severity.WIDENS)


def test_default_deny_that_is_turned_off():
    spec = {
        "endpointSelector": PAY,
        "enableDefaultDeny": {"ingress": False},
        "ingress": [{"fromEntities": ["world"]}],
    }
    report = drift("cilium", [*objects("cilium"), cilium("off", spec)])
    assert "cilium.no-default-deny" in {found.code for found in report.findings}


def network(name, spec):
    return {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
    }  # fmt: skip


def test_network_policies_that_open():
    wide = network("wide", {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{}]})
    report = drift("networkpolicy", [*objects("networkpolicy"), wide])
    assert one(report, "networkpolicy.allow-all").request.ask.service == "db"
    peers = [{"podSelector": {"matchLabels": {"app": "web"}}}]
    extra = network("extra", {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": peers}]})
    both = network(
        "out", {"podSelector": {"matchLabels": {"app": "web"}}, "egress": [{"to": [{"podSelector": {}}]}]}
    )
    report = drift("networkpolicy", [*objects("networkpolicy"), extra, both])
    requests = [found.request for found in report.findings if found.code == "networkpolicy.extra-allow"]
    assert {request.ask.service for request in requests if request is not None} >= {"db"}


def test_a_cluster_wide_accept():
    spec = {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "ingress": [{"name": "all", "action": "Accept", "from": [{"namespaces": {}}]}]}  # fmt: skip
    wide = {"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "wide"}, "spec": spec}  # fmt: skip
    report = drift("clusternetworkpolicy", [*objects("clusternetworkpolicy"), wide])
    assert one(report, "clusternetworkpolicy.extra-accept").request is not None


# -- around them


def test_objects_that_no_evaluator_reads_are_said():
    broken = istio("AuthorizationPolicy", "broken", {"rules": [{"from": [{"source": {"unheard": ["x"]}}]}]})
    report = drift("istio", [*objects("istio"), broken])
    assert report.requests is None
    assert "unheard" in one(report, "drift.not-evaluated").message
    assert "istio.extra-allow" in codes(report)  # what is known of it by its kind stays as bad as it is


def test_objects_elsewhere_need_not_be_known():
    spec = {"rules": [{"from": [{"source": {"unheard": ["x"]}}]}]}
    elsewhere = istio("AuthorizationPolicy", "odd", spec, "elsewhere")
    report = drift("istio", [*objects("istio"), elsewhere])
    assert report.requests is not None
    assert report.findings == []


def test_an_object_that_stands_twice():
    documents = objects("istio")
    assert "drift.duplicate" in codes(drift("istio", [*documents, documents[0]]), Severity.DRIFTS)


def test_targets_that_are_no_objects_are_refused():
    for target in ("envoy", "nginx", "opa", "compose", "systemd"):
        with pytest.raises(InputError, match=f"{target} is no objects of Kubernetes"):
            find_drift(SNAPSHOT, [target], {})
    with pytest.raises(InputError, match="there is no target"):
        find_drift(SNAPSHOT, ["consul"], {})


@pytest.mark.parametrize("target", ["serviceaccounts", "rbac", "admission", "gatekeeper", "spire"])
def test_other_targets_are_compared_object_by_object(target):
    files = {path: content for path, content in compiled(target).items() if path.endswith(".yaml")}
    (report,) = find_drift(SNAPSHOT, [target], files)
    assert (report.worst, report.requests) == (None, None)
    assert report.objects > 0
    (report,) = find_drift(SNAPSHOT, [target], {})
    assert {found.code for found in report.findings} == {"drift.missing"}


def test_the_kinds_to_read_are_those_that_decide():
    kinds = kinds_of(SNAPSHOT, ["istio"])
    assert ("security.istio.io", "PeerAuthentication") in kinds
    assert ("networking.istio.io", "Sidecar") in kinds
    assert ("", "Secret") not in kinds


def test_second_readings_of_a_path_are_accepted_where_the_policy_says_so():
    text = POLICY.replace("read: GET /v1/payments", 'read: "GET /v1/payments/{id}"').replace(
        "[charge]", "[charge, read]"
    )
    accepting = text + "  istio: {accept: [ambiguous-paths]}\n"
    snapshot = parse_policy({"everyhop.yaml": accepting.encode()})
    proof = prove_policy(snapshot, ["istio"])
    report = proof.targets["istio"]
    assert report.wider == ()
    assert {one.accepted for one in report.accepted} == {Feature.AMBIGUOUS_PATHS}
    assert all(one.ask.caller.name == "web" for one in report.accepted)  # at doors of the caller's own alone
    wider = yaml.safe_dump(istio("AuthorizationPolicy", "open", {"rules": [{}]})).encode()
    files = {file.path: file.content for file in compile_policy(snapshot, ["istio"])[0].files} | {
        "z.yaml": wider
    }
    assert prove_policy(snapshot, ["istio"], manifests=files).verdict is Verdict.WIDER


def test_every_code_is_explained_in_the_guide():
    root = Path(__file__).parents[3]
    guide = (root / "docs/guides/drift.md").read_text(encoding="utf-8")
    sources = sorted((root / "src/everyhop/proving").glob("drift*.py"))
    found = {
        code
        for path in sources
        for code in re.findall(
            r'"((?:drift|istio|linkerd|cilium|networkpolicy|clusternetworkpolicy)\.[a-z0-9-]+)"',
            path.read_text(encoding="utf-8"),
        )
        if not code.endswith((".io", ".yaml"))
    }
    assert len(found) > 30
    assert {code for code in found if f"`{code}`" not in guide} == set()
