# SPDX-License-Identifier: Apache-2.0
"""Ambient mode: what ztunnel makes of policies, and the ways round and through a waypoint."""

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
from everyhop.evaluators.istio import Ambient
from everyhop.evaluators.model import Wire

TD = "mesh.test"
WAYPOINT = "mesh.test/ns/shop/sa/waypoint"
OWN = {"principals": ["mesh.test/ns/shop/sa/checkout"]}
GATEWAY = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "waypoint", "namespace": "shop"},
    "spec": {
        "gatewayClassName": "istio-waypoint",
        "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
    },
}
TO_SERVICE = [{"group": "", "kind": "Service", "name": "payments"}]
USES = {"uses": {"shop": "waypoint"}}
THROUGH = policy(rule(OWN, {"methods": ["POST"], "paths": ["/charge"]}), targetRefs=TO_SERVICE, name="l7")
ONLY_WAYPOINT = policy(
    rule({"principals": [WAYPOINT]}), name="l4", selector={"matchLabels": {"app": "payments"}}
)
BARE = {"wire": Wire.TCP, "method": "", "path": "", "host": ""}


def ambient(*objects, **settings):
    """Return the evaluator."""
    return Ambient(manifests(*objects), trust_domain=TD, **settings)


def allowed(objects, asking=None, **settings):
    """Tell whether a request passes."""
    return ambient(*objects, **settings).evaluate(asking or request()).allowed


# --- ztunnel ------------------------------------------------------------------------------------------------------


def test_without_policies_everything_passes_and_an_empty_spec_denies():
    assert allowed([])
    assert not allowed([policy()])
    assert not allowed([policy(namespace="istio-system")])


def test_an_allow_rule_with_layer_7_is_left_out_whole():
    assert not allowed([policy(rule(OWN, {"methods": ["POST"]}))])
    assert not allowed([policy(rule({**OWN, "requestPrincipals": ["*"]}))])
    assert not allowed([policy(rule(OWN, when=[{"key": "request.headers[a]", "values": ["b"]}]))])
    assert allowed([policy(rule(OWN, {"methods": ["GET"]}), rule(OWN, {"ports": ["8080"]}))])


def test_a_deny_rule_with_layer_7_loses_it_and_denies_more():
    mixed = policy(rule(OWN, {"methods": ["DELETE"], "ports": ["8080"]}), action="DENY")
    assert not allowed([mixed])
    assert allowed([mixed], request(port=9090))


def test_a_deny_rule_of_layer_7_alone_has_no_effect():
    """istio#61126: the match that is left is empty, and an empty match matches nothing."""
    assert allowed([policy(rule(operation={"methods": ["POST"]}), action="DENY")])
    assert allowed([policy(rule(OWN, {"paths": ["/charge"]}), action="DENY")])


def test_trust_domains_are_ignored_without_a_word():
    """What is left of namespaces and trustDomains together is namespaces, of any trust domain: wider than written."""
    objects = [policy(rule({"namespaces": ["shop"], "trustDomains": [TD]}))]
    assert allowed(objects, request(peer="spiffe://evil.test/ns/shop/sa/checkout"))
    assert not allowed([policy(rule({"trustDomains": [TD]}))])
    assert allowed([policy(rule({"trustDomains": [TD]}), action="DENY")])


def test_aliases_of_the_trust_domain_are_not_known():
    old = request(peer="spiffe://old.test/ns/shop/sa/checkout")
    assert not allowed([policy(rule(OWN))], old, aliases=["old.test"])


