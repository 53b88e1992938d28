# SPDX-License-Identifier: Apache-2.0
"""Linkerd: servers, routes, authorizations, and who a client is."""

import pytest
from tests.support.meshes import call, manifests, outside, pod, tcp

from everyhop.core.errors import InputError
from everyhop.evaluators.linkerd import LinkerdEvaluator, Mesh
from everyhop.evaluators.model import Wire

A, B, C = pod("a"), pod("b"), pod("c")
FAR = pod("a", "other")
FOREIGN = "spiffe://evil.example/ns/shop/sa/a"


def obj(kind, name, spec, version="policy.linkerd.io/v1alpha1", namespace="shop", more=""):
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}{more}}}\nspec: {spec}\n"


def server(name="b", port=8080, more="", labels="", **further):
    spec = f"{{podSelector: {{matchLabels: {{app: b}}}}, port: {port}{more}}}"
    return obj("Server", name, spec, "policy.linkerd.io/v1beta3", more=labels, **further)


def route(name, matches, more="", parent="b", made=None, rules=None):
    rules = f"[{{matches: [{matches}]}}]" if rules is None else rules
    spec = (
        f"{{parentRefs: [{{group: policy.linkerd.io, kind: Server, name: {parent}}}], rules: {rules}{more}}}"
    )
    return obj(
        "HTTPRoute",
        name,
        spec,
        "policy.linkerd.io/v1beta3",
        more=f", creationTimestamp: '{made}'" if made else "",
    )


def grpc(name, matches, **more):
    text = route(name, matches, **more).replace("HTTPRoute", "GRPCRoute")
    return text.replace("policy.linkerd.io/v1beta3", "gateway.networking.k8s.io/v1")


def authz(name, target, refs, namespace="shop"):
    return obj(
        "AuthorizationPolicy",
        name,
        f"{{targetRef: {target}, requiredAuthenticationRefs: [{refs}]}}",
        namespace=namespace,
    )


def meshtls(name, *identities, key="identities"):
    return obj("MeshTLSAuthentication", name, f"{{{key}: [{', '.join(identities)}]}}")


def account(name="a", namespace="shop"):
    return f"{name}.{namespace}.serviceaccount.identity.linkerd.cluster.local"


SERVER = "{group: policy.linkerd.io, kind: Server, name: b}"
NAMESPACE = "{kind: Namespace, name: shop}"


def of_route(name):
    return f"{{group: policy.linkerd.io, kind: HTTPRoute, name: {name}}}"


TLS_A = "{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: a}"
ONLY_A = (meshtls("a", account()), authz("a", SERVER, TLS_A))
PAY = "{path: {type: Exact, value: /v1/payments}, method: POST}"


def ask(texts, request, **settings):
    return LinkerdEvaluator(manifests(*texts), **settings).evaluate(request)


def passes(texts, method="GET", path="/", source=A, target=B, *, settings=None, **more):
    return ask(texts, call(source, target, method, path, **more), **(settings or {})).allowed


class TestDefaultPolicy:
    @pytest.mark.parametrize(
        ("mode", "meshed", "plain", "foreign_address"),
        [
            ("all-unauthenticated", True, True, True),
            ("audit", True, True, True),
            ("all-authenticated", True, False, False),
            ("cluster-unauthenticated", True, True, False),
            ("cluster-authenticated", True, False, False),
            ("deny", False, False, False),
        ],
    )
    def test_modes(self, mode, meshed, plain, foreign_address):
        settings = {"default_inbound_policy": mode}
        assert passes([], settings=settings) is meshed
        assert passes([], peer=None, settings=settings) is plain
        assert passes([], source=outside(), peer=None, settings=settings) is foreign_address

    def test_authenticated_is_any_trusted_certificate(self):
        assert passes([], peer=FOREIGN, settings={"default_inbound_policy": "all-authenticated"})
        # An identity which is no name of the mesh is a URI, and those match no suffix, `*` among them.
        assert not passes(
            [], peer="spiffe://cluster.local/x", settings={"default_inbound_policy": "all-authenticated"}
        )

    def test_annotations_of_the_namespace_and_of_the_pod(self):
        space = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {config.linkerd.io/default-inbound-policy: deny}}\n"
        workload = """
            apiVersion: apps/v1
            kind: Deployment
            metadata: {name: b, namespace: shop}
            spec:
              template:
                metadata:
                  labels: {app: b}
                  annotations: {config.linkerd.io/default-inbound-policy: all-authenticated}
                spec: {serviceAccountName: b, containers: []}
        """
        assert not passes([space])
        assert passes([space], target=FAR)
        assert passes([space, workload])
        assert not passes([space, workload], peer=None)
        with pytest.raises(InputError, match="none of all-authenticated"):
            passes([space.replace(": deny", ": allow")])

    def test_ports_that_require_identity(self):
        space = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {config.linkerd.io/proxy-require-identity-inbound-ports: '8000-8080,9'}}\n"
        assert not passes([space], peer=None)
        assert not passes([space], peer=None, port=9)
        assert passes([space], peer=None, port=10)
        assert passes([space])

    def test_ports_that_go_past_the_proxy_and_pods_without_one_admit_everybody(self):
        space = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {%s}}\n"
        closed = (server(), *ONLY_A)
        assert not passes(closed, source=C)
        assert passes([*closed, space % "config.linkerd.io/skip-inbound-ports: '8080'"], source=C, peer=None)
        assert passes([*closed, space % "linkerd.io/inject: disabled"], source=C, peer=None)
        assert not passes([*closed, space % "linkerd.io/inject: enabled"], source=C, peer=None)

    def test_probes_of_the_pod_are_open_to_probe_networks(self):
        workload = """
            apiVersion: v1
            kind: Pod
            metadata: {name: b, namespace: shop, labels: {app: b}}
            spec:
              containers:
                - name: b
                  ports: [{name: http, containerPort: 8080}]
                  readinessProbe: {httpGet: {path: '/ready?x=1', port: http}}
                  livenessProbe: {httpGet: {path: /live, port: 8080}}
        """
        settings = {"default_inbound_policy": "deny", "probe_networks": ["192.168.0.0/16"]}
        kubelet = outside("192.168.7.1")
        assert passes([workload], path="/ready", source=kubelet, peer=None, settings=settings)
        assert passes([workload], path="/live?y=2", source=kubelet, peer=None, settings=settings)
        assert not passes([workload], path="/live/", source=kubelet, peer=None, settings=settings)
        assert not passes([workload], "POST", "/live", source=kubelet, peer=None, settings=settings)
        assert not passes([workload], path="/live", source=A, settings=settings)
        with_server = [workload, server(), *ONLY_A]
        assert passes(with_server, path="/live", source=kubelet, peer=None, settings=settings)
        # Semantics 4 (linkerd2#8945): as soon as one route attaches, the routes for probes are gone.
        with_route = [*with_server, route("pay", PAY)]
        assert not passes(with_route, path="/live", source=kubelet, peer=None, settings=settings)


