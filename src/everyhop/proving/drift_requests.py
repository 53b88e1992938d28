# SPDX-License-Identifier: Apache-2.0
"""Requests that objects in force suggest, beyond those that the policy does: their callers, methods, paths and ports.

The space of a policy holds what the policy speaks of; a foreign rule may open a door for a caller and a path that nobody there
names.  So what a foreign object names is asked for too, at the services that it can reach.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from everyhop.evaluators.model import Request, Wire, Workload
from everyhop.proving.callers import Population
from everyhop.proving.model import Ask, Caller, CallerKind
from everyhop.proving.variations import plain_path
from everyhop.targets.model import Feature

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from everyhop.authz.engine import Engine
    from everyhop.manifests import Manifest
    from everyhop.proving.drift_scope import Scope
    from everyhop.targets.intents import ServiceIntents

MAX_PER_SERVICE: Final = 300
MAX_REQUESTS: Final = 50_000
_MANY: Final = 12
_SOMEBODY: Final = "everyhop-drift"
_PRINCIPAL: Final = re.compile(r"(?:spiffe://)?([^/*]*)/ns/([^/*]+)/sa/([^/*]+)")
_LINKERD: Final = re.compile(r"([^.*]+)\.([^.*]+)\.serviceaccount\.identity\..+")
_NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"
_METHOD: Final = re.compile(r"[A-Z]{3,16}")
_REGEX_PARTS: Final = (
    (re.compile(r"\(\\\?\.\*\)\?"), ""),
    (re.compile(r"\(\?:|\[\^/\?\]|\[\^/\]"), "\0"),
    (re.compile(r"\0[+*]?|\.[*+]"), "x"),
    (re.compile(r"[\^$()]"), ""),
    (re.compile(r"\\(.)"), r"\1"),
)


@dataclass(slots=True)
class _Hints:
    """What an object names."""

    accounts: dict[tuple[str, str, str], None] = field(
        default_factory=dict
    )  # trust domain, namespace, account
    labels: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    methods: dict[str, None] = field(default_factory=dict)
    paths: dict[str, None] = field(default_factory=dict)
    ports: dict[int, None] = field(default_factory=dict)


class Suggested:
    """The requests that objects suggest, service by service; at most :data:`MAX_PER_SERVICE` for each object and service."""

    def __init__(self, scope: Scope, engine: Engine, objects: list[Manifest]) -> None:
        self._scope = scope
        self._engine = engine
        self._objects = objects
        self._population = Population(scope.intents)

    def __iter__(self) -> Iterator[Ask]:
        return itertools.islice(self._all(), MAX_REQUESTS)

    def _all(self) -> Iterator[Ask]:
        for one in self._objects:
            hints = _Hints()
            _harvest(one.document.get("spec"), one.namespace, hints, "")
            for name in self._scope.selected(one, None):
                asks = self._at(self._scope.intents.of(name), self._callers(hints, one.namespace), hints)
                yield from itertools.islice(asks, MAX_PER_SERVICE)

    def _callers(self, hints: _Hints, namespace: str) -> list[Caller]:
        found = [self._caller(*account) for account in hints.accounts]
        found += [self._labelled(space, labels) for space, labels in hints.labels]
        return [*found[:_MANY], *self._population.strangers(namespace)[:3]]

    def _caller(self, domain: str, namespace: str, account: str) -> Caller:
        intents = self._scope.intents
        mine = intents.trust_domain
        domain = domain if domain not in {"", "cluster.local"} else mine
        for name, place in self._scope.places(namespace):
            if domain == mine and place.service_account == account:
                return self._population.service(name)
        gateway = self._population.gateway
        if (
            gateway is not None
            and domain == mine
            and (namespace, account)
            == (
                gateway.workload.namespace,
                gateway.workload.service_account,
            )
        ):
            return gateway
        peer = f"spiffe://{domain}/ns/{namespace}/sa/{account}"
        return Caller(
            kind=CallerKind.STRANGER if domain == mine else CallerKind.FOREIGN,
            name=f"the undeclared {namespace}/{account}",
            workload=_pod(namespace, account, {"app": account}),
            policy_id=f"spiffe://{domain}/{_SOMEBODY}/{namespace}/{account}",
            peer=peer,
            own_peer=peer,
        )

    def _labelled(self, namespace: str, labels: dict[str, str]) -> Caller:
        for name, place in self._scope.places(namespace):
            if labels.items() <= place.labels.items():
                return self._population.service(name)
        caller = self._caller("", namespace, _SOMEBODY)
        return replace(
            caller,
            name=f"an undeclared pod of {namespace} with {', '.join(f'{k}={v}' for k, v in sorted(labels.items())) or 'no labels'}",
            workload=_pod(namespace, _SOMEBODY, labels),
        )

    def _at(self, service: ServiceIntents, callers: list[Caller], hints: _Hints) -> Iterator[Ask]:
        ports = [service.port, *(port for port in hints.ports if port != service.port)][:_MANY]
        first = next((door.operation for door in service.doors if door.operation is not None), None)
        methods = [*hints.methods][:_MANY] or [first.route.method if first else "GET"]
        paths = [*hints.paths][:_MANY] or [plain_path(first.route) if first else "/"]
        if service.service.tcp is not None:
            methods, paths = [""], [""]
        for port, path, method, caller in itertools.product(ports, paths, methods, callers):
            yield self._ask(service, caller, port, method, path)

    def _ask(self, service: ServiceIntents, caller: Caller, port: int, method: str, path: str) -> Ask:
        wire = Wire.HTTP if method else Wire.TCP
        door = (
            self._engine.find(service.name, method, path)
            if method
            else self._engine.door(service.name, "tcp")
        )
        request = Request(
            source=caller.workload,
            target=self._population.workload(service.name),
            port=port,
            peer=caller.peer,
            wire=wire,
            method=method,
            path=path,
            host="" if wire is Wire.TCP else f"{service.name}.{service.place.namespace}.svc",
        )
        return Ask(
            caller=caller,
            service=service.name,
            door="" if door is None else door.name,
            request=request,
            aspect=Feature.MTLS if caller.policy_id is None else Feature.IDENTITY,
            operation=None if door is None else door.operation,
            variation="as an object in force names it",
            rank=1,
        )


def _pod(namespace: str, account: str, labels: Mapping[str, str]) -> Workload:
    return Workload(
        name=account,
        namespace=namespace,
        service_account=account,
        labels=labels,
        namespace_labels=MappingProxyType({_NAMESPACE_LABEL: namespace}),
        ip="10.254.0.2",
    )


def _harvest(value: Any, namespace: str, hints: _Hints, key: str) -> None:
    """Walk through a spec and note what it names, by the names of its members."""
    if isinstance(value, dict):
        if value.get("kind") == "ServiceAccount" and isinstance(value.get("name"), str):
            hints.accounts["", str(value.get("namespace") or namespace), value["name"]] = None
        if key in {"podSelector", "fromEndpoints"} or "podSelector" in value or "namespaceSelector" in value:
            _note_labels(value, namespace, hints)
        for name, inner in value.items():
            _harvest(inner, namespace, hints, name)
    elif isinstance(value, list):
        for inner in value:
            _harvest(inner, namespace, hints, key)
    elif value is not None:
        _note_leaf(key, value, namespace, hints)


def _note_labels(value: dict[str, Any], namespace: str, hints: _Hints) -> None:
    pods, spaces = (
        value.get("podSelector", value if "matchLabels" in value else {}),
        value.get("namespaceSelector"),
    )
    labels = pods.get("matchLabels") if isinstance(pods, dict) else None
    named = (spaces.get("matchLabels") or {}) if isinstance(spaces, dict) else {}
    plain = {
        str(k).removeprefix("k8s:"): str(v) for k, v in (labels if isinstance(labels, dict) else {}).items()
    }
    where = plain.pop("io.kubernetes.pod.namespace", None) or named.get(_NAMESPACE_LABEL)
    if where is None and isinstance(spaces, dict):
        where = f"{_SOMEBODY}-namespace"
    hints.labels.append((where or namespace, plain))


def _note_leaf(key: str, value: Any, namespace: str, hints: _Hints) -> None:
    text = str(value)
    if key in {"principals", "identities", "values"}:
        _note_identity(text, namespace, hints)
    elif key == "namespaces" and not text.startswith("*"):
        hints.accounts["", text.replace("*", _SOMEBODY), _SOMEBODY] = None
    elif key == "serviceAccounts":
        head, _, tail = text.rpartition("/")
        hints.accounts["", head or namespace, tail] = None
    elif key in {"methods", "method"} and _METHOD.fullmatch(text):
        hints.methods[text] = None
    elif key in {"paths", "path", "value"}:
        path = _path(text)
        if path is not None:
            hints.paths[path] = None
    elif key in {"ports", "port"} and text.isdecimal():
        hints.ports[int(text)] = None


def _note_identity(text: str, namespace: str, hints: _Hints) -> None:
    found = _PRINCIPAL.fullmatch(text.replace("*", _SOMEBODY) if "/ns/" in text else text)
    if found:
        hints.accounts[found[1].removeprefix(_SOMEBODY), found[2], found[3]] = None
        return
    linkerd = _LINKERD.fullmatch(text)
    if linkerd:
        hints.accounts["", linkerd[2], linkerd[1]] = None
    elif text.startswith("*"):
        hints.accounts["", namespace, _SOMEBODY] = None


def _path(text: str) -> str | None:
    """Return a path that a pattern of any of these systems matches, None where that is not plain."""
    found = text.replace("{**}", "x/x").replace("{*}", "x")
    for part, by in _REGEX_PARTS if not found.endswith("*") or "\\" in found or ".*" in found else ():
        found = part.sub(by, found)
    if found.startswith("*"):
        found = f"/x{found[1:]}"
    found = found.replace("*", "x")
    return found if re.fullmatch(r"/[A-Za-z0-9._~!$&'()+,=:@/-]*", found) else None
