# SPDX-License-Identifier: Apache-2.0
"""Which pods there are, as far as the source tells: by their controllers, by selectors of policies, and by identities of callers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from everyhop.importing.model import DraftService
from everyhop.manifests.pods import CONTROLLERS, inner, template_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from everyhop.core.problems import Span
    from everyhop.manifests import Manifest, Manifests

NAME_LABELS: Final = ("app", "app.kubernetes.io/name", "k8s-app", "name")
DEFAULT_ACCOUNT: Final = "default"
_CONTROLLERS: Final = CONTROLLERS | {"Rollout"}  # Argo's, of the same shape
_MAX_NAME: Final = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """What the pods of one controller have in common; ``ports`` are those that its containers name, by their names."""

    name: str
    namespace: str
    account: str
    labels: Mapping[str, str]
    ports: Mapping[str, int]
    span: Span


@dataclass(slots=True, kw_only=True, eq=False)
class Group:
    """Pods that become one service: those of one account, or those that a selector selects, or an identity alone.

    ``account`` of None is not known; ``is_target`` is false where only the identity is known.  ``is_exact`` tells that the labels
    are those of pods, and not those that a selector asks for.  ``sharers`` are pods of the same account that are no part of it: who
    lets the account in lets them in.
    """

    namespace: str
    account: str | None
    labels: dict[str, str]
    pods: tuple[Pod, ...] = ()
    is_target: bool = True
    ports: dict[str, int] = field(default_factory=dict)
    name: str = ""
    sharers: tuple[Pod, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Tell whether its pods are known."""
        return bool(self.pods)

    @property
    def known_labels(self) -> Mapping[str, str]:
        """Return the labels that its pods surely have: those that were only made up for the policy are none."""
        return self.labels if self.is_target else {}

    def has(self, selector: Mapping[str, str]) -> bool:
        """Tell whether all of its pods have these labels, surely."""
        sets = [pod.labels for pod in self.pods] or [self.known_labels]
        return all(labels.get(key) == value for labels in sets for key, value in selector.items())

    def may_have(self, selector: Mapping[str, str]) -> bool:
        """Tell whether some of its pods may have these labels; never wrongly no."""
        if self.pods:
            return any(
                all(pod.labels.get(key) == value for key, value in selector.items()) for pod in self.pods
            )
        return all(self.known_labels.get(key, value) == value for key, value in selector.items())

    def draft(self, trust_identity: str) -> DraftService:
        """Return the service, without doors."""
        account = self.account or self.name
        return DraftService(
            name=self.name,
            identity=trust_identity,
            namespace=self.namespace,
            account=account,
            labels=dict(self.labels) or {"app": self.name},
        )


def read_pods(manifests: Manifests) -> list[Pod]:
    """Return the pods and the templates of pods among manifests."""
    return [pod for one in manifests if (pod := _pod(one)) is not None]


def _pod(one: Manifest) -> Pod | None:
    template = template_of(one, _CONTROLLERS)
    if template is None:
        return None
    spec, labels = inner(template, "spec"), inner(template, "metadata", "labels")
    account = spec.get("serviceAccountName") or spec.get("serviceAccount") or DEFAULT_ACCOUNT
    return Pod(
        name=one.name,
        namespace=one.namespace,
        account=str(account),
        labels={str(key): str(value) for key, value in labels.items()},
        ports=dict(_ports(spec)),
        span=one.span,
    )


