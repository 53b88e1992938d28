# SPDX-License-Identifier: Apache-2.0
"""Otterize ClientIntents (v1alpha3, v1beta1, v2alpha1, v2beta1) to a draft: what a client means to call, as rules.

Fields: otterize/intents-operator, ``api/*/clientintents_types.go``.  Paths are written into Istio's policies there as they are,
so they are read here as Istio reads them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from everyhop.core.errors import InputError
from everyhop.importing.doors import Claim, Says, build_doors, example_tests
from everyhop.importing.model import Draft, Fate
from everyhop.importing.notes import Notes, settle_accounts
from everyhop.importing.paths import read_pattern
from everyhop.importing.templates import EVERYTHING, contains
from everyhop.importing.workloads import Group, Groups, read_pods
from everyhop.policy import _grammar as g

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from everyhop.importing.model import Wishes
    from everyhop.importing.templates import Template
    from everyhop.manifests import Manifest, Manifests

API: Final = "k8s.otterize.com"
_VERSIONS: Final = frozenset({"v1alpha3", "v1beta1", "v2alpha1", "v2beta1"})
_DOMAIN: Final = "cluster.local"
_HTTPS: Final = 443
_SERVICE: Final = "svc:"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One target of a client: ``kind`` is kubernetes, internet, or what is not carried over; ``http`` of None is all of it."""

    kind: str
    name: str
    is_service: bool
    http: tuple[tuple[str, tuple[str, ...]], ...] | None
    where: str
    details: Mapping[str, Any]


def import_otterize(manifests: Manifests, wishes: Wishes) -> Draft:
    """Return the draft.  Raises InputError for objects that are no ClientIntents of a known version."""
    return _Import(manifests, wishes).run()


class _Import:
    def __init__(self, manifests: Manifests, wishes: Wishes) -> None:
        self._manifests = manifests
        self._wishes = wishes
        self._groups = Groups(read_pods(manifests))
        self._notes = Notes()
        self._services = {(one.namespace, one.name): one for one in manifests.of("Service", "")}
        self._egress: dict[str, dict[str, Any]] = {}

    def run(self) -> Draft:
        intents = [
            (one, self._group(one.namespace, client), list(calls))
            for one in self._manifests.of("ClientIntents", API)
            for client, calls in [_read(one)]
        ]
        if not intents:
            raise InputError("there are no ClientIntents here")
        edges = [
            (one, client, call, self._target(one, call)) for one, client, calls in intents for call in calls
        ]
        self._groups.name_all()
        settle_accounts(self._groups, self._notes, "otterize", intents[0][0].span)
        draft = Draft(trust_domain=self._wishes.trust_domain or _DOMAIN, parts=self._notes.parts)
        for group in self._groups.all:
            draft.services[group.name] = group.draft(f"/ns/{group.namespace}/sa/{group.account}")
        claims: dict[Group, list[Claim]] = {}
        for one, client, call, target in edges:
            if target is not None:
                claims.setdefault(target, []).extend(self._claims(one, client, call))
            elif call.kind == "internet":
                self._internet(one, client, call)
        names = [group.name for group in self._groups.all]
        for group, found in claims.items():
            service = draft.services[group.name]
            ports = set(group.ports.values())
            service.port = ports.pop() if len(ports) == 1 else None
            draft.rules += build_doors(service, found, None)
            draft.tests += example_tests(service, found, names, None, draft.trust_domain)
        if self._egress:
            draft.targets["egress"] = {
                name: {**entry, "from": sorted(entry["from"])} for name, entry in sorted(self._egress.items())
            }
        return draft

    # -- who is meant

    def _group(self, namespace: str, name: str) -> Group:
        """Return the pods of a workload by its name, assumed to be labelled and to have an account like it where not known."""
        for group in self._groups.of(namespace):
            if any(pod.name == name for pod in group.pods):
                return group
        for _, pod in self._groups.merged:
            if (pod.namespace, pod.name) == (namespace, name):
                return self._groups.by_account(namespace, pod.account)
        found = self._groups.by_account(namespace, name)
        if not found.is_exact and not found.is_target:
            found.labels, found.is_target = {"app": name}, True
        return found

    def _target(self, one: Manifest, call: _Call) -> Group | None:
        where = f"{one} {call.where}"
        if call.kind == "internet":
            return None
        if call.kind != "kubernetes":
            message = f"{call.kind} is not decided by calls between services"
            self._notes.add(Fate.LEFT_OUT, f"otterize.{call.kind}", one, message, where)
            return None
        name, dot, namespace = call.name.partition(".")
        namespace = namespace if dot else one.namespace
        if not call.is_service:
            return self._group(namespace, name)
        service = self._services.get((namespace, name))
        selector = service.spec.get("selector") if service is not None else None
        if not isinstance(selector, dict) or not selector:
            message = f"which pods the Service {namespace}/{name} has is not known"
            self._notes.add(Fate.LEFT_OUT, "otterize.service", one, message, where)
            return None
        groups = self._groups.by_labels(namespace, {str(key): str(value) for key, value in selector.items()})
        if len(groups) != 1:
            message = f"the Service {namespace}/{name} has the pods of several workloads, or of none"
            self._notes.add(Fate.LEFT_OUT, "otterize.service", one, message, where)
            return None
        return groups[0]

    # -- what is meant

    def _claims(self, one: Manifest, client: Group, call: _Call) -> list[Claim]:
        where = f"{one} {call.where}"
        pairs: dict[frozenset[str], list[Template]] = {}
        before = len(self._notes.parts)
        if call.http is None:
            message = "it names no paths, so every operation is meant"
            self._notes.add(Fate.ASSUMED, "otterize.every-operation", one, message, where, "/{rest...}")
            pairs[frozenset(self._wishes.methods)] = [EVERYTHING]
        for path, methods in call.http or ():
            pattern = read_pattern(path)
            known = frozenset(method for method in methods if method in g.METHODS)
            for method in sorted(set(methods) - known):
                message = f"no operation has the method {method!r}"
                self._notes.add(Fate.LEFT_OUT, "otterize.method", one, message, where)
            if pattern.lost:
                fate = Fate.NARROWER if pattern.templates else Fate.LEFT_OUT
                written = "what lies inside of it" if pattern.templates else ""
                self._notes.add(fate, f"otterize.{pattern.code}", one, pattern.lost, where, written)
            pairs.setdefault(known if methods else frozenset(self._wishes.methods), []).extend(
                pattern.templates
            )
        if not any(part.is_lost for part in self._notes.parts[before:]):
            self._notes.add(Fate.CARRIED, "otterize.call", one, "the call is written", where)
        note = f"{where} ({one.span.file}:{one.span.line})"
        return [
            _claim(client.name, methods, tuple(dict.fromkeys(found)), note, one)
            for methods, found in pairs.items()
        ]

    def _internet(self, one: Manifest, client: Group, call: _Call) -> None:
        where = f"{one} {call.where}"
        if call.details.get("ips"):
            message = "addresses: a policy names the hosts that services call"
            self._notes.add(Fate.LEFT_OUT, "otterize.ips", one, message, where)
        ports = call.details.get("ports") or []
        if not ports:
            message = "it names no ports"
            self._notes.add(Fate.NARROWER, "otterize.ports", one, message, where, f"port {_HTTPS}")
        for domain in call.details.get("domains") or ():
            if not re.fullmatch(g.DNS_NAME, str(domain)):
                message = f"{domain!r} is not one host name"
                self._notes.add(Fate.LEFT_OUT, "otterize.domain", one, message, where)
                continue
            for port in ports or [_HTTPS]:
                name = re.sub(r"[^a-z0-9]+", "-", f"{domain}-{port}" if port != _HTTPS else str(domain))[
                    :63
                ].strip("-")
                entry = self._egress.setdefault(name, {"host": domain, "port": port, "from": set()})
                entry["from"].add(client.name)
                self._notes.add(Fate.CARRIED, "otterize.internet", one, f"{domain}:{port} is written", where)


