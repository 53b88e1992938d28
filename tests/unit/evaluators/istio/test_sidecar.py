# SPDX-License-Identifier: Apache-2.0
"""A sidecar's decisions, semantic by semantic, each trap by its name."""

import pytest
from tests.support.istio_world import (
    CHECKOUT,
    ISSUER,
    manifests,
    policy,
    request,
    rule,
    security,
    token,
    workload,
)

from everyhop.core.errors import InputError
from everyhop.evaluators.istio import Istio, Normalization
from everyhop.evaluators.model import Wire

TD = "mesh.test"
OWN = {"principals": ["mesh.test/ns/shop/sa/checkout"]}
STRICT = security("PeerAuthentication", {"mtls": {"mode": "STRICT"}}, name="strict")
JWT = security(
    "RequestAuthentication", {"jwtRules": [{"issuer": ISSUER, "audiences": ["payments"]}]}, name="jwt"
)


def asked(objects, asking=None, **settings):
    """Return the outcome of a request under objects."""
    return Istio(manifests(*objects), trust_domain=TD, **settings).evaluate(asking or request())


def allowed(objects, asking=None, **settings):
    """Tell whether a request passes under objects."""
    return asked(objects, asking, **settings).allowed


# --- which policies, in which order -------------------------------------------------------------------------------


def test_without_a_policy_everything_passes():
    assert allowed([])


def test_an_empty_spec_denies_everything():
    outcome = asked([policy(name="deny-all")])
    assert (outcome.allowed, outcome.by) == (False, "AuthorizationPolicy shop/deny-all")


def test_an_empty_rule_matches_everything():
    assert allowed([policy({})])
    assert not allowed([policy({}, action="DENY")])


def test_any_allow_policy_that_attaches_makes_the_rest_denied():
    assert not allowed([policy(rule({"principals": ["mesh.test/ns/shop/sa/other"]}))])
    assert allowed([policy(rule({"principals": ["x"]})), policy(rule(OWN), name="q")])


def test_deny_beats_allow():
    assert not allowed([policy({}), policy(rule(OWN), action="DENY", name="d")])


def test_root_namespace_deny_all_is_undone_by_an_allow_in_the_namespace():
    """istio#24217: a deny-all is only an ALLOW that never matches, so another ALLOW adds to it."""
    objects = [policy(namespace="istio-system"), policy({}, name="open")]
    assert not allowed(objects[:1])
    assert allowed(objects)


def test_policies_of_other_namespaces_do_not_attach():
    assert allowed([policy(namespace="other")])
    assert not allowed([policy(namespace="root")], root_namespace="root")


@pytest.mark.parametrize(
    ("labels", "attaches"), [({"app": "payments"}, True), ({"app": "other"}, False), ({}, True)]
)
def test_a_selector_selects_by_all_its_labels_and_an_empty_one_selects_all(labels, attaches):
    assert allowed([policy(selector={"matchLabels": labels})]) is not attaches


def test_a_policy_with_target_refs_does_not_attach_to_a_sidecar():
    refs = [{"group": "", "kind": "Service", "name": "payments"}]
    assert allowed([policy(targetRefs=refs)])


def test_a_gateway_takes_what_refers_to_it_and_what_selects_it():
    gateway = workload("gw", labels={"gateway.networking.k8s.io/gateway-name": "edge"})
    asking = request(target=gateway)
    refs = [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}]
    assert not allowed([policy(targetRefs=refs)], asking)
    assert allowed([policy(targetRefs=[refs[0] | {"name": "other"}])], asking)
    assert allowed([policy(targetRefs=refs, namespace="istio-system")], asking)
    assert not allowed([policy()], asking)
    assert allowed([STRICT], request(target=gateway, peer=None))


def test_dry_run_policies_are_not_enforced():
    dry = {"istio.io/dry-run": "true"}
    assert allowed([policy(annotations=dry)])
    assert allowed([policy({}, action="DENY", annotations=dry)])
    assert not allowed([policy({}, action="DENY", annotations={"istio.io/dry-run": "false"})])


def test_audit_decides_nothing():
    assert allowed([policy({}, action="AUDIT")])


