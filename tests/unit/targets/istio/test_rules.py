# SPDX-License-Identifier: Apache-2.0
"""What an AuthorizationPolicy of ours says, and above all what none of them says."""

import pytest
from tests.support.compiled import compiled
from tests.support.crds import objects_of

from everyhop.core.errors import PolicyError

SERVICES = """
attributes: {user: {level: int}}
services:
  a: {operations: {x: GET /}}
  b: {operations: {x: GET /}}
  pay:
    operations:
      charge: {route: "POST /charge", token: operation}
      refund: {route: "POST /refund", token: required}
      read: GET /payments/{id}
      export: GET /payments/export
      big: POST /big
      list: GET /payments
    probes: [GET /healthz]
  db: {tcp: 5432}
"""
TOKENS = "tokens: {issuer: 'https://id.example', jwks_uri: 'https://id.example/keys'}"
ISSUER = "https://id.example"


def istio(allow, targets="", *beside):
    rules = "".join(f"\n  - {one}" for one in allow)
    return compiled("istio", f"{SERVICES}\nallow:{rules}\ntargets: {{namespace: shop, {targets}}}\n", *beside)


def rules_of(made, name="pay"):
    return (made.spec("AuthorizationPolicy", f"allow-{name}") or {}).get("rules", [])


def operations_of(rules):
    return [to["operation"] for rule in rules for to in rule.get("to", [])]


# -- what is refused


def test_a_token_without_a_named_issuer_is_a_named_error_and_stays_shut():
    made = istio(["{from: a, to: pay, operations: [charge, list]}"], "istio: {accept: [token-binding]}")
    assert "istio.tokens" in made.errors
    assert [one["paths"] for one in operations_of(rules_of(made)) if one["paths"] != ["/healthz"]] == [
        ["/payments"]
    ]
    assert made.all("RequestAuthentication") == []


def test_a_token_is_bound_by_somebody_or_the_door_stays_shut():
    made = istio(["{from: a, to: pay, operations: [charge]}"], TOKENS)
    assert "istio.token-binding" in made.errors
    assert {"paths": ["/charge"]}.items() not in [one.items() for one in operations_of(rules_of(made))]
    assert all(one["paths"] == ["/healthz"] for one in operations_of(rules_of(made)))


@pytest.mark.parametrize("call", ["read", "export"])
def test_a_parameter_takes_ambiguous_paths_so_nobody_is_let_in_unless_somebody_refuses_them(call):
    made = istio([f"{{from: a, to: pay, operations: [{call}]}}"])
    assert ("istio.ambiguous-paths" in made.errors) is (call == "read")
    paths = {path for one in operations_of(rules_of(made)) for path in one["paths"]}
    assert paths == ({"/healthz"} if call == "read" else {"/healthz", "/payments/export"})


def test_what_an_authorizer_would_decide_is_refused_without_one():
    made = istio(["{from: a, to: pay, operations: [big], user: required, when: user.level > 2}"])
    assert {"istio.condition", "istio.user"} <= made.errors
    assert all(one["paths"] == ["/healthz"] for one in operations_of(rules_of(made)))
    assert made.spec("AuthorizationPolicy", "ask-pay") is None


def test_the_outside_needs_a_gateway():
    made = istio(["{from: outside, to: pay, operations: [list]}"])
    assert "istio.gateway" in made.errors
    assert all(one["paths"] == ["/healthz"] for one in operations_of(rules_of(made)))


def test_a_service_with_the_gateways_account_would_be_everybody_outside():
    with pytest.raises(PolicyError, match="same service account"):
        istio(
            ["{from: outside, to: pay, operations: [list]}"], "gateway: {namespace: shop, service_account: a}"
        )


def test_a_token_of_the_outside_is_nobodys():
    made = istio(
        ["{from: outside, to: pay, operations: [charge]}"],
        f"gateway: {{namespace: edge, service_account: gw}}, {TOKENS}, istio: {{accept: [token-binding]}}",
    )
    assert "istio.outside-token" in made.errors
    assert all(one["paths"] == ["/healthz"] for one in operations_of(rules_of(made)))


