# SPDX-License-Identifier: Apache-2.0
"""Objects in force against the policy: what is missing, changed or foreign, and which request gets through because of it.

Three ways look at the same objects: the compiled ones field by field, what is known of foreign ones by their kind, and every kind
of request put to an evaluator of the objects in force.  A request that gets through against the policy is laid to the change
without which it would be refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from everyhop.authz.engine import Engine
from everyhop.core.errors import InputError
from everyhop.manifests import Manifests, read_manifests
from everyhop.policy.targets import ELSEWHERE
from everyhop.proving import drift_istio, drift_linkerd, drift_network
from everyhop.proving.compare import Prover
from everyhop.proving.drift_model import DriftReport, Finding, Severity
from everyhop.proving.drift_objects import changes_between, key_of
from everyhop.proving.drift_requests import Suggested
from everyhop.proving.drift_scope import CONTEXT, WATCHED, Scope, finding, is_ours
from everyhop.proving.oracle import Oracle
from everyhop.proving.space import Space
from everyhop.proving.systems import BUILDERS, Material, dns_of
from everyhop.targets.compiling import compile_intents, compile_policy
from everyhop.targets.intents import Intents
from everyhop.targets.view import View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from everyhop.manifests import Manifest
    from everyhop.policy.model import Snapshot
    from everyhop.proving.drift_objects import Key
    from everyhop.proving.model import Difference
    from everyhop.proving.systems import Builder, System
    from everyhop.targets.model import Compilation

MAX_CHANGES: Final = 200
"""Changes that a request is laid to one by one; beyond them the object that decided is named."""

_LOOKS: Final[Mapping[str, Callable[[Scope, Sequence[Manifest], Sequence[Manifest]], Iterator[Finding]]]] = (
    MappingProxyType(
        {
            "istio": drift_istio.look,
            "ambient": drift_istio.look,
            "linkerd": drift_linkerd.look,
            "cilium": drift_network.look,
            "networkpolicy": drift_network.look,
            "clusternetworkpolicy": drift_network.look,
        }
    )
)
_RESTRICTING: Final = frozenset(
    {
        "PeerAuthentication", "Sidecar", "NetworkPolicy", "Server", "EgressNetwork", "CiliumNetworkPolicy",
        "CiliumClusterwideNetworkPolicy", "ClusterNetworkPolicy", "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding", "ConstraintTemplate", "ValidatingWebhookConfiguration",
    }
)  # fmt: skip
"""Kinds that take something away; without one of them more may get through."""
_NO_OBJECTS: Final = frozenset({"aws", "compose", "envoy", "haproxy", "nginx", "opa", "systemd"})
"""Targets whose files are for other programs."""

_UNSEEN: Final = frozenset({"istio.permissive", "istio.permissive-port", "istio.no-strict"})
"""What widens though no request shows it: without mutual TLS whoever stands on the way reads and writes along."""

_TRAFFIC: Final = frozenset({"DestinationRule", "VirtualService"})
"""Kinds that say how calls are made, and not which."""


def find_drift(
    snapshot: Snapshot,
    targets: Sequence[str],
    manifests: Mapping[str, bytes],
    *,
    beside: Iterable[str] = (),
    builders: Mapping[str, Builder] | None = None,
) -> tuple[DriftReport, ...]:
    """Compare the objects of files in force, name to content, with the policy, for each target.

    ``beside`` names what else stands on the same hops, as for proving.  Raises InputError for a target that is unknown or is no
    objects of Kubernetes, and for files that hold none.
    """
    engine = Engine(snapshot)
    intents = Intents(snapshot, engine.index)
    compiled = compile_intents(intents, targets, beside=beside)
    for one in compiled:
        _read(one)  # a target that is no objects is refused before anything is read
    found = read_manifests(manifests)
    together = tuple(dict.fromkeys((*targets, *beside)))
    elsewhere = tuple(name for name in together if name in ELSEWHERE)
    known = {**BUILDERS, **(builders or {})}
    reports = []
    for one in compiled:
        scope = Scope(View(intents, one.target, together))
        reports.append(_Drift(scope, engine, one, found, known.get(one.target), elsewhere).report())
    return tuple(reports)


def kinds_of(snapshot: Snapshot, targets: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the kinds to read from a cluster for targets, by group and kind.  Raises InputError as :func:`find_drift`."""
    kinds = dict.fromkeys(kind for target in targets for kind in (*WATCHED.get(target, ()), *CONTEXT))
    for one in compile_policy(snapshot, targets):
        kinds.update(dict.fromkeys((held.group, held.kind) for held in _read(one)))
    return tuple(kinds)