def test_custom_asks_its_provider_where_a_rule_matches():
    custom = policy(rule(operation={"paths": ["/charge"]}), action="CUSTOM", provider={"name": "authorizer"})
    assert asked([custom]).asks == "authorizer"
    assert asked([custom], request(path="/other")).asks is None
    assert asked([custom, policy(name="deny-all")]).allowed is False
    assert allowed([custom], providers=("authorizer",))
    assert not allowed([custom], providers=())
    assert allowed([custom], request(path="/other"), providers=())


def test_two_custom_providers_on_one_workload_deny_what_they_match():
    custom = policy(rule(operation={"paths": ["/charge"]}), action="CUSTOM", provider={"name": "a"})
    other = policy(rule(operation={"paths": ["/x"]}), action="CUSTOM", provider={"name": "b"}, name="q")
    assert not allowed([custom, other])
    assert allowed([custom, other], request(path="/y"))


# --- rules --------------------------------------------------------------------------------------------------------


def test_one_more_dash_turns_and_into_or():
    """istio#24665: principals and namespaces in one source are ANDed, in two they are ORed."""
    both = rule({**OWN, "ipBlocks": ["192.0.2.0/24"]})
    either = {"from": [{"source": OWN}, {"source": {"ipBlocks": ["192.0.2.0/24"]}}]}
    assert not allowed([policy(both)])
    assert allowed([policy(either)])


def test_from_to_and_when_are_anded_and_rules_ored():
    here = {"key": "destination.port", "values": ["8080"]}
    there = {"key": "destination.port", "values": ["9090"]}
    assert allowed([policy(rule(OWN, {"methods": ["POST"]}, [here]))])
    assert not allowed([policy(rule(OWN, {"methods": ["POST"]}, [here, there]))])
    assert not allowed([policy(rule(OWN, {"methods": ["GET"]}, [here]))])
    assert allowed([policy(rule(OWN, {"methods": ["GET"]}), rule(OWN, {"methods": ["POST"]}))])


def test_a_field_and_its_twin_are_anded():
    assert not allowed([policy(rule(OWN, {"paths": ["/c*"], "notPaths": ["/charge"]}))])
    assert allowed([policy(rule(OWN, {"paths": ["/c*"], "notPaths": ["/charge"]}))], request(path="/cancel"))


@pytest.mark.parametrize(
    ("value", "peer", "matches"),
    [
        ("mesh.test/ns/shop/sa/checkout", CHECKOUT, True),
        ("mesh.test/ns/shop/sa/checkout", CHECKOUT + "x", False),
        ("mesh.test/ns/shop/sa/checkout", CHECKOUT.upper(), False),
        ("spiffe://mesh.test/ns/shop/sa/checkout", CHECKOUT, False),
        ("mesh.test/ns/shop/*", CHECKOUT, True),
        ("mesh.test/ns/shop*", "spiffe://mesh.test/ns/shopping/sa/a", True),
        ("*/sa/checkout", "spiffe://evil.test/ns/any/sa/checkout", True),
        ("*", CHECKOUT, True),
        ("*", None, False),
        ("*checkout", None, False),
    ],
)
def test_principals(value, peer, matches):
    assert allowed([policy(rule({"principals": [value]}))], request(peer=peer)) is matches


@pytest.mark.parametrize("field", ["namespaces", "serviceAccounts"])
def test_namespaces_and_service_accounts_do_not_look_at_the_trust_domain(field):
    value = {"namespaces": "shop", "serviceAccounts": "shop/checkout"}[field]
    objects = [policy(rule({field: [value]}))]
    foreign = request(peer="spiffe://evil.test/ns/shop/sa/checkout")
    assert allowed(objects, foreign)
    assert not allowed(objects, foreign, refuses_foreign=True)
    assert not allowed(objects, request(peer="spiffe://mesh.test/ns/shopx/sa/checkout"))
    assert not allowed(objects, request(peer=None))


def test_a_service_account_without_a_namespace_is_of_the_policys_own():
    objects = [policy(rule({"serviceAccounts": ["checkout"]}))]
    assert allowed(objects)
    assert not allowed(objects, request(peer="spiffe://mesh.test/ns/other/sa/checkout"))
    assert allowed(objects, request(peer="spiffe://mesh.test/a/b/ns/shop/x/y/sa/checkout/z/1"))


