# SPDX-License-Identifier: Apache-2.0
"""Cilium: labels as identities, deny before allow, default deny, ports, and layer 7."""

import pytest
from tests.support.meshes import call, manifests, outside, pod, tcp

from everyhop.core.errors import InputError
from everyhop.evaluators.cilium import CiliumEvaluator
from everyhop.evaluators.model import Wire

A, B, C = pod("a"), pod("b"), pod("c")
FAR = pod("a", "other", team="far")
NODE = outside("192.168.7.1")
NODES = ["192.168.0.0/16"]
B_FROM_A = (
    "{endpointSelector: {matchLabels: {app: b}}, ingress: [{fromEndpoints: [{matchLabels: {app: a}}]}]}"
)
HTTP = '{ports: [{port: "8080", protocol: TCP}], rules: {http: [%s]}}'


def policy(spec, name="p", namespace="shop"):
    return f"apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"


def clusterwide(spec, name="w"):
    return f"apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def to_b(rule, key="ingress", more=""):
    return policy(f"{{endpointSelector: {{matchLabels: {{app: b}}}}, {key}: [{rule}]{more}}}")


def from_a(rule, more=""):
    return policy(f"{{endpointSelector: {{matchLabels: {{app: a}}}}, egress: [{rule}]{more}}}")


def ask(texts, request, **settings):
    return CiliumEvaluator(manifests(*texts), **settings).evaluate(request)


def reaches(texts, source=A, target=B, port=8080, **settings):
    return ask(texts, tcp(source, target, port), **settings).allowed


def passes(texts, method, path, source=A, target=B, *, settings=None, **more):
    return ask(texts, call(source, target, method, path, **more), **(settings or {})).allowed


class TestDefaultDeny:
    def test_without_a_policy_everybody_reaches_everybody(self):
        assert reaches([])
        assert reaches([], outside())

    def test_a_rule_isolates_its_direction_alone(self):
        assert reaches([policy(B_FROM_A)])
        assert not reaches([policy(B_FROM_A)], C)
        assert reaches([policy(B_FROM_A)], B, C)
        assert reaches([policy(B_FROM_A)], C, A)

    def test_an_empty_rule_isolates_and_allows_nothing(self):
        assert not reaches([to_b("{}")])

    def test_an_empty_list_of_rules_does_neither(self):
        assert reaches([policy("{endpointSelector: {}, ingress: []}")])

    def test_denials_isolate_too(self):
        assert not reaches([to_b("{fromEndpoints: [{matchLabels: {app: c}}]}", "ingressDeny")])

    def test_it_can_be_turned_off(self):
        off = ", enableDefaultDeny: {ingress: false}"
        text = to_b("{fromEndpoints: [{matchLabels: {app: c}}]}", more=off)
        assert reaches([text])
        denying = to_b("{fromEndpoints: [{matchLabels: {app: a}}]}", "ingressDeny", off)
        assert not reaches([denying])
        assert reaches([denying], C)

    def test_it_can_be_asked_for_without_rules(self):
        assert not reaches(
            [policy("{endpointSelector: {}, ingress: [], enableDefaultDeny: {ingress: true}}")]
        )

    def test_one_policy_that_asks_for_it_undoes_another_that_does_not(self):  # pain 16
        off = to_b("{fromEndpoints: [{matchLabels: {app: c}}]}", more=", enableDefaultDeny: {ingress: false}")
        assert reaches([off])
        assert not reaches([off, policy(B_FROM_A.replace("app: a", "app: x"), "other")])

    def test_it_is_per_direction(self):
        text = policy(
            "{endpointSelector: {}, ingress: [{}], egress: [{}], enableDefaultDeny: {egress: false}}"
        )
        assert not reaches([text])
        assert reaches([text], A, outside())