def _read(one: Compilation) -> Manifests:
    """Return the objects among the files of a target; beside them there may be configuration of other programs."""
    if one.target in _NO_OBJECTS:
        raise InputError(
            f"{one.target} is no objects of Kubernetes",
            hint="its files are compared by: everyhop policy compile --check",
        )
    return read_manifests(
        {file.path: file.content for file in one.files if file.path.endswith((".yaml", ".yml"))}
    )


@dataclass(frozen=True, slots=True)
class _Changed:
    """One difference between the objects: what is wanted and what is found, one of them None."""

    key: Key
    wanted: Manifest | None
    found: Manifest | None


class _Drift:
    def __init__(
        self,
        scope: Scope,
        engine: Engine,
        compiled: Compilation,
        in_force: Manifests,
        builder: Builder | None,
        elsewhere: Sequence[str],
    ) -> None:
        self._scope = scope
        self._engine = engine
        self._compiled = compiled
        self._builder = builder
        self._elsewhere = elsewhere
        self._wanted = {key_of(one): one for one in _read(compiled)}
        self._kinds = {*WATCHED.get(compiled.target, ()), *((key.group, key.kind) for key in self._wanted)}
        self._found: dict[Key, Manifest] = {}
        self._twice: list[Manifest] = []
        for one in in_force:
            key = key_of(one)
            if key in self._found and (one.group, one.kind) in self._kinds:
                self._twice.append(one)
            self._found[key] = one

    def report(self) -> DriftReport:
        changes = list(self._changes())
        findings = [*self._differences(changes), *self._looked(changes)]
        requests, findings = self._asked(changes, findings)
        findings += [
            finding(
                one, "drift.duplicate", Severity.DRIFTS, "it stands here twice; the last one is looked at"
            )
            for one in self._twice
        ]
        if self._compiled.failed:
            message = "the policy does not compile wholly to it: what nobody holds there is closed"
            findings.append(
                Finding(
                    code="drift.not-compiled",
                    severity=Severity.NOTE,
                    subject=self._scope.target,
                    message=message,
                )
            )
        order = list(Severity)
        return DriftReport(
            target=self._scope.target,
            objects=len(self._relevant),
            requests=requests,
            findings=sorted(findings, key=lambda one: (order.index(one.severity), one.code, one.subject)),
        )

    @cached_property
    def _relevant(self) -> list[Manifest]:
        """Return the objects in force that decide here."""
        return [
            one
            for key, one in self._found.items()
            if (one.group, one.kind) in self._kinds and (key in self._wanted or self._scope.reaches(one))
        ]

    @cached_property
    def _seen(self) -> Mapping[Key, Manifest]:
        """Return the objects that an evaluator is shown: what stands elsewhere may be of a form that it does not know."""
        return {
            key: one
            for key, one in self._found.items()
            if (one.group, one.kind) not in self._kinds or key in self._wanted or self._scope.reaches(one)
        }

    # -- objects

    def _changes(self) -> Iterator[_Changed]:
        for key, wanted in self._wanted.items():
            found = self._found.get(key)
            if found is None or changes_between(wanted, found):
                yield _Changed(key, wanted, found)
        for one in self._relevant:
            key = key_of(one)
            if key not in self._wanted:
                yield _Changed(key, None, one)

    def _differences(self, changes: Iterable[_Changed]) -> Iterator[Finding]:
        for one in changes:
            if one.found is None and one.wanted is not None:
                restricts = _restricts(one.wanted)
                severity = Severity.WIDENS if restricts else Severity.DRIFTS
                tail = "; it takes something away, so more may get through" if restricts else ""
                yield Finding(
                    code="drift.missing",
                    severity=severity,
                    subject=str(one.key),
                    message=f"it is not in force{tail}",
                )
            elif one.found is not None and one.wanted is not None:
                fields = changes_between(one.wanted, one.found)
                yield Finding(
                    code="drift.changed",
                    severity=Severity.DRIFTS if one.key.kind in _TRAFFIC else Severity.WIDENS,
                    subject=str(one.key),
                    message=f"{len(fields)} of its fields are not as the policy says",
                    span=one.found.span,
                    changes=fields,
                )
            elif one.found is not None and is_ours(one.found):
                message = "everyhop made it, and the policy no longer does"
                yield finding(one.found, "drift.leftover", Severity.DRIFTS, message)

    def _looked(self, changes: Sequence[_Changed]) -> Iterator[Finding]:
        others = [one.found for one in changes if one.found is not None]
        look = _LOOKS.get(self._scope.target)
        said: set[str] = set()
        if look is not None:
            ours = {str(change.key) for change in changes if change.wanted is not None}
            for one in look(self._scope, others, self._relevant):
                said.add(one.subject)
                if one.subject not in ours or not _is_of_foreign(one.code):
                    yield one
        for change in changes:
            one_found = change.found
            if one_found is None or change.wanted is not None or str(change.key) in said:
                continue
            if one_found.kind != "Namespace" and not is_ours(one_found):
                message = "the policy did not make it; nothing is known of it that opens or closes"
                yield finding(one_found, "drift.foreign", Severity.NOTE, message)

    # -- requests

    def _asked(
        self, changes: Sequence[_Changed], findings: list[Finding]
    ) -> tuple[int | None, list[Finding]]:
        """Put requests to the objects in force; a finding without one that is laid to it does not widen as far as is known."""
        if self._builder is None:
            return None, findings
        try:
            system = self._system(self._seen.values())
            requests, wider = self._wider(system, changes)
            laid, rest = self._laid(wider, changes)
        except InputError as error:
            message = f"requests could not be asked: {error.message}"
            broken = Finding(
                code="drift.not-evaluated",
                severity=Severity.DRIFTS,
                subject=self._scope.target,
                message=message,
            )
            return None, [*findings, broken]
        settled = [self._settled(one, laid, is_wider=bool(wider)) for one in findings]
        settled += [
            Finding(
                code="drift.wider",
                severity=Severity.WIDENS,
                subject=one.outcome.by or self._scope.target,
                message="a request gets through that the policy refuses, and no single change explains it",
                request=one,
            )
            for one in rest
        ]
        return requests, settled

    def _wider(self, system: System, changes: Sequence[_Changed]) -> tuple[int, list[Difference]]:
        intents = self._scope.intents
        oracle = Oracle(self._engine, intents)
        prover = Prover(self._engine, intents, oracle, [system], self._elsewhere)
        others = [one.found for one in changes if one.found is not None][:MAX_CHANGES]
        proofs = [
            prover.prove(Space(self._engine, intents, dns=dns_of([system]))),
            prover.prove(Suggested(self._scope, self._engine, others)),
        ]
        wider = [one for proof in proofs for report in proof.targets.values() for one in report.wider]
        pristine = None
        kept = []
        for one in wider:
            pristine = pristine or self._system([*self._wanted.values(), *self._context])
            if not pristine.evaluate(
                one.ask
            ).allowed:  # else it is not drift: the compiled objects let it through too
                kept.append(one)
        return sum(proof.requests for proof in proofs), kept

    @property
    def _context(self) -> list[Manifest]:
        return [one for one in self._found.values() if (one.group, one.kind) in CONTEXT]

    def _laid(
        self, wider: Sequence[Difference], changes: Sequence[_Changed]
    ) -> tuple[Mapping[str, Difference], list[Difference]]:
        """Lay each request to the changes without which it would be refused; return the plainest by object, and the rest."""
        laid: dict[str, Difference] = {}
        systems: dict[Key, System] = {}
        rest = []
        for one in wider:
            causes = []
            for change in changes[:MAX_CHANGES]:
                if change.key not in systems:
                    systems[change.key] = self._system(self._without(change))
                if not systems[change.key].evaluate(one.ask).allowed:
                    causes.append(change)
            for change in causes:
                laid.setdefault(str(change.key), one)
            if not causes:
                rest.append(one)
        return laid, rest

    def _without(self, change: _Changed) -> list[Manifest]:
        kept = [one for key, one in self._seen.items() if key != change.key]
        return kept if change.wanted is None else [*kept, change.wanted]

    def _settled(self, one: Finding, laid: Mapping[str, Difference], *, is_wider: bool) -> Finding:
        request = laid.get(one.subject)
        if request is not None:
            return replace(one, severity=Severity.WIDENS, request=request)
        if one.code in _UNSEEN:
            return one
        if one.severity is not Severity.WIDENS or (
            one.span is None and one.code != "drift.missing" and is_wider
        ):
            return one
        tail = "; no request was found that gets through only because of it"
        return replace(one, severity=Severity.DRIFTS, message=one.message + tail)

    def _system(self, objects: Iterable[Manifest]) -> System:
        assert self._builder is not None  # noqa: S101  # asked only where there is one
        material = Material(
            target=self._scope.target, view=self._scope.view, files={}, diagnostics=self._compiled.diagnostics
        )
        vars(material)["manifests"] = Manifests(tuple(objects))  # they were read before, and once is enough
        return self._builder(material)


def _is_of_foreign(code: str) -> bool:
    """Tell whether a finding says nothing of an object of ours that was changed: its fields say it."""
    return ".extra-" in code or code.endswith(("-level", "unknown-workload"))


def _restricts(one: Manifest) -> bool:
    """Tell whether more may get through without an object."""
    if one.kind in _RESTRICTING:
        return True
    if one.kind != "AuthorizationPolicy" or one.group != "security.istio.io":
        return False
    return one.spec.get("action", "ALLOW") != "ALLOW" or not one.spec.get("rules")