@pytest.mark.parametrize(
    ("value", "peer", "matches"),
    [
        ("mesh.test", CHECKOUT, True),
        ("mesh.test", "spiffe://mesh.test.evil/ns/a/sa/b", False),
        ("*.test", CHECKOUT, True),
        ("*.test", "spiffe://a/x.test/ns/a/sa/b", False),
        ("mesh.*", CHECKOUT, True),
        ("*", "spiffe://any/ns/a/sa/b", True),
        ("*", None, False),
    ],
)
def test_trust_domains(value, peer, matches):
    assert allowed([policy(rule({"trustDomains": [value]}))], request(peer=peer)) is matches


def test_plaintext_satisfies_negative_identities():
    """ISTIO-SECURITY-2021-004: who has no identity is in no namespace, so notNamespaces lets it in."""
    objects = [policy(rule({"notNamespaces": ["evil"]}))]
    assert allowed(objects, request(peer=None))
    assert not allowed([*objects, STRICT], request(peer=None))


def test_aliases_stand_for_the_mesh_in_principals():
    old = request(peer="spiffe://old.test/ns/shop/sa/checkout")
    objects = [policy(rule(OWN))]
    assert not allowed(objects, old)
    assert allowed(objects, old, aliases=["old.test"])
    assert allowed([policy(rule({"principals": ["cluster.local/ns/shop/sa/checkout"]}))])
    assert not allowed([policy(rule({"principals": ["foreign/ns/shop/sa/checkout"]}))], aliases=["old.test"])
    assert allowed([policy(rule({"trustDomains": [TD]}))], old, aliases=["old.test"])


@pytest.mark.parametrize(
    ("value", "path", "matches"),
    [
        ("/charge", "/charge", True),
        ("/charge", "/charge?x=/y", True),
        ("/charge", "/charge/", False),
        ("/charge", "/Charge", False),
        ("/pre*", "/prefix-evil", True),
        ("*/x", "/a/b/x", True),
        ("*/x", "/a?b=/x", False),
        ("*", "/", True),
        ("/a/{*}/b", "/a/x/b", True),
        ("/a/{*}/b", "/a//b", False),
        ("/a/{*}/b", "/a/x/y/b", False),
        ("/a/{*}/b", "/a/x%2fy/b", True),
        ("/a/{*}/b", "/a/x/b?q", True),
        ("/a/{**}", "/a/", True),
        ("/a/{**}", "/a", False),
        ("/a/{**}", "/a/b/c", True),
        ("/{**}/end", "/a/b/end", True),
        ("/a/{*}", "/a/[x]", False),
        ("/a/[x]", "/a/[x]", True),
    ],
)
def test_paths(value, path, matches):
    assert allowed([policy(rule(operation={"paths": [value]}))], request(path=path)) is matches


@pytest.mark.parametrize(
    ("how", "path", "matches"),
    [
        (Normalization.NONE, "/x/../charge", False),
        (Normalization.BASE, "/x/../charge", True),
        (Normalization.BASE, "/x/%2e%2E/charge", True),
        (Normalization.BASE, "/%63harge", True),
        (Normalization.NONE, "/%63harge", False),
        (Normalization.BASE, "\\charge", False),
        (Normalization.BASE, "/x\\..\\charge", True),
        (Normalization.BASE, "//charge", False),
        (Normalization.MERGE_SLASHES, "//charge", True),
        (Normalization.MERGE_SLASHES, "/x%2f..%2fcharge", False),
        (Normalization.DECODE_AND_MERGE_SLASHES, "/x%2f..%2Fcharge", True),
        (Normalization.DECODE_AND_MERGE_SLASHES, "/x/%5c../charge", False),
        (Normalization.BASE, "/charge#f", False),
        (Normalization.BASE, "/charge%00", False),
    ],
)
def test_normalisation_of_the_mesh_decides_what_a_path_is(how, path, matches):
    objects = [policy(rule(operation={"paths": ["/charge"]}))]
    assert allowed(objects, request(path=path), normalization=how) is matches


