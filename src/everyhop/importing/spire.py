# SPDX-License-Identifier: Apache-2.0
"""SPIRE's registration entries to a draft: services with their identities and selectors, and no rule.

Read are the answer of ``spire-server entry show -output json`` (entry.proto of the SPIRE API) and the kinds of
spire-controller-manager, ClusterStaticEntry and ClusterSPIFFEID; the template of the latter is filled in for known workloads, as
far as it uses the trust domain, the namespace, the service account and labels of pods.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from everyhop.core.errors import InputError
from everyhop.core.problems import Span
from everyhop.evaluators.labels import read_selector
from everyhop.importing.model import Draft, DraftService, Fate, Part
from everyhop.importing.workloads import NAME_LABELS, Pod, read_pods
from everyhop.manifests import Manifests, read_manifests
from everyhop.policy import _grammar as g
from everyhop.spiffe.ids import SpiffeId

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from everyhop.importing.model import Wishes
    from everyhop.manifests import Manifest

API: Final = "spire.spiffe.io"
_UNIX: Final = frozenset(g.UNIX_KEYS)
_FIELD: Final = re.compile(r"\{\{\s*(.*?)\s*\}\}")
_LABEL: Final = re.compile(r'index\s+\.PodMeta\.Labels\s+"([^"]+)"')
_NAMESPACE: Final = "kubernetes.io/metadata.name"


def import_spire(files: Mapping[str, bytes], wishes: Wishes) -> Draft:
    """Return the draft.  Raises InputError for files that are neither, and for SPIFFE IDs that are none."""
    found = _Import(wishes)
    manifests: dict[str, bytes] = {}
    for name in sorted(files):
        entries = _shown(files[name])
        if entries is None:
            manifests[name] = files[name]
        for index, entry in enumerate(entries or ()):
            found.entry(entry, f"entries[{index}]", Span(file=name, line=1, column=1))
    found.objects(read_manifests(manifests))
    return found.draft()


def _shown(content: bytes) -> list[Any] | None:
    """Return the entries of an answer of the server, None where it is something else."""
    if not content.lstrip().startswith(b"{"):
        return None
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    entries = document.get("entries")
    return entries if isinstance(entries, list) and "kind" not in document else None


class _Import:
    def __init__(self, wishes: Wishes) -> None:
        self._wishes = wishes
        self._domain = wishes.trust_domain
        self._services: dict[str, DraftService] = {}
        self._by_identity: dict[str, DraftService] = {}
        self._parts: list[Part] = []

    def draft(self) -> Draft:
        if not self._services:
            raise InputError("no registration entry here becomes a service")
        placed: list[DraftService] = []
        for service in self._services.values():
            if service.is_placed and any(_clash(service, other) for other in placed):
                service.is_placed = (
                    False  # an identity beside another of the same pods has no place of its own
                )
            elif service.is_placed:
                placed.append(service)
        draft = Draft(trust_domain=self._domain or "", parts=self._parts, services=dict(self._services))
        if not any(service.is_placed for service in self._services.values()):
            draft.targets = {}
        return draft

    def _note(self, fate: Fate, code: str, source: str, span: Span, message: str, written: str = "") -> None:
        self._parts.append(
            Part(fate=fate, code=f"spire.{code}", source=source, message=message, span=span, written=written)
        )

    # -- entries

    def entry(self, entry: Any, where: str, span: Span) -> None:
        """Take over one registration entry as the server shows it."""
        if not isinstance(entry, dict):
            raise InputError(f"{span}: {where} is no mapping")
        identity = _identity(entry.get("spiffe_id"), where, span)
        where = f"{where} {identity}"
        if entry.get("admin") or entry.get("downstream"):
            self._note(
                Fate.LEFT_OUT,
                "privileged",
                where,
                span,
                "an administrator or a downstream server is no service",
            )
            return
        for key, what in (
            ("federates_with", "federation"),
            ("dns_names", "DNS names"),
            ("store_svid", "a stored SVID"),
        ):
            if entry.get(key):
                self._note(
                    Fate.LEFT_OUT, key.replace("_", "-"), where, span, f"{what}: a policy has no word for it"
                )
        selectors = entry.get("selectors") or []
        pairs = [(str(one.get("type")), str(one.get("value"))) for one in selectors if isinstance(one, dict)]
        self._service(identity, pairs, where, span)

    def objects(self, manifests: Manifests) -> None:
        """Take over what the controller manager's kinds say."""
        for one in manifests.of("ClusterStaticEntry", API):
            identity = _identity(one.spec.get("spiffeID"), str(one), one.span)
            selectors = [str(text).partition(":") for text in one.spec.get("selectors") or ()]
            if one.spec.get("admin") or one.spec.get("downstream"):
                self._note(Fate.LEFT_OUT, "privileged", str(one), one.span, "an administrator is no service")
                continue
            self._service(identity, [(kind, value) for kind, _, value in selectors], str(one), one.span)
        pods = read_pods(manifests)
        namespaces = {one.name: one.labels for one in manifests.of("Namespace", "")}
        for one in manifests.of("ClusterSPIFFEID", API):
            self._templated(one, pods, namespaces)

    def _templated(self, one: Manifest, pods: list[Pod], namespaces: Mapping[str, Mapping[str, str]]) -> None:
        template = one.spec.get("spiffeIDTemplate")
        if not isinstance(template, str):
            raise InputError(f"{one.span}: {one}: spiffeIDTemplate is missing")
        if one.spec.get("workloadSelectorTemplates"):
            message = "workloadSelectorTemplates: selectors beside those of pods"
            self._note(Fate.LEFT_OUT, "selector-templates", str(one), one.span, message)
            return
        podded = read_selector(one.spec.get("podSelector") or {}, f"{one.span}: {one} podSelector")
        spaced = read_selector(
            one.spec.get("namespaceSelector") or {}, f"{one.span}: {one} namespaceSelector"
        )
        chosen = [
            pod
            for pod in pods
            if podded.selects(pod.labels)
            and spaced.selects({_NAMESPACE: pod.namespace, **namespaces.get(pod.namespace, {})})
        ]
        if not chosen:
            message = "it selects no workload that is known here"
            self._note(Fate.LEFT_OUT, "no-workload", str(one), one.span, message)
        for pod in chosen:
            text = self._filled(template, pod)
            if text is None:
                message = f"the template {template!r} uses what is not known of a workload"
                self._note(Fate.LEFT_OUT, "template", str(one), one.span, message)
                return
            pairs = [("k8s", f"ns:{pod.namespace}"), ("k8s", f"sa:{pod.account}")]
            identity = _identity(text, str(one), one.span)
            self._service(identity, pairs, f"{one} of {pod.namespace}/{pod.name}", one.span)
            service = self._by_identity.get(str(identity))
            if service is not None:
                label = next((key for key in NAME_LABELS if key in pod.labels), None)
                service.labels = {label: pod.labels[label]} if label else dict(pod.labels) or service.labels

    def _filled(self, template: str, pod: Pod) -> str | None:
        known = {
            ".TrustDomain": self._domain or "cluster.local",
            ".PodMeta.Namespace": pod.namespace,
            ".PodSpec.ServiceAccountName": pod.account,
        }
        missing = False

        def fill(match: re.Match[str]) -> str:
            nonlocal missing
            label = _LABEL.fullmatch(match[1])
            value = pod.labels.get(label[1]) if label else known.get(match[1])
            missing |= value is None
            return value or ""

        text = _FIELD.sub(fill, template)
        return None if missing else text

    # -- services

    def _service(self, identity: SpiffeId, selectors: list[tuple[str, str]], where: str, span: Span) -> None:
        domain = identity.trust_domain.name
        self._domain = self._domain or domain
        if domain != self._domain:
            message = f"its trust domain is not {self._domain!r}"
            self._note(Fate.LEFT_OUT, "trust-domain", where, span, message)
            return
        if identity.path.startswith(g.RESERVED_IDENTITY):
            self._note(Fate.LEFT_OUT, "reserved", where, span, "such paths are everyhop's own")
            return
        unix, placed, other = _sorted_selectors(selectors)
        if other:
            message = f"the selector {other[0]}"
            self._note(Fate.LEFT_OUT, "selector", where, span, message, "the identity without a workload")
        service = self._by_identity.get(str(identity)) or self._new(identity, span)
        if unix and not placed and not other:
            try:
                service.workload += [{"unix": alternative} for alternative in _alternatives(unix)]
            except InputError as error:
                self._note(
                    Fate.LEFT_OUT, "selector", where, span, error.message, "the identity without a workload"
                )
        elif placed:
            labels = {key: value for key, value in placed.items() if key not in {"ns", "sa"}}
            service.namespace = placed.get("ns", service.namespace)
            service.account = placed.get("sa", service.account)
            service.labels = labels or service.labels
            service.is_placed = True
            if unix:
                message = "selectors of a process beside those of a pod"
                self._note(Fate.LEFT_OUT, "selector", where, span, message, "the place of the pod")
        if not any(part.source == where and part.is_lost for part in self._parts):
            self._note(Fate.CARRIED, "entry", where, span, f"it is the service {service.name!r}")

    def _new(self, identity: SpiffeId, span: Span) -> DraftService:
        parts = [part for part in identity.path.split("/") if part]
        base = re.sub(r"[^a-z0-9-]+", "-", (parts[-1] if parts else "service").lower()).strip("-")[:40]
        if not base or not base[0].isalpha() or base in g.RESERVED_SERVICE_NAMES:
            base = f"service-{base}".rstrip("-")
        name, number = base, 2
        while name in self._services:
            name, number = f"{base}-{number}", number + 1
        service = DraftService(
            name=name,
            identity=identity.path,
            namespace="default",
            account=name,
            labels={"app": name},
            is_placed=False,
            note=f"{identity} ({span.file}:{span.line})",
        )
        self._services[name] = self._by_identity[str(identity)] = service
        return service