class TestServers:
    def test_a_server_admits_nobody_by_itself(self):
        assert not passes([server()])
        assert not passes([server()], settings={"default_inbound_policy": "all-unauthenticated"})

    @pytest.mark.parametrize(
        ("mode", "meshed", "plain"),
        [
            ("all-unauthenticated", True, True),
            ("all-authenticated", True, False),
            ("audit", True, True),
            ("deny", False, False),
        ],
    )
    def test_its_access_policy_admits(self, mode, meshed, plain):
        texts = [server(more=f", accessPolicy: {mode}")]
        assert passes(texts) is meshed
        assert passes(texts, peer=None) is plain

    def test_it_is_for_its_port_and_pods_and_namespace(self):
        texts = (server(), *ONLY_A)
        assert passes(texts)
        assert not passes(texts, source=C)
        assert passes(texts, source=C, port=8081)  # the default policy
        assert passes(texts, source=C, target=C)
        assert passes(texts, source=C, target=pod("b", "other"))

    def test_a_named_port(self):
        assert not passes([server(port="http")], settings={"named_ports": {"http": 8080}})
        assert passes([server(port="http")], port=9, settings={"named_ports": {"http": 8080}})
        with pytest.raises(InputError, match="nothing says which number"):
            passes([server(port="http")])

    def test_of_two_for_one_port_the_oldest_has_it(self):
        young = server(
            "a-young",
            labels=", creationTimestamp: '2026-02-02T00:00:00Z'",
            more=", accessPolicy: all-authenticated",
        )
        old = server("z-old", labels=", creationTimestamp: '2026-01-01T00:00:00Z'")
        assert not passes([young, old])
        assert passes([young.replace("2026-02-02", "2025-02-02"), old])
        assert passes(
            [server("a", more=", accessPolicy: all-authenticated"), server("b")]
        )  # then the first by name

    @pytest.mark.parametrize(
        ("protocol", "http", "connection"),
        [
            ("unknown", True, True),
            ("HTTP/1", True, False),
            ("HTTP/2", True, False),
            ("opaque", True, True),
            ("TLS", True, True),
        ],
    )
    def test_protocols(self, protocol, http, connection):
        texts = [server(more=f", proxyProtocol: {protocol}"), *ONLY_A]
        assert passes(texts) is http
        assert ask(texts, tcp(A, B)).allowed is connection
        assert not passes(texts, source=C)
        assert not ask(texts, tcp(C, B)).allowed

    def test_nothing_of_routes_is_read_on_an_opaque_port(self):
        texts = [server(more=", proxyProtocol: opaque"), *ONLY_A, route("pay", PAY)]
        assert passes(texts, "DELETE", "/anything")

    def test_the_pod_itself_comes_in(self):
        assert passes([server()], source=pod("b", ip="127.0.0.1"), peer=None)


