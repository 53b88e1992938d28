# SPDX-License-Identifier: Apache-2.0
"""What becomes of each kind of clause of Istio's policies: written as it is, more narrowly, or not, and said."""

import textwrap

import pytest

from everyhop.authz import Engine
from everyhop.core.errors import InputError
from everyhop.importing import Fate, Wishes, import_policy
from everyhop.policy import parse_policy
from everyhop.policy.facts import Context, User

ISSUER = "https://login.shop.example"


def policy(name, spec, namespace="shop", annotations="{}"):
    head = (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: {namespace}, annotations: {annotations}}}\n"
    )
    return head + "spec:\n" + textwrap.indent(textwrap.dedent(spec).strip("\n"), "  ") + "\n---\n"


def workload(name, *, account=None, labels=None, port=8080, namespace="shop"):
    labels = labels or {"app": name}
    shown = ", ".join(f"{key}: {value}" for key, value in labels.items())
    return f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  template:
    metadata: {{labels: {{{shown}}}}}
    spec:
      serviceAccountName: {account or name}
      containers: [{{name: main, ports: [{{name: http, containerPort: {port}}}]}}]
---
"""


JWT = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: login, namespace: shop}}
spec:
  selector: {{matchLabels: {{app: cart}}}}
  jwtRules: [{{issuer: "{ISSUER}", audiences: [shop], jwksUri: "{ISSUER}/keys"}}]
---
"""
WORKLOADS = workload("web") + workload("cart") + workload("stock")


def imported(text, **wishes):
    return import_policy("istio", {"mesh.yaml": text.encode()}, Wishes(**wishes))


def engine_of(result):
    return Engine(parse_policy({"everyhop.yaml": result.text}))


def asks(engine, caller, call, *, target="cart", namespace="shop", context=None):
    method, path = call.split(" ")
    name = f"spiffe://cluster.local/ns/{namespace}/sa/{caller}"
    return engine.decide(caller=name, target=target, method=method, path=path, context=context).is_allowed


def codes(result):
    return {part.code for part in result.parts if part.is_lost}


ALLOW = """
selector: {matchLabels: {app: cart}}
rules:
- from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]
  to: [{operation: {methods: [GET], paths: [/items]}}]
"""


def test_full_identities_methods_and_paths_are_carried_over():
    result = imported(WORKLOADS + policy("cart", ALLOW) + policy("none", "{}"))
    assert result.is_whole
    assert codes(imported(WORKLOADS + policy("cart", ALLOW))) == {"istio.open"}  # of web and stock
    engine = engine_of(result)
    assert asks(engine, "web", "GET /items")
    assert not asks(engine, "web", "POST /items")
    assert not asks(engine, "web", "GET /items/1")
    assert not asks(engine, "stock", "GET /items")
    assert not asks(engine, "web", "GET /items", namespace="other")
    text = result.text.decode()
    assert "# AuthorizationPolicy shop/cart rules[0] (mesh.yaml:" in text
    snapshot = engine.snapshot
    assert snapshot.targets.place("cart").namespace == "shop"
    assert snapshot.targets.place("cart").labels == {"app": "cart"}
    assert {test.expect.value for test in snapshot.tests} == {"allow", "deny"}


@pytest.mark.parametrize(
    ("source", "code", "callers"),
    [
        ("namespaces: [shop]", "istio.caller-pattern", {"web", "cart", "stock"}),
        ("namespaces: [elsewhere]", "istio.caller-pattern", set()),
        ('principals: ["cluster.local/ns/shop/sa/w*"]', "istio.caller-pattern", {"web"}),
        ('principals: ["*/sa/stock"]', "istio.caller-pattern", {"stock"}),
        ('principals: ["*"]', "istio.any-identity", {"web", "cart", "stock"}),
        ("notPrincipals: [cluster.local/ns/shop/sa/web]", "istio.caller-pattern", {"cart", "stock"}),
        ("notNamespaces: [shop]", "istio.caller-pattern", set()),
        ("serviceAccounts: [web]", "istio.any-trust-domain", {"web"}),
        ("serviceAccounts: [shop/web]", "istio.any-trust-domain", {"web"}),
        ("serviceAccounts: [other/web]", "istio.any-trust-domain", set()),
        ("principals: [far.example/ns/shop/sa/web]", "istio.trust-domain", set()),
        ("ipBlocks: [10.0.0.0/8]", "istio.address", set()),
        ("notRemoteIpBlocks: [10.0.0.0/8]", "istio.address", set()),
        ("unheardOf: [x]", "istio.unknown-field", set()),
    ],
)
def test_callers_are_those_of_the_source_that_are_known(source, code, callers):
    spec = f"selector: {{matchLabels: {{app: cart}}}}\nrules:\n- from: [{{source: {{{source}}}}}]\n  to: [{{operation: {{methods: [GET], paths: [/items]}}}}]"
    result = imported(WORKLOADS + policy("cart", spec), trust_domain="cluster.local")
    engine = engine_of(result)
    assert {name for name in ("web", "cart", "stock") if asks(engine, name, "GET /items")} == callers
    assert codes(result) - {"istio.open"} == ({code} if code else set())


