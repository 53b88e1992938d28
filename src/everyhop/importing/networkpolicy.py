# SPDX-License-Identifier: Apache-2.0
"""NetworkPolicies to a draft: pods become services, and a port that somebody may reach becomes the one door of its service.

There is no layer 7 in a NetworkPolicy, so the door is the port as a whole.  A connection needs the ingress of its target and the
egress of its source; where pods are known by a selector only, what may be is told from what surely is, and only the latter opens.
Semantics: as in :mod:`everyhop.evaluators.network_policy`, whose reader is used here.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError
from everyhop.evaluators.labels import ALL, Operator
from everyhop.evaluators.network_policy import KIND, Direction, read_policy
from everyhop.importing.model import Draft, DraftRule, DraftTest, Fate
from everyhop.importing.notes import Notes, settle_accounts
from everyhop.importing.workloads import Group, Groups, read_pods

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from everyhop.evaluators.labels import Expression, Selector
    from everyhop.evaluators.network_policy import Peer, Policy, Ports, Rule
    from everyhop.importing.model import Wishes
    from everyhop.manifests import Manifest, Manifests

_DOMAIN: Final = "cluster.local"
_NAME_OF_NAMESPACE: Final = "kubernetes.io/metadata.name"
_MAX_TESTS: Final = 6
Edge = tuple[str, str, int]


def import_network_policies(manifests: Manifests, wishes: Wishes) -> Draft:
    """Return the draft.  Raises InputError for policies that the API server would reject."""
    return _Import(manifests, wishes).run()


class _Import:
    def __init__(self, manifests: Manifests, wishes: Wishes) -> None:
        self._policies: list[tuple[Manifest, Policy]] = [
            (one, read_policy(one)) for one in manifests.of(KIND)
        ]
        self._namespaces: Mapping[str, Mapping[str, str]] = {
            one.name: {**one.labels, _NAME_OF_NAMESPACE: one.name} for one in manifests.of("Namespace", "")
        }
        self._groups = Groups(read_pods(manifests))
        self._domain = wishes.trust_domain or _DOMAIN
        self._notes = Notes()

    def run(self) -> Draft:
        if not self._policies:
            raise InputError("there is no NetworkPolicy here")
        self._find_groups()
        self._groups.name_all()
        settle_accounts(self._groups, self._notes, "networkpolicy", self._policies[0][0].span)
        draft = Draft(trust_domain=self._domain, parts=self._notes.parts)
        for group in self._groups.all:
            draft.services[group.name] = group.draft(f"/ns/{group.namespace}/sa/{group.account}")
        for group in self._groups.all:
            self._build(draft, group)
        for one, policy in self._policies:
            self._note_policy(one, policy)
        if not draft.services:
            raise InputError(
                "no policy here names pods by labels", hint="give the manifests of the workloads too"
            )
        return draft

    # -- who is there

    def _find_groups(self) -> None:
        for _, policy in self._policies:
            self._find(policy.namespace, policy.pods)
        for _, policy in self._policies:
            for rules in policy.rules.values():
                for rule in rules:
                    for peer in rule.peers:
                        namespace = self._named(peer, policy.namespace)
                        if namespace is not None and peer.network is None:
                            self._find(namespace, peer.pods)

    def _find(self, namespace: str, selector: Selector) -> None:
        if selector.equal and not selector.expressions:
            self._groups.by_labels(namespace, dict(selector.equal))

    def _named(self, peer: Peer, own: str) -> str | None:
        """Return the one namespace that a peer names, if it names one."""
        if peer.namespaces is None:
            return own
        equal = dict(peer.namespaces.equal)
        return equal.get(_NAME_OF_NAMESPACE) if not peer.namespaces.expressions else None

    # -- what is open

    def _build(self, draft: Draft, group: Group) -> None:
        candidates = [(one, policy, index, rule) for one, policy, index, rule in self._rules(group)]
        if not any(self._may_select(policy, group, Direction.INGRESS) for _, policy in self._policies):
            if group.is_target:
                pods = f"pods of {group.name} in {group.namespace}"
                message = "no policy isolates them, so everybody reaches them"
                self._notes.add(Fate.LEFT_OUT, "networkpolicy.open", self._policies[0][0], message, pods)
            return
        edges = Counter(
            port
            for one, _, index, rule in candidates
            for port in self._ports(rule, group, one, index)
            for _ in self._callers(rule, group, port, one, index)
        )
        if not edges:
            return
        port = min(edges, key=lambda number: (-edges[number], number))
        service = draft.services[group.name]
        service.tcp = port
        allowed: set[str] = set()
        for one, _, index, rule in candidates:
            where = f"{one} ingress[{index}]"
            further = sorted(set(self._ports(rule, group, one, index)) - {port})
            if further:
                message = f"port {further[0]} of {group.name!r}: a service has one port, here {port}"
                self._notes.add(Fate.NARROWER, "networkpolicy.port", one, message, where, f"port {port}")
            if port not in self._ports(rule, group, one, index):
                continue
            callers = sorted(other.name for other in self._callers(rule, group, port, one, index))
            allowed |= set(callers)
            if callers:
                note = f"{where} ({one.span.file}:{one.span.line})"
                draft.rules.append(
                    DraftRule(
                        effect="allow", callers=tuple(callers), target=group.name, operations=None, note=note
                    )
                )
        self._notes.add(
            Fate.ASSUMED,
            "networkpolicy.layer-4",
            candidates[0][0],
            f"there is no layer 7: port {port} of {group.name!r} is one door",
            written=f"tcp: {port}",
        )
        names = (
            sorted(allowed)[: _MAX_TESTS // 2]
            + sorted({one.name for one in self._groups.all} - allowed)[: _MAX_TESTS // 2]
        )
        draft.tests += [
            DraftTest(caller=name, target=group.name, call=None, allows=name in allowed) for name in names
        ]

    def _rules(self, group: Group) -> Iterator[tuple[Manifest, Policy, int, Rule]]:
        for one, policy in self._policies:
            if Direction.INGRESS in policy.rules and self._selects(policy, group):
                for index, rule in enumerate(policy.rules[Direction.INGRESS]):
                    yield one, policy, index, rule

    def _callers(self, rule: Rule, target: Group, port: int, one: Manifest, index: int) -> list[Group]:
        found = [
            group
            for group in self._groups.all
            if self._is_peer(rule, group, one.namespace) and self._may_leave(group, target, port)
        ]
        where = f"{one} ingress[{index}]"
        written = f"the pods known here: {', '.join(sorted(group.name for group in found)) or 'none'}"
        if not rule.peers:
            self._notes.add(
                Fate.NARROWER, "networkpolicy.anybody", one, "it lets everybody in", where, written
            )
        for peer in rule.peers:
            if peer.network is not None:
                message = "an ipBlock says nothing of who calls"
                self._notes.add(Fate.LEFT_OUT, "networkpolicy.ip-block", one, message, where)
            elif peer.pods.expressions or not peer.pods.equal or self._named(peer, one.namespace) is None:
                message = "it selects pods or namespaces that need not be known"
                self._notes.add(Fate.NARROWER, "networkpolicy.selector", one, message, where, written)
        return found

    def _ports(self, rule: Rule, group: Group, one: Manifest, index: int) -> list[int]:
        """Return the ports of a group that a rule surely opens, those that can be named."""
        where = f"{one} ingress[{index}]"
        if not rule.ports:
            found = sorted(set(group.ports.values()))
            if not found:
                message = f"it opens every port, and none of {group.name!r} is known"
                self._notes.add(Fate.LEFT_OUT, "networkpolicy.every-port", one, message, where)
            elif len(found) == 1:
                message = f"it opens every port of {group.name!r}"
                self._notes.add(
                    Fate.NARROWER, "networkpolicy.every-port", one, message, where, f"port {found[0]}"
                )
            return found
        ports: list[int] = []
        for entry in rule.ports:
            ports += self._numbers(entry, group, one, where)
        return sorted(set(ports))

    def _numbers(self, entry: Ports, group: Group, one: Manifest, where: str) -> list[int]:
        if not entry.is_tcp:
            message = "a door speaks TCP"
            self._notes.add(Fate.LEFT_OUT, "networkpolicy.protocol", one, message, where)
            return []
        if entry.name is not None:
            if entry.name not in group.ports:
                message = f"no container of {group.name!r} is known to name its port {entry.name!r}"
                self._notes.add(Fate.LEFT_OUT, "networkpolicy.port-name", one, message, where)
                return []
            return [group.ports[entry.name]]
        if entry.low is None or (entry.high or entry.low) != entry.low:
            low, high = entry.low or 1, entry.high or 65535
            found = sorted({port for port in group.ports.values() if low <= port <= high})
            message = f"the ports {low} to {high} of {group.name!r}"
            written = f"those that its containers name: {', '.join(map(str, found)) or 'none'}"
            self._notes.add(Fate.NARROWER, "networkpolicy.port-range", one, message, where, written)
            return found
        return [entry.low]

    # -- selecting

    def _selects(self, policy: Policy, group: Group) -> bool:
        return group.namespace == policy.namespace and self._surely(policy.pods, group)

    def _may_select(self, policy: Policy, group: Group, direction: Direction) -> bool:
        return (
            direction in policy.rules and group.namespace == policy.namespace and _maybe(policy.pods, group)
        )

    def _surely(self, selector: Selector, group: Group) -> bool:
        sets = [pod.labels for pod in group.pods] or [group.known_labels]
        return _surely(selector, sets, is_whole=group.is_exact)

    def _surely_calls(self, selector: Selector, group: Group) -> bool:
        """Tell whether a selector selects all who have the group's account: they call by the same identity."""
        sharers = [pod.labels for pod in group.sharers]
        return self._surely(selector, group) and _surely(selector, sharers, is_whole=True)

    def _is_peer(self, rule: Rule, group: Group, own: str) -> bool:
        if not group.is_target:
            return False  # its labels are not known
        return not rule.peers or any(self._fits(peer, group, own) for peer in rule.peers)

    def _fits(self, peer: Peer, group: Group, own: str) -> bool:
        if peer.network is not None:
            return False
        if peer.namespaces is None:
            return group.namespace == own and self._surely_calls(peer.pods, group)
        known = self._namespaces.get(group.namespace)
        labels = known or {_NAME_OF_NAMESPACE: group.namespace}
        return _surely(peer.namespaces, [labels], is_whole=known is not None) and self._surely_calls(
            peer.pods, group
        )

    def _may_leave(self, group: Group, target: Group, port: int) -> bool:
        """Tell whether the egress of a group to a port is surely open."""
        policies = [
            policy for _, policy in self._policies if self._may_select(policy, group, Direction.EGRESS)
        ]
        sure = [policy for policy in policies if self._selects(policy, group)]
        opens = [policy for policy in policies if self._lets_out(policy, target, port)]
        if any(policy in opens for policy in sure):
            return True
        return not sure and len(opens) == len(policies)

    def _lets_out(self, policy: Policy, target: Group, port: int) -> bool:
        return any(
            self._is_peer(rule, target, policy.namespace)
            and (not rule.ports or any(_is_port(entry, target, port) for entry in rule.ports))
            for rule in policy.rules[Direction.EGRESS]
        )

    # -- what is said

    def _note_policy(self, one: Manifest, policy: Policy) -> None:
        lost = any(part.is_lost and part.source.startswith(f"{one} ") for part in self._notes.parts)
        if Direction.INGRESS in policy.rules:
            if policy.pods is ALL or not any(self._selects(policy, group) for group in self._groups.all):
                message = "it selects pods that need not be known; here nothing is open that the policy does not open"
                self._notes.add(Fate.CARRIED, "networkpolicy.isolation", one, message)
            elif not lost:
                self._notes.add(Fate.CARRIED, "networkpolicy.ingress", one, "its edges are written")
        if policy.rules.get(Direction.EGRESS):
            message = "what leads to no pod known here (DNS, addresses) is no edge of a policy"
            self._notes.add(
                Fate.ASSUMED, "networkpolicy.egress", one, message, written="edges between services"
            )


