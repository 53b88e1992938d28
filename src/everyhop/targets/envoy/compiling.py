# SPDX-License-Identifier: Apache-2.0
"""The compiler: for each service its bootstrap, and the files of its two secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError
from everyhop.dataplane._names import SNAPSHOT_DIGITS
from everyhop.dataplane._resources import Json, encode
from everyhop.policy.access import AccessIndex
from everyhop.targets._standalone import (
    authorizer_of,
    plain_path,
    port_option,
    upstream_of,
    upstream_warnings,
)
from everyhop.targets.envoy.bootstrap import Place, bootstrap
from everyhop.targets.envoy.granted import granted
from everyhop.targets.envoy.transport import bundle_secret, svid_secret
from everyhop.targets.model import File

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everyhop.targets._standalone import Address
    from everyhop.targets.intents import ServiceIntents
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

BOOTSTRAP: Final = "bootstrap.json"


class Envoy:
    """``envoy/SERVICE/``: ``bootstrap.json`` for ``envoy -c``, and the secrets that it watches."""

    name: Final = "envoy"
    summary: Final = (
        "a static Envoy bootstrap for each service: mutual TLS, the policy, ext_authz for what facts decide"
    )

    def compile(self, view: View) -> tuple[Sequence[File], Sequence[Diagnostic]]:
        """Return three files for each service; raises InputError for options that name no address or path."""
        index = AccessIndex(view.intents.snapshot)
        authorizer = authorizer_of(view)
        authorizer_id = _identity_of(view, authorizer)
        certificates = plain_path(view, "certificates")
        listen = str(view.option("listen")), port_option(view, "listen_port")
        files: list[File] = []
        diagnostics: list[Diagnostic] = []
        for service in view.intents:
            if service.service.is_canary:
                continue
            directory = f"{plain_path(view, 'directory')}/{service.name}"
            place = Place(
                listen=listen,
                directory=directory,
                upstream=upstream_of(service),
                authorizer=authorizer,
                authorizer_id=authorizer_id,
            )
            found = granted(view, service, index)
            document = bootstrap(view.intents.snapshot, found, place, _about(view, service))
            diagnostics += [*found.diagnostics, *upstream_warnings(view, service)]
            files += _files(service.name, certificates, document)
        return files, diagnostics


def _files(service: str, certificates: str, document: Json) -> list[File]:
    contents = {
        BOOTSTRAP: document,
        "svid.json": svid_secret(certificates),
        "bundle.json": bundle_secret(certificates),
    }
    return [File(path=f"envoy/{service}/{name}", content=encode(one)) for name, one in contents.items()]


def _about(view: View, service: ServiceIntents) -> Json:
    """Return what people are told in place of comments, which JSON has not: the rules and where they stand."""
    rules = {
        one.rule.id: str(one.rule.span)
        for door in service.doors
        for grant in view.grants(door)
        for one in grant.alternatives
        if one.rule is not None
    }
    return {
        "generated": "by everyhop policy compile --target envoy; do not edit",
        "snapshot": view.intents.snapshot.hash[:SNAPSHOT_DIGITS],
        "rules": dict(sorted(rules.items())),
    }


def _identity_of(view: View, authorizer: Address | None) -> str | None:
    """Return the SPIFFE ID of an authorizer on TCP, which has to be named: whoever answers there says who may pass."""
    if authorizer is None or authorizer.socket is not None:
        return None
    name = str(view.option("authorizer_identity"))
    service = view.intents.snapshot.services.get(name)
    if service is None:
        raise InputError(
            f"targets: {view.target}: authorizer_identity: {name!r} is no service of the policy",
            hint="an authorizer at HOST:PORT shows the SVID of a service; name it, or use unix:/PATH",
        )
    return str(service.spiffe_id)


TARGET: Final = Envoy()