def test_a_rule_without_from_is_open_to_declared_services_only():
    spec = (
        "selector: {matchLabels: {app: cart}}\nrules:\n- to: [{operation: {methods: [GET], paths: [/items]}}]"
    )
    result = imported(WORKLOADS + policy("cart", spec))
    engine = engine_of(result)
    assert "istio.anybody" in codes(result)
    assert asks(engine, "web", "GET /items")
    assert not asks(engine, "stranger", "GET /items")
    assert not engine.decide(caller="outside", target="cart", method="GET", path="/items").is_allowed


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ("hosts: [cart.shop.example]", "istio.hosts"),
        ('notHosts: ["x"]', "istio.hosts"),
        ('ports: ["9999"], methods: [GET]', "istio.port"),
        ("methods: [BREW]", "istio.method"),
        ('paths: ["*.html"]', "istio.path-suffix"),
        ('paths: ["/a{b}"]', "istio.path"),
        ('paths: ["/{**}/x"]', "istio.path-template"),
    ],
)
def test_what_the_language_cannot_say_of_a_place_is_left_out_and_said(operation, code):
    rule = f"- to: [{{operation: {{{operation}}}}}]"
    # A second rule names the service's port, so that the first one's is another.
    spec = f"selector: {{matchLabels: {{app: cart}}}}\nrules:\n{rule}\n- to: [{{operation: {{ports: ['8080'], methods: [GET], paths: [/x]}}}}]\n- to: [{{operation: {{ports: ['8080'], methods: [GET], paths: [/y]}}}}]"
    result = imported(WORKLOADS + policy("cart", spec))
    assert [part.fate for part in result.parts if part.code == code] == [Fate.LEFT_OUT]
    assert not asks(engine_of(result), "web", "GET /items")
    assert asks(engine_of(result), "web", "GET /x")


def test_any_method_and_any_path_are_those_of_the_language():
    spec = "selector: {matchLabels: {app: cart}}\nrules:\n- from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]"
    engine = engine_of(imported(WORKLOADS + policy("cart", spec), methods=("GET", "DELETE")))
    assert asks(engine, "web", "DELETE /whatever/it/is")
    assert not asks(engine, "web", "POST /whatever")


def test_not_paths_are_carved_out_exactly():
    spec = """
    selector: {matchLabels: {app: cart}}
    rules:
    - from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]
      to: [{operation: {methods: [GET], notPaths: ["/admin/*", "/private"]}}]
    """
    result = imported(WORKLOADS + policy("cart", spec))
    engine = engine_of(result)
    assert codes(result) == {"istio.open"}
    assert asks(engine, "web", "GET /items")
    assert asks(engine, "web", "GET /admin")
    assert not asks(engine, "web", "GET /admin/x")
    assert not asks(engine, "web", "GET /private")


OPEN = "selector: {matchLabels: {app: cart}}\nrules:\n- from: [{source: {principals: [cluster.local/ns/shop/sa/web, cluster.local/ns/shop/sa/stock]}}]\n  to: [{operation: {methods: [GET, POST]}}]"