def test_methods_and_paths_have_a_case_and_hosts_none():
    assert not allowed([policy(rule(operation={"methods": ["POST"]}))], request(method="post"))
    assert allowed([policy(rule(operation={"hosts": ["PAYments"]}))])
    assert allowed([policy(rule(operation={"hosts": ["*.SHOP"]}))], request(host="Payments.shop"))
    assert not allowed([policy(rule(operation={"hosts": ["payments"]}))], request(host="payments:8080"))
    assert not allowed([policy(rule(operation={"hosts": ["*"]}))], request(host=""))


def test_ports_are_those_of_the_workload():
    assert allowed([policy(rule(operation={"ports": ["8080"]}))])
    assert not allowed([policy(rule(operation={"ports": ["80"]}))])
    assert not allowed([policy(rule(operation={"notPorts": ["8080"]}))])


def test_remote_ip_is_what_the_caller_writes_but_source_ip_is_not():
    forwarded = request(headers={"X-Forwarded-For": ("203.0.113.7, 192.0.2.1",)})
    assert allowed([policy(rule({"remoteIpBlocks": ["192.0.2.0/24"]}))], forwarded)
    assert not allowed([policy(rule({"ipBlocks": ["192.0.2.0/24"]}))], forwarded)
    assert allowed([policy(rule({"ipBlocks": ["10.1.0.9"]}))], forwarded)
    assert not allowed([policy(rule({"ipBlocks": ["::/0"]}))], forwarded)
    unreadable = request(headers={"x-forwarded-for": ("nobody",)})
    assert allowed([policy(rule({"remoteIpBlocks": ["10.1.0.9"]}))], unreadable)


def test_headers_in_when():
    objects = [policy(rule(when=[{"key": "request.headers[X-Tier]", "values": ["gold*"]}]))]
    assert allowed(objects, request(headers={"x-tier": ("gold-1",)}))
    assert not allowed(objects, request(headers={"x-tier": ("silver", "gold")}))
    assert not allowed(objects)
    absent = [policy(rule(when=[{"key": "request.headers[x-tier]", "notValues": ["*"]}]))]
    assert allowed(absent)
    assert not allowed(absent, request(headers={"X-TIER": ("",)}))


# --- bare TCP -----------------------------------------------------------------------------------------------------

BARE = {"wire": Wire.TCP, "method": "", "path": "", "host": ""}


def test_an_allow_rule_with_http_in_it_does_not_exist_on_tcp():
    both = rule(OWN, {"methods": ["POST"], "ports": ["8080"]})
    assert not allowed([policy(both)], request(**BARE))
    assert allowed([policy(both, rule(OWN, {"ports": ["8080"]}))], request(**BARE))
    alternatives = {"from": [{"source": OWN}, {"source": {"requestPrincipals": ["*"]}}]}
    assert not allowed([policy(alternatives)], request(**BARE))


def test_a_deny_rule_of_http_alone_denies_all_of_tcp():
    assert not allowed([policy(rule(operation={"methods": ["DELETE"]}), action="DENY")], request(**BARE))
    ported = policy(rule(operation={"methods": ["DELETE"], "ports": ["9"]}), action="DENY")
    assert allowed([ported], request(**BARE))
    assert allowed([ported])


# --- tokens -------------------------------------------------------------------------------------------------------

NEEDS = policy(
    rule(
        {"requestPrincipals": [f"{ISSUER}/checkout"]},
        None,
        [{"key": "request.auth.audiences", "values": ["payments"]}],
    )
)


def test_request_authentication_alone_lets_calls_without_a_token_in():
    """istio#43982."""
    assert allowed([JWT])
    assert not allowed([JWT, NEEDS])
    assert allowed([JWT, NEEDS], request(token=token()))


@pytest.mark.parametrize(
    "bad",
    [
        {"is_forged": True},
        {"is_expired": True},
        {"issuer": "https://evil.test"},
        {"audiences": ("other",)},
        {"audiences": ()},
    ],
    ids=["forged", "expired", "issuer", "audience", "no-audience"],
)
def test_a_token_that_is_not_believed_is_refused_even_where_none_is_demanded(bad):
    outcome = asked([JWT], request(token=token(**bad)))
    assert (outcome.allowed, outcome.why[:3]) == (False, "401")


