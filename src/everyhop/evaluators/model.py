# SPDX-License-Identifier: Apache-2.0
"""What every evaluator is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class Wire(StrEnum):
    """What is spoken on the connection."""

    HTTP = "http"
    GRPC = "grpc"
    WEBSOCKET = "websocket"
    TCP = "tcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A pod or a process: where it runs and what is known of it.  ``namespace_labels`` are those of its namespace.

    A client outside of the cluster has the namespace "" and no labels.
    """

    name: str
    namespace: str
    service_account: str
    labels: Mapping[str, str]
    namespace_labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    ip: str = "10.1.0.1"
    ports: tuple[int, ...] = ()


NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"


def labels_of_namespace(workload: Workload) -> Mapping[str, str]:
    """Return the labels of a workload's namespace, with the one that Kubernetes always sets: nobody can change that one."""
    labels = workload.namespace_labels
    if labels.get(NAMESPACE_LABEL) == workload.namespace:
        return labels
    return {**labels, NAMESPACE_LABEL: workload.namespace}


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A bearer token whose signature was made by ``issuer``'s real key unless ``is_forged``.

    ``claims`` holds texts, booleans, numbers and lists of texts, ``sub`` and ``aud`` not among them.
    """

    issuer: str
    subject: str
    audiences: tuple[str, ...]
    claims: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    is_expired: bool = False
    is_forged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One attempt to reach a workload.

    ``peer`` is the SPIFFE ID of the client certificate (its URI SAN), None for plaintext; ``source`` where it comes from.
    ``path`` is the raw ``:path`` with its query; method and path are empty for :attr:`Wire.TCP`.  ``headers`` have lower-case
    names.  ``is_probe_network``: it comes from a network of which probes come.  ``dns_name`` is what an egress asks for.
    """

    source: Workload
    target: Workload
    port: int
    peer: str | None
    wire: Wire = Wire.HTTP
    method: str = ""
    path: str = ""
    host: str = ""
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    token: Token | None = None
    dns_name: str | None = None

    @property
    def bare_path(self) -> str:
        """Return the path without its query."""
        return self.path.partition("?")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Whether the request gets through, and why, by the object that decided where there is one.

    ``asks`` names an authorizer that the system asks before it lets the request pass (Istio's CUSTOM provider, ext_authz): it is
    let pass only if that one agrees.
    """

    allowed: bool
    why: str
    by: str | None = None
    asks: str | None = None


class Evaluator(Protocol):
    """One system under given manifests."""

    def evaluate(self, request: Request) -> Outcome:
        """Return what the system does with a request; raises InputError for manifests that it would reject."""
        ...