def _ports(spec: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for container in spec.get("containers") or ():
        for port in inner(container).get("ports") or ():
            number = port.get("containerPort") if isinstance(port, dict) else None
            if isinstance(number, int) and not isinstance(number, bool):
                yield str(port.get("name") or number), number


class Groups:
    """The services on their way, found one by one and named at the end."""

    def __init__(self, pods: Iterable[Pod]) -> None:
        self.all: list[Group] = []
        self.merged: list[tuple[Group, Pod]] = []
        """Pods that share the account of a group but are selected apart: they are no part of it."""
        self._by_account: dict[tuple[str, str], Group] = {}
        self._by_namespace: dict[str, list[Group]] = {}
        by_account: dict[tuple[str, str], list[Pod]] = {}
        self.pods: Final = list(pods)
        for pod in self.pods:
            by_account.setdefault((pod.namespace, pod.account), []).append(pod)
        for (namespace, account), found in sorted(by_account.items()):
            self._add_pods(namespace, account, found)

    def _add_pods(self, namespace: str, account: str, pods: list[Pod]) -> None:
        """One service for each account; only pods that some labels tell apart from all others belong to it."""
        others = [pod for pod in self.pods if pod.namespace == namespace and pod not in pods]
        kept = pods
        labels = _telling(kept, others)
        if labels is None:
            kept = pods[:1]
            others = [pod for pod in self.pods if pod.namespace == namespace and pod not in kept]
            labels = _telling(kept, others)
        group = Group(
            namespace=namespace,
            account=account,
            labels=labels or {},
            pods=tuple(kept) if labels else (),
            is_target=bool(labels),
            ports={name: port for pod in kept for name, port in pod.ports.items()},
            sharers=tuple(pod for pod in pods if not labels or pod not in kept),
        )
        self._add(group)
        self.merged += [(group, pod) for pod in (pods if not labels else pods[len(kept) :])]

    def _add(self, group: Group) -> Group:
        self.all.append(group)
        self._by_namespace.setdefault(group.namespace, []).append(group)
        if group.account is not None:
            self._by_account[group.namespace, group.account] = group
        return group

    def by_account(self, namespace: str, account: str) -> Group:
        """Return the group with an identity, made where there is none: its pods are then not known."""
        group = self._by_account.get((namespace, account))
        if group is not None:
            return group
        for one in self.of(
            namespace
        ):  # a selector's pods are taken for those of the account of the same name
            if one.account is None and account in one.labels.values():
                one.account = account
                self._by_account[namespace, account] = one
                return one
        return self._add(Group(namespace=namespace, account=account, labels={}, is_target=False))

    def by_labels(self, namespace: str, selector: Mapping[str, str]) -> list[Group]:
        """Return the groups whose pods surely have these labels, one made where no pods of the namespace are known."""
        here = self.of(namespace)
        found = [group for group in here if group.is_target and group.has(selector)]
        if found or not selector or any(group.is_exact for group in here):
            return found
        if any(group.is_target and _overlap(group.labels, selector) for group in here):
            return []  # the policy language wants services that labels tell apart
        named = next((selector[key] for key in NAME_LABELS if key in selector), None)
        known = None if named is None else self._by_account.get((namespace, named))
        if known is not None and not known.is_target:
            known.labels, known.is_target = dict(selector), True
            return [known]
        return [self._add(Group(namespace=namespace, account=None, labels=dict(selector)))]

    def of(self, namespace: str | None) -> list[Group]:
        """Return the groups of a namespace, or of all (None)."""
        return self.all if namespace is None else self._by_namespace.get(namespace, [])

    def name_all(self) -> None:
        """Give each group a name of its own that the policy language can write."""
        taken: set[str] = set()
        wanted = [(_plain_name(group), group) for group in self.all]
        counts: dict[str, int] = {}
        for name, _ in wanted:
            counts[name] = counts.get(name, 0) + 1
        for name, group in sorted(
            wanted, key=lambda pair: (pair[0], pair[1].namespace, pair[1].account or "")
        ):
            base = name if counts[name] == 1 else f"{name}-{group.namespace}"[:_MAX_NAME].rstrip("-")
            unique, number = base, 2
            while unique in taken:
                unique, number = f"{base}-{number}", number + 1
            taken.add(unique)
            group.name = unique
        for group in self.all:
            if group.is_target:
                continue
            group.labels = {"app": group.name}  # not known: they only have to differ from the others'
            others = [one.labels for one in self.of(group.namespace) if one is not group and one.labels]
            if any(_overlap(labels, group.labels) for labels in others):
                group.labels = {"everyhop-import": group.name}


def _plain_name(group: Group) -> str:
    labelled = next((group.labels[key] for key in NAME_LABELS if key in group.labels), None)
    account = group.account
    name = labelled if account in {None, DEFAULT_ACCOUNT} and labelled else account or labelled
    if not name:
        name = next(iter(group.labels.values()), "service")
    if name == DEFAULT_ACCOUNT:
        name = f"default-{group.namespace}"
    name = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:_MAX_NAME].rstrip("-")
    if not name or not name[0].isalpha() or name in {"any", "all", "outside"}:
        name = f"service-{name}".rstrip("-")
    return name


def _telling(pods: list[Pod], others: list[Pod]) -> dict[str, str] | None:
    """Return labels that all of these pods have and none of the others has all of, the fewest; None where there are none."""
    common = {
        key: value
        for key, value in pods[0].labels.items()
        if all(pod.labels.get(key) == value for pod in pods)
    }
    for key in NAME_LABELS:
        if key in common and not any(pod.labels.get(key) == common[key] for pod in others):
            return {key: common[key]}
    if not common or any(common.items() <= pod.labels.items() for pod in others):
        return None
    return common


def _overlap(left: Mapping[str, str], right: Mapping[str, str]) -> bool:
    return left.items() <= right.items() or right.items() <= left.items()