class TestIdentities:
    def admits(self, identity, source=A, **more):
        return passes([server(), meshtls("a", identity), authz("a", SERVER, TLS_A)], source=source, **more)

    def test_whole_names(self):
        assert self.admits(account())
        assert not self.admits(account("b"))
        assert not self.admits(account(), C)
        assert not self.admits(account(), FAR)
        assert not self.admits(account(), peer=None)
        assert not self.admits(account(), peer=FOREIGN)
        assert not self.admits(account(), pod("a", account="thief"))  # labels are nothing here

    def test_names_by_how_they_end(self):
        every = "'*.shop.serviceaccount.identity.linkerd.cluster.local'"
        assert self.admits(every)
        assert not self.admits(every, FAR)
        assert self.admits("'*.cluster.local'", FAR)
        assert not self.admits("'*.cluster.local'", peer="spiffe://evil-cluster.local/ns/shop/sa/a")
        assert not self.admits("'*.identity.linkerd'", A)

    def test_every_name(self):
        assert self.admits("'*'")
        assert self.admits("'*'", peer=FOREIGN)  # of a foreign trust domain too, where anchors are shared
        assert not self.admits("'*'", peer=None)

    def test_other_spiffe_ids_match_as_a_whole_alone(self):
        vm = "spiffe://cluster.local/vm/legacy"
        assert self.admits(vm, peer=vm)
        assert not self.admits("'*'", peer=vm)
        # A pod's certificate has its DNS name, not its SPIFFE ID.
        assert not self.admits("spiffe://cluster.local/ns/shop/sa/a")

    def test_references(self):
        def admits(ref, source=A):
            return passes(
                [server(), meshtls("a", ref, key="identityRefs"), authz("a", SERVER, TLS_A)], source=source
            )

        assert admits("{kind: ServiceAccount, name: a}")
        assert not admits("{kind: ServiceAccount, name: a}", FAR)
        assert admits("{kind: ServiceAccount, name: a, namespace: other}", FAR)
        assert admits("{kind: Namespace, name: shop}", C)
        assert not admits("{kind: Namespace, name: shop}", FAR)

    def test_settings_of_the_mesh(self):
        mesh = Mesh(control_plane_namespace="l5d", trust_domain="shop.example")
        texts = [
            server(),
            meshtls("a", "a.shop.serviceaccount.identity.l5d.shop.example"),
            authz("a", SERVER, TLS_A),
        ]
        assert passes(texts, peer="spiffe://shop.example/ns/shop/sa/a", settings={"mesh": mesh})
        assert not passes(texts, settings={"mesh": mesh})
        assert not passes(texts, peer="spiffe://shop.example/ns/shop/sa/a")

    @pytest.mark.parametrize(
        "identity",
        [
            "'a*.x'",
            "'*x'",
            "a..b",
            "a.",
            "A.b",
            "spiffe://",
            "spiffe://td/",
            "spiffe://td//a",
            "spiffe://td/../a",
            "''",
        ],
    )
    def test_what_the_webhook_rejects_is_refused(self, identity):
        with pytest.raises(InputError, match="neither a SPIFFE ID nor a name"):
            self.admits(identity)


class TestAuthorizationPolicies:
    def test_no_required_authentication_is_everybody(self):  # finding 6 of the notes
        texts = [server(), authz("open", SERVER, "")]
        assert passes(texts, source=outside(), peer=None)
        assert ask(texts, call(C, B, peer=None)).by == "AuthorizationPolicy shop/open"

    def test_required_authentications_are_anded(self):
        network = obj("NetworkAuthentication", "n", "{networks: [{cidr: 10.0.0.0/8, except: [10.9.0.0/16]}]}")
        refs = TLS_A + ", {group: policy.linkerd.io, kind: NetworkAuthentication, name: n}"
        texts = [server(), meshtls("a", account()), network, authz("a", SERVER, refs)]
        assert passes(texts)
        assert not passes(texts, source=pod("a", ip="192.168.0.1"))
        assert not passes(texts, source=pod("a", ip="10.9.1.1"))
        assert not passes(texts, source=C)

    def test_policies_are_ored(self):
        more = (meshtls("c", account("c")), authz("c", SERVER, TLS_A.replace("name: a", "name: c")))
        texts = [server(), *ONLY_A, *more]
        assert passes(texts)
        assert passes(texts, source=C)
        assert not passes(texts, source=FAR)

    def test_a_reference_that_leads_nowhere_admits_nobody(self):  # pain 10
        texts = [server(), authz("a", SERVER, TLS_A)]
        assert not passes(texts)
        assert not passes(
            [
                server(),
                meshtls("a", account()),
                authz(
                    "a",
                    SERVER,
                    TLS_A + ", {group: policy.linkerd.io, kind: NetworkAuthentication, name: typo}",
                ),
            ]
        )
        elsewhere = TLS_A.replace("}", ", namespace: other}")
        assert not passes([server(), meshtls("a", account()), authz("a", SERVER, elsewhere)])

    def test_an_account_may_be_required_without_an_object(self):
        assert passes([server(), authz("a", SERVER, "{kind: ServiceAccount, name: a}")])
        assert not passes([server(), authz("a", SERVER, "{kind: ServiceAccount, name: a}")], source=C)

    def test_a_namespace_is_a_target_for_all_its_servers(self):
        texts = [server(), meshtls("a", account()), authz("a", NAMESPACE, TLS_A)]
        assert passes(texts)
        assert not passes(texts, source=C)
        assert not passes([*texts], port=9, settings={"default_inbound_policy": "deny"})  # no server there

    def test_a_policy_of_another_namespace_counts_for_nothing(self):
        assert not passes([server(), authz("a", SERVER, "", namespace="other")])

    @pytest.mark.parametrize(
        ("target", "refs", "message"),
        [
            ("{kind: Namespace, name: other}", "", "another namespace"),
            ("{kind: Service, name: b}", "", "service of core is no target"),
            ("{kind: Server, name: b}", "", "server of core is no target"),
            ("{group: policy.linkerd.io, kind: Server}", "", "no target"),
            (SERVER, "{group: policy.linkerd.io, kind: Server, name: b}", "no authentication"),
            (SERVER, TLS_A + ", " + TLS_A, "at most"),
            (SERVER, TLS_A + ", {kind: ServiceAccount, name: a}", "at most"),
            (SERVER, "{name: a}", "kind is missing"),
        ],
    )
    def test_what_the_webhook_rejects_is_refused(self, target, refs, message):
        with pytest.raises(InputError, match=message):
            passes([server(), meshtls("a", account()), authz("a", target, refs)])


