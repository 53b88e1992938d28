# SPDX-License-Identifier: Apache-2.0
"""The compiler for SPIRE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.targets.model import File
from everyhop.targets.spire import configuration, deployment
from everyhop.targets.spire.controller import cluster_ids, is_selectable
from everyhop.targets.spire.entries import (
    RESERVED,
    data,
    entries,
    has_alias,
    is_of_unix,
    left_out,
    parent_of,
    script,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

_MAX_TTL: Final = 7 * 86400
"""Longer lives than a week are no short-lived credentials."""


class Spire:
    """``spire``: see ``docs/reference/targets-identity.md``."""

    name: Final = "spire"
    summary: Final = "SPIRE: registration entries, ClusterSPIFFEIDs, a server with agents"

    def compile(self, view: View) -> tuple[Sequence[File], Sequence[Diagnostic]]:
        """Return entries as script and JSON, ClusterSPIFFEIDs, and the objects of a server with agents under ``spire/``.

        Where the parent of the entries cannot be what is written nothing is given out but the diagnostic.
        """
        diagnostics = tuple(_diagnostics(view))
        if any(one.code == "spire.parent" for one in diagnostics):
            return (), diagnostics
        found = tuple(entries(view))
        files = [
            script(view, found),
            data(view, found),
            cluster_ids(view),
            deployment.server(view),
            deployment.agent(view),
            File(path="spire/server.conf", content=configuration.server_conf(view).encode()),
            File(path="spire/agent.conf", content=configuration.agent_conf(view).encode()),
        ]
        return files, diagnostics


def _diagnostics(view: View) -> Iterator[Diagnostic]:
    yield from _of_parent(view)
    services = [one for one in view.intents if not one.service.is_canary]
    for one in services:
        if left_out(one.service):
            message = f"{one.name} is not recognised by `run`, which SPIRE does not know, nor by what stands beside it"
            yield view.warning("run", message, suggestion="recognise it by unix selectors alone")
        if not is_of_unix(one.service) and not is_selectable(one):
            yield view.error("labels", f"{one.name} has no labels by which its pods could be selected")
    outside = [one.name for one in services if is_of_unix(one.service)]
    if outside and has_alias(view):
        where = outside[0] if len(outside) == 1 else f"{outside[0]} and {len(outside) - 1} more"
        alias = parent_of(view, is_host=True)
        message = f"{where} runs on hosts outside of the cluster, whose agents nobody but you can name: give them {alias}"
        hint = "spire-server entry create -node with the selectors of your node attestor"
        yield view.warning("hosts", message, suggestion=hint)
    if not view.option("images"):
        message = "the images are called spire-server and spire-agent, without a place to pull them from"
        yield view.warning("images", message, suggestion="targets: spire: images")
    for name in ("ttl", "jwt_ttl"):
        if view.option(name) > _MAX_TTL:
            yield view.warning(name, f"{name} is longer than a week", suggestion="an hour is usual")


def _of_parent(view: View) -> Iterator[Diagnostic]:
    ids = {str(one.spiffe_id) for one in view.intents.snapshot.services.values()}
    taken = sorted(ids & {parent_of(view), parent_of(view, is_host=True)})
    path = str(view.option("parent"))
    is_reserved = path == RESERVED or path.startswith(f"{RESERVED}/")
    if taken:
        yield view.error(
            "parent", f"the parent {taken[0]} is the identity of a service, which would be an agent"
        )
    elif is_reserved and not path.startswith(f"{RESERVED}/agent/"):
        message = f"SPIRE keeps {RESERVED}/ for itself, so no entry can make the alias {path}"
        hint = "/spire-agents, or the ID of one agent below /spire/agent/"
        yield view.error("parent", message, suggestion=hint)


TARGET: Final = Spire()