@pytest.mark.parametrize(
    ("deny", "code", "refused"),
    [
        ("rules:\n- to: [{operation: {paths: ['/admin/*']}}]", None, {"web GET /admin/x", "stock GET /admin/x"}),
        ("rules:\n- to: [{operation: {methods: [POST]}}]", None, {"web POST /a", "stock POST /a"}),
        ("rules:\n- from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]", None, {"web"}),
        ("rules:\n- from: [{source: {notPrincipals: [cluster.local/ns/shop/sa/web]}}]", None, {"stock"}),
        ("rules:\n- from: [{source: {notNamespaces: [shop]}}]", None, set()),
        ("rules:\n- to: [{operation: {ports: ['9999']}}]", None, set()),
        ("rules:\n- to: [{operation: {notPaths: ['/a']}}]", None, {"/admin/x", "/other"}),
        ("rules:\n- to: [{operation: {paths: ['/adm*']}}]", "istio.deny-paths", {"/"}),
        ("rules:\n- to: [{operation: {hosts: [x]}}]", "istio.deny", {"/"}),
        ("rules:\n- from: [{source: {ipBlocks: [10.0.0.0/8]}}]", "istio.deny", {"/"}),
        ("rules:\n- when: [{key: 'request.headers[x-a]', values: [b]}]", "istio.deny", {"/"}),
        ("rules:\n- when: [{key: 'experimental.x', values: [b]}]", "istio.deny", {"/"}),
        ("selector: {matchLabels: {app: cart, tier: x}}\nrules: [{}]", None, set()),
        ("selector: {matchLabels: {app: stock}}\nrules: [{}]", None, set()),
        ("targetRefs: [{kind: Gateway, name: waypoint}]\nrules: [{}]", "istio.target-refs", {"/"}),
    ],
)  # fmt: skip
def test_what_is_denied_is_denied_here_too(deny, code, refused):
    text = WORKLOADS + policy("cart", OPEN) + policy("refuse", f"action: DENY\n{deny}")
    result = imported(text)
    engine = engine_of(result)
    calls = {
        f"{caller} {call}"
        for caller in ("web", "stock")
        for call in ("GET /a", "POST /a", "GET /admin/x", "GET /other")
    }
    closed = {call for call in calls if not asks(engine, *call.split(" ", 1))}
    assert closed == {call for call in calls if any(part in call for part in refused)}
    assert codes(result) - {"istio.open"} == ({code} if code else set())


def test_custom_counts_as_denied_and_dry_runs_and_audits_as_nothing():
    custom = "action: CUSTOM\nprovider: {name: ext}\nrules:\n- to: [{operation: {paths: [/items]}}]"
    result = imported(WORKLOADS + policy("cart", OPEN) + policy("ext", custom))
    assert "istio.custom" in codes(result)
    assert not asks(engine_of(result), "web", "GET /items")
    assert asks(engine_of(result), "web", "GET /other")
    shadow = policy("dry", "action: DENY\nrules: [{}]", annotations='{istio.io/dry-run: "true"}')
    audit = policy("audit", "action: AUDIT\nrules: [{}]")
    result = imported(WORKLOADS + policy("cart", OPEN) + shadow + audit)
    assert asks(engine_of(result), "web", "GET /items")
    assert codes(result) == {"istio.open"}


def test_a_users_token_becomes_a_rule_for_that_users_issuer():
    spec = f"""
    selector: {{matchLabels: {{app: cart}}}}
    rules:
    - from: [{{source: {{principals: [cluster.local/ns/shop/sa/web], requestPrincipals: ["{ISSUER}/*"]}}}}]
      to: [{{operation: {{methods: [GET], paths: [/items]}}}}]
      when: [{{key: "request.auth.claims[groups]", values: [buyers]}}]
    """
    result = imported(WORKLOADS + JWT + policy("cart", spec))
    engine = engine_of(result)
    assert codes(result) == {"istio.open", "istio.claim"}
    (issuer,) = engine.snapshot.user_issuers
    assert (issuer.issuer, issuer.audiences, issuer.jwks) == (ISSUER, ("shop",), f"{ISSUER}/keys")

    def user(groups):
        return Context(user=User(id="u", issuer=ISSUER, attributes={"groups": tuple(groups)}))

    assert asks(engine, "web", "GET /items", context=user(["buyers", "x"]))
    assert not asks(engine, "web", "GET /items", context=user(["sellers"]))
    assert not asks(engine, "web", "GET /items", context=Context())
    assert not asks(engine, "stock", "GET /items", context=user(["buyers"]))


