# SPDX-License-Identifier: Apache-2.0
"""What manifests say of the pods themselves: their named ports, probes, annotations and whether they use the host's network.

A request's workload is matched to the pod templates of its namespace by labels: a template is a workload's if the workload has
all of its labels (and its service account, where one is written).  What two matching templates say differently is an InputError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from everyhop.core.errors import InputError
from everyhop.manifests.pods import inner, template_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from everyhop.evaluators.model import Workload
    from everyhop.manifests.model import Manifest, Manifests

T = TypeVar("T")
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_DEFAULT_ACCOUNT: Final = "default"
_MAX_REMEMBERED: Final = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One pod template.  ``ports`` are its named TCP ports, ``probes`` the paths of HTTP probes by port number."""

    name: str
    namespace: str
    service_account: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    uses_host_network: bool
    ports: Mapping[str, frozenset[int]]
    probes: Mapping[int, frozenset[str]]


class PerWorkload(Generic[T]):
    """Remembers what was found for a workload, by the object itself: a workload's labels do not change."""

    __slots__ = ("_find", "_found")

    def __init__(self, find: Callable[[Workload], T]) -> None:
        self._find = find
        self._found: dict[int, tuple[Workload, T]] = {}

    def __call__(self, workload: Workload) -> T:
        """Return what is found for a workload."""
        found = self._found.get(id(workload))
        if found is None or found[0] is not workload:
            if len(self._found) >= _MAX_REMEMBERED:
                self._found.clear()
            found = self._found[id(workload)] = (workload, self._find(workload))
        return found[1]


class Pods:
    """The pod templates of manifests.

    ``named_ports`` (name to number) answers for workloads of which the manifests hold no template.
    """

    def __init__(self, manifests: Manifests, named_ports: Mapping[str, int] | None = None) -> None:
        self._by_namespace: dict[str, list[Pod]] = {}
        for pod in _pods(manifests):
            self._by_namespace.setdefault(pod.namespace, []).append(pod)
        self._named_ports = {} if named_ports is None else dict(named_ports)
        self.of = PerWorkload(self._of)

    def _of(self, workload: Workload) -> tuple[Pod, ...]:
        return tuple(
            pod
            for pod in self._by_namespace.get(workload.namespace, ())
            if pod.labels
            and all(workload.labels.get(key) == value for key, value in pod.labels.items())
            and pod.service_account in {workload.service_account, _DEFAULT_ACCOUNT}
        )

    def numbers(self, workload: Workload, name: str, where: str) -> frozenset[int]:
        """Return the numbers of a workload's port by its name, none where its templates have no such port.

        Raises InputError where nothing is known of the workload's ports.
        """
        pods = self.of(workload)
        if pods:
            return frozenset(number for pod in pods for number in pod.ports.get(name, ()))
        if name in self._named_ports:
            return frozenset({self._named_ports[name]})
        raise InputError(
            f"{where}: nothing says which number the port {name!r} of {workload.namespace}/{workload.name} has"
        )

    def uses_host_network(self, workload: Workload) -> bool:
        """Tell whether a workload's pods have the node's addresses: network policies do not select those."""
        return bool(self._agreed(workload, lambda pod: pod.uses_host_network, "hostNetwork"))

    def annotation(self, workload: Workload, name: str) -> str | None:
        """Return an annotation of a workload's pods, None where it is missing."""
        return self._agreed(workload, lambda pod: pod.annotations.get(name), name)

    def probes(self, workload: Workload, port: int) -> frozenset[str]:
        """Return the paths of the HTTP probes of a port."""
        return frozenset(path for pod in self.of(workload) for path in pod.probes.get(port, ()))

    def _agreed(self, workload: Workload, ask: Callable[[Pod], T], what: str) -> T | None:
        answers = [ask(pod) for pod in self.of(workload)]
        if any(one != answers[0] for one in answers[1:]):
            names = ", ".join(pod.name for pod in self.of(workload))
            raise InputError(f"{names}: these say {what} differently of {workload.namespace}/{workload.name}")
        return answers[0] if answers else None


def _pods(manifests: Manifests) -> Iterator[Pod]:
    for manifest in manifests:
        template = template_of(manifest)
        if template is not None:
            yield _pod(manifest, inner(template, "metadata"), inner(template, "spec"))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _pod(manifest: Manifest, metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> Pod:
    containers = [inner(one) for one in (*_list(spec.get("containers")), *_list(spec.get("initContainers")))]
    ports: dict[str, set[int]] = {}
    probes: dict[int, set[str]] = {}
    for container in containers:
        own = dict(_named_ports(container))
        for name, number in own.items():
            ports.setdefault(name, set()).add(number)
        for kind in _PROBES:
            get = inner(container, kind, "httpGet")
            port = get.get("port")
            number_of = own.get(port) if isinstance(port, str) else port
            if get and isinstance(number_of, int):
                probes.setdefault(number_of, set()).add(str(get.get("path") or "/").partition("?")[0])
    account = spec.get("serviceAccountName")
    return Pod(
        name=manifest.name,
        namespace=manifest.namespace,
        service_account=account if isinstance(account, str) and account else _DEFAULT_ACCOUNT,
        labels=inner(metadata, "labels"),
        annotations=inner(metadata, "annotations"),
        uses_host_network=spec.get("hostNetwork") is True,
        ports={name: frozenset(numbers) for name, numbers in ports.items()},
        probes={number: frozenset(paths) for number, paths in probes.items()},
    )


def _named_ports(container: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for one in _list(container.get("ports")):
        port = inner(one)
        name, number = port.get("name"), port.get("containerPort")
        if isinstance(name, str) and isinstance(number, int) and port.get("protocol", "TCP") == "TCP":
            yield name, number
