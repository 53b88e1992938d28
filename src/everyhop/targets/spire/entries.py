# SPDX-License-Identifier: Apache-2.0
"""Registration entries: for ``spire-server entry create``, one by one and as JSON.

A service whose ``workload`` names facts of a process is recognised by just these (unix selectors), any other by its namespace and
service account.  ``run``, which is everyhop's own, has no selector in SPIRE: an alternative that needs it beside others is left out.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from everyhop.targets.model import File
from everyhop.targets.objects import header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from everyhop.policy.model import Service
    from everyhop.targets.view import View

UNIX: Final = "unix"
RESERVED: Final = "/spire"
HOSTS: Final = "/hosts"
_SERVER: Final = "/spire/server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One registration entry; ``selectors`` all have to hold.  ``is_node``: it names agents, not a workload."""

    spiffe_id: str
    parent_id: str
    selectors: tuple[tuple[str, str], ...]
    dns: str | None = None
    is_node: bool = False
    note: str = ""


def is_of_unix(service: Service) -> bool:
    """Tell whether a service is recognised by facts of its process, and so not by its place in a cluster."""
    return any(one.type == UNIX for alternative in service.workload for one in alternative)


def left_out(service: Service) -> int:
    """Return how many alternatives of a service of unix selectors SPIRE cannot tell."""
    return sum(not _is_tellable(one) for one in service.workload) if is_of_unix(service) else 0


def parent_of(view: View, *, is_host: bool = False) -> str:
    """Return the SPIFFE ID of the parent of entries.

    Every agent below a parent can have every identity below it, so hosts outside of the cluster have an alias of their own.
    """
    below = HOSTS if is_host and has_alias(view) else ""
    return f"spiffe://{view.intents.snapshot.trust_domain.name}{view.option('parent')}{below}"


def has_alias(view: View) -> bool:
    """Tell whether the parent is an alias that an entry has to make, rather than one agent's own ID."""
    return not str(view.option("parent")).startswith(f"{RESERVED}/")


def entries(view: View) -> Iterator[Entry]:
    """Yield the entry of the agents where the parent is an alias, then those of the services, by name."""
    services = [one.service for one in view.intents if not one.service.is_canary]
    if has_alias(view) and any(not is_of_unix(one) for one in services):
        cluster = view.option("cluster")
        yield Entry(
            spiffe_id=parent_of(view),
            parent_id=f"spiffe://{view.intents.snapshot.trust_domain.name}{_SERVER}",
            selectors=(("k8s_psat", f"cluster:{cluster}"),),
            is_node=True,
            note=f"every agent of the cluster {cluster}",
        )
    for service in services:
        span = service.span
        for selectors in _alternatives(view, service):
            yield Entry(
                spiffe_id=str(service.spiffe_id),
                parent_id=parent_of(view, is_host=is_of_unix(service)),
                selectors=selectors,
                dns=dns_name(view, service.name),
                note=f"{service.name} at {span.file}:{span.line}",
            )


def dns_name(view: View, service: str) -> str | None:
    """Return the DNS name of a service in its cluster, None where SVIDs have none."""
    if not view.option("dns"):
        return None
    settings = view.intents.settings
    return f"{service}.{settings.place(service).namespace}.svc.{settings.cluster_domain}"


def script(view: View, found: Iterable[Entry]) -> File:
    """Return ``spire/entries.sh``, which ends at the first command that fails."""
    lines = ["#!/bin/sh", *(f"# {one}" for one in header(view)), "set -eu"]
    for entry in found:
        lines += ["", f"# {entry.note}", " \\\n    ".join(_command(view, entry))]
    return File(path="spire/entries.sh", content=("\n".join(lines) + "\n").encode())


def data(view: View, found: Iterable[Entry]) -> File:
    """Return ``spire/entries.json`` for ``spire-server entry create -data``."""
    held = {"entries": [_json(view, entry) for entry in found]}
    return File(path="spire/entries.json", content=(json.dumps(held, indent=2) + "\n").encode())


def _alternatives(view: View, service: Service) -> Iterator[tuple[tuple[str, str], ...]]:
    if not is_of_unix(service):
        place = view.intents.settings.place(service.name)
        yield (("k8s", f"ns:{place.namespace}"), ("k8s", f"sa:{place.service_account}"))
        return
    for alternative in service.workload:
        if _is_tellable(alternative):
            yield tuple(sorted((one.type, one.value) for one in alternative))


def _is_tellable(alternative: Iterable[Any]) -> bool:
    return all(one.type == UNIX for one in alternative)


def _command(view: View, entry: Entry) -> Iterator[str]:
    yield "spire-server entry create"
    if entry.is_node:
        yield "-node"
    else:
        yield f"-parentID {shlex.quote(entry.parent_id)}"
    yield f"-spiffeID {shlex.quote(entry.spiffe_id)}"
    for kind, value in entry.selectors:
        yield f"-selector {shlex.quote(f'{kind}:{value}')}"
    if not entry.is_node:
        yield f"-x509SVIDTTL {view.option('ttl')}"
        yield f"-jwtSVIDTTL {view.option('jwt_ttl')}"
    if entry.dns is not None:
        yield f"-dns {shlex.quote(entry.dns)}"


def _json(view: View, entry: Entry) -> dict[str, Any]:
    made: dict[str, Any] = {
        "spiffe_id": entry.spiffe_id,
        "parent_id": entry.parent_id,
        "selectors": [{"type": kind, "value": value} for kind, value in entry.selectors],
    }
    if not entry.is_node:
        made |= {"x509_svid_ttl": view.option("ttl"), "jwt_svid_ttl": view.option("jwt_ttl")}
    if entry.dns is not None:
        made["dns_names"] = [entry.dns]
    return made