def test_a_policy_for_tokens_without_request_authentication_lets_nobody_in():
    assert not allowed([NEEDS], request(token=token()))


def test_a_token_elsewhere_than_a_rule_looks_is_no_token():
    elsewhere = security(
        "RequestAuthentication",
        {"jwtRules": [{"issuer": ISSUER, "fromHeaders": [{"name": "X-Jwt", "prefix": "T "}]}]},
    )
    forged = token(is_forged=True)
    assert allowed([elsewhere], request(token=forged))
    there = {"headers": {"x-jwt": ("T {token}",)}}
    assert not allowed([elsewhere], request(token=forged, **there))
    assert allowed([elsewhere, NEEDS], request(token=token(), **there))
    assert allowed([JWT], request(token=forged, **there))
    query = security("RequestAuthentication", {"jwtRules": [{"issuer": ISSUER, "fromParams": ["t"]}]})
    assert allowed([query, NEEDS], request(token=token(), path="/charge?a=1&t={token}"))
    cookie = security("RequestAuthentication", {"jwtRules": [{"issuer": ISSUER, "fromCookies": ["t"]}]})
    assert allowed([cookie, NEEDS], request(token=token(), headers={"cookie": ("a=b; t={token}",)}))


def test_rules_of_several_request_authentications_add_up():
    other = security("RequestAuthentication", {"jwtRules": [{"issuer": "https://b.test"}]}, name="b")
    assert allowed([JWT, other], request(token=token(issuer="https://b.test")))
    assert allowed([JWT, other], request(token=token()))
    assert not allowed([JWT, other], request(token=token(issuer="https://c.test")))


def test_a_cors_preflight_is_not_looked_at():
    headers = {"origin": ("https://a.test",), "access-control-request-method": ("POST",)}
    assert allowed([JWT], request(method="OPTIONS", headers=headers, token=token(is_forged=True)))
    assert not allowed([JWT, NEEDS], request(method="OPTIONS", headers=headers, token=token()))


@pytest.mark.parametrize(
    ("value", "issuer", "subject", "matches"),
    [
        ("https://i.test/a/s", "https://i.test/a", "s", True),
        ("https://i.test/a/s", "https://i.test", "a/s", False),
        ("https://i.test/*", "https://i.test", "s", True),
        ("https://i.test/s*", "https://i.test", "s1", True),
        ("*/s", "https://i.test", "s", True),
        ("*test/s", "https://i.test", "s", True),
        ("*s", "https://i.test", "xs", True),
        ("https://i*", "https://i.test", "s", False),
        ("i*", "issuer", "s", True),
        ("*", "i", "s", True),
        ("*", "i", "", False),
        ("i/s", "i", "S", False),
    ],
)
def test_request_principals_are_split_at_the_last_slash(value, issuer, subject, matches):
    objects = [
        security("RequestAuthentication", {"jwtRules": [{"jwksUri": "https://keys.test"}]}),
        policy(rule({"requestPrincipals": [value]})),
    ]
    assert allowed(objects, request(token=token(issuer=issuer, subject=subject))) is matches


@pytest.mark.parametrize(
    ("key", "value", "claims", "matches"),
    [
        ("request.auth.claims[role]", "admin", {"role": "admin"}, True),
        ("request.auth.claims[role]", "admin", {"role": ["user", "admin"]}, True),
        ("request.auth.claims[role]", "admin", {"role": "user"}, False),
        ("request.auth.claims[role]", "1", {"role": 1}, False),
        ("request.auth.claims[role]", "true", {"role": True}, False),
        ("request.auth.claims[role]", "*", {}, False),
        ("request.auth.claims[a][b]", "x", {"a": {"b": ["x"]}}, True),
        ("request.auth.claims[a][b]", "x", {"a": "x"}, False),
        ("request.auth.claims[scope]", "read", {"scope": "write read"}, True),
        ("request.auth.claims[other]", "read", {"other": "write read"}, False),
        ("request.auth.presenter", "app*", {"azp": "app-1"}, True),
        ("request.auth.audiences", "pay*", {}, True),
    ],
)
def test_claims_are_texts_or_lists_that_contain_one(key, value, claims, matches):
    objects = [JWT, policy(rule(when=[{"key": key, "values": [value]}]))]
    assert allowed(objects, request(token=token(claims=claims))) is matches