def test_in_the_root_namespace_a_selector_means_the_whole_mesh_so_nothing_is_written():
    made = istio(["{from: a, to: pay, operations: [list]}"], "istio: {root_namespace: shop}")
    assert "istio.root-namespace" in made.errors
    assert made.objects == []


def test_a_star_in_a_literal_is_refused_by_name():
    policy = """
services: {a: {operations: {x: "GET /a*", y: GET /b}}}
allow: [{from: a, to: a, operations: all}]
"""
    made = compiled("istio", policy)
    assert "istio.path" in made.errors
    assert [one["paths"] for one in operations_of(rules_of(made, "a"))] == [["/b"]]


def test_a_path_that_istio_cannot_take_off_shuts_the_wider_one():
    policy = """
services: {a: {operations: {x: "GET /o/a*", y: "GET /o/{id}"}}}
allow: [{from: a, to: a, operations: [y]}]
targets: {istio: {accept: [ambiguous-paths]}}
"""
    made = compiled("istio", policy)
    assert "istio.path" in made.errors
    assert rules_of(made, "a") == []


# -- traps by name


ALL = [
    "{from: a, to: pay, operations: all}",
    "{from: any, to: pay, operations: [list]}",
    "{from: outside, to: pay, operations: [list]}",
    "{from: b, to: pay, operations: [big], user: required, when: user.level > 2}",
    "{from: a, to: db}",
]
EVERYTHING = (
    f"gateway: {{namespace: edge, service_account: gw}}, {TOKENS}, istio: {{authorizer: everyhop, "
    "trust_domain_aliases: [old.example]}"
)


@pytest.fixture(scope="module")
def everything():
    made = istio(ALL, EVERYTHING)
    assert made.errors == set()
    return made


def sources_of(made):
    return [
        one["source"]
        for policy in made.all("AuthorizationPolicy")
        for rule in policy["spec"].get("rules", [])
        for one in rule.get("from", [])
    ]


def test_callers_are_full_principals_never_namespaces_service_accounts_or_negations(everything):
    assert sources_of(everything)
    for one in sources_of(everything):
        assert set(one) == {"principals"}
        assert one["principals"]
        for principal in one["principals"]:
            domain, ns, _, sa, _ = principal.split("/")
            assert (domain in {"shop.example", "old.example"}, ns, sa) == (True, "ns", "sa")
            assert "*" not in principal


def test_every_rule_says_who_and_what(everything):
    for policy in everything.all("AuthorizationPolicy"):
        for rule in policy["spec"].get("rules", []):
            assert rule["to"]
            assert ("from" in rule) is (policy["spec"]["action"] == "ALLOW")


def test_only_allow_and_custom_are_written_so_no_deny_beats_an_allow(everything):
    actions = {one["spec"].get("action") for one in everything.all("AuthorizationPolicy")}
    assert actions == {None, "ALLOW", "CUSTOM"}


def test_the_policy_without_a_rule_denies_and_is_the_only_one_without_a_selector(everything):
    bare = [one for one in everything.all("AuthorizationPolicy") if "selector" not in one["spec"]]
    assert [(one["metadata"]["name"], one["spec"]) for one in bare] == [("everyhop-deny-all", {})]


def test_no_path_is_a_prefix_or_a_suffix(everything):
    for policy in everything.all("AuthorizationPolicy"):
        for one in operations_of(policy["spec"].get("rules", [])):
            for path in (*one.get("paths", []), *one.get("notPaths", [])):
                assert path.startswith("/")
                assert "*" not in path.replace("{*}", "").replace("{**}", "")


def test_http_operations_name_method_path_and_port_and_tcp_only_the_port(everything):
    for one in operations_of(rules_of(everything)):
        assert {"methods", "paths", "ports"} <= set(one)
        assert one["ports"] == ["8080"]
    assert operations_of(rules_of(everything, "db")) == [{"ports": ["5432"]}]


