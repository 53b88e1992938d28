# SPDX-License-Identifier: Apache-2.0
"""SPIRE: what is refused first, then who gets which ID, and what runs in the cluster."""

import itertools
import json
import shlex

import pytest
from tests.support.crds import Definitions, objects_of
from tests.support.spire_world import POLICY, codes, compiled, file_of

TD = "spiffe://shop.example"
IMAGES = "  spire: {images: registry.example/spiffe}\n"


def entries_of(compilation):
    """Return the entries of the JSON file as (ID, parent, selectors)."""
    return [
        (one["spiffe_id"], one["parent_id"], [f"{s['type']}:{s['value']}" for s in one["selectors"]])
        for one in json.loads(file_of(compilation, "spire/entries.json"))["entries"]
    ]


def objects(compilation, path):
    """Return the objects of a file by kind and name."""
    found = objects_of([file_of(compilation, path).encode()])
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


@pytest.mark.parametrize("parent", ["/spire", "/spire/x", "/spire/server"])
def test_a_parent_that_spire_keeps_for_itself_is_refused(parent):
    found = compiled("spire", f"  spire: {{parent: {parent}}}\n")
    assert found.failed
    assert "spire.parent" in codes(found)
    assert not found.files


@pytest.mark.parametrize("parent", ["/billing/payments", "/service"])
def test_a_service_is_never_the_parent(parent):
    policy = POLICY.replace("workload:\n", "identity: /service/hosts\n    workload:\n", 1)
    found = compiled("spire", f"  spire: {{parent: {parent}}}\n", policy)
    assert found.failed
    assert not found.files


def test_each_service_has_exactly_its_selectors():
    assert entries_of(compiled("spire")) == [
        (f"{TD}/spire-agents", f"{TD}/spire/server", ["k8s_psat:cluster:everyhop"]),
        (f"{TD}/service/checkout", f"{TD}/spire-agents", ["k8s:ns:shop", "k8s:sa:checkout"]),
        (
            f"{TD}/service/ledger",
            f"{TD}/spire-agents/hosts",
            ["unix:path:/usr/bin/ledger", "unix:user:ledger"],
        ),
        (f"{TD}/service/ledger", f"{TD}/spire-agents/hosts", ["unix:uid:1000"]),
        (f"{TD}/billing/payments", f"{TD}/spire-agents", ["k8s:ns:billing", "k8s:sa:pay"]),
    ]


def test_a_parent_that_is_an_agent_needs_no_alias():
    found = entries_of(compiled("spire", "  spire: {parent: /spire/agent/join_token/t}\n"))
    assert {parent for _, parent, _ in found} == {f"{TD}/spire/agent/join_token/t"}
    assert len(found) == 4


def test_an_alternative_with_run_beside_unix_is_left_out_not_widened():
    policy = POLICY.replace("{unix: {uid: 1000}}", "{run: true, unix: {uid: 1000}}")
    found = compiled("spire", policy=policy)
    assert [selectors for _, _, selectors in entries_of(found) if "unix:uid:1000" in selectors] == []
    assert "spire.run" in codes(found)


def test_nobody_exists_that_the_policy_calls_a_trap():
    found = compiled("spire")
    assert all("trap" not in one.content.decode() for one in found.files)


def test_the_script_says_what_the_json_says():
    found = compiled("spire", "  spire: {ttl: 30m, jwt_ttl: 1m, dns: true}\n")
    text = file_of(found, "spire/entries.sh")
    commands = [shlex.split(one.replace("\\\n", " "), comments=True) for one in text.split("\n\n")[1:]]
    told = [words[words.index("spire-server") :] for words in commands]
    held = json.loads(file_of(found, "spire/entries.json"))["entries"]
    assert len(told) == len(held)
    for words, entry in zip(told, held, strict=True):
        values = list(itertools.pairwise(words))
        assert ("-spiffeID", entry["spiffe_id"]) in values
        selectors = [value for key, value in values if key == "-selector"]
        assert selectors == [f"{one['type']}:{one['value']}" for one in entry["selectors"]]
        if "-node" in words:
            assert entry["parent_id"] == f"{TD}/spire/server"
            continue
        assert ("-parentID", entry["parent_id"]) in values
        assert ("-x509SVIDTTL", str(entry["x509_svid_ttl"])) in values
        assert ("-jwtSVIDTTL", str(entry["jwt_svid_ttl"])) in values
        assert [value for key, value in values if key == "-dns"] == entry["dns_names"]
        assert (entry["x509_svid_ttl"], entry["jwt_svid_ttl"]) == (1800, 60)


