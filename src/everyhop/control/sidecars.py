# SPDX-License-Identifier: Apache-2.0
"""Every sidecar's files and what its Envoy is given, kept true to policy, launches and endpoints."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from everyhop.agent import LaunchState
from everyhop.authz import reachable_targets
from everyhop.control.launching import egress_secret
from everyhop.dataplane.closing import closing_files
from everyhop.dataplane.configuration import load_configuration
from everyhop.dataplane.files import replace_files, write_files
from everyhop.dataplane.model import LOOPBACK, AppPort, AppSocket, Limits, Sidecar
from everyhop.dataplane.render import render_sidecar
from everyhop.policy.access import AccessIndex

if TYPE_CHECKING:
    from collections.abc import Collection

    from everyhop.agent import Launch
    from everyhop.core.secret import Secret
    from everyhop.dataplane.ads import ConfigDiscovery
    from everyhop.dataplane.configuration import Configuration
    from everyhop.policy.model import Snapshot

Endpoints: TypeAlias = "tuple[tuple[str, int], ...]"
"""Where the sidecars of one service listen."""
Grounds: TypeAlias = "tuple[object, ...]"
"""What a sidecar's files were made from: policy, where the application listens, endpoints that matter to it."""


class Sidecars:
    """Renders what has changed, and nothing else.  Used from one event loop."""

    def __init__(
        self, *, configs: ConfigDiscovery, key: Secret, node: str, sds_socket: Path, max_connections: int
    ) -> None:
        self._configs = configs
        self._key = key
        self._node = node
        self._sds_socket = sds_socket
        self._limits = Limits(connections=max_connections)
        self._lock = asyncio.Lock()
        self._rendered: dict[str, Grounds] = {}
        self._index: AccessIndex | None = None
        self._indexed = ""
        self._reach: dict[str, frozenset[str]] = {}

    async def apply(
        self, snapshot: Snapshot, launches: Collection[Launch], *, only: str | None = None
    ) -> None:
        """Make the files of every launch's sidecar (or of ``only`` one) agree with the snapshot.

        A sidecar whose policy, application and endpoints are what they were is not rendered again: with fifty
        sidecars, a new one costs as much as with one.  Raises OSError when the disk refuses.
        """
        async with self._lock:
            chosen = [launch for launch in launches if only in {None, launch.instance}]
            for grounds, endpoints, sidecar in self._due(snapshot, chosen, endpoints_of(launches)):
                held = self._configs.published(sidecar.instance)
                try:
                    configuration = await asyncio.to_thread(
                        _write, snapshot, sidecar, endpoints, held, self._index
                    )
                except FileNotFoundError:
                    continue  # the launch has ended meanwhile, and its directory is gone
                self._configs.publish(sidecar.instance, configuration)
                self._rendered[sidecar.instance] = grounds

    def keep_only(self, instances: Collection[str]) -> None:
        """Forget the sidecars that are not among ``instances``."""
        self._configs.keep_only(instances)
        self._rendered = {k: v for k, v in self._rendered.items() if k in instances}

    def enforced(self, instance: str) -> str | None:
        """Return the hash of the policy that a sidecar has confirmed to enforce."""
        return self._configs.enforced(instance)

    def _due(
        self, snapshot: Snapshot, launches: Collection[Launch], endpoints: dict[str, Endpoints]
    ) -> list[tuple[Grounds, dict[str, Endpoints], Sidecar]]:
        """Return the sidecars whose grounds have changed, each with the endpoints that matter to it."""
        if self._index is None or self._indexed != snapshot.hash:
            self._index, self._indexed, self._reach = AccessIndex(snapshot), snapshot.hash, {}
        due: list[tuple[Grounds, dict[str, Endpoints], Sidecar]] = []
        for launch in launches:
            if launch.service not in self._reach:
                known = launch.service in snapshot.services
                targets = reachable_targets(snapshot, launch.service, index=self._index) if known else []
                self._reach[launch.service] = frozenset(targets)
            relevant = {t: places for t, places in endpoints.items() if t in self._reach[launch.service]}
            grounds = (snapshot.hash, launch.facts.get("app"), tuple(relevant.items()))
            if self._rendered.get(launch.instance) != grounds:
                due.append((grounds, relevant, self.sidecar_of(launch)))
        return due

    def sidecar_of(self, launch: Launch) -> Sidecar:
        """Return the specification of a launch's sidecar."""
        sockets = Path(launch.directories["sockets"])
        app: AppSocket | AppPort | None = None
        if launch.facts.get("app") == "unix":
            app = AppSocket(sockets / "app.sock")
        elif launch.facts.get("app") == "port":
            app = AppPort(launch.ports["app"])
        return Sidecar(
            instance=launch.instance,
            service=launch.service,
            node=self._node,
            directory=Path(launch.directories["envoy"]),
            ingress=(LOOPBACK, launch.ports["ingress"]),
            egress_port=launch.ports["egress"],
            egress_socket=sockets / "egress.sock",
            egress_secret=egress_secret(self._key, launch.instance),
            app=app,
            sds_socket=self._sds_socket,
            admin_socket=sockets / "admin.sock",
            access_log=Path(launch.directories["spool"]) / "access.log",
            uid=launch.uid,
            limits=self._limits,
        )


def endpoints_of(launches: Collection[Launch]) -> dict[str, tuple[tuple[str, int], ...]]:
    """Return where each service can be called: instances whose application listens and that do not drain."""
    found: dict[str, list[tuple[str, int]]] = {}
    for launch in launches:
        if launch.state is LaunchState.RUNNING and launch.facts.get("app"):
            found.setdefault(launch.service, []).append(("127.0.0.1", launch.ports["ingress"]))
    return {service: tuple(sorted(places)) for service, places in sorted(found.items())}


def _write(
    snapshot: Snapshot,
    sidecar: Sidecar,
    endpoints: dict[str, Endpoints],
    held: Configuration | None,
    index: AccessIndex | None,
) -> Configuration:
    """Write the files of a sidecar; return what its Envoy is to be given."""
    if sidecar.service in snapshot.services:
        write_files(sidecar.directory, render_sidecar(snapshot, sidecar, endpoints, index=index))
    else:
        replace_files(sidecar.directory, closing_files(snapshot, sidecar))
    return load_configuration(sidecar.directory, held)