def test_what_has_to_hold_together_stands_in_one_rule_and_one_source(everything):
    """One more dash would make two sources of one, or two rules of one, and any of them would do."""
    for policy in everything.all("AuthorizationPolicy"):
        for rule in policy["spec"].get("rules", []):
            assert set(rule) <= {"from", "to", "when"}
            assert len(rule.get("from", [1])) == 1
            if "when" in rule:
                assert {"from", "to"} <= set(rule)
                assert all(len(one["values"]) and "notValues" not in one for one in rule["when"])


def test_strict_mtls_and_the_default_denial_come_first(everything):
    for content in everything.files.values():
        first, second, *_ = objects_of([content])
        assert first["kind"] == "PeerAuthentication"
        assert (second["kind"], second["spec"]) == ("AuthorizationPolicy", {})


def test_nothing_is_a_dry_run(everything):
    for one in everything.objects:
        assert set(one["metadata"]["annotations"]) == {"everyhop/snapshot"}


def test_strict_mtls_stands_in_every_namespace(everything):
    found = {one["metadata"]["namespace"]: one["spec"] for one in everything.all("PeerAuthentication")}
    assert found == {"shop": {"mtls": {"mode": "STRICT"}}}


def test_a_template_does_not_match_the_narrower_door(everything):
    found = [one for one in operations_of(rules_of(everything)) if one["paths"] == ["/payments/{*}"]]
    assert found
    assert all(one["notPaths"] == ["/payments/export"] for one in found)


def test_request_authentication_never_stands_alone(everything):
    rules = [rule for rule in rules_of(everything) if "when" in rule]
    paths = {path for one in operations_of(rules) for path in one["paths"]}
    assert paths == {"/charge", "/refund"}
    without = [rule for rule in rules_of(everything) if "when" not in rule]
    assert paths.isdisjoint(path for one in operations_of(without) for path in one["paths"])


def test_a_token_is_the_callers_own_for_this_audience_and_scope(everything):
    rules = {rule["to"][0]["operation"]["paths"][0]: rule for rule in rules_of(everything) if "when" in rule}
    whens = {path: {one["key"]: one["values"] for one in rule["when"]} for path, rule in rules.items()}
    assert whens["/charge"] == {
        "request.auth.claims[iss]": [ISSUER],
        "request.auth.claims[client_id]": ["spiffe://shop.example/service/a"],
        "request.auth.audiences": ["pay#charge"],
        "request.auth.claims[scope]": ["pay.charge", "charge"],
    }
    assert whens["/refund"]["request.auth.audiences"] == ["pay", "pay#refund"]
    assert all("requestPrincipals" not in one for one in sources_of(everything))


def test_a_token_is_read_from_the_header_alone_and_handed_on(everything):
    (rule,) = everything.spec("RequestAuthentication", "tokens-pay")["jwtRules"]
    assert rule["issuer"] == ISSUER
    assert rule["audiences"] == ["pay", "pay#charge", "pay#refund"]
    assert rule["fromHeaders"] == [{"name": "Authorization", "prefix": "Bearer "}]
    assert "fromParams" not in rule
    assert rule["forwardOriginalToken"] is True


def test_the_authorizer_is_asked_at_exactly_the_doors_that_need_it(everything):
    spec = everything.spec("AuthorizationPolicy", "ask-pay")
    assert (spec["action"], spec["provider"]) == ("CUSTOM", {"name": "everyhop"})
    asked = {path for one in operations_of(spec["rules"]) for path in one["paths"]}
    assert asked == {"/charge", "/refund", "/payments/{*}", "/big"}
    assert all(set(rule) == {"to"} for rule in spec["rules"])  # CUSTOM rejects identities


def test_custom_opens_nothing_by_itself(everything):
    allowed = [
        tuple(sorted(one.items(), key=str)) for one in map(_frozen, operations_of(rules_of(everything)))
    ]
    for one in operations_of(everything.spec("AuthorizationPolicy", "ask-pay")["rules"]):
        assert tuple(sorted(_frozen(one).items(), key=str)) in allowed


def _frozen(operation):
    return {key: tuple(value) for key, value in operation.items()}