def _is_port(entry: Ports, target: Group, port: int) -> bool:
    if not entry.is_tcp:
        return False
    if entry.name is not None:
        return target.ports.get(entry.name) == port
    return entry.low is None or entry.low <= port <= (entry.high or entry.low)


def _surely(selector: Selector, sets: Iterable[Mapping[str, str]], *, is_whole: bool) -> bool:
    """Tell whether a selector selects pods with any of these labels; unless they are whole, pods may have others beside them."""
    return all(
        all(labels.get(key) == value for key, value in selector.equal)
        and all(_holds(one, labels, is_whole=is_whole) for one in selector.expressions)
        for labels in sets
    )


def _holds(one: Expression, labels: Mapping[str, str], *, is_whole: bool) -> bool:
    if one.key not in labels and not is_whole:
        return False
    return one.holds(labels)


def _maybe(selector: Selector, group: Group) -> bool:
    """Tell whether a selector may select some pod of a group; never wrongly no."""
    pods = (*group.pods, *group.sharers)
    if pods:
        return any(selector.selects(pod.labels) for pod in pods)
    labels = group.known_labels
    return all(labels.get(key, value) == value for key, value in selector.equal) and all(
        one.key not in labels or one.holds(labels)
        for one in selector.expressions
        if one.operator is not Operator.EXISTS
    )