def _clash(one: DraftService, other: DraftService) -> bool:
    if one.namespace != other.namespace:
        return False
    return (
        one.account == other.account
        or one.labels.items() <= other.labels.items()
        or (other.labels.items() <= one.labels.items())
    )


def _identity(value: Any, where: str, span: Span) -> SpiffeId:
    text = value
    if isinstance(value, dict):
        text = f"spiffe://{value.get('trust_domain')}{value.get('path')}"
    if not isinstance(text, str):
        raise InputError(f"{span}: {where}: it has no SPIFFE ID")
    try:
        return SpiffeId.parse(text)
    except InputError as error:
        raise InputError(f"{span}: {where}: {error.message}") from error


def _sorted_selectors(
    selectors: list[tuple[str, str]],
) -> tuple[list[tuple[str, str]], dict[str, str], list[str]]:
    """Return the selectors of a process, those of a pod's place (``ns``, ``sa`` and labels), and any others."""
    unix: list[tuple[str, str]] = []
    placed: dict[str, str] = {}
    other: list[str] = []
    for kind, value in selectors:
        key, _, rest = value.partition(":")
        label, _, text = rest.partition(":")
        if kind == "unix" and key in _UNIX:
            unix.append((key, rest))
        elif kind == "k8s" and key in {"ns", "sa"}:
            placed[key] = rest
        elif (
            kind == "k8s"
            and key == "pod-label"
            and re.fullmatch(g.LABEL_KEY, label)
            and re.fullmatch(g.LABEL_VALUE, text)
        ):
            placed[label] = text
        else:
            other.append(f"{kind}:{value}")
    return unix, placed, other


def _alternatives(unix: list[tuple[str, str]]) -> Iterator[dict[str, str]]:
    """Yield the one alternative that all selectors of an entry make; one selector twice is nothing that a process has."""
    found: dict[str, str] = {}
    for key, value in unix:
        if key in found:
            raise InputError(f"the selector unix:{key} stands twice")
        found[key] = value
    yield found