class TestLegacy:
    def legacy(self, client, choice="{name: b}"):
        return obj(
            "ServerAuthorization", "l", f"{{server: {choice}, client: {client}}}", "policy.linkerd.io/v1beta1"
        )

    def test_clients(self):
        meshed = self.legacy(f"{{meshTLS: {{identities: [{account()}]}}}}")
        assert passes([server(), meshed])
        assert not passes([server(), meshed], source=C)
        accounts = self.legacy("{meshTLS: {serviceAccounts: [{name: a}, {name: a, namespace: other}]}}")
        assert passes([server(), accounts], source=FAR)
        any_tls = self.legacy("{meshTLS: {unauthenticatedTLS: true}}")
        assert passes([server(), any_tls], source=C)
        assert not passes([server(), any_tls], peer=None)

    def test_without_networks_the_clusters_are_meant(self):
        texts = [server(), self.legacy("{unauthenticated: true}")]
        assert passes(texts, peer=None)
        assert not passes(texts, source=outside(), peer=None)
        everywhere = self.legacy("{unauthenticated: true, networks: [{cidr: 0.0.0.0/0}]}")
        assert passes([server(), everywhere], source=outside(), peer=None)

    def test_servers_by_labels(self):
        chosen = self.legacy("{unauthenticated: true}", "{selector: {matchLabels: {tier: x}}}")
        assert not passes([server(), chosen])
        assert passes([server(labels=", labels: {tier: x}"), chosen])

    def test_a_client_without_authentication_admits_nobody(self):
        assert not passes([server(), self.legacy("{networks: [{cidr: 10.0.0.0/8}]}")])
        assert not passes([server(), self.legacy("{meshTLS: {}}")])

    def test_it_widens_every_route(self):
        texts = [server(), route("pay", PAY), self.legacy("{unauthenticated: true}")]
        assert passes(texts, "POST", "/v1/payments", peer=None)