class TestPeers:
    def test_no_list_an_empty_list_and_a_list_of_everybody(self):
        assert not reaches([to_b("{fromEndpoints: []}")])
        assert reaches([to_b("{fromEndpoints: [{}]}")])
        assert not reaches([to_b("{fromEndpoints: [{}]}")], FAR)  # everybody of the namespace
        assert not reaches([to_b("{fromEndpoints: [{}]}")], outside())
        port = 'toPorts: [{ports: [{port: "8080"}]}]'
        assert reaches([to_b(f"{{{port}}}")], outside())
        assert not reaches([to_b(f"{{fromEndpoints: [], {port}}}")])

    @pytest.mark.parametrize("key", ["fromEntities", "fromCIDR", "fromCIDRSet"])
    def test_any_empty_list_of_peers_selects_nothing(self, key):
        for source in (A, outside()):
            assert not reaches([to_b(f'{{{key}: [], toPorts: [{{ports: [{{port: "8080"}}]}}]}}')], source)
        assert not reaches([to_b(f"{{fromEndpoints: [{{}}], {key}: []}}")])

    def test_a_namespace_may_be_named(self):
        for key in (
            "io.kubernetes.pod.namespace",
            "k8s:io.kubernetes.pod.namespace",
            "any:io.kubernetes.pod.namespace",
        ):
            text = to_b(f"{{fromEndpoints: [{{matchLabels: {{'{key}': other}}}}]}}")
            assert reaches([text], FAR)
            assert not reaches([text])

    def test_a_namespace_may_be_chosen_by_its_labels(self):
        text = to_b("{fromEndpoints: [{matchLabels: {io.cilium.k8s.namespace.labels.team: far}}]}")
        assert reaches([text], FAR)
        assert not reaches([text])

    def test_an_expression_may_ask_for_any_namespace(self):
        text = to_b(
            "{fromEndpoints: [{matchExpressions: [{key: io.kubernetes.pod.namespace, operator: Exists}]}]}"
        )
        assert reaches([text], FAR)
        assert not reaches([text], outside())

    def test_the_service_account_is_a_label(self):
        text = to_b("{fromEndpoints: [{matchLabels: {io.cilium.k8s.policy.serviceaccount: a, app: a}}]}")
        assert reaches([text])
        assert not reaches([text], pod("a", account="thief"))  # its labels alone are not enough then
        assert reaches([to_b("{fromEndpoints: [{matchLabels: {app: a}}]}")], pod("a", account="thief"))

    def test_a_pod_cannot_label_itself_into_a_namespace_or_an_account(self):
        labels = {
            "io.kubernetes.pod.namespace": "shop",
            "io.cilium.k8s.policy.serviceaccount": "a",
            "app": "a",
        }
        thief = pod("x", "evil", labels=labels)
        text = to_b("{fromEndpoints: [{matchLabels: {app: a, io.cilium.k8s.policy.serviceaccount: a}}]}")
        assert not reaches([text], thief)

    def test_prefixes_of_labels(self):
        for key in ("app", "k8s:app", "any:app"):
            assert reaches([to_b(f"{{fromEndpoints: [{{matchLabels: {{'{key}': a}}}}]}}")])
        with pytest.raises(InputError, match="source 'container'"):
            reaches([to_b("{fromEndpoints: [{matchLabels: {'container:app': a}}]}")])

    def test_reserved_labels(self):
        text = to_b("{fromEndpoints: [{matchLabels: {'reserved:world': ''}}]}")
        assert reaches([text], outside())
        assert not reaches([text])
        host = to_b("{fromEndpoints: [{matchLabels: {'reserved:remote-node': ''}}]}")
        assert not reaches([host], outside())

    def test_the_policys_own_pods_are_those_of_its_namespace(self):
        text = policy("{endpointSelector: {}, ingress: [{}]}")
        assert not reaches([text])
        assert reaches([text], A, pod("b", "other"))

    @pytest.mark.parametrize(
        ("entity", "from_pod", "from_world", "from_node"),
        [
            ("all", True, True, True),
            ("world", False, True, False),
            ("world-ipv4", False, True, False),
            ("world-ipv6", False, False, False),
            ("cluster", True, False, True),
            ("host", False, False, True),
            ("remote-node", False, False, True),
            ("kube-apiserver", False, False, False),
            ("none", False, False, False),
        ],
    )
    def test_entities(self, entity, from_pod, from_world, from_node):
        text = from_a(f"{{toEntities: [{entity}]}}")
        assert reaches([text], A, B, node_networks=NODES) is from_pod
        assert reaches([text], A, outside(), node_networks=NODES) is from_world
        assert reaches([text], A, NODE, node_networks=NODES) is from_node

    def test_a_node_reaches_its_pods(self):
        assert reaches([to_b("{}")], NODE, node_networks=NODES)
        assert not reaches([to_b("{}")], NODE)

    def test_blocks_are_for_what_is_no_pod(self):
        text = to_b("{fromCIDR: [203.0.113.0/24, 198.51.100.7]}")
        assert reaches([text], outside("203.0.113.9"))
        assert reaches([text], outside("198.51.100.7"))
        assert not reaches([text], outside("198.51.100.8"))
        assert not reaches([text], pod("z", ip="203.0.113.9"))

    def test_holes_in_blocks(self):
        text = to_b("{fromCIDRSet: [{cidr: 203.0.113.0/24, except: [203.0.113.0/28]}]}")
        assert reaches([text], outside("203.0.113.99"))
        assert not reaches([text], outside("203.0.113.9"))

    def test_members_of_a_rule_are_anded_and_rules_ored(self):
        port = 'toPorts: [{ports: [{port: "1"}]}]'
        text = to_b(
            f"{{fromEndpoints: [{{matchLabels: {{app: a}}}}], {port}}}, {{fromEndpoints: [{{matchLabels: {{app: c}}}}]}}"
        )
        assert reaches([text], A, port=1)
        assert not reaches([text], A, port=2)
        assert reaches([text], C, port=2)


