# SPDX-License-Identifier: Apache-2.0
"""NetworkPolicy and ClusterNetworkPolicy against a second formulation: nine pods in three namespaces, by sets of connections.

The second one never asks about a pair: it expands each policy into the sets of connections that it isolates, allows or decides, and
takes what is left of all connections.
"""

import json
from itertools import product

from hypothesis import given, settings, strategies as st
from tests.support.meshes import pod, tcp

from everyhop.evaluators.cluster_network_policy import ClusterNetworkPolicyEvaluator
from everyhop.evaluators.network_policy import NetworkPolicyEvaluator
from everyhop.manifests import read_manifests

SPACES = {"x": {"team": "red"}, "y": {"team": "blue"}, "z": {}}
APPS = ("a", "b", "c")
PORTS = (80, 81)
CELLS = [(space, app) for space in SPACES for app in APPS]
ADDRESS = {cell: f"10.0.{number}.1" for number, cell in enumerate(CELLS)}
PODS = {
    (space, app): pod(app, space, ip=ADDRESS[space, app], team=SPACES[space].get("team"))
    for space, app in CELLS
}
ALL = frozenset(product(CELLS, CELLS, PORTS))

apps = st.lists(st.sampled_from(APPS), unique=True, max_size=3)
teams = st.sampled_from([None, "red", "blue"])


def by_app(chosen):
    return {"matchExpressions": [{"key": "app", "operator": "In", "values": chosen}]} if chosen else {}


@st.composite
def peers(draw):
    """A peer as Kubernetes writes it, and the pods that it means, as a function of the policy's namespace."""
    kind = draw(st.sampled_from(["pods", "spaces", "both", "block"]))
    if kind == "block":
        hole = draw(st.booleans())
        block = {"cidr": "10.0.0.0/21"} | ({"except": ["10.0.3.0/24"]} if hole else {})
        meant = {cell for number, cell in enumerate(CELLS) if number < 8 and not (hole and number == 3)}
        return {"ipBlock": block}, lambda _: meant
    chosen, team = draw(apps), draw(teams)
    spaces = {"matchLabels": {"team": team}} if team else {}
    of_team = {space for space, labels in SPACES.items() if not team or labels.get("team") == team}
    of_app = set(chosen or APPS)
    if kind == "pods":
        return {"podSelector": by_app(chosen)}, lambda home: {(home, app) for app in of_app}
    if kind == "spaces":
        return {"namespaceSelector": spaces}, lambda _: set(product(of_team, APPS))
    return {"namespaceSelector": spaces, "podSelector": by_app(chosen)}, lambda _: set(
        product(of_team, of_app)
    )


@st.composite
def rules(draw, side):
    found = draw(st.lists(peers(), max_size=2))
    ports = draw(st.lists(st.sampled_from(PORTS), unique=True, max_size=1))
    rule = {}
    if found:
        rule[side] = [written for written, _ in found]
    if ports:
        rule["ports"] = [{"port": one} for one in ports]

    def meant(home):
        cells = set().union(*(one(home) for _, one in found)) if found else set(CELLS)
        return cells, set(ports or PORTS)

    return rule, meant


@st.composite
def policies(draw):
    home, selected = draw(st.sampled_from(sorted(SPACES))), draw(apps)
    ingress, egress = draw(st.lists(rules("from"), max_size=2)), draw(st.lists(rules("to"), max_size=2))
    types = draw(st.sampled_from([None, ["Ingress"], ["Egress"], ["Ingress", "Egress"]]))
    spec = {"podSelector": by_app(selected)}
    if ingress or draw(st.booleans()):
        spec["ingress"] = [written for written, _ in ingress]
    if egress or draw(st.booleans()):
        spec["egress"] = [written for written, _ in egress]
    if types is not None:
        spec["policyTypes"] = types
    subjects = {(home, app) for app in (selected or APPS)}
    ways = set(types or (["Ingress", "Egress"] if egress else ["Ingress"]))
    meant = {
        "Ingress": [one(home) for _, one in ingress] if "Ingress" in ways else None,
        "Egress": [one(home) for _, one in egress] if "Egress" in ways else None,
    }
    return home, spec, subjects, meant


def expand(found):
    """Return every connection that is let pass."""
    held, opened = {"Ingress": set(), "Egress": set()}, {"Ingress": set(), "Egress": set()}
    for _, _, subjects, meant in found:
        for way, ruled in meant.items():
            if ruled is None:
                continue
            held[way] |= subjects
            for cells, ports in ruled:
                pairs = product(cells, subjects) if way == "Ingress" else product(subjects, cells)
                opened[way] |= {(*pair, port) for pair, port in product(pairs, ports)}
    shut_in = {one for one in ALL if one[1] in held["Ingress"]} - opened["Ingress"]
    shut_out = {one for one in ALL if one[0] in held["Egress"]} - opened["Egress"]
    return ALL - shut_in - shut_out


def documents_of(found):
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": f"p{number}", "namespace": home},
            "spec": spec,
        }
        for number, (home, spec, _, _) in enumerate(found)
    ]


def read(documents):
    return read_manifests({f"{n:03}.json": json.dumps(one).encode() for n, one in enumerate(documents)})


