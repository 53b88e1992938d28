# SPDX-License-Identifier: Apache-2.0
"""ClusterNetworkPolicy: its tiers around NetworkPolicy."""

import pytest
from tests.support.meshes import manifests, outside, pod, tcp

from everyhop.core.errors import InputError
from everyhop.evaluators.cluster_network_policy import ClusterNetworkPolicyEvaluator

A, B, C = pod("a"), pod("b"), pod("c")
FAR = pod("a", "other", team="far")
FROM_A = "from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: a}}}}]"
ANYBODY = "from: [{namespaces: {}}]"
NETWORK_POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: shop}
spec: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: b}}}]}]}
"""


def policy(rules, tier="Admin", priority=10, name="p", subject="{namespaces: {}}", key="ingress"):
    return f"""
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {{name: {name}}}
spec:
  tier: {tier}
  priority: {priority}
  subject: {subject}
  {key}: [{rules}]
"""


def ask(texts, source=A, target=C, port=8080, **more):
    found = tcp(source, target, port, **{key: more.pop(key) for key in ("dns_name",) if key in more})
    return ClusterNetworkPolicyEvaluator(manifests(*texts), **more).evaluate(found)


def reaches(texts, source=A, target=C, port=8080, **more):
    return ask(texts, source, target, port, **more).allowed


def test_without_a_policy_everybody_reaches_everybody():
    assert reaches([])


@pytest.mark.parametrize(("action", "expected"), [("Accept", True), ("Deny", False), ("Pass", False)])
def test_the_admin_tier_comes_before_network_policies(action, expected):
    # The NetworkPolicy allows b alone: Accept and Deny never ask it, Pass does.
    assert reaches([policy(f"{{action: {action}, {FROM_A}}}"), NETWORK_POLICY]) is expected
    denied = [policy(f"{{action: {action}, {ANYBODY}}}"), NETWORK_POLICY]
    assert reaches(denied, B) is (action != "Deny")


@pytest.mark.parametrize(("action", "expected"), [("Accept", True), ("Deny", False), ("Pass", True)])
def test_the_baseline_tier_decides_for_pods_that_no_network_policy_isolates(action, expected):
    text = policy(f"{{action: {action}, {FROM_A}}}", "Baseline")
    assert reaches([text]) is expected
    assert not reaches([text, NETWORK_POLICY])  # that one decides finally
    assert reaches([text, NETWORK_POLICY], B)


def test_the_first_rule_that_matches_counts():
    two = f"{{action: Accept, {FROM_A}}}, {{action: Deny, {ANYBODY}}}"
    assert reaches([policy(two)])
    assert not reaches([policy(two)], B)
    turned = f"{{action: Deny, {ANYBODY}}}, {{action: Accept, {FROM_A}}}"
    assert not reaches([policy(turned)])


def test_a_lower_number_comes_first():
    accept, deny = f"{{action: Accept, {FROM_A}}}", f"{{action: Deny, {ANYBODY}}}"
    assert reaches([policy(deny, priority=11, name="d"), policy(accept, priority=10)])
    assert not reaches([policy(deny, priority=9, name="d"), policy(accept, priority=10)])


def test_pass_skips_the_rest_of_its_tier_alone():
    passing, deny = f"{{action: Pass, {FROM_A}}}", f"{{action: Deny, {ANYBODY}}}"
    assert reaches([policy(passing), policy(deny, priority=20, name="d")])
    assert not reaches([policy(passing), policy(deny, "Baseline", 20, "d")])


def test_equal_priorities_that_differ_are_refused():
    accept, deny = f"{{action: Accept, {FROM_A}}}", f"{{action: Deny, {ANYBODY}}}"
    texts = [policy(accept), policy(deny, name="d")]
    with pytest.raises(InputError, match="one tier and priority 10, and they differ"):
        reaches(texts)
    assert not reaches(texts, B)  # only one of them is about b
    assert not reaches([policy(deny), policy(deny, name="d")], B)


def test_both_ends_are_asked():
    out = "to: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: c}}}}]"
    assert not reaches([policy(f"{{action: Deny, {out}}}", key="egress")])
    assert reaches([policy(f"{{action: Deny, {out}}}", key="egress")], A, B)
    accept_out = policy(f"{{action: Accept, {out}}}", key="egress", name="e")
    assert not reaches(
        [accept_out, policy(f"{{action: Deny, {ANYBODY}}}")]
    )  # the target's ingress applies still


def test_the_subject_by_namespaces_and_by_pods():
    deny = f"{{action: Deny, {ANYBODY}}}"
    far = "{namespaces: {matchLabels: {team: far}}}"
    assert reaches([policy(deny, subject=far)])
    assert not reaches([policy(deny, subject=far)], A, FAR)
    both = "{pods: {namespaceSelector: {matchLabels: {team: far}}, podSelector: {matchLabels: {app: c}}}}"
    assert reaches([policy(deny, subject=both)], A, FAR)
    assert not reaches([policy(deny, subject=both)], A, pod("c", "other", team="far"))


def test_nothing_outside_is_a_pod():
    assert reaches([policy(f"{{action: Deny, {ANYBODY}}}")], outside())


class TestNetworks:
    def test_networks_are_for_egress_and_match_pods_too(self):
        # Deny to 0.0.0.0/0 shuts the cluster as well: the API warns of it.
        text = policy("{action: Deny, to: [{networks: [0.0.0.0/0]}]}", key="egress")
        assert not reaches([text], A, outside())
        assert not reaches([text], A, B)
        assert reaches([text], A, pod("v6", ip="2001:db8::1"))

    def test_an_allow_list_of_domains(self):
        names = "{action: Accept, to: [{domainNames: ['*.example.com', api.example.org]}]}"
        texts = [policy(names + ", {action: Deny, to: [{networks: [0.0.0.0/0]}]}", key="egress")]
        for name, expected in {
            "www.example.com": True,
            "a.b.example.com": True,
            "example.com": False,
            "notexample.com": False,
            "api.example.org": True,
            "API.example.org.": True,
            "x.api.example.org": False,
            None: False,
        }.items():
            assert reaches(texts, A, outside(), dns_name=name) is expected


@pytest.mark.parametrize(
    ("protocols", "port", "expected"),
    [
        ("[{tcp: {destinationPort: {number: 8080}}}]", 8080, False),
        ("[{tcp: {destinationPort: {number: 8080}}}]", 8081, True),
        ("[{tcp: {destinationPort: {range: {start: 8000, end: 8080}}}}]", 8080, False),
        ("[{tcp: {destinationPort: {range: {start: 8000, end: 8080}}}}]", 8081, True),
        ("[{udp: {destinationPort: {number: 8080}}}]", 8080, True),
        ("[{udp: {destinationPort: {number: 1}}}, {tcp: {destinationPort: {number: 8080}}}]", 8080, False),
        ("[{destinationNamedPort: http}]", 8080, False),
        ("[{destinationNamedPort: http}]", 8081, True),
    ],
)
def test_protocols(protocols, port, expected):
    text = policy(f"{{action: Deny, {ANYBODY}, protocols: {protocols}}}")
    assert reaches([text], port=port, named_ports={"http": 8080}) is expected


def test_nothing_outside_has_named_ports():
    text = policy(
        "{action: Deny, to: [{namespaces: {}}], protocols: [{destinationNamedPort: http}]}", key="egress"
    )
    assert reaches([text], A, outside(), named_ports={"http": 8080})
    assert not reaches([text], named_ports={"http": 8080})


def test_a_node_reaches_its_pods():
    text = policy("{action: Deny, to: [{networks: [0.0.0.0/0]}]}", key="egress")
    assert reaches([text, NETWORK_POLICY], outside("192.168.7.1"), node_networks=["192.168.0.0/16"])


def test_the_answer_names_the_policy():
    assert ask([policy(f"{{action: Deny, {ANYBODY}}}")]).by == "ClusterNetworkPolicy p"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (policy(f"{{action: Accept, {FROM_A}}}", tier="Default"), "none of Admin, Baseline"),
        (policy("", priority=1001), "from 0 to 1000"),
        (policy("", priority=-1), "from 0 to 1000"),
        (policy(f"{{action: Allow, {FROM_A}}}"), "none of Accept, Deny, Pass"),
        (policy("{action: Accept}"), "action and from have to be there"),
        (policy("{action: Accept, from: []}"), "action and from have to be there"),
        (policy(f"{{{FROM_A}}}"), "action and from have to be there"),
        (policy("{action: Accept, from: [{}]}"), "exactly one kind of peer"),
        (policy("{action: Accept, from: [{networks: [10.0.0.0/8]}]}"), "exactly one kind of peer|'networks'"),
        (policy("{action: Accept, from: [{namespaces: {}, pods: {}}]}"), "not both"),
        (
            policy("{action: Accept, from: [{pods: {podSelector: {}}}]}"),
            "namespaceSelector: expected a mapping",
        ),
        (policy("{action: Accept, to: [{nodes: {}}]}", key="egress"), "nodes are not read"),
        (policy("{action: Accept, to: [{networks: []}]}", key="egress"), "from 1 to 25"),
        (policy("{action: Accept, to: [{networks: [10.0.0.1]}]}", key="egress"), "no CIDR"),
        (policy("{action: Deny, to: [{domainNames: [example.com]}]}", key="egress"), "for Accept alone"),
        (policy("{action: Accept, to: [{domainNames: ['a*.com']}]}", key="egress"), "no name of a domain"),
        (
            policy(
                "{action: Accept, to: [{networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: x}]}",
                key="egress",
            ),
            "no named ports",
        ),
        (policy(f"{{action: Accept, {FROM_A}, protocols: []}}"), "at least one"),
        (policy(f"{{action: Accept, {FROM_A}, protocols: [{{}}]}}"), "exactly one protocol"),
        (policy(f"{{action: Accept, {FROM_A}, protocols: [{{tcp: {{}}}}]}}"), "destinationPort is missing"),
        (
            policy(f"{{action: Accept, {FROM_A}, protocols: [{{tcp: {{destinationPort: {{}}}}}}]}}"),
            "one of number",
        ),
        (
            policy(
                f"{{action: Accept, {FROM_A}, protocols: [{{tcp: {{destinationPort: {{range: {{start: 2, end: 2}}}}}}}}]}}"
            ),
            "below end",
        ),
        (policy(f"{{action: Accept, {FROM_A}, ports: [1]}}"), "'ports' is not known"),
        (policy(f"{{action: Accept, name: {'n' * 101}, {FROM_A}}}"), "at most 100"),
        (policy(", ".join([f"{{action: Accept, {FROM_A}}}"] * 26)), "at most 25 rules"),
        (policy(f"{{action: Accept, from: [{', '.join(['{namespaces: {}}'] * 26)}]}}"), "at most 25 peers"),
        (policy("", subject="{}"), "one of namespaces and pods"),
        (policy("").replace("tier: Admin", "x: y"), "have to be there"),
        (policy("").replace("v1alpha2", "v1alpha1"), "v1alpha2 is read"),
        (policy("").replace("ClusterNetworkPolicy", "AdminNetworkPolicy"), "this is not"),
    ],
)
def test_what_the_api_server_rejects_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        reaches([text])


def test_twenty_five_rules_are_read():
    assert reaches([policy(", ".join([f"{{action: Accept, {FROM_A}}}"] * 25))])