@pytest.mark.parametrize(
    ("source", "peer", "matches"),
    [
        (OWN, CHECKOUT, True),
        ({"principals": ["*"]}, CHECKOUT, True),
        ({"principals": ["*"]}, None, False),
        ({"principals": ["mesh.test/*"]}, CHECKOUT, True),
        ({"principals": ["*/sa/checkout"]}, "spiffe://evil.test/ns/a/sa/checkout", True),
        ({"notPrincipals": ["*"]}, None, True),
        ({"notPrincipals": ["*"]}, CHECKOUT, False),
        ({"namespaces": ["shop"]}, CHECKOUT, True),
        ({"namespaces": ["sh*"]}, CHECKOUT, True),
        ({"namespaces": ["shop"]}, "spiffe://mesh.test/shop", False),
        ({"notNamespaces": ["evil"]}, None, True),
        ({"serviceAccounts": ["shop/checkout"]}, "spiffe://evil.test/ns/shop/sa/checkout", True),
        ({"serviceAccounts": ["checkout"]}, CHECKOUT, True),
        ({"serviceAccounts": ["checkout"]}, None, False),
        ({"ipBlocks": ["10.1.0.0/24"]}, None, True),
        ({"notIpBlocks": ["10.1.0.0/24"]}, CHECKOUT, False),
    ],
)  # fmt: skip
def test_sources_at_ztunnel(source, peer, matches):
    assert allowed([policy(rule(source))], request(peer=peer)) is matches


def test_when_at_layer_4():
    assert allowed([policy(rule(OWN, when=[{"key": "destination.port", "values": ["8080"]}]))])
    assert not allowed([policy(rule(OWN, when=[{"key": "destination.port", "notValues": ["8080"]}]))])
    assert allowed([policy(rule(when=[{"key": "source.namespace", "values": ["shop"]}]))])
    assert allowed([policy(rule(when=[{"key": "destination.ip", "values": ["10.1.0.1"]}]))])
    assert not allowed([policy(rule(when=[{"key": "source.serviceAccount", "values": ["checkout"]}]))])


def test_custom_and_audit_and_dry_runs_do_not_exist_at_ztunnel():
    assert allowed(
        [policy({}, action="CUSTOM", provider={"name": "a"}), policy({}, action="AUDIT", name="q")]
    )
    assert allowed([policy(annotations={"istio.io/dry-run": "true"})])
    assert ambient(policy({}, action="CUSTOM", provider={"name": "a"})).evaluate(request()).asks is None


def test_deny_comes_first_and_selectors_select():
    assert not allowed([policy({}), policy(rule(OWN), action="DENY", name="d")])
    assert allowed([policy(selector={"matchLabels": {"app": "other"}})])
    assert not allowed([policy(selector={"matchLabels": {"app": "payments"}}, namespace="istio-system")])


@pytest.mark.parametrize(
    ("objects", "refused"),
    [
        ((("STRICT", "shop", None, None),), True),
        ((("STRICT", "istio-system", None, None),), True),
        ((("STRICT", "istio-system", None, None), ("PERMISSIVE", "shop", None, None)), False),
        ((("PERMISSIVE", "shop", None, None), ("PERMISSIVE", "shop", "w", {"8080": "STRICT"})), True),
        ((("STRICT", "shop", "w", {"8080": "PERMISSIVE"}),), False),
        ((("STRICT", "shop", "w", {"9090": "PERMISSIVE"}),), True),
        ((("STRICT", "shop", None, None), ("UNSET", "shop", "w", {"8080": "PERMISSIVE"})), False),
        ((("STRICT", "shop", None, None), ("UNSET", "shop", "w", {"9090": "PERMISSIVE"})), True),
        ((("STRICT", "shop", None, None), ("UNSET", "shop", "w", {"8080": "DISABLE"})), True),
        ((("STRICT", "shop", None, None), ("UNSET", "shop", "w", {"8080": "DISABLE", "1": "PERMISSIVE"})), False),
        ((("STRICT", "istio-system", None, None), ("UNSET", "shop", None, None), ("UNSET", "shop", "w", {"9090": "PERMISSIVE"})), False),
        ((), False),
    ],
)  # fmt: skip
def test_plaintext_at_ztunnel(objects, refused):
    made = []
    for number, (mode, namespace, own, ports) in enumerate(objects):
        spec = {"mtls": {"mode": mode}}
        if own:
            spec |= {"selector": {"matchLabels": {"app": "payments"}}}
        if ports:
            spec |= {"portLevelMtls": {port: {"mode": one} for port, one in ports.items()}}
        made.append(security("PeerAuthentication", spec, name=f"p{number}", namespace=namespace))
    assert allowed(made, request(peer=None)) is not refused
    assert allowed(made)