class TestDeny:
    def test_it_beats_every_allow(self):
        deny = to_b("{fromEndpoints: [{matchLabels: {app: a}}]}", "ingressDeny")
        assert not reaches(
            [
                deny,
                policy(B_FROM_A, "allow"),
                clusterwide("{endpointSelector: {}, ingress: [{fromEntities: [all]}]}"),
            ]
        )

    def test_it_may_be_about_a_port(self):
        text = policy(
            "{endpointSelector: {matchLabels: {app: b}}, ingress: [{fromEntities: [all]}],"
            ' ingressDeny: [{fromEndpoints: [{}], toPorts: [{ports: [{port: "9", protocol: TCP}]}]}]}'
        )
        assert reaches([text])
        assert not reaches([text], port=9)

    def test_it_works_at_the_source_too(self):
        text = policy(
            "{endpointSelector: {matchLabels: {app: a}}, egress: [{toEntities: [all]}], egressDeny: [{toEndpoints: [{matchLabels: {app: b}}]}]}"
        )
        assert not reaches([text])
        assert reaches([text], A, C)

    def test_it_has_no_layer_7(self):
        with pytest.raises(InputError, match="'rules' is not known"):
            reaches([to_b("{toPorts: [" + HTTP % "{}" + "]}", "ingressDeny")])


class TestClusterwide:
    def test_it_selects_in_every_namespace_and_peers_in_any(self):
        text = clusterwide(
            "{endpointSelector: {matchLabels: {app: b}}, ingress: [{fromEndpoints: [{matchLabels: {app: a}}]}]}"
        )
        assert reaches([text], FAR)
        assert reaches([text], A, pod("b", "other"))
        assert not reaches([text], C)

    def test_its_empty_peer_is_every_pod_and_nothing_outside(self):
        text = clusterwide("{endpointSelector: {}, ingress: [{fromEndpoints: [{}]}]}")
        assert reaches([text], FAR)
        assert not reaches([text], outside())

    def test_policies_for_nodes_say_nothing_of_pods(self):
        assert reaches([clusterwide("{nodeSelector: {}, ingress: [{}]}")])
        with pytest.raises(InputError, match="selects no nodes"):
            reaches([policy("{nodeSelector: {}, ingress: [{}]}")])

    def test_specs(self):
        text = policy(B_FROM_A) + "specs: [{endpointSelector: {matchLabels: {app: c}}, ingress: [{}]}]\n"
        assert not reaches([text], A, C)
        assert not reaches([text], C)
        assert reaches([text])