class TestRoutes:
    ONLY_A = (meshtls("a", account()), authz("a", of_route("pay"), TLS_A))

    def test_a_route_and_its_clients(self):
        texts = [server(), route("pay", PAY), *self.ONLY_A]
        assert passes(texts, "POST", "/v1/payments")
        assert passes(texts, "POST", "/v1/payments?q=1")
        assert not passes(texts, "POST", "/v1/payments", source=C)
        assert not passes(texts, "POST", "/v1/payments", peer=None)

    def test_no_match_is_404(self):
        texts = [server(), route("pay", PAY), *self.ONLY_A]
        for method, path in (
            ("GET", "/v1/payments"),
            ("POST", "/v1/payments/"),
            ("POST", "/v1/payments/7"),
            ("POST", "/"),
        ):
            outcome = ask(texts, call(A, B, method, path))
            assert (outcome.allowed, outcome.why) == (False, "no route matches: 404")

    def test_what_is_no_http_passes_by_the_servers_authorizations(self):
        texts = [server(), route("pay", PAY), *self.ONLY_A]
        assert not ask(texts, tcp(A, B)).allowed
        assert ask([*texts, authz("s", SERVER, TLS_A)], tcp(A, B)).allowed

    @pytest.mark.parametrize("target", [SERVER, NAMESPACE])
    def test_a_policy_for_the_server_widens_every_route(self, target):  # semantics 3 of the notes
        texts = [server(), route("pay", PAY), *self.ONLY_A, meshtls("c", account("c"))]
        assert not passes(texts, "POST", "/v1/payments", source=C)
        wide = authz("wide", target, TLS_A.replace("name: a", "name: c"))
        assert passes([*texts, wide], "POST", "/v1/payments", source=C)
        assert passes([*texts, wide], "POST", "/v1/payments")
        assert not passes([*texts, wide], "GET", "/other", source=C)  # still no route

    def test_exactly_one_route_counts(self):
        wide = route("every", "{path: {type: PathPrefix, value: /}}")
        opened = authz("open", of_route("every"), "")
        texts = [server(), route("pay", PAY), *self.ONLY_A, wide, opened]
        assert not passes(texts, "POST", "/v1/payments", source=C)  # the more specific one is closed to c
        assert passes(texts, "GET", "/v1/payments", source=C)

    @pytest.mark.parametrize(
        ("better", "worse"),
        [
            ("{path: {value: /v1/payments}}", "{path: {value: /v1}}"),
            (
                "{path: {type: Exact, value: /v1/payments}, method: POST}",
                "{path: {type: Exact, value: /v1/payments}}",
            ),
            (
                "{path: {value: /v1}, headers: [{name: x, value: '1'}]}",
                "{path: {value: /v1}, queryParams: [{name: q, value: '1'}]}",
            ),
            (
                "{path: {value: /v1}, queryParams: [{name: q, value: '1'}]}",
                "{path: {value: /v1}, method: POST}",
            ),
            ("{path: {value: /v1}}", "{method: POST}"),
            ("{path: {type: RegularExpression, value: '/v1/.*'}}", "{path: {value: /v1}}"),
        ],
    )
    def test_the_better_match_counts(self, better, worse):
        for first, second in (("a", "b"), ("b", "a")):
            texts = [server(), route(first, better), route(second, worse), authz("open", of_route(first), "")]
            request = call(C, B, "POST", "/v1/payments?q=1", headers={"x": ("1",)})
            assert ask(texts, request).allowed
            closed = [
                server(),
                route(first, better),
                route(second, worse),
                authz("open", of_route(second), ""),
            ]
            assert not ask(closed, request).allowed

    def test_among_equals_the_oldest_counts_then_the_first_by_name(self):
        def opened(which, old=None, young=None):
            texts = [
                route("a", PAY, made=young),
                route("z", PAY, made=old),
                server(),
                authz("open", of_route(which), ""),
            ]
            return passes(texts, "POST", "/v1/payments", source=C)

        assert opened("a")
        assert not opened("z")
        assert opened("z", "2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z")
        assert opened("z", "2025-01-01T00:00:00Z")  # one with a time goes before one without
        assert not opened("a", "2025-01-01T00:00:00Z")

    def test_an_exact_path_is_no_better_than_an_expression_of_the_same_length(self):
        # PathMatch compares lengths alone, so the name decides here.
        texts = [
            server(),
            route("b", "{path: {type: Exact, value: /v1}}"),
            route("a", "{path: {type: RegularExpression, value: '/v.'}}"),
        ]
        assert passes([*texts, authz("open", of_route("a"), "")], path="/v1", source=C)
        assert not passes([*texts, authz("open", of_route("b"), "")], path="/v1", source=C)

    def test_hosts(self):
        texts = [server(), route("pay", PAY, more=", hostnames: [pay.shop, '*.example.com']"), *self.ONLY_A]
        for host, expected in {
            "pay.shop": True,
            "PAY.shop:8080": True,
            "pay.shop.": True,
            "x.pay.shop": False,
            "": False,
            "a.example.com": True,
            "a.b.example.com": True,
            "example.com": False,
            "evilexample.com": False,
        }.items():
            assert passes(texts, "POST", "/v1/payments", host=host) is expected, host

    def test_a_whole_host_is_better_than_a_pattern_and_that_than_none(self):
        texts = [
            server(), route("a", PAY), route("b", PAY, more=", hostnames: ['*.example.com']"), route("c", PAY, more=", hostnames: [a.example.com]"),
        ]  # fmt: skip
        for name, host in (("c", "a.example.com"), ("b", "b.example.com"), ("a", "c.example")):
            for other in "abc":
                opened = [*texts, authz("open", of_route(other), "")]
                assert passes(opened, "POST", "/v1/payments", source=C, host=host) is (other == name)

    def test_headers_and_parameters(self):
        match = "{headers: [{name: X-A, value: '1'}, {name: x-b, type: RegularExpression, value: '[0-9]+'}], queryParams: [{name: q, value: a b}]}"
        texts = [server(), route("pay", match), *self.ONLY_A]
        good = {"x-a": ("0", "1"), "x-b": ("12",)}
        assert passes(texts, path="/?q=a+b", headers=good)
        assert passes(texts, path="/?q=x&q=a%20b", headers=good)
        assert not passes(texts, path="/?q=a", headers=good)
        assert not passes(texts, path="/", headers=good)
        assert not passes(texts, path="/?q=a+b", headers={"x-a": ("1",)})
        assert not passes(texts, path="/?q=a+b", headers=good | {"x-b": ("12x",)})

    @pytest.mark.parametrize(
        ("prefix", "path", "expected"),
        [
            ("/v1", "/v1", True),
            ("/v1", "/v1/", True),
            ("/v1", "/v1/x", True),
            ("/v1", "/v1x", False),  # by segment, unlike Istio's
            ("/v1/", "/v1", True),
            ("/v1/", "/v1/x", True),
            ("/v1", "/V1", False),
            ("/v1", "//v1", False),
            ("/", "/anything", True),
        ],
    )
    def test_prefixes_are_by_segment(self, prefix, path, expected):
        texts = [server(), route("pay", f"{{path: {{type: PathPrefix, value: {prefix}}}}}"), *self.ONLY_A]
        assert passes(texts, path=path) is expected

    @pytest.mark.parametrize(
        ("expression", "path", "expected"),
        [
            (
                "/a|/ab",
                "/ab",
                False,
            ),  # semantics 6 of the notes: the first alternative wins, and does not span the path
            ("/ab|/a", "/ab", True),
            ("^(?:/a|/ab)$", "/ab", True),
            ("/v1/[^/]+", "/v1/7?q=/", True),  # the query is no part of the path
            ("/v1/[^/]+", "/v1/7/8", False),
            ("v1", "/v1", False),
            ("/v1", "/v1/", False),
        ],
    )
    def test_expressions_span_the_path(self, expression, path, expected):
        texts = [
            server(),
            route("pay", f"{{path: {{type: RegularExpression, value: '{expression}'}}}}"),
            *self.ONLY_A,
        ]
        assert passes(texts, path=path) is expected

    def test_paths_are_not_normalised(self):
        texts = [server(), route("pay", PAY), *self.ONLY_A]
        for path in ("//v1/payments", "/v1/x/../payments", "/v1/%70ayments", "/v1%2Fpayments"):
            assert not passes(texts, "POST", path)
        assert passes(texts, "POST", "/v1/payments#x")  # the fragment is cut off, and not passed on
        assert ask(texts, call(A, B, "POST", "/v1/<x>")).why == "this is no HTTP: 400"

    @pytest.mark.parametrize("rules", ["[{matches: []}]", "[{}]", "[{matches: [{}]}]", "null"])
    def test_rules_without_matches_match_everything(self, rules):
        assert passes([server(), route("pay", "", rules=rules), *self.ONLY_A], "DELETE", "/x")

    def test_a_route_without_rules_takes_the_server_and_matches_nothing(self):
        assert not passes([server(), route("pay", "", rules="[]"), *self.ONLY_A, authz("s", SERVER, TLS_A)])

    def test_routes_for_other_servers_are_not_attached(self):
        texts = [server(), *ONLY_A, route("pay", PAY, parent="other")]
        assert passes(texts, "DELETE", "/anything")

    def test_routes_of_the_gateway_api(self):
        text = route("pay", PAY).replace("policy.linkerd.io/v1beta3", "gateway.networking.k8s.io/v1")
        target = of_route("pay").replace("policy.linkerd.io", "gateway.networking.k8s.io")
        texts = [server(), text, meshtls("a", account())]
        assert passes([*texts, authz("a", target, TLS_A)], "POST", "/v1/payments")
        assert not passes(
            [*texts, authz("a", of_route("pay"), TLS_A)], "POST", "/v1/payments"
        )  # another group

    def test_rate_limits_count_for_nothing(self):
        limit = obj(
            "HTTPLocalRateLimitPolicy", "l", f"{{targetRef: {SERVER}, total: {{requestsPerSecond: 1}}}}"
        )
        assert passes([server(), *ONLY_A, limit])

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ("{path: {type: RegularExpression, value: '('}}", "no end"),
            ("{path: {type: Exact, value: v1}}", "starts with a slash"),
            ("{path: {type: Glob, value: /}}", "none of Exact"),
            ("{method: get}", "none of GET"),
            ("{paths: {}}", "'paths' is not known"),
        ],
    )
    def test_matches_that_are_rejected_are_refused(self, more, message):
        with pytest.raises(InputError, match=message):
            passes([server(), route("pay", more)])

    def test_parents_that_are_rejected_are_refused(self):
        text = route("pay", PAY)
        for more, message in (
            (", port: 8080", "no parent by its port"),
            (", namespace: other", "another namespace"),
            (", sectionName: x", "section"),
        ):
            with pytest.raises(InputError, match=message):
                passes([server(), text.replace("name: b}", f"name: b{more}}}")])

    def test_filters_that_answer_are_refused(self):
        redirect = "[{filters: [{type: RequestRedirect, requestRedirect: {hostname: x}}]}]"
        with pytest.raises(InputError, match="RequestRedirect is not read"):
            passes([server(), route("pay", "", rules=redirect)])
        modify = (
            "[{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {}}], timeouts: {request: 1s}}]"
        )
        assert passes([server(), route("pay", "", rules=modify), *self.ONLY_A])


