# SPDX-License-Identifier: Apache-2.0
"""Servers: which ports of which pods they stand for, and what is admitted there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from everyhop.core.errors import InputError
from everyhop.evaluators.fields import spec_of
from everyhop.evaluators.labels import Selector, read_selector
from everyhop.evaluators.linkerd.clients import GROUP, check_mode, check_version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.manifests.model import Manifest, Manifests


class Protocol(StrEnum):
    """What a proxy takes a port to speak."""

    DETECT = "unknown"
    HTTP1 = "HTTP/1"
    HTTP2 = "HTTP/2"
    GRPC = "gRPC"
    OPAQUE = "opaque"
    TLS = "TLS"

    @property
    def is_opaque(self) -> bool:
        """Tell whether nothing is read there."""
        return self in {Protocol.OPAQUE, Protocol.TLS}

    @property
    def is_detected(self) -> bool:
        """Tell whether HTTP is read where it is spoken, and anything else passed on."""
        return self is Protocol.DETECT


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One Server; ``port`` is a number or a name."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    pods: Selector
    port: int | str
    protocol: Protocol
    access: str
    made: str


def read_servers(manifests: Manifests) -> tuple[Server, ...]:
    """Read every Server for pods, the oldest first and then by name: of two for one port the first has it."""
    found = [server for one in manifests.of("Server", GROUP) if (server := _server(one)) is not None]
    return tuple(sorted(found, key=lambda one: (one.made, one.name)))


def _server(manifest: Manifest) -> Server | None:
    check_version(manifest, "v1beta3", "v1beta2", "v1beta1", "v1alpha1")
    with spec_of(manifest) as spec:
        pods, others = spec.take("podSelector"), spec.take("externalWorkloadSelector")
        port = spec.take("port")
        protocol = Protocol(spec.one_of("proxyProtocol", *Protocol) or Protocol.DETECT)
        access = check_mode(spec.text("accessPolicy") or "deny", f"{spec.where}.accessPolicy")
    if (pods is None) == (others is None):
        raise InputError(f"{spec.where}: one of podSelector and externalWorkloadSelector has to be there")
    is_number = isinstance(port, int) and not isinstance(port, bool) and 1 <= port <= 65535  # noqa: PLR2004
    if not is_number and not (isinstance(port, str) and port):
        raise InputError(f"{spec.where}: port is a number from 1 to 65535 or a name")
    if pods is None:
        return None  # for machines outside of the cluster
    made = manifest.metadata.get("creationTimestamp")
    return Server(
        name=manifest.name,
        namespace=manifest.namespace,
        labels=manifest.labels,
        pods=read_selector(pods, f"{spec.where}.podSelector"),
        port=port,
        protocol=protocol,
        access=access,
        made="" if made is None else str(made),
    )