class TestPorts:
    @pytest.mark.parametrize(
        ("ports", "port", "expected"),
        [
            ('{port: "8080"}', 8080, True),
            ('{port: "8080", protocol: ANY}', 8080, True),
            ('{port: "8080", protocol: UDP}', 8080, False),
            ('{port: "8080", protocol: TCP}', 8081, False),
            ('{port: "8000", endPort: 8080}', 8080, True),
            ('{port: "8000", endPort: 8080}', 8081, False),
            ('{port: "0"}', 4, True),
            ('{port: "0", protocol: UDP}', 4, False),
            ("{port: http}", 8080, True),
            ("{port: HTTP}", 8080, True),
            ("{port: http}", 80, False),
        ],
    )
    def test_ports(self, ports, port, expected):
        assert (
            reaches([to_b(f"{{toPorts: [{{ports: [{ports}]}}]}}")], port=port, named_ports={"http": 8080})
            is expected
        )

    def test_icmp_is_no_tcp(self):
        assert not reaches([to_b("{icmps: [{fields: [{type: 8, family: IPv4}]}]}")])


class TestHttp:
    PAY = to_b(
        "{fromEndpoints: [{matchLabels: {app: a}}], toPorts: ["
        + HTTP % "{method: POST, path: '/v1/payments(\\?.*)?'}"
        + "]}"
    )

    def test_method_and_path(self):
        assert passes([self.PAY], "POST", "/v1/payments")
        assert not passes([self.PAY], "GET", "/v1/payments")
        assert not passes([self.PAY], "POST", "/v1/payments/7")
        assert not passes([self.PAY], "POST", "/v1/payments", C)

    def test_expressions_match_as_a_whole(self):  # pain 15
        text = to_b("{toPorts: [" + HTTP % "{method: GET, path: /public}" + "]}")
        assert passes([text], "GET", "/public")
        assert not passes([text], "GET", "/public/x")
        assert not passes([text], "GET", "/x/public")
        assert not passes([text], "HEAD", "/public")
        assert not passes([text], "GETX", "/public")

    def test_the_path_is_matched_with_its_query(self):
        text = to_b("{toPorts: [" + HTTP % "{path: '/hdr/[^/]+'}" + "]}")
        assert passes([text], "GET", "/hdr/1?q=1")
        assert not passes([text], "GET", "/hdr/1?q=/2")
        exact = to_b("{toPorts: [" + HTTP % "{path: /hdr}" + "]}")
        assert not passes([exact], "GET", "/hdr?q=1")
        assert passes([self.PAY], "POST", "/v1/payments?a=/b")

    def test_the_first_alternative_does_not_win(self):
        assert passes([to_b("{toPorts: [" + HTTP % "{path: '/a|/ab'}" + "]}")], "GET", "/ab")

    def test_host_and_headers(self):
        rule = "{host: 'pay\\.shop', headers: [x-a, 'X-B: 1', 'X-C 2'], headerMatches: [{name: X-D}, {name: X-E, value: '3'}, {name: X-F, value: '4', mismatch: LOG}]}"
        text = to_b("{toPorts: [" + HTTP % rule + "]}")
        good = {"x-a": ("",), "x-b": ("1",), "x-c": ("2",), "x-d": ("z",), "x-e": ("3",)}
        assert passes([text], "GET", "/", host="pay.shop", headers=good)
        assert not passes([text], "GET", "/", host="payxshop", headers=good)
        for name in good:
            assert not passes(
                [text], "GET", "/", host="pay.shop", headers={key: good[key] for key in good if key != name}
            )
        assert passes([text], "GET", "/", host="pay.shop", headers=good | {"x-b": ("0", "1")})
        assert not passes([text], "GET", "/", host="pay.shop", headers=good | {"x-e": ("0", "3")})
        assert not passes([text], "GET", "/", host="pay.shop", headers=good | {"x-e": ("4",)})

    @pytest.mark.parametrize("http", ["{}", "{path: ''}", "{method: '', headers: []}"])
    def test_an_empty_rule_allows_every_request(self, http):
        text = to_b("{toPorts: [" + HTTP % http + "]}")
        assert passes([text], "DELETE", "/anything")
        assert not reaches([text])  # and no other protocol

    def test_an_empty_list_allows_everything(self):
        assert passes([to_b("{toPorts: [" + HTTP % "" + "]}")], "DELETE", "/anything")

    def test_what_is_not_http_does_not_pass_a_port_with_http_rules(self):
        assert not reaches([self.PAY])

    @pytest.mark.parametrize("wire", [Wire.GRPC, Wire.WEBSOCKET])
    def test_what_is_http_inside_is_read_too(self, wire):
        assert passes([self.PAY], "POST", "/v1/payments", wire=wire)
        assert not passes([self.PAY], "POST", "/v1/refunds", wire=wire)

    def test_lists_of_one_peer_and_port_are_a_union(self):
        more = to_b(
            "{fromEndpoints: [{matchLabels: {app: a}}], toPorts: ["
            + HTTP % "{method: GET, path: /other}"
            + "]}"
        ).replace("name: p", "name: q")
        assert passes([self.PAY, more], "POST", "/v1/payments")
        assert passes([self.PAY, more], "GET", "/other")
        assert not passes([self.PAY, more], "GET", "/v1/payments")

    @pytest.mark.parametrize(
        "wide",
        [
            '{fromEndpoints: [{matchLabels: {app: a}}], toPorts: [{ports: [{port: "8080", protocol: TCP}]}]}',
            "{fromEndpoints: [{matchLabels: {app: a}}]}",
            "{fromEndpoints: [{}]}",
            "{fromEntities: [cluster]}",
            '{toPorts: [{ports: [{port: "8000", endPort: 9000, protocol: TCP}]}]}',
        ],
    )
    def test_an_allow_of_layer_4_absorbs_layer_7(self, wide):  # finding 7 of the notes
        text = to_b(wide).replace("name: p", "name: wide")
        assert passes([self.PAY, text], "DELETE", "/v1/anything")
        assert reaches([self.PAY, text])

    def test_an_allow_of_layer_4_for_somebody_else_absorbs_nothing(self):
        text = to_b(
            '{fromEndpoints: [{matchLabels: {app: c}}], toPorts: [{ports: [{port: "8080"}]}]}'
        ).replace("name: p", "name: wide")
        assert not passes([self.PAY, text], "DELETE", "/v1/anything")

    def test_a_network_policy_of_the_cluster_absorbs_layer_7(self):
        text = """
            apiVersion: networking.k8s.io/v1
            kind: NetworkPolicy
            metadata: {name: n, namespace: shop}
            spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}
        """
        assert passes([self.PAY, text], "DELETE", "/v1/anything")
        assert passes([text], "GET", "/", C)

    def test_it_is_enforced_even_where_default_deny_is_off(self):
        text = to_b(
            "{toPorts: [" + HTTP % "{method: GET}" + "]}", more=", enableDefaultDeny: {ingress: false}"
        )
        assert passes([text], "GET", "/")
        assert not passes([text], "POST", "/")
        assert passes([text], "POST", "/", port=9)

    def test_rules_at_the_source(self):
        text = from_a("{toEndpoints: [{matchLabels: {app: b}}], toPorts: [" + HTTP % "{method: GET}" + "]}")
        assert passes([text], "GET", "/")
        assert not passes([text], "POST", "/")

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("/v1/x/../payments", True),
            ("//v1//payments", True),
            ("/v1/%70ayments", True),
            ("/v1/./payments", True),
            ("/v1%2Fpayments", False),
            ("/v1\\payments", True),
            ("/v1/payments/..", False),
            ("/v1/payments#x", False),
            ("/v1/payments%00", False),
        ],
    )
    def test_paths_are_normalised_before(self, path, expected):
        # What passes reaches the service as /v1/payments; a path with an escaped slash is answered with a redirect.
        assert passes([self.PAY], "POST", path) is expected
        assert not passes([self.PAY], "POST", path, settings={"normalises": False})

    def test_an_expression_that_envoy_would_refuse_is_refused(self):  # pain 11
        long = "/(" + "|".join(f"{letter}{'x' * 9}" for letter in "abcdefghij") + ")"
        text = to_b("{toPorts: [" + HTTP % f"{{path: '{long}'}}" + "]}")
        with pytest.raises(InputError, match="instructions, and Envoy takes 100"):
            passes([text], "GET", "/")
        assert passes([text], "GET", "/axxxxxxxxx", settings={"max_program": None})

    def test_certificates_make_no_difference(self):  # pain 14: authentication is no mTLS
        text = to_b("{fromEndpoints: [{matchLabels: {app: a}}], authentication: {mode: required}}")
        assert passes([text], "GET", "/", peer=None)