class TestGrpc:
    SERVER = server(more=", proxyProtocol: gRPC")
    TARGET = "{group: gateway.networking.k8s.io, kind: GRPCRoute, name: pay}"
    ONLY_A = (meshtls("a", account()), authz("a", TARGET, TLS_A))

    def calls(self, texts, path, source=A, method="POST"):
        return passes(texts, method, path, source=source, wire=Wire.GRPC)

    def test_services_and_methods(self):
        texts = [self.SERVER, grpc("pay", "{method: {service: shop.Pay, method: Charge}}"), *self.ONLY_A]
        assert self.calls(texts, "/shop.Pay/Charge")
        assert not self.calls(texts, "/shop.Pay/Refund")
        assert not self.calls(texts, "/shop.Pay/Charge", C)
        assert not self.calls(texts, "/shop.Pay/Charge", method="GET")
        assert self.calls(texts, "/shop.Pay/Charge/more")  # what follows is not looked at
        assert not self.calls(texts, "/shop.Pay")

    def test_the_more_specific_route_counts(self):
        wide = grpc("wide", "{method: {service: shop.Pay}}")
        texts = [
            self.SERVER,
            grpc("pay", "{method: {service: shop.Pay, method: Charge}}"),
            wide,
            *self.ONLY_A,
        ]
        opened = authz("open", self.TARGET.replace("name: pay", "name: wide"), "")
        assert self.calls([*texts, opened], "/shop.Pay/Refund", C)
        assert not self.calls([*texts, opened], "/shop.Pay/Charge", C)

    def test_without_a_route_every_call_is_the_servers(self):
        assert self.calls([self.SERVER, *ONLY_A], "/any.Service/Method")
        assert not passes([self.SERVER, *ONLY_A], "GET", "/")

    def test_http_routes_count_for_nothing_on_a_server_of_grpc(self):
        texts = [self.SERVER, *ONLY_A, route("pay", PAY)]
        assert self.calls(texts, "/any.Service/Method")

    def test_a_grpc_route_on_a_server_of_http_unbinds_its_routes(self):
        # The HTTPRoute is in conflict and not accepted; what is left are the server's authorizations, on every path.
        texts = [
            server(),
            route("pay", PAY),
            *TestRoutes.ONLY_A,
            grpc("g", "{method: {service: x}}"),
            authz("s", SERVER, TLS_A),
        ]
        assert passes(texts, "DELETE", "/anything")
        assert not passes(texts, "POST", "/v1/payments", source=C)

    def test_a_rule_without_matches_takes_everything(self):
        assert passes([self.SERVER, grpc("pay", "", rules="[{}]"), *self.ONLY_A], "GET", "/")

    def test_what_the_proxy_refuses_is_refused(self):
        for match, message in (
            ("{headers: []}", "no match without a method"),
            ("{method: {type: RegularExpression, service: x}}", "by their names"),
        ):
            with pytest.raises(InputError, match=message):
                passes([self.SERVER, grpc("pay", match)])