def _claim(
    client: str, methods: frozenset[str], templates: tuple[Template, ...], note: str, one: Manifest
) -> Claim:
    return Claim(
        says=Says.ALLOW,
        callers=frozenset({client}),
        methods=methods,
        templates=templates,
        opens=templates,
        covers=lambda template: any(contains(wide, template) for wide in templates),
        note=note,
        span=one.span,
    )


def _read(one: Manifest) -> tuple[str, Iterator[_Call]]:
    version = one.api_version.rpartition("/")[2]
    if version not in _VERSIONS:
        raise InputError(f"{one.span}: {one}: {version} is not read, only {', '.join(sorted(_VERSIONS))}")
    client = one.spec.get("workload" if version.startswith("v2") else "service")
    name = client.get("name") if isinstance(client, dict) else None
    if not isinstance(name, str) or not name:
        raise InputError(f"{one.span}: {one}: it names no client")
    return name, _calls(one, is_second=version.startswith("v2"))


def _calls(one: Manifest, *, is_second: bool) -> Iterator[_Call]:
    key = "targets" if is_second else "calls"
    entries = one.spec.get(key) or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{one.span}: {one}: {key} is no list")
    for index, entry in enumerate(entries):
        where = f"{key}[{index}]"
        yield _second(entry, where, one) if is_second else _first(entry, where, one)


def _second(entry: Mapping[str, Any], where: str, one: Manifest) -> _Call:
    if len(entry) != 1:
        raise InputError(f"{one.span}: {one}: {where}: a target is of one kind")
    ((kind, details),) = entry.items()
    if not isinstance(details, dict):
        raise InputError(f"{one.span}: {one}: {where}: {kind} is no mapping")
    is_called = kind in {"kubernetes", "service"}
    name = str(details.get("name", ""))
    if is_called and not name:
        raise InputError(f"{one.span}: {one}: {where}: it has no name")
    return _Call(
        kind="kubernetes" if is_called else str(kind),
        name=name,
        is_service=kind == "service" or details.get("kind") == "Service",
        http=_http(details.get("http"), where, one) if is_called else None,
        where=where,
        details=details,
    )


def _first(entry: Mapping[str, Any], where: str, one: Manifest) -> _Call:
    kind = entry.get("type") or "kubernetes"
    name = str(entry.get("name", ""))
    if kind in {"http", "kubernetes"} and not name:
        raise InputError(f"{one.span}: {one}: {where}: it has no name")
    internet = entry.get("internet")
    return _Call(
        kind="kubernetes" if kind == "http" else str(kind),
        name=name.removeprefix(_SERVICE),
        is_service=name.startswith(_SERVICE) or entry.get("kind") == "Service",
        http=_http(entry.get("HTTPResources"), where, one),
        where=where,
        details=internet if isinstance(internet, dict) else {},
    )


def _http(value: Any, where: str, one: Manifest) -> tuple[tuple[str, tuple[str, ...]], ...] | None:
    if not value:
        return None
    found = []
    for entry in value if isinstance(value, list) else [None]:
        methods = entry.get("methods") if isinstance(entry, dict) else None
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("path"), str)
            or not isinstance(methods or [], list)
        ):
            raise InputError(f"{one.span}: {one}: {where}: expected paths with methods")
        found.append((entry["path"], tuple(map(str, methods or ()))))
    return tuple(found)