def test_no_cluster_spiffe_id_is_without_selectors():
    found = objects(compiled("spire"), "spire/clusterspiffeids.yaml")
    assert sorted(name for _, name in found) == ["service-checkout", "service-payments"]
    for one in found.values():
        spec = one["spec"]
        assert spec["podSelector"]["matchLabels"]
        assert spec["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        assert "className" not in spec
        assert "dnsNameTemplates" not in spec
    spec = found["ClusterSPIFFEID", "service-payments"]["spec"]
    assert spec["workloadSelectorTemplates"] == ["k8s:ns:billing", "k8s:sa:pay"]
    assert spec["spiffeIDTemplate"] == f"{TD}/billing/payments"


def test_class_and_names_are_written_when_asked_for():
    options = "  cluster_domain: c.example\n  spire: {class_name: mesh, dns: true}\n"
    found = objects(compiled("spire", options), "spire/clusterspiffeids.yaml")
    spec = found["ClusterSPIFFEID", "service-payments"]["spec"]
    assert (spec["className"], spec["dnsNameTemplates"]) == ("mesh", ["payments.billing.svc.c.example"])


def test_every_cluster_spiffe_id_is_one_that_the_api_server_takes(shared_material):
    definitions = Definitions(shared_material / "schemas", "spire-controller-manager")
    options = "  spire: {class_name: mesh, dns: true}\n"
    for one in objects(compiled("spire", options), "spire/clusterspiffeids.yaml").values():
        assert definitions.problem(one) is None


def test_pods_have_no_more_than_they_need():
    found = compiled("spire", IMAGES)
    assert codes(found) == ["spire.hosts"]
    server = objects(found, "spire/server.yaml")["StatefulSet", "spire-server"]["spec"]["template"]["spec"]
    agent = objects(found, "spire/agent.yaml")["DaemonSet", "spire-agent"]["spec"]["template"]["spec"]
    for pod in (server, agent):
        (container,) = pod["containers"]
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["livenessProbe"]
        assert container["readinessProbe"]
        written = {one["name"] for one in container["volumeMounts"] if not one.get("readOnly")}
        assert written == {"data", "socket" if pod is server else "sockets"}
        mounted = {one["name"] for one in container["volumeMounts"]}
        assert {one["name"] for one in pod["volumes"]} >= mounted - {"data"}
    assert server["containers"][0]["securityContext"]["runAsNonRoot"] is True
    assert "hostPID" not in server
    assert server["containers"][0]["image"] == "registry.example/spiffe/spire-server:1.14.0"
    assert [one["hostPath"]["path"] for one in agent["volumes"] if "hostPath" in one] == [
        "/run/spire/agent-sockets"
    ]
    token = next(one for one in agent["volumes"] if one["name"] == "token")["projected"]["sources"][0]
    assert token["serviceAccountToken"]["audience"] == "spire-server"


def test_roles_hold_only_what_the_plugins_ask_for():
    found = compiled("spire", "  spire: {namespace: identity}\n")
    server = objects(found, "spire/server.yaml")
    rules = server["ClusterRole", "spire-server"]["rules"]
    assert {(one["resources"][0], *one["verbs"]) for one in rules} == {
        ("tokenreviews", "create"),
        ("pods", "get"),
        ("nodes", "get"),
    }
    (own,) = server["Role", "spire-server"]["rules"]
    assert (own["resources"], own["resourceNames"], own["verbs"]) == (
        ["configmaps"],
        ["spire-bundle"],
        ["get", "patch"],
    )
    for (kind, _), one in server.items():
        expected = None if kind in {"Namespace", "ClusterRole", "ClusterRoleBinding"} else "identity"
        assert one["metadata"].get("namespace") == expected


def test_the_configuration_in_the_cluster_is_the_one_beside_it():
    found = compiled("spire", "  spire: {ttl: 2d}\n")
    held = objects(found, "spire/server.yaml")["ConfigMap", "spire-server"]["data"]["server.conf"]
    assert held == file_of(found, "spire/server.conf")
    held = objects(found, "spire/agent.yaml")["ConfigMap", "spire-agent"]["data"]["agent.conf"]
    assert held == file_of(found, "spire/agent.conf")
    assert 'ca_ttl = "1036800s"' in file_of(found, "spire/server.conf")


def test_another_configuration_is_another_pod():
    def digest(options):
        found = objects(compiled("spire", options), "spire/server.yaml")["StatefulSet", "spire-server"]
        return found["spec"]["template"]["metadata"]["annotations"]["everyhop/configuration"]

    assert digest("") == digest("  spire: {class_name: x}\n") != digest("  spire: {ttl: 2h}\n")


def test_long_lives_are_warned_of():
    assert "spire.ttl" in codes(compiled("spire", "  spire: {ttl: 8d}\n"))


def test_compiling_twice_gives_the_same():
    assert compiled("spire").files == compiled("spire").files
