# SPDX-License-Identifier: Apache-2.0
"""NetworkPolicy: who reaches whom, against the API's own words."""

import pytest
from tests.support.meshes import call, manifests, outside, pod, tcp

from everyhop.core.errors import InputError
from everyhop.evaluators.network_policy import NetworkPolicyEvaluator

A, B, C = pod("a"), pod("b"), pod("c")
FAR = pod("a", "other", team="far")


def policy(spec, name="p", namespace="shop"):
    return f"""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
"""


def reaches(texts, source, target, port=8080, **settings):
    return NetworkPolicyEvaluator(manifests(*texts), **settings).evaluate(tcp(source, target, port)).allowed


FROM_A = "{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}"


def test_without_a_policy_everybody_reaches_everybody():
    assert reaches([], A, B)
    assert reaches([], outside(), B)


def test_a_selected_pod_is_isolated_and_others_are_not():
    assert reaches([policy(FROM_A)], A, B)
    assert not reaches([policy(FROM_A)], C, B)
    assert reaches([policy(FROM_A)], C, A)


def test_a_pod_selector_alone_means_the_policys_own_namespace():
    assert not reaches([policy(FROM_A)], FAR, B)


def test_isolation_is_per_direction():
    assert reaches([policy(FROM_A)], B, C)  # the policy of b is about ingress alone


def test_the_source_and_the_destination_both_have_to_allow():
    closed = policy("{podSelector: {matchLabels: {app: a}}, policyTypes: [Egress]}", "closed")
    opened = policy(
        "{podSelector: {matchLabels: {app: a}}, egress: [{to: [{podSelector: {matchLabels: {app: b}}}]}]}",
        "open",
    )
    assert not reaches([policy(FROM_A), closed], A, B)
    assert reaches([policy(FROM_A), closed, opened], A, B)


def test_policies_are_a_union():
    more = policy(FROM_A.replace("app: a", "app: c"), "more")
    assert reaches([policy(FROM_A), more], A, B)
    assert reaches([policy(FROM_A), more], C, B)
    assert not reaches([policy(FROM_A), more], FAR, B)


@pytest.mark.parametrize("none", ["ingress: []", "policyTypes: [Ingress]", "ingress: null"])
def test_an_empty_list_of_rules_allows_nothing(none):
    assert not reaches([policy(f"{{podSelector: {{}}, {none}}}")], A, B)


@pytest.mark.parametrize("rule", ["{}", "{from: []}", "{ports: []}", "{from: null}", "{from: [], ports: []}"])
def test_an_empty_rule_allows_everybody(rule):
    texts = [policy(f"{{podSelector: {{}}, ingress: [{rule}]}}")]
    assert reaches(texts, A, B)
    assert reaches(texts, outside(), B)


def test_a_missing_pod_selector_selects_every_pod_of_the_namespace():
    assert not reaches([policy("{ingress: []}")], A, B)
    assert reaches([policy("{ingress: []}")], A, FAR)


class TestPolicyTypes:
    def test_an_empty_egress_list_does_not_isolate_egress(self):
        # SetDefaults_NetworkPolicy asks for the length of the list, not for its presence
        assert reaches([policy("{podSelector: {matchLabels: {app: a}}, egress: [], ingress: [{}]}")], A, B)

    def test_an_egress_rule_isolates_egress_and_ingress(self):
        texts = [policy("{podSelector: {matchLabels: {app: a}}, egress: [{ports: [{port: 1}]}]}")]
        assert not reaches(texts, A, B)
        assert not reaches(texts, B, A)

    def test_rules_of_a_direction_that_is_not_a_type_count_for_nothing(self):
        texts = [policy("{podSelector: {}, policyTypes: [Egress], ingress: [], egress: [{}]}")]
        assert reaches(texts, A, B)

    def test_ingress_is_a_type_when_only_egress_rules_are_written_and_no_types(self):
        assert not reaches([policy("{podSelector: {matchLabels: {app: b}}, egress: [{}]}")], A, B)