class TestNames:
    DNS = """{toEndpoints: [{matchLabels: {'k8s:io.kubernetes.pod.namespace': kube-system, k8s-app: kube-dns}}],
              toPorts: [{ports: [{port: "53", protocol: ANY}], rules: {dns: [{matchPattern: "%s"}]}}]}"""

    def ask(self, names, dns="*", name="api.example.com", source=A, texts=(), **settings):
        rules = f"{{toFQDNs: [{names}], toPorts: [{{ports: [{{port: '443'}}]}}]}}" + (
            f", {self.DNS % dns}" if dns else ""
        )
        request = tcp(source, outside("198.51.100.7", name), 443, dns_name=name)
        return ask([from_a(rules), *texts], request, **settings).allowed

    def test_names_and_patterns(self):
        assert self.ask("{matchName: api.example.com}")
        assert self.ask("{matchName: API.example.com.}")
        assert not self.ask("{matchName: example.com}")
        assert not self.ask("{matchName: api.example.com}", name="xapi.example.com")
        assert self.ask('{matchPattern: "*.example.com"}')
        assert not self.ask('{matchPattern: "*.example.com"}', name="example.com")
        assert not self.ask('{matchPattern: "*.example.com"}', name="a.b.example.com")
        assert self.ask('{matchPattern: "a*.example.com"}')
        assert self.ask('{matchPattern: "*"}', name="anything.example")

    def test_without_a_dns_rule_of_the_same_pod_no_address_is_known(self):  # pain 12
        assert not self.ask("{matchName: api.example.com}", dns=None)
        assert not self.ask("{matchName: api.example.com}", dns="*.example.org")
        elsewhere = policy(
            f"{{endpointSelector: {{matchLabels: {{app: c}}}}, egress: [{self.DNS % '*'}]}}", "dns"
        )
        assert not self.ask("{matchName: api.example.com}", dns=None, texts=[elsewhere])
        same = policy(f"{{endpointSelector: {{}}, egress: [{self.DNS % '*'}]}}", "dns")
        assert self.ask("{matchName: api.example.com}", dns=None, texts=[same])

    def test_another_name_at_the_same_address_is_reachable(self):  # pain 13, cilium#31803
        same = {"api.example.com": ["198.51.100.7"], "evil.example": ["198.51.100.7"]}
        assert not self.ask("{matchName: api.example.com}", name="evil.example")
        assert self.ask("{matchName: api.example.com}", name="evil.example", addresses=same)
        other = {"api.example.com": ["198.51.100.8"]}
        assert not self.ask("{matchName: api.example.com}", name="evil.example", addresses=other)

    def test_pods_are_not_reached_by_name(self):
        text = from_a(f"{{toFQDNs: [{{matchPattern: '*'}}]}}, {self.DNS % '*'}")
        assert not ask([text], tcp(A, B, 443, dns_name="b.shop.svc")).allowed

    def test_the_dns_rule_lets_names_be_asked_and_nothing_else(self):
        dns = pod("dns", "kube-system", labels={"k8s-app": "kube-dns"})
        text = from_a(self.DNS % "*")
        assert reaches([text], A, dns, 53)
        assert not passes([text], "GET", "/", A, dns, port=53)
        assert not reaches([text], A, dns, 54)

    @pytest.mark.parametrize(
        ("servers", "name", "expected"),
        [
            ("api.example.com", "api.example.com", True),
            ("api.example.com", "API.example.com", True),
            ("api.example.com", "x.api.example.com", False),
            ("api.example.com", "evil.example", False),
            ("api.example.com", None, False),
            ("'*.example.com'", "api.example.com", True),
            ("'*.example.com'", "a.b.example.com", False),
            ("'*.example.com'", "example.com", False),
            ("'**.example.com'", "a.b.example.com", True),
        ],
    )
    def test_names_in_tls(self, servers, name, expected):
        text = from_a(
            f'{{toEntities: [world], toPorts: [{{ports: [{{port: "443", protocol: TCP}}], serverNames: [{servers}]}}]}}'
        )
        assert ask([text], tcp(A, outside(), 443, dns_name=name)).allowed is expected
        assert not ask(
            [text], call(A, outside(), port=443, dns_name=name)
        ).allowed  # without TLS there is no name
        assert not ask([text], tcp(A, outside(), 444, dns_name=name)).allowed

    def test_a_name_in_tls_binds_another_name_at_the_same_address(self):
        same = {"api.example.com": ["198.51.100.7"], "evil.example": ["198.51.100.7"]}
        names = "{matchName: api.example.com}], toPorts: [{ports: [{port: '443', protocol: TCP}], serverNames: [api.example.com]}]}, {toFQDNs: [{matchName: x.y}"
        assert self.ask(names, name="api.example.com", addresses=same)
        assert not self.ask(names, name="evil.example", addresses=same)

    def test_egress_to_blocks_and_the_world(self):
        assert reaches([from_a("{toCIDR: [198.51.100.0/24]}")], A, outside("198.51.100.7"))
        assert not reaches([from_a("{toCIDR: [198.51.100.0/24]}")], A, outside("203.0.113.1"))
        assert reaches([from_a("{toEntities: [world]}")], A, outside())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{ingress: [{}]}", "one of endpointSelector and nodeSelector"),
        ("{endpointSelector: {}, nodeSelector: {}}", "one of endpointSelector and nodeSelector"),
        ("{endpointSelector: {}, ingres: []}", "'ingres' is not known"),
        ("{endpointSelector: {}, ingress: [{fromEndpoint: []}]}", "'fromEndpoint' is not known"),
        ("{endpointSelector: {}, ingress: [{fromRequires: [{}]}]}", "fromRequires is not read"),
        ("{endpointSelector: {}, egress: [{toServices: []}]}", "toServices is not read"),
        ("{endpointSelector: {}, egress: [{toGroups: []}]}", "toGroups is not read"),
        ("{endpointSelector: {}, egress: [{toNodes: [{}]}]}", "toNodes is not read"),
        ("{endpointSelector: {}, ingress: [{toFQDNs: []}]}", "'toFQDNs' is not known"),
        ("{endpointSelector: {}, ingress: [{fromEndpoints: [{}], fromEntities: [all]}]}", "not combined"),
        ("{endpointSelector: {}, ingress: [{fromEntities: [everybody]}]}", "no entity"),
        ("{endpointSelector: {}, ingress: [{fromCIDR: [10.0.0.0/40]}]}", "no CIDR"),
        ("{endpointSelector: {}, ingress: [{fromCIDR: [ten]}]}", "neither a CIDR nor an address"),
        ("{endpointSelector: {}, ingress: [{fromCIDRSet: [{cidr: 10.0.0.1}]}]}", "no CIDR"),
        (
            "{endpointSelector: {}, ingress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [11.0.0.0/8]}]}]}",
            "no part of",
        ),
        ("{endpointSelector: {}, ingress: [{fromCIDRSet: [{cidrGroupRef: g}]}]}", "cidrGroupRef is not read"),
        ("{endpointSelector: {}, ingress: [{toPorts: [{}]}]}", "ports have to be there"),
        ("{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: 80}]}]}]}", "expected a text"),
        ('{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: "99999"}]}]}]}', "at most 65535"),
        (
            '{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: "no such name"}]}]}]}',
            "neither a port",
        ),
        (
            '{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: "80", protocol: HTTP}]}]}]}',
            "none of TCP",
        ),
        (
            '{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: "80"}], listener: {name: a}}]}]}',
            "listener is not read",
        ),
        (
            '{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: "80"}], rules: {http: [{}]}}]}]}',
            "TCP alone",
        ),
        (
            '{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: "0", protocol: TCP}], rules: {http: [{}]}}]}]}',
            "need a port",
        ),
        (
            '{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: "53"}], rules: {dns: [{matchName: a}]}}]}]}',
            "for egress",
        ),
        (
            '{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: "53", endPort: 54}], rules: {dns: [{matchName: a}]}}]}]}',
            "no ranges",
        ),
        (
            '{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {kafka: [{}]}}]}]}',
            "kafka is not read",
        ),
        (
            '{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{path: "("}]}}]}]}',
            "no end",
        ),
        (
            '{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{paths: "/"}]}}]}]}',
            "'paths' is not known",
        ),
        (
            '{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{headerMatches: [{name: a, secret: {name: s}}]}]}}]}]}',
            "secret",
        ),
        ("{endpointSelector: {}, egress: [{toFQDNs: [{}]}]}", "one of matchName and matchPattern"),
        ('{endpointSelector: {}, egress: [{toFQDNs: [{matchPattern: "**.x"}]}]}', "is not read here"),
        ("{endpointSelector: {}, ingress: [{authentication: {mode: test-always-fail}}]}", "a mode for tests"),
        (
            "{endpointSelector: {}, ingress: [{icmps: [{}], toPorts: [{ports: [{port: '1'}]}]}]}",
            "without toPorts",
        ),
        ("null", "neither spec nor specs"),
    ],
)
def test_what_cilium_rejects_or_nobody_reads_is_refused(spec, message):
    with pytest.raises(InputError, match=message):
        reaches([policy(spec)])