# --- waypoints ----------------------------------------------------------------------------------------------------


def test_a_policy_for_the_waypoint_alone_is_bypassed():
    """istio#53723: whoever goes straight to the pod meets no waypoint."""
    outcome = ambient(THROUGH, GATEWAY, **USES).evaluate(request(path="/admin"))
    assert (outcome.allowed, outcome.why) == (True, "ztunnel: no ALLOW policy applies")


def test_the_pair_holds_layer_7_and_lets_nobody_round_the_waypoint():
    objects = [THROUGH, ONLY_WAYPOINT, GATEWAY]
    assert allowed(objects, **USES)
    assert not allowed(objects, request(path="/admin"), **USES)
    assert not allowed(objects, request(method="GET"), **USES)
    assert not allowed(objects, request(peer="spiffe://mesh.test/ns/shop/sa/other"), **USES)
    assert not allowed(objects, request(peer=None), **USES)
    ways = dict(ambient(*objects, **USES).ways(request()))
    assert {name: one.allowed for name, one in ways.items()} == {
        "waypoint shop/waypoint": True,
        "direct": False,
    }


def test_after_the_waypoint_the_source_is_the_waypoint():
    """istio.io#16586: a ztunnel policy that names the client refuses what comes through the waypoint."""
    naming_client = policy(rule(OWN), name="l4", selector={"matchLabels": {"app": "payments"}})
    ways = dict(ambient(THROUGH, naming_client, GATEWAY, **USES).ways(request()))
    assert not ways["waypoint shop/waypoint"].allowed
    assert "after the waypoint" in ways["waypoint shop/waypoint"].why
    assert ways["direct"].allowed


def test_without_the_gateway_there_is_no_waypoint_whatever_the_label_says():
    assert not allowed([THROUGH, ONLY_WAYPOINT], **USES)


def test_a_waypoint_without_a_policy_lets_all_through():
    objects = [ONLY_WAYPOINT, GATEWAY]
    assert allowed(objects, request(path="/admin"), **USES)