class TestPeers:
    SPLIT = "[{namespaceSelector: {matchLabels: {team: far}}}, {podSelector: {matchLabels: {app: b}}}]"
    JOINED = "[{namespaceSelector: {matchLabels: {team: far}}, podSelector: {matchLabels: {app: b}}}]"

    def ask(self, peers, source):
        text = policy(f"{{podSelector: {{matchLabels: {{app: c}}}}, ingress: [{{from: {peers}}}]}}")
        return reaches([text], source, C)

    def test_one_dash_more_turns_and_into_or(self):  # pain 17
        far_a, far_b = FAR, pod("b", "other", team="far")
        assert not self.ask(self.JOINED, far_a)
        assert self.ask(self.JOINED, far_b)
        assert not self.ask(self.JOINED, B)
        assert self.ask(self.SPLIT, far_a)
        assert self.ask(self.SPLIT, far_b)
        assert self.ask(self.SPLIT, B)

    def test_an_empty_namespace_selector_is_every_namespace_and_nothing_outside(self):
        assert self.ask("[{namespaceSelector: {}}]", FAR)
        assert not self.ask("[{namespaceSelector: {}}]", outside())
        assert not self.ask("[{podSelector: {}}]", outside())
        assert not self.ask("[{podSelector: {}}]", FAR)
        assert self.ask("[{podSelector: {}}]", A)

    def test_the_name_of_a_namespace_is_a_label_that_nobody_can_forge(self):
        by_name = "[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: other}}}]"
        bare = pod("x", "other")
        forged = pod("x", "evil")
        object.__setattr__(bare, "namespace_labels", {})
        object.__setattr__(forged, "namespace_labels", {"kubernetes.io/metadata.name": "other"})
        assert self.ask(by_name, bare)
        assert not self.ask(by_name, forged)

    def test_expressions(self):
        peers = "[{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [a]}, {key: x, operator: DoesNotExist}]}}]"
        assert self.ask(peers, B)
        assert not self.ask(peers, A)
        assert self.ask(peers, pod("n", labels={}))
        assert not self.ask(peers, pod("n", labels={"x": "1"}))

    @pytest.mark.parametrize(
        ("ip", "expected"),
        [
            ("10.1.2.3", True),
            ("10.1.3.1", False),
            ("10.1.3.200", False),
            ("10.2.0.1", False),
            ("2001:db8::1", False),
        ],
    )
    def test_a_block_with_a_hole(self, ip, expected):
        block = "[{ipBlock: {cidr: 10.1.0.0/16, except: [10.1.3.0/24]}}]"
        assert self.ask(block, outside(ip)) is expected
        assert self.ask(block, pod("z", ip=ip)) is expected  # a pod's address counts too

    def test_two_blocks_are_a_union_even_over_the_hole_of_one(self):
        blocks = "[{ipBlock: {cidr: 10.1.0.0/16, except: [10.1.3.0/24]}}, {ipBlock: {cidr: 10.1.3.7/32}}]"
        assert self.ask(blocks, outside("10.1.3.7"))
        assert not self.ask(blocks, outside("10.1.3.8"))

    def test_ipv6(self):
        assert self.ask("[{ipBlock: {cidr: 2001:db8::/32}}]", outside("2001:db8::9"))