@pytest.mark.parametrize(
    ("rule", "real", "forged"),
    [
        ({}, True, False),
        ({"jwksUri": "https://issuer.mesh.test/jwks"}, True, False),
        ({"jwksUri": "https://evil.test/jwks"}, False, True),
        ({"jwks": '{"keys": []}'}, False, True),
    ],
)
def test_keys_from_elsewhere_believe_what_others_sign(rule, real, forged):
    jwt = security("RequestAuthentication", {"jwtRules": [{"issuer": ISSUER, **rule}]})
    known = {"jwks_uris": {ISSUER: "https://issuer.mesh.test/jwks"}}
    found = [allowed([jwt, NEEDS], request(token=token(is_forged=one)), **known) for one in (False, True)]
    assert found == [real, forged]


# --- mTLS ---------------------------------------------------------------------------------------------------------


def peers(mode, **further):
    """Return a PeerAuthentication."""
    ports = further.pop("ports", None)
    labels = further.pop("labels", None)
    spec = {} if mode is None else {"mtls": {"mode": mode}}
    spec |= {} if labels is None else {"selector": {"matchLabels": labels}}
    spec |= (
        {} if ports is None else {"portLevelMtls": {str(port): {"mode": one} for port, one in ports.items()}}
    )
    return security("PeerAuthentication", spec, **further)


@pytest.mark.parametrize(
    ("objects", "passes"),
    [
        ([], True),
        ([peers("STRICT")], False),
        ([peers("STRICT", namespace="istio-system")], False),
        ([peers("STRICT", namespace="istio-system"), peers("PERMISSIVE")], True),
        ([peers("STRICT", namespace="istio-system"), peers("UNSET")], False),
        ([peers("STRICT"), peers("PERMISSIVE", name="w", labels={"app": "payments"})], True),
        ([peers("STRICT"), peers("PERMISSIVE", name="w", labels={"app": "other"})], False),
        ([peers("STRICT"), peers(None, name="w", labels={"app": "payments"}, ports={8080: "PERMISSIVE"})], True),
        ([peers("STRICT"), peers(None, name="w", labels={"app": "payments"}, ports={9090: "PERMISSIVE"})], False),
        ([peers("STRICT"), peers(None, name="w", labels={"app": "payments"}, ports={8080: "UNSET"})], False),
        ([peers("STRICT", namespace="istio-system", labels={"app": "payments"})], True),
        ([peers("STRICT", namespace="other")], True),
        ([peers("UNSET", namespace="istio-system")], True),
        ([peers("PERMISSIVE", created="2026-01-02T00:00:00Z"), peers("STRICT", name="b", created="2026-01-01T00:00:00Z")], False),
    ],
)  # fmt: skip
def test_plaintext_passes_unless_the_nearest_peer_authentication_is_strict(objects, passes):
    assert allowed(objects, request(peer=None)) is passes
    assert allowed(objects)


def test_permissive_is_the_default_and_an_identity_still_has_to_be_shown_to_rules():
    assert not allowed([policy(rule(OWN))], request(peer=None))


def test_with_mtls_disabled_nobody_has_an_identity():
    assert not allowed([peers("DISABLE"), policy(rule(OWN))])
    assert allowed([peers("DISABLE"), policy(rule({"notPrincipals": ["evil"]}))])