class TestEgress:
    def network(self, policy="Deny", name="all", namespace="shop", networks="", made=""):
        spec = f"{{trafficPolicy: {policy}{networks}}}"
        return obj(
            "EgressNetwork",
            name,
            spec,
            namespace=namespace,
            more=f", creationTimestamp: '{made}'" if made else "",
        )

    def to(
        self,
        kind,
        hosts,
        port=443,
        name="r",
        rules="[{backendRefs: [{group: policy.linkerd.io, kind: EgressNetwork, name: all}]}]",
        namespace="shop",
    ):
        version = (
            "gateway.networking.k8s.io/v1" if kind == "HTTPRoute" else "gateway.networking.k8s.io/v1alpha2"
        )
        parents = f"[{{group: policy.linkerd.io, kind: EgressNetwork, name: all, port: {port}}}]"
        names = f"hostnames: [{hosts}], " if hosts else ""
        return obj(
            kind, name, f"{{{names}parentRefs: {parents}, rules: {rules}}}", version, namespace=namespace
        )

    def leaves(self, texts, name="api.example.com", port=443, source=A, ip="198.51.100.7"):
        return ask(texts, tcp(source, outside(ip, name), port, peer=None, dns_name=name)).allowed

    def test_without_a_network_everything_leaves(self):
        assert self.leaves([])
        assert self.leaves([self.network()], source=FAR)

    def test_a_traffic_policy(self):
        assert not self.leaves([self.network()])
        assert self.leaves([self.network("Allow")])

    def test_routes_of_tls_by_name(self):
        texts = [self.network(), self.to("TLSRoute", "api.example.com, '*.example.org'")]
        assert self.leaves(texts)
        assert self.leaves(texts, "x.example.org")
        assert not self.leaves(texts, "example.com")
        assert not self.leaves(texts, "x.api.example.com")
        assert not self.leaves(texts, port=444)
        plain = call(
            A, outside(), "GET", "/", port=443, peer=None, host="api.example.com", dns_name="api.example.com"
        )
        assert not ask(texts, plain).allowed

    def test_routes_of_http(self):
        rules = "[{matches: [{path: {value: /v1}, method: GET}]}]"
        texts = [self.network(), self.to("HTTPRoute", "api.example.com", rules=rules)]

        def leaves(method, path, host="api.example.com"):
            return ask(
                texts, call(A, outside(), method, path, port=443, peer=None, host=host, dns_name=host)
            ).allowed

        assert leaves("GET", "/v1/x")
        assert not leaves("POST", "/v1/x")
        assert not leaves("GET", "/v2")
        assert not leaves("GET", "/v1", "evil.example")
        assert not self.leaves(texts)

    def test_routes_of_tcp(self):
        assert self.leaves([self.network(), self.to("TCPRoute", "", 5432)], port=5432)
        assert not self.leaves([self.network(), self.to("TCPRoute", "", 5432)], port=5433)

    def test_the_namespaces_own_networks_hide_the_global_ones(self):
        everywhere = self.network("Deny", namespace="linkerd-egress")
        assert not self.leaves([everywhere])
        assert self.leaves([everywhere, self.network("Allow")])
        elsewhere = self.network("Allow", networks=", networks: [{cidr: 203.0.113.0/24}]")
        assert self.leaves([everywhere, elsewhere])  # not even where they do not hold the address

    def test_the_smallest_network_counts_then_the_oldest_then_the_name(self):
        small = self.network("Allow", "small", networks=", networks: [{cidr: 198.51.100.0/24}]")
        assert self.leaves([self.network(), small])
        assert not self.leaves([self.network(), small], ip="203.0.113.1")
        assert self.leaves(
            [
                self.network("Allow", "z", made="2025-01-01T00:00:00Z"),
                self.network("Deny", "a", made="2026-01-01T00:00:00Z"),
            ]
        )
        assert self.leaves([self.network("Allow", "a"), self.network("Deny", "z")])

    def test_the_clusters_own_networks_are_not_meant(self):
        assert self.leaves([self.network()], ip="10.7.0.1")
        assert not self.leaves([self.network(networks=", networks: [{cidr: 0.0.0.0/0}]")], ip="10.7.0.1")
        holed = self.network(networks=", networks: [{cidr: 0.0.0.0/0, except: [198.51.100.7]}]")
        assert self.leaves([holed])
        assert not self.leaves([holed], ip="198.51.100.8")

    def test_who_is_not_in_the_mesh_is_not_held(self):
        space = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {linkerd.io/inject: disabled}}\n"
        assert self.leaves([self.network(), space])

    def test_what_is_not_read_is_refused(self):
        for text, message in (
            (
                self.to("TLSRoute", "a.example", rules="[{backendRefs: [{name: svc, port: 1}]}]"),
                "leads elsewhere",
            ),
            (self.to("TLSRoute", "a.example").replace(", port: 443", ""), "by nothing else"),
            (self.network("Drop"), "none of Allow, Deny"),
            (self.network(networks=", networks: []"), "at least one network"),
        ):
            with pytest.raises(InputError, match=message):
                self.leaves([self.network(name="other"), text])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (server(more=", accessPolicy: allow"), "none of all-authenticated"),
        (server(more=", proxyProtocol: http"), "none of unknown"),
        (server(more=", ports: 1"), "'ports' is not known"),
        (server(port=0), "port is a number"),
        (server(port=99999999), "port is a number"),
        (server(port="null"), "port is a number"),
        (server().replace("podSelector: {matchLabels: {app: b}}, ", ""), "one of podSelector"),
        (server().replace("v1beta3", "v2"), "v1beta3 is read"),
        (obj("MeshTLSAuthentication", "a", "{identities: []}"), "not empty"),
        (obj("MeshTLSAuthentication", "a", "{}"), "not empty"),
        (obj("MeshTLSAuthentication", "a", "{identities: ['*'], identityRefs: [{kind: Namespace, name: x}]}"), "one of identities"),
        (meshtls("a", "{kind: Namespace, name: x, namespace: y}", key="identityRefs"), "ServiceAccount or a Namespace"),
        (meshtls("a", "{kind: Pod, name: x}", key="identityRefs"), "ServiceAccount or a Namespace"),
        (obj("NetworkAuthentication", "a", "{networks: []}"), "at least one network"),
        (obj("NetworkAuthentication", "a", "{networks: [{cidr: 10.0.0.0/8, except: [11.0.0.0/8]}]}"), "no part of"),
        (obj("AuthorizationPolicy", "a", f"{{targetRef: {SERVER}}}"), "requiredAuthenticationRefs is missing"),
        (obj("AuthorizationPolicy", "a", "{requiredAuthenticationRefs: []}"), "targetRef is missing"),
        (route("r", "", rules="[]").replace("HTTPRoute", "TCPRoute").replace("policy.linkerd.io/v1beta3", "gateway.networking.k8s.io/v1alpha2"), "no routes of this kind"),
    ],
)  # fmt: skip
def test_what_linkerd_rejects_or_nobody_reads_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        passes([text])