class TestPorts:
    DEPLOYMENT = """
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: c, namespace: shop}
        spec:
          template:
            metadata: {labels: {app: c}}
            spec:
              containers:
                - name: c
                  ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]
    """

    def ask(self, ports, port, *more, **settings):
        text = policy(f"{{podSelector: {{matchLabels: {{app: c}}}}, ingress: [{{ports: {ports}}}]}}")
        return reaches([text, *more], A, C, port, **settings)

    @pytest.mark.parametrize(
        ("ports", "port", "expected"),
        [
            ("[{port: 8080}]", 8080, True),
            ("[{port: 8080}]", 8081, False),
            ("[{port: 80}, {port: 8080}]", 8080, True),
            ("[{port: 8000, endPort: 8080}]", 8080, True),
            ("[{port: 8000, endPort: 8080}]", 8081, False),
            ("[{port: 8000, endPort: 8080}]", 7999, False),
            ("[{protocol: TCP}]", 1, True),
            ("[{protocol: UDP}]", 8080, False),
            ("[{protocol: UDP, port: 8080}]", 8080, False),
            ("[{protocol: SCTP, port: 8080}, {port: 8080}]", 8080, True),
        ],
    )
    def test_numbers_ranges_and_protocols(self, ports, port, expected):
        assert self.ask(ports, port) is expected

    def test_a_name_means_what_the_pods_template_says(self):
        assert self.ask("[{port: http}]", 8080, self.DEPLOYMENT)
        assert not self.ask("[{port: http}]", 80, self.DEPLOYMENT)
        assert not self.ask("[{port: admin}]", 8080, self.DEPLOYMENT)  # the pod has no such port
        assert not self.ask("[{port: dns}]", 53, self.DEPLOYMENT)  # and this one is not TCP

    def test_a_name_may_be_told(self):
        assert self.ask("[{port: http}]", 8080, named_ports={"http": 8080})

    def test_a_name_of_which_nothing_is_known_is_refused(self):
        with pytest.raises(InputError, match="nothing says which number the port 'http'"):
            self.ask("[{port: http}]", 8080)

    def test_peers_and_ports_of_one_rule_both_have_to_fit(self):
        text = policy(
            "{podSelector: {matchLabels: {app: c}}, ingress: ["
            "{from: [{podSelector: {matchLabels: {app: a}}}], ports: [{port: 1}]},"
            "{from: [{podSelector: {matchLabels: {app: b}}}], ports: [{port: 2}]}]}"
        )
        assert reaches([text], A, C, 1)
        assert not reaches([text], A, C, 2)
        assert reaches([text], B, C, 2)


