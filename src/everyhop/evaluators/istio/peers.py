# SPDX-License-Identifier: Apache-2.0
"""PeerAuthentication: whether plaintext is accepted (pilot/pkg/security/authn/policy_applier.go, ComposePeerAuthentication).

Workload before namespace before mesh; UNSET inherits; nothing at all is PERMISSIVE; a port of a workload's policy overrides.  Of
two policies in one scope the older counts, and of the same age or none the one that was read first.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from everyhop.evaluators.istio.attachment import Attachment, attachment_of
from everyhop.evaluators.istio.strict import Part, spec_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from everyhop.evaluators.model import Workload
    from everyhop.manifests import Manifest

_MAX_PORT: Final = 65535


class Mode(StrEnum):
    """What a port accepts."""

    UNSET = "UNSET"
    DISABLE = "DISABLE"
    PERMISSIVE = "PERMISSIVE"
    STRICT = "STRICT"


LOOSE: Final = frozenset({Mode.PERMISSIVE, Mode.DISABLE})


@dataclass(frozen=True, slots=True)
class PeerPolicy:
    """One PeerAuthentication."""

    manifest: Manifest
    attachment: Attachment
    mode: Mode
    ports: Mapping[int, Mode]

    @property
    def created(self) -> str:
        """Return when it was made (RFC 3339, so texts sort as times), "" where it is not said."""
        return str(self.manifest.metadata.get("creationTimestamp") or "")


@dataclass(frozen=True, slots=True)
class Scopes:
    """The policies that count for one workload, by scope."""

    mesh: PeerPolicy | None
    namespace: PeerPolicy | None
    workload: PeerPolicy | None

    def mode(self, port: int) -> Mode:
        """Return what a sidecar does at a port."""
        found = Mode.PERMISSIVE
        for one in (self.mesh, self.namespace, self.workload):
            if one is not None and one.mode is not Mode.UNSET:
                found = one.mode
        ported = Mode.UNSET if self.workload is None else self.workload.ports.get(port, Mode.UNSET)
        return found if ported is Mode.UNSET else ported

    def refuses_plaintext_in_ambient(self, port: int) -> bool:
        """Tell whether ztunnel refuses plaintext at a port (pilot/pkg/serviceregistry/ambient/authorization.go).

        Istio turns the policies into rules for ztunnel, which differ from a sidecar's in two ways.  A port that is DISABLE is no
        exception under a workload that inherits STRICT, unless another port is PERMISSIVE.  And with a namespace policy that is
        UNSET under a STRICT mesh, an exception for one port leaves **all** ports of the workload open, as the rules come out empty.
        """
        inherited = _is_strict(self.mesh) if _is_unset(self.namespace) else _is_strict(self.namespace)
        own = self.workload
        if own is None:
            return inherited
        base = inherited if own.mode is Mode.UNSET else own.mode is Mode.STRICT
        if not base:
            return own.ports.get(port) is Mode.STRICT
        exceptions = [at for at, mode in own.ports.items() if mode in LOOSE]
        if own.mode is Mode.UNSET:
            if Mode.PERMISSIVE not in own.ports.values():
                return True
            if self.namespace is not None and not _is_strict(self.namespace):
                return False
        return port not in exceptions


def scopes(policies: Iterable[PeerPolicy], workload: Workload, root_namespace: str) -> Scopes:
    """Return the policies that count for a workload; one with a selector in the root namespace counts for none."""
    found: dict[str, PeerPolicy] = {}
    for one in sorted(policies, key=lambda policy: policy.created):
        place = one.attachment.namespace
        if place not in {root_namespace, workload.namespace}:
            continue
        if not one.attachment.labels:
            found.setdefault("mesh" if place == root_namespace else "namespace", one)
        elif place != root_namespace and one.attachment.selects(workload.labels):
            found.setdefault("workload", one)
    return Scopes(found.get("mesh"), found.get("namespace"), found.get("workload"))


def peer_policy_of(manifest: Manifest) -> PeerPolicy:
    """Read a PeerAuthentication; raises InputError for unknown fields and for what Istio's validation refuses."""
    spec = spec_of(manifest)
    spec.only("mtls", "portLevelMtls", "selector")
    attachment = attachment_of(spec, has_references=False)
    ports: dict[int, Mode] = {}
    written = spec.part("portLevelMtls")
    if written is not None:
        if not attachment.labels or not written.value:
            raise written.wrong("portLevelMtls has ports, and belongs to a policy with a selector")
        for port in written.value:
            number = int(port) if port.isdigit() else 0
            if not 0 < number <= _MAX_PORT:
                raise written.wrong(f"{port[:20]!r} is no port")
            ports[number] = _mode(written.part(port))
    return PeerPolicy(manifest, attachment, _mode(spec.part("mtls")), ports)


def _mode(part: Part | None) -> Mode:
    if part is None:
        return Mode.UNSET
    part.only("mode")
    return Mode(part.one_of("mode", tuple(Mode), Mode.UNSET.value))


def _is_strict(policy: PeerPolicy | None) -> bool:
    return policy is not None and policy.mode is Mode.STRICT


def _is_unset(policy: PeerPolicy | None) -> bool:
    return policy is None or policy.mode is Mode.UNSET
