# SPDX-License-Identifier: Apache-2.0
"""To which proxies a policy attaches (pilot/pkg/model/policyattachment.go).

A sidecar takes what has no targetRefs, by selector.  A gateway of the Gateway API takes what refers to it, and also what has no
targetRefs, by selector.  A waypoint takes only what refers to the service, to itself, or, from the root namespace, to its class.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from everyhop.evaluators.istio.strict import Part
    from everyhop.evaluators.model import Workload

GATEWAY_LABEL: Final = "gateway.networking.k8s.io/gateway-name"
GATEWAY_GROUP: Final = "gateway.networking.k8s.io"
WAYPOINT_CLASS: Final = "istio-waypoint"
_KINDS: Final = {
    ("", "Service"),
    ("core", "Service"),
    ("networking.istio.io", "ServiceEntry"),
    (GATEWAY_GROUP, "Gateway"),
    (GATEWAY_GROUP, "GatewayClass"),
}


@dataclass(frozen=True, slots=True)
class Reference:
    """One targetRef."""

    kind: str
    name: str


class HasAttachment(Protocol):
    """What attaches to proxies."""

    @property
    def attachment(self) -> Attachment:
        """Return where."""
        ...


T = TypeVar("T", bound=HasAttachment)


@dataclass(frozen=True, slots=True)
class Attachment:
    """Where a policy of ``namespace`` attaches; ``labels`` is None without a selector, and empty labels select all."""

    namespace: str
    labels: Mapping[str, str] | None
    references: tuple[Reference, ...]

    def to_workload(self, workload: Workload, root_namespace: str) -> bool:
        """Tell whether a workload's own proxy (sidecar or gateway) takes the policy."""
        gateway = workload.labels.get(GATEWAY_LABEL)
        if self.references:
            return (
                gateway is not None
                and self.namespace == workload.namespace
                and Reference("Gateway", gateway) in self.references
            )
        return self.namespace in {root_namespace, workload.namespace} and self.selects(workload.labels)

    def to_waypoint(
        self, waypoint: str, namespace: str, services: Collection[tuple[str, str]], root_namespace: str
    ) -> bool:
        """Tell whether a waypoint takes the policy for a request to ``services`` (namespace and name)."""
        for one in self.references:
            if one.kind in {"Service", "ServiceEntry"} and (self.namespace, one.name) in services:
                return True
            if one == Reference("GatewayClass", WAYPOINT_CLASS) and self.namespace == root_namespace:
                return True
            if one == Reference("Gateway", waypoint) and self.namespace == namespace:
                return True
        return False

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Tell whether the selector, if there is one, selects labels."""
        return all(labels.get(name) == value for name, value in (self.labels or {}).items())


class Attached(Generic[T]):
    """Things with an attachment, found by the proxy that takes them; the answer for a workload is kept.

    A mesh has thousands of policies and few of them are for one workload, so they are looked up by namespace first.
    """

    def __init__(self, things: Iterable[T], root_namespace: str) -> None:
        self._root = root_namespace
        self._by_namespace: dict[str, list[tuple[int, T]]] = defaultdict(list)
        for order, one in enumerate(things):
            self._by_namespace[one.attachment.namespace].append((order, one))
        self._kept: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[T, ...]] = {}

    def to_workload(self, workload: Workload) -> tuple[T, ...]:
        """Return what a workload's own proxy takes, in the order in which it was given."""
        key = (workload.namespace, tuple(sorted(workload.labels.items())))
        found = self._kept.get(key)
        if found is None:
            near = [
                *self._in(workload.namespace),
                *(self._in(self._root) if workload.namespace != self._root else ()),
            ]
            taken = (one for _, one in sorted(near, key=lambda pair: pair[0]))
            found = tuple(one for one in taken if one.attachment.to_workload(workload, self._root))
            self._kept[key] = found
        return found

    def _in(self, namespace: str) -> list[tuple[int, T]]:
        return self._by_namespace.get(namespace, [])


def attachment_of(spec: Part, *, has_references: bool = True) -> Attachment:
    """Read selector, targetRef and targetRefs; raises InputError for two of them, and for what validation refuses."""
    selector = spec.part("selector")
    labels = None
    if selector is not None:
        selector.only("matchLabels")
        labels = selector.labels("matchLabels")
        if any(not name or "*" in name + value for name, value in labels.items()):
            raise selector.wrong("labels are given in full, without a star")
    references: tuple[Reference, ...] = ()
    if has_references:
        single = spec.part("targetRef")
        many = spec.parts("targetRefs") or ()
        if sum((selector is not None, single is not None, bool(many))) > 1:
            raise spec.wrong("only one of selector, targetRef and targetRefs can be there")
        references = tuple(_reference(one) for one in (many if single is None else (single,)))
    return Attachment(spec.manifest.namespace, labels, references)


def _reference(part: Part) -> Reference:
    part.only("group", "kind", "name", "namespace")
    if part.text("namespace"):
        raise part.wrong("a policy cannot refer to another namespace")
    if (part.text("group"), part.text("kind")) not in _KINDS:
        raise part.wrong("targetRef is of Service, ServiceEntry, Gateway or GatewayClass, with its group")
    name = part.text("name")
    if not name:
        raise part.wrong("targetRef has a name")
    return Reference(part.text("kind"), name)