@pytest.mark.parametrize(
    "principal", ["https://other.example/*", f"{ISSUER}/a*", "*/bob"], ids=["issuer", "prefix", "suffix"]
)
def test_request_principals_that_the_policy_cannot_name_are_left_out(principal):
    spec = f"selector: {{matchLabels: {{app: cart}}}}\nrules:\n- from: [{{source: {{requestPrincipals: ['{principal}']}}}}]"
    if principal == "*/bob":
        result = imported(WORKLOADS + JWT + policy("cart", spec))
        bob = Context(user=User(id="bob", issuer=ISSUER))
        assert asks(engine_of(result), "web", "GET /", context=bob)
        assert not asks(
            engine_of(result), "web", "GET /", context=Context(user=User(id="eve", issuer=ISSUER))
        )
        return
    result = imported(WORKLOADS + JWT + policy("cart", spec))
    assert "istio.request-principals" in codes(result)
    assert not engine_of(result).snapshot.rules


def test_tokens_count_only_where_they_are_verified():
    spec = f"selector: {{matchLabels: {{app: stock}}}}\nrules:\n- from: [{{source: {{requestPrincipals: ['{ISSUER}/*']}}}}]"
    result = imported(WORKLOADS + JWT + policy("stock", spec))
    assert "istio.request-principals" in codes(result)
    assert not engine_of(result).snapshot.rules


def test_the_usual_way_to_ask_for_a_token_asks_for_a_user():
    must = "selector: {matchLabels: {app: cart}}\naction: DENY\nrules:\n- from: [{source: {notRequestPrincipals: ['*']}}]\n  to: [{operation: {notPaths: [/health]}}]"
    result = imported(WORKLOADS + JWT + policy("cart", OPEN) + policy("must", must))
    engine = engine_of(result)
    user = Context(user=User(id="u", issuer=ISSUER))
    assert asks(engine, "web", "GET /items", context=user)
    assert not asks(engine, "web", "GET /items", context=Context())
    assert asks(engine, "web", "GET /health", context=Context())
    assert codes(result) == {"istio.open"}


def test_headers_are_conditions():
    spec = "selector: {matchLabels: {app: cart}}\nrules:\n- when: [{key: 'request.headers[X-Region]', values: [eu, us]}]"
    engine = engine_of(imported(WORKLOADS + policy("cart", spec)))
    assert asks(engine, "web", "GET /", context=Context(headers={"x-region": ("us",)}))
    assert not asks(engine, "web", "GET /", context=Context(headers={"x-region": ("asia",)}))
    assert not asks(engine, "web", "GET /", context=Context())


@pytest.mark.parametrize(
    "when",
    [
        "{key: 'request.headers[authorization]', values: [x]}",
        "{key: 'request.headers[x-a]', values: ['x*']}",
        "{key: 'request.headers[x-a]', notValues: [x]}",
        "{key: 'request.headers[x-a]', values: [\"a'b\"]}",
        "{key: 'source.ip', values: [10.0.0.1]}",
        "{key: connection.sni, values: [x]}",
    ],
)
def test_conditions_that_cannot_be_said_leave_the_rule_out(when):
    spec = f"selector: {{matchLabels: {{app: cart}}}}\nrules:\n- when: [{when}]"
    result = imported(WORKLOADS + policy("cart", spec))
    assert "istio.when" in codes(result)
    assert not engine_of(result).snapshot.rules


def test_ports_alone_make_a_tcp_service():
    spec = "selector: {matchLabels: {app: stock}}\nrules:\n- from: [{source: {principals: [cluster.local/ns/shop/sa/cart]}}]\n  to: [{operation: {ports: ['5432']}}]"
    engine = engine_of(imported(WORKLOADS + policy("stock", spec)))
    name = "spiffe://cluster.local/ns/shop/sa/{}"
    assert engine.snapshot.services["stock"].tcp == 5432
    assert engine.decide_tcp(caller=name.format("cart"), target="stock").is_allowed
    assert not engine.decide_tcp(caller=name.format("web"), target="stock").is_allowed


