# SPDX-License-Identifier: Apache-2.0
"""cert-manager: one Certificate a service with its SPIFFE ID as the only name.

The Secret is the identity: whoever reads it, or may write Certificates for the issuer, is the service.  So the issuer has to
be one whose requests somebody approves by name (approver-policy), which is said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.targets.objects import obj, object_name, yaml_file
from everyhop.targets.spire.controller import go_duration
from everyhop.targets.spire.entries import dns_name, is_of_unix
from everyhop.targets.yaml import Document

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from everyhop.targets.intents import ServiceIntents
    from everyhop.targets.model import Diagnostic, File
    from everyhop.targets.view import View

_VERSION: Final = "cert-manager.io/v1"
_SHORTEST: Final = 3600
"""cert-manager refuses shorter lives."""


class CertManager:
    """``cert-manager``: see ``docs/reference/targets-identity.md``."""

    name: Final = "cert-manager"
    summary: Final = "cert-manager: a Certificate a service with its SPIFFE ID"

    def compile(self, view: View) -> tuple[Sequence[File], Sequence[Diagnostic]]:
        """Return ``cert-manager/NAMESPACE.yaml`` for each namespace; nothing without an issuer."""
        if not view.option("issuer"):
            message = "cert-manager has to be told which issuer signs for the trust domain"
            return (), (view.error("issuer", message, suggestion="targets: cert-manager: issuer"),)
        if view.option("duration") < _SHORTEST:
            message = f"cert-manager gives no certificate for less than {_SHORTEST} seconds"
            return (), (view.error("duration", message),)
        existing = [one for one in view.intents if not one.service.is_canary]
        services = [one for one in existing if not is_of_unix(one.service)]
        files = []
        for namespace in sorted({one.place.namespace for one in services}):
            documents = [_document(view, one) for one in services if one.place.namespace == namespace]
            files.append(yaml_file(view, f"cert-manager/{namespace}.yaml", documents))
        return files, tuple(_warnings(view, [one.name for one in existing if one not in services]))


def _warnings(view: View, hosts: Sequence[str]) -> Iterator[Diagnostic]:
    message = (
        f"whoever may create Certificates for {view.option('issuer_kind')} {view.option('issuer')} can be any service, "
        "and whoever reads a Secret is its service"
    )
    hint = "approve requests by SPIFFE ID and namespace (CertificateRequestPolicy), or use SPIRE"
    yield view.warning("approval", message, suggestion=hint)
    if hosts:
        where = hosts[0] if len(hosts) == 1 else f"{hosts[0]} and {len(hosts) - 1} more"
        message = (
            f"{where} has no certificate: it is a process of a host, and a Secret would be a second holder"
        )
        yield view.warning("hosts", message, suggestion="use SPIRE or everyhop's own agent there")


def _document(view: View, one: ServiceIntents) -> Document:
    span = one.service.span
    return Document(_certificate(view, one), (f"{one.name} at {span.file}:{span.line}",))


def _certificate(view: View, one: ServiceIntents) -> dict[str, Any]:
    duration: int = view.option("duration")
    name = object_name("svid", one.name)
    spec: dict[str, Any] = {
        "secretName": name,
        "duration": go_duration(duration),
        "renewBefore": go_duration(duration // 3),
        "isCA": False,
        "uris": [str(one.service.spiffe_id)],
        "usages": ["digital signature", "server auth", "client auth"],
        "privateKey": {
            "algorithm": "ECDSA",
            "size": 256,
            "encoding": "PKCS8",
            "rotationPolicy": "Always",
        },
        "revisionHistoryLimit": 1,
        "issuerRef": {
            "name": view.option("issuer"),
            "kind": view.option("issuer_kind"),
            "group": "cert-manager.io",
        },
    }
    dns = dns_name(view, one.name)
    if dns is not None:
        spec["dnsNames"] = [dns]
    return obj(view, _VERSION, "Certificate", name, one.place.namespace, spec)


TARGET: Final = CertManager()