class TestEdges:
    def test_a_host_outside_is_bound_by_the_sources_egress_alone(self):
        text = policy(
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 198.51.100.0/24}}]}]}"
        )
        assert reaches([text], A, outside("198.51.100.7"))
        assert not reaches([text], A, outside("203.0.113.1"))

    def test_a_node_reaches_its_pods(self):
        text = policy("{podSelector: {}, ingress: []}")
        assert not reaches([text], outside("192.168.7.1"), A)
        assert reaches([text], outside("192.168.7.1"), A, node_networks=["192.168.0.0/16"])
        assert not reaches([text], pod("x", ip="192.168.7.1"), A, node_networks=["192.168.0.0/16"])

    def test_pods_on_the_hosts_network_are_not_selected(self):
        template = "{metadata: {labels: {app: b}}, spec: {hostNetwork: true, containers: []}}"
        host = f"""
            apiVersion: apps/v1
            kind: DaemonSet
            metadata: {{name: b, namespace: shop}}
            spec: {{template: {template}}}
        """
        assert not reaches([policy("{ingress: []}")], A, B)
        assert reaches([policy("{ingress: []}"), host], A, B)

    def test_layer_7_and_certificates_make_no_difference(self):
        # The outer bound: a NetworkPolicy knows neither paths nor identities, only labels, and whoever writes those is let in.
        evaluator = NetworkPolicyEvaluator(manifests(policy(FROM_A)))
        thief = pod("a", account="somebody-else")
        assert evaluator.evaluate(call(thief, B, "DELETE", "/anything", peer=None)).allowed

    def test_the_answer_names_the_policy(self):
        outcome = NetworkPolicyEvaluator(manifests(policy(FROM_A))).evaluate(tcp(A, B))
        assert outcome.by == "NetworkPolicy shop/p"
        refused = NetworkPolicyEvaluator(manifests(policy(FROM_A))).evaluate(tcp(C, B))
        assert (refused.by, refused.why) == (None, "no NetworkPolicy allows this ingress of shop/b")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "{podSelector: {}, policyTypes: [Ingres]}",
            "none of Ingress, Egress",
        ),  # kubernetes-validate lets this pass
        ("{podSelector: {}, ingress: [{ports: [{port: 99999999}]}]}", "from 1 to 65535"),  # and this
        ("{podSelector: {}, ingress: [{ports: [{port: 0}]}]}", "from 1 to 65535"),
        ("{podSelector: {}, ingress: [{ports: [{port: -1}]}]}", "from 1 to 65535"),
        ("{podSelector: {}, ingress: [{ports: [{port: true}]}]}", "from 1 to 65535"),
        ("{podSelector: {}, ingress: [{ports: [{port: '8080'}]}]}", "no name of a port"),
        ("{podSelector: {}, ingress: [{ports: [{port: far-too-long-a-name}]}]}", "no name of a port"),
        ("{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 79}]}]}", "below port"),
        ("{podSelector: {}, ingress: [{ports: [{port: http, endPort: 79}]}]}", "goes with a number"),
        ("{podSelector: {}, ingress: [{ports: [{endPort: 79}]}]}", "needs a port"),
        ("{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 70000}]}]}", "65535"),
        ("{podSelector: {}, ingress: [{ports: [{port: 80, protocol: HTTP}]}]}", "none of TCP, UDP, SCTP"),
        ("{podSelector: {}, ingress: [{from: [{}]}]}", "a peer names"),
        (
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}",
            "stands alone",
        ),
        ("{podSelector: {}, ingress: [{from: [{ipBlock: {}}]}]}", "cidr is missing"),
        ("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.1}}]}]}", "no CIDR"),
        ("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]}", "no CIDR"),
        ("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/255.0.0.0}}]}]}", "no CIDR"),
        (
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/9]}}]}]}",
            "no part of",
        ),
        (
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]}",
            "no part of",
        ),
        (
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: ['::/9']}}]}]}",
            "no part of",
        ),
        ("{podSelector: {}, ingress: [{to: []}]}", "'to' is not known here"),
        ("{podSelector: {}, ingres: []}", "'ingres' is not known here"),
        (
            "{podSelector: {}, ingress: [{from: [{podselector: {}}]}]}",
            "'podselector' is not known|a peer names",
        ),
        ("{podSelector: {app: a}}", "'app' is not known here"),
        ("{podSelector: {matchLabels: {app: true}}}", "expected a text"),
        ("{podSelector: {matchLabels: {app: null}}}", "has no value"),
        ("{podSelector: {matchExpressions: [{key: a, operator: In}]}}", "In has no values"),
        ("{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}", "Exists has values"),
        ("{podSelector: {matchExpressions: [{key: a, operator: Equals, values: [b]}]}}", "none of In"),
        ("{podSelector: {matchExpressions: [{key: a}]}}", "operator is missing"),
        ("{podSelector: [], ingress: []}", "expected a mapping"),
        ("{podSelector: {}, ingress: {}}", "expected a list"),
        ("[]", "expected a mapping"),
    ],
)
def test_what_the_api_server_rejects_is_refused(spec, message):
    with pytest.raises(InputError, match=message):
        NetworkPolicyEvaluator(manifests(policy(spec)))


def test_policies_of_other_groups_are_refused_and_other_kinds_left_alone():
    with pytest.raises(InputError, match=r"networking.k8s.io/v1 is read"):
        reaches([policy("{}").replace("networking.k8s.io/v1", "projectcalico.org/v3")], A, B)
    assert reaches(["apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}"], A, B)


def test_templates_that_differ_are_refused():
    one = TestPorts.DEPLOYMENT
    other = one.replace(
        "metadata: {name: c, namespace: shop}", "metadata: {name: d, namespace: shop}"
    ).replace("containers:", "hostNetwork: true\n              containers:")
    with pytest.raises(InputError, match="differently"):
        reaches([policy("{ingress: []}"), one, other], A, C)