def test_pods_that_share_an_account_are_one_service_or_none():
    same = workload("v1", account="cart", labels={"app": "cart", "version": "v1"}) + workload(
        "v2", account="cart", labels={"app": "cart", "version": "v2"}
    )
    result = imported(workload("web") + same + policy("cart", ALLOW))
    assert asks(engine_of(result), "web", "GET /items")
    only = ALLOW.replace("{app: cart}", "{app: cart, version: v1}")
    result = imported(workload("web") + same + policy("cart", only))
    assert not asks(engine_of(result), "web", "GET /items")
    assert "istio.no-workload" in codes(result)
    apart = workload("a", account="default", labels={"app": "a"}) + workload(
        "b", account="default", labels={"app": "b"}
    )
    result = imported(apart + policy("b", ALLOW.replace("app: cart", "app: b")))
    assert {"istio.shared-account", "istio.no-workload"} <= codes(result)


def test_a_selector_with_further_labels_is_kept_as_narrow_as_it_is():
    one = workload("cart", labels={"app": "cart", "tier": "gold"})
    result = imported(
        workload("web") + one + policy("cart", ALLOW.replace("{app: cart}", "{app: cart, tier: gold}"))
    )
    assert engine_of(result).snapshot.targets.place("cart").labels == {"app": "cart", "tier": "gold"}


def test_policies_of_the_root_namespace_hold_everywhere():
    deny = policy(
        "refuse", "action: DENY\nrules:\n- to: [{operation: {paths: [/items]}}]", namespace="istio-system"
    )
    assert not asks(engine_of(imported(WORKLOADS + policy("cart", OPEN) + deny)), "web", "GET /items")
    allow = policy(
        "admit",
        "rules:\n- from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]",
        namespace="istio-system",
    )
    engine = engine_of(imported(WORKLOADS + allow))
    assert asks(engine, "web", "GET /", target="stock")


def test_the_root_namespace_may_be_another():
    deny = policy("refuse", "action: DENY\nrules: [{}]", namespace="mesh-root")
    result = imported(WORKLOADS + policy("cart", OPEN) + deny, root_namespace="mesh-root")
    assert not asks(engine_of(result), "web", "GET /items")
    assert engine_of(result).snapshot.targets.option("istio", "root_namespace") == "mesh-root"


def test_the_gateway_speaks_for_the_outside():
    text = WORKLOADS + policy("cart", ALLOW.replace("shop/sa/web", "edge/sa/gw"))
    engine = engine_of(imported(text, gateway=("edge", "gw")))
    assert engine.decide(caller="outside", target="cart", method="GET", path="/items").is_allowed
    assert engine.snapshot.targets.gateway.service_account == "gw"
    assert "gw" not in engine.snapshot.services


def test_mutual_tls_that_is_not_asked_for_is_said():
    peer = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: x, namespace: shop}\nspec: {mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: PERMISSIVE}}}\n---\n"
    assert "istio.plaintext" in codes(imported(peer + WORKLOADS + policy("cart", ALLOW)))


def test_without_workloads_accounts_are_assumed_and_said():
    result = imported(policy("cart", ALLOW))
    assert [part.code for part in result.parts if part.fate is Fate.ASSUMED] == ["istio.account"]
    assert asks(engine_of(result), "web", "GET /items")
    assert result.is_whole


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (policy("x", "action: MAYBE"), "no action 'MAYBE'"),
        (policy("x", "action: DENY"), "DENY needs a list of rules"),
        (policy("x", "rules: [[]]"), "a rule is no mapping"),
        (policy("x", "rules: [{from: [{sauce: {}}]}]"), "expected source"),
        (policy("x", "rules: [{from: [{source: {principals: x}}]}]"), "expected a list of texts"),
        (policy("x", "rules: [{from: {}}]"), "expected a list"),
        (policy("x", "rules: [{when: [{values: [x]}]}]"), "expected a key"),
        (policy("x", "selector: {matchExpressions: []}"), "matchLabels only"),
        (policy("x", "roles: []"), "the field 'roles' is not known"),
        ("", "nothing here names"),
        (policy("x", "{}"), "nothing here names"),
    ],
)
def test_what_istio_would_refuse_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        imported(text)


def test_an_origin_that_is_none_is_refused():
    with pytest.raises(InputError, match="nothing can be imported from 'consul'"):
        import_policy("consul", {})