def evaluator(found):
    return NetworkPolicyEvaluator(read(documents_of(found)))


def passed(asked):
    return {
        (source, target, port)
        for source, target, port in ALL
        if asked.evaluate(tcp(PODS[source], PODS[target], port)).allowed
    }


@settings(max_examples=40, deadline=None)
@given(st.lists(policies(), max_size=4))
def test_the_truth_table_is_that_of_the_second_formulation(found):
    assert passed(evaluator(found)) == expand(found)


@settings(max_examples=20, deadline=None)
@given(st.lists(policies(), min_size=1, max_size=3), st.data())
def test_one_rule_more_never_narrows(found, data):
    before = passed(evaluator(found))
    number = data.draw(st.integers(0, len(found) - 1))
    home, spec, subjects, meant = found[number]
    way, side = data.draw(st.sampled_from([("Ingress", "from"), ("Egress", "to")]))
    if meant[way] is None:
        return
    rule, _ = data.draw(rules(side))
    types = [one for one in ("Ingress", "Egress") if meant[one] is not None]
    grown = {**spec, "policyTypes": types, way.lower(): [*spec.get(way.lower(), []), rule]}
    more = [*found[:number], (home, grown, subjects, meant), *found[number + 1 :]]
    assert passed(evaluator(more)) >= before


@st.composite
def pod_sets(draw):
    """Pods by the labels of their namespaces and their own, as ClusterNetworkPolicy writes them, and which those are."""
    team, chosen = draw(teams), draw(apps)
    spaces = {"matchLabels": {"team": team}} if team else {}
    meant = {space for space, labels in SPACES.items() if not team or labels.get("team") == team}
    if draw(st.booleans()):
        return {"namespaces": spaces}, set(product(meant, APPS))
    both = {"pods": {"namespaceSelector": spaces, "podSelector": by_app(chosen)}}
    return both, set(product(meant, chosen or APPS))


@st.composite
def cluster_rules(draw, side):
    action = draw(st.sampled_from(["Accept", "Deny", "Pass"]))
    found = draw(st.lists(pod_sets(), min_size=1, max_size=2))
    port = draw(st.sampled_from([None, *PORTS]))
    rule = {"action": action, side: [written for written, _ in found]}
    if port:
        rule["protocols"] = [{"tcp": {"destinationPort": {"number": port}}}]
    return rule, action, set().union(*(cells for _, cells in found)), {port} if port else set(PORTS)


@st.composite
def cluster_policies(draw):
    subject, subjects = draw(pod_sets())
    ingress, egress = (
        draw(st.lists(cluster_rules("from"), max_size=3)),
        draw(st.lists(cluster_rules("to"), max_size=3)),
    )
    tier = draw(st.sampled_from(["Admin", "Baseline"]))
    spec = {
        "tier": tier,
        "subject": subject,
        "ingress": [one[0] for one in ingress],
        "egress": [one[0] for one in egress],
    }
    return spec, tier, subjects, {"Ingress": ingress, "Egress": egress}


def in_tier(found, tier, way, open_ones):
    """Decide connections in one tier; return those accepted, those denied, and those that go on."""
    accepted, denied, passed_on = set(), set(), set()
    left = set(open_ones)
    for _, own, subjects, ruled in found:  # in the order of their priorities
        for _, action, cells, ports in ruled[way] if own == tier else ():
            pairs = product(cells, subjects) if way == "Ingress" else product(subjects, cells)
            matched = left & {(*pair, port) for pair, port in product(pairs, ports)}
            left -= matched
            {"Accept": accepted, "Deny": denied, "Pass": passed_on}[action].update(matched)
    return accepted, denied, left | passed_on


def held_by(found, way):
    """Return the connections whose end some NetworkPolicy isolates."""
    held = set().union(*(subjects for _, _, subjects, meant in found if meant[way] is not None), set())
    return {one for one in ALL if one[1 if way == "Ingress" else 0] in held}


def of_way(found, way):
    """Return NetworkPolicies with one direction alone."""
    other = "Egress" if way == "Ingress" else "Ingress"
    return [(home, spec, subjects, {**meant, other: None}) for home, spec, subjects, meant in found]


@settings(max_examples=40, deadline=None)
@given(st.lists(cluster_policies(), max_size=3), st.lists(policies(), max_size=2))
def test_the_tiers_decide_as_the_second_formulation_has_it(cluster, found):
    expected = set(ALL)
    for way in ("Ingress", "Egress"):
        accepted, _, undecided = in_tier(cluster, "Admin", way, ALL)
        held = held_by(found, way)
        allowed = accepted | (undecided & held & expand(of_way(found, way)))
        from_baseline, _, rest = in_tier(cluster, "Baseline", way, undecided - held)
        expected &= allowed | from_baseline | rest
    written = [
        {
            "apiVersion": "policy.networking.k8s.io/v1alpha2",
            "kind": "ClusterNetworkPolicy",
            "metadata": {"name": f"c{number}"},
            "spec": {**spec, "priority": number},
        }
        for number, (spec, *_) in enumerate(cluster)
    ]
    asked = ClusterNetworkPolicyEvaluator(read([*written, *documents_of(found)]))
    assert passed(asked) == expected