def test_aliases_are_named_one_by_one(everything):
    (rule,) = rules_of(everything, "db")
    assert rule["from"][0]["source"]["principals"] == [
        "shop.example/ns/shop/sa/a",
        "old.example/ns/shop/sa/a",
    ]


def test_the_outside_is_the_gateways_principal(everything):
    listing = [
        rule["from"][0]["source"]["principals"]
        for rule in rules_of(everything)
        if any(to["operation"]["paths"] == ["/payments"] for to in rule["to"])
    ]
    assert "shop.example/ns/edge/sa/gw" in listing[0]


def test_plain_denials_are_taken_off():
    policy = """
services: {a: {operations: {x: GET /}}, b: {operations: {x: GET /}}}
allow: [{from: any, to: b, operations: all}]
deny: [{from: a, to: b, operations: all, reason: no}]
"""
    made = compiled("istio", policy)
    (rule,) = rules_of(made, "b")
    assert rule["from"] == [{"source": {"principals": ["shop.example/ns/default/sa/b"]}}]


def test_callers_with_the_same_doors_share_a_rule():
    made = istio(["{from: [a, b], to: pay, operations: [list, export]}"])
    plain = [rule for rule in rules_of(made) if rule["to"][0]["operation"]["paths"] != ["/healthz"]]
    assert len(plain) == 1
    assert len(plain[0]["to"]) == 2


def test_an_identity_of_the_mesh_has_the_meshs_trust_domain():
    made = istio(
        ["{from: a, to: db}"],
        "trust_domain: cluster.local, services: {a: {namespace: web, service_account: acc}}",
    )
    (rule,) = rules_of(made, "db")
    assert rule["from"][0]["source"]["principals"] == ["cluster.local/ns/web/sa/acc"]


def test_who_reads_of_a_revocation_is_told_that_nobody_knows_it():
    asks = ["{from: a, to: pay, operations: [charge]}"]
    assert "istio.token-revocation" in istio(asks, f"{TOKENS}, istio: {{accept: [token-binding]}}").warnings
    assert "istio.token-revocation" not in istio(asks, f"{TOKENS}, istio: {{authorizer: x}}").warnings
    assert "istio.token-revocation" not in istio(asks, TOKENS, "sdk").warnings


def test_a_bad_token_is_refused_where_none_is_needed_and_that_is_said():
    made = istio(
        ["{from: a, to: pay, operations: [charge, list, export]}"], f"{TOKENS}, istio: {{authorizer: x}}"
    )
    found = [one for one in made.compilation.diagnostics if one.code == "istio.token-elsewhere"]
    assert [one.rules for one in found] == [("allow[0]",), ()]
    assert "at list, export too" in found[0].message or "at export, list too" in found[0].message
    assert "probes[0]" in found[1].message
    assert not any(one.is_error for one in found)
    without = istio(["{from: a, to: pay, operations: [list]}"], f"{TOKENS}, istio: {{authorizer: x}}")
    assert "istio.token-elsewhere" not in without.warnings


def test_a_gateway_among_the_services_is_shut_and_said():
    made = istio(
        ["{from: outside, to: pay, operations: [list]}"], "gateway: {namespace: shop, service_account: gw}"
    )
    assert "istio.gateway-closed" in made.warnings


def test_the_head_says_what_the_mesh_has_to_be(everything):
    head = everything.files["istio/shop.yaml"].decode().partition("---")[0]
    for words in (
        "do not edit", "pathNormalization BASE", "never NONE", "trustDomain shop.example", "old.example",
        "failOpen false", "envoyExtAuthzGrpc",
    ):  # fmt: skip
        assert words in head
    accepted = (
        istio(["{from: a, to: db}"], "istio: {accept: [ambiguous-paths]}").files["istio/shop.yaml"].decode()
    )
    assert "Accepted to be held by nobody: ambiguous-paths" in accepted


def test_every_written_rule_names_the_rules_it_comes_from(everything):
    text = everything.files["istio/shop.yaml"].decode()
    assert "# pay.charge: allow[0] at everyhop.yaml:" in text
    assert "# db.tcp: allow[4] at everyhop.yaml:" in text
    assert "# pay.probes[0]: probe at everyhop.yaml:" in text