LEGACY = "policy.linkerd.io/v1beta1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (authz("a", SERVER.replace("}", ", namespace: shop}"), ""), "in the policy's own namespace"),
        (
            obj("NetworkAuthentication", "n", "{networks: [{cidr: 10.0.0.1}]}")
            + "---\n"
            + authz("a", SERVER, ", ".join(["{group: policy.linkerd.io, kind: NetworkAuthentication, name: n}"] * 2)),
            "one NetworkAuthentication at most",
        ),
        (obj("ServerAuthorization", "l", "{server: {name: b}}", LEGACY), "server and client"),
        (obj("ServerAuthorization", "l", "{server: {}, client: {}}", LEGACY), "one of name and selector"),
        (
            obj("ServerAuthorization", "l", "{server: {name: b}, client: {unauthenticated: true, meshTLS: {identities: ['*']}}}", LEGACY),
            "stands alone",
        ),
        (obj("EgressNetwork", "e", "{}"), "trafficPolicy is missing"),
        (
            grpc("g", "{method: {service: x}}").replace("kind: Server, name: b", "kind: EgressNetwork, name: e, port: 1"),
            "GRPCRoutes of an EgressNetwork",
        ),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {config.linkerd.io/skip-inbound-ports: http}}\n",
            "'http' is no port",
        ),
    ],
)  # fmt: skip
def test_more_that_linkerd_rejects_or_nobody_reads_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        passes([text])


def test_what_is_for_others_counts_for_nothing():
    machines = server("m", more=", accessPolicy: deny").replace("podSelector", "externalWorkloadSelector")
    assert passes([machines])
    service = route("r", PAY).replace(
        "group: policy.linkerd.io, kind: Server, name: b", "group: core, kind: Service, name: b"
    )
    assert passes([service, server(), *ONLY_A], "DELETE", "/x")


def test_headers_of_a_call():
    texts = [
        TestGrpc.SERVER, grpc("pay", "{method: {service: x}, headers: [{name: X-A, value: '1'}]}"), *TestGrpc.ONLY_A,
    ]  # fmt: skip
    assert passes(texts, "POST", "/x/y", headers={"x-a": ("1",)})
    assert not passes(texts, "POST", "/x/y")