def test_other_versions_and_groups_of_networks_are_refused():
    with pytest.raises(InputError, match=r"cilium\.io/v2 is read"):
        reaches([policy("{endpointSelector: {}}").replace("cilium.io/v2", "cilium.io/v1")])
    with pytest.raises(InputError, match="not read here"):
        reaches(
            [
                "apiVersion: cilium.io/v2\nkind: CiliumCIDRGroup\nmetadata: {name: g}\nspec: {externalCIDRs: []}"
            ]
        )


def test_the_answer_names_the_policy():
    assert ask([policy(B_FROM_A)], tcp(A, B)).by == "CiliumNetworkPolicy shop/p"
    assert ask([policy(B_FROM_A)], tcp(C, B)).by == "CiliumNetworkPolicy shop/p"
    assert ask([TestHttp.PAY], call(A, B)).why == "no rule of layer 7 allows the ingress: 403"


@pytest.mark.parametrize(
    ("ports", "message"),
    [
        ('{ports: [{port: "80", protocol: TCP}], rules: {http: [{headers: [":"]}]}}', "a header has a name"),
        ('{ports: [{port: "80", protocol: TCP}], serverNames: ["a b"]}', "no server name"),
        (
            '{ports: [{port: "80", protocol: TCP}], serverNames: [a], rules: {http: [{}]}}',
            "TLS to end at the proxy",
        ),
        ('{ports: [{port: "80", protocol: TCP}], rules: {http: [{}], dns: []}}', "one kind of layer 7"),
        ("{ports: [" + ", ".join(["{port: '80'}"] * 41) + "]}", "at most 40 ports"),
    ],
)
def test_ports_that_cilium_rejects_are_refused(ports, message):
    with pytest.raises(InputError, match=message):
        reaches([from_a(f"{{toPorts: [{ports}]}}")])


def test_more_that_cilium_rejects_is_refused():
    with pytest.raises(InputError, match="no name"):
        reaches([from_a("{toFQDNs: [{matchName: 'a b'}]}")])
    with pytest.raises(InputError, match="specs: expected a list"):
        reaches([policy(B_FROM_A) + "specs: {a: 1}\n"])


def test_more_questions_than_are_remembered_are_answered_all_the_same(monkeypatch):
    monkeypatch.setattr("everyhop.evaluators.cilium.evaluator._MAX_REMEMBERED", 2)
    monkeypatch.setattr("everyhop.evaluators.pods._MAX_REMEMBERED", 2)
    evaluator = CiliumEvaluator(manifests(policy(B_FROM_A)))
    answers = [evaluator.evaluate(tcp(source, B)).allowed for source in (A, C, FAR, A, C, FAR)]
    assert answers == [True, False, False] * 2