# --- what Istio's validation refuses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (policy(action="DENY"), "without rules"),
        (policy(action="CUSTOM", provider={"name": "a"}), "without rules"),
        (policy({}, action="CUSTOM"), "provider"),
        (policy({}, provider={"name": "a"}), "CUSTOM alone"),
        (policy({}, action="BLOCK"), "action is not"),
        (policy({}, selector={"matchLabels": {"a": "*"}}), "star"),
        (policy({}, selector={"matchExpressions": []}), "unknown field 'matchExpressions'"),
        (policy({}, selector={}, targetRefs=[{"group": "", "kind": "Service", "name": "a"}]), "only one of"),
        (policy({}, targetRefs=[{"group": "", "kind": "Pod", "name": "a"}]), "targetRef is of"),
        (policy({}, targetRefs=[{"group": "", "kind": "Service", "name": "a", "namespace": "b"}]), "another namespace"),
        (policy({}, rulez=[]), "unknown field 'rulez'"),
        (policy({"from": []}), "from is empty"),
        (policy({"to": [{}]}), "operation is missing"),
        (policy(rule({})), "source is empty"),
        (policy(rule(operation={})), "operation is empty"),
        (policy(rule({"principal": ["a"]})), "unknown field 'principal'"),
        (policy(rule({"not_principals": ["a"]})), "unknown field 'not_principals'"),
        (policy(rule({"principals": "a"})), "no list of texts"),
        (policy(rule({"principals": [""]})), "no list of texts"),
        (policy(rule({"serviceAccounts": ["a"], "namespaces": ["b"]})), "cannot stand beside"),
        (policy(rule({"serviceAccounts": ["a/b/c"]})), "NAMESPACE"),
        (policy(rule({"serviceAccounts": ["a*"]})), "NAMESPACE"),
        (policy(rule({"trustDomains": ["a/b"]})), "no trust domain"),
        (policy(rule({"ipBlocks": ["10.0.0.0/40"]})), "neither an address"),
        (policy(rule({"ipBlocks": ["10.0.0.0/255.0.0.0"]})), "neither an address"),
        (policy(rule(operation={"ports": ["99999"]})), "no port"),
        (policy(rule(operation={"ports": [80]})), "no list of texts"),
        (policy(rule(operation={"paths": ["/a/{id}/b"]})), "brace"),
        (policy(rule(operation={"paths": ["/a/{*}b"]})), "no segment"),
        (policy(rule(operation={"paths": ["/{**}/{*}"]})), "follow"),
        (policy(rule(operation={"paths": ["/a|b/{*}"]})), "no segment"),
        (policy(rule(when=[{"key": "source.principal"}])), "values or notValues"),
        (policy(rule(when=[{"key": "request.method", "values": ["GET"]}])), "unknown attribute"),
        (policy(rule(when=[{"key": "request.headers[]", "values": ["GET"]}])), "unknown attribute"),
        (policy(rule(when=[{"key": "experimental.envoy.filters.a[b]", "values": ["c"]}])), "not known here"),
        (policy(rule(OWN), action="CUSTOM", provider={"name": "a"}), "CUSTOM cannot look at principals"),
        (policy(rule(when=[{"key": "request.auth.claims[a]", "values": ["b"]}]), action="CUSTOM", provider={"name": "a"}), "CUSTOM cannot"),
        (policy({}, action="CUSTOM", provider={"name": "a"}, annotations={"istio.io/dry-run": "true"}), "dry run"),
        (policy({}, annotations={"istio.io/dry-run": "yes"}), "neither true nor false"),
        (security("RequestAuthentication", {"jwtRules": [{"audiences": ["a"]}]}), "issuer or a jwksUri"),
        (security("RequestAuthentication", {"jwtRules": [{"issuer": "a", "jwksUri": "ftp://a"}]}), "http"),
        (security("RequestAuthentication", {"jwtRules": [{"issuer": "a", "jwks_uri": "https://a"}]}), "unknown field"),
        (security("PeerAuthentication", {"mtls": {"mode": "ON"}}), "mode is not"),
        (security("PeerAuthentication", {"portLevelMtls": {"80": {"mode": "STRICT"}}}), "selector"),
        (peers("STRICT", labels={"a": "b"}, ports={0: "STRICT"}), "no port"),
        (policy({}) | {"apiVersion": "security.istio.io/v1alpha1"}, "v1alpha1"),
        (policy({}) | {"extra": 1}, "unknown field 'extra'"),
        (policy({}) | {"spec": []}, "expected a mapping"),
    ],
)  # fmt: skip
def test_what_istio_would_reject_is_an_error_with_its_place(wrong, said):
    with pytest.raises(InputError, match=said) as caught:
        asked([wrong])
    assert str(caught.value).startswith("m.yaml:1:1: ")