@pytest.mark.parametrize(
    ("reference", "namespace", "attaches"),
    [
        (TO_SERVICE[0], "shop", True),
        (TO_SERVICE[0], "other", False),
        (TO_SERVICE[0] | {"name": "orders"}, "shop", False),
        ({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"}, "shop", True),
        ({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"}, "istio-system", False),
        ({"group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": "istio-waypoint"}, "istio-system", True),
        ({"group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": "istio-waypoint"}, "shop", False),
    ],
)  # fmt: skip
def test_what_attaches_to_a_waypoint(reference, namespace, attaches):
    objects = [policy(targetRefs=[reference], namespace=namespace), ONLY_WAYPOINT, GATEWAY]
    assert allowed(objects, **USES) is not attaches


def test_selectors_and_namespaces_do_not_attach_to_a_waypoint():
    objects = [policy({}, action="DENY", selector={"matchLabels": {"gateway.networking.k8s.io/gateway-name": "waypoint"}}), ONLY_WAYPOINT, GATEWAY]  # fmt: skip
    assert allowed(objects, **USES)


def test_tokens_and_providers_are_looked_at_by_the_waypoint():
    jwt = security(
        "RequestAuthentication", {"jwtRules": [{"issuer": ISSUER}], "targetRefs": TO_SERVICE}, name="jwt"
    )
    needs = policy(rule({"requestPrincipals": [f"{ISSUER}/checkout"]}), targetRefs=TO_SERVICE, name="t")
    objects = [jwt, needs, ONLY_WAYPOINT, GATEWAY]
    assert allowed(objects, request(token=token()), **USES)
    assert not allowed(objects, **USES)
    assert not allowed(objects, request(token=token(is_forged=True)), **USES)
    custom = policy({}, action="CUSTOM", provider={"name": "authorizer"}, targetRefs=TO_SERVICE, name="c")
    assert ambient(custom, ONLY_WAYPOINT, GATEWAY, **USES).evaluate(request()).asks == "authorizer"
    open_way = ambient(custom, GATEWAY, **USES).evaluate(request())
    assert (open_way.allowed, open_way.asks) == (True, None)


def service(name="payments", selector=None, **labels):
    """Return a Service."""
    metadata = {"name": name, "namespace": "shop", "labels": labels}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"selector": {"app": "payments"} if selector is None else selector},
    }


def test_labels_of_service_and_namespace_say_which_waypoint():
    namespace = in_mesh(**{"istio.io/use-waypoint": "waypoint"})
    pair = [THROUGH, ONLY_WAYPOINT, GATEWAY]
    assert allowed([*pair, namespace])
    assert not allowed(pair)
    assert allowed([*pair, service(**{"istio.io/use-waypoint": "waypoint"})])
    assert not allowed([*pair, namespace, service(**{"istio.io/use-waypoint": "none"})])
    assert not allowed([*pair, namespace, service(selector={"app": "other"})])
    assert allowed(pair, request(target=workload(namespace_labels={"istio.io/use-waypoint": "waypoint"})))
    assert not allowed([*pair, in_mesh()], **USES)  # what the object says counts, not what is said of it
    away = {"istio.io/use-waypoint": "waypoint", "istio.io/use-waypoint-namespace": "shop"}
    assert allowed([*pair, service(**away)])


def test_a_waypoint_for_workloads_stands_before_their_addresses():
    gateway = GATEWAY | {"metadata": GATEWAY["metadata"] | {"labels": {"istio.io/waypoint-for": "workload"}}}
    refs = [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"}]
    l7 = policy(rule(OWN, {"paths": ["/charge"]}), targetRefs=refs, name="l7")
    assert allowed([l7, ONLY_WAYPOINT, gateway], **USES)
    assert not allowed([l7, ONLY_WAYPOINT, gateway], request(path="/x"), **USES)


def test_tcp_through_a_waypoint():
    tcp = policy(rule(OWN, {"ports": ["8080"]}), targetRefs=TO_SERVICE, name="l4w")
    assert allowed([tcp, ONLY_WAYPOINT, GATEWAY], request(**BARE), **USES)
    assert not allowed([THROUGH, ONLY_WAYPOINT, GATEWAY], request(**BARE), **USES)


def in_mesh(mode="ambient", **labels):
    """Return the namespace of the workloads."""
    labels |= {} if mode is None else {"istio.io/dataplane-mode": mode}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}


@pytest.mark.parametrize(
    ("namespace", "own", "is_open"),
    [
        ([], {}, False),
        ([], {"istio.io/dataplane-mode": "none"}, True),
        ([in_mesh()], {}, False),
        ([in_mesh() | {"metadata": {"name": "other"}}], {}, True),
        ([in_mesh(None)], {}, True),
        ([in_mesh("none")], {}, True),
        ([in_mesh(None)], {"istio.io/dataplane-mode": "ambient"}, False),
        ([in_mesh()], {"istio.io/dataplane-mode": "none"}, True),
    ],
)
def test_a_pod_outside_of_the_mesh_is_open(namespace, own, is_open):
    assert allowed([policy(), *namespace], request(target=workload(labels=own))) is is_open


def test_foreign_certificates_and_malformed_paths_are_refused():
    pair = [THROUGH, ONLY_WAYPOINT, GATEWAY]
    foreign = request(peer="spiffe://evil.test/ns/shop/sa/checkout")
    assert not allowed([], foreign, refuses_foreign=True)
    assert not allowed(pair, foreign, refuses_foreign=True, **USES)
    assert not allowed(pair, request(path="/charge#x"), **USES)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (service(**{"istio.io/use-waypoint-canary": "w"}), "canary"),
        (GATEWAY | {"metadata": GATEWAY["metadata"] | {"labels": {"istio.io/waypoint-for": "x"}}}, "waypoint-for"),
        (GATEWAY | {"spec": {"gatewayClassName": "istio-waypoint", "listeners": [{"allowedRoutes": {"namespaces": {"from": "Selector"}}}]}}, "not known here"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_an_error(wrong, said):
    with pytest.raises(InputError, match=said):
        ambient(wrong)
