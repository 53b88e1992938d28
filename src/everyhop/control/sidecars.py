# SPDX-License-Identifier: Apache-2.0
"""Every sidecar's files and what its Envoy is given, kept true to policy, launches and endpoints."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from everyhop.agent import LaunchState
from everyhop.control.launching import egress_secret
from everyhop.control.sidecar_blocks import SidecarBlocks
from everyhop.dataplane.closing import closing_files
from everyhop.dataplane.configuration import load_configuration
from everyhop.dataplane.files import replace_files, write_files
from everyhop.dataplane.lanes import carried_by
from everyhop.dataplane.model import LOOPBACK, AppPort, AppSocket, CertificateFiles, Limits, Sidecar
from everyhop.dataplane.render import render_sidecar

if TYPE_CHECKING:
    from collections.abc import Collection

    from everyhop.agent import Launch
    from everyhop.anomaly.model import Blocks
    from everyhop.control.policy_view import PolicyView
    from everyhop.core.clock import Clock
    from everyhop.core.secret import Secret
    from everyhop.dataplane.ads import ConfigDiscovery
    from everyhop.dataplane.configuration import Configuration
    from everyhop.dataplane.lanes import Audience, Carried
    from everyhop.dataplane.ports import TokenSecrets

_PATIENCE_SECONDS: Final = 5.0  # how long tokens may take after a restart before a policy is more urgent
_NEW_TOKEN_SECONDS: Final = 2.0  # and how long those that a policy asks for anew

Endpoints: TypeAlias = "tuple[tuple[str, int], ...]"
"""Where the sidecars of one service listen."""
Grounds: TypeAlias = "tuple[object, ...]"
"""What a sidecar's files were made from: policy, application, endpoints, credentials that matter to it."""


@dataclass(frozen=True, slots=True)
class _Due:
    """A sidecar that is to be rendered, and from what."""

    grounds: Grounds
    _: KW_ONLY
    sidecar: Sidecar
    endpoints: dict[str, Endpoints]
    epoch: str
    carried: Carried | None


class Sidecars:
    """Renders what has changed, and nothing else.  Used from one event loop."""

    def __init__(
        self,
        *,
        configs: ConfigDiscovery,
        tokens: TokenSecrets,
        key: Secret,
        node: str,
        sds_socket: Path,
        max_connections: int,
        clock: Clock,
    ) -> None:
        self._configs = configs
        self._tokens = tokens
        self._key = key
        self._node = node
        self._sds_socket = sds_socket
        self._limits = Limits(connections=max_connections)
        self._lock = asyncio.Lock()
        self._rendered: dict[str, Grounds] = {}
        self._deferred: dict[str, float] = {}
        self._audiences: dict[str, frozenset[Audience]] = {}
        self._blocks = SidecarBlocks(clock)

    def apply_blocks(self, blocks: Blocks, *, epoch: str) -> None:
        """Have every sidecar refuse whom these name, at once.  Raises OSError when the disk refuses.

        ``epoch`` is a text that differs whenever other users or keys are blocked: what was verified before counts no more.
        """
        self._blocks.take(blocks, epoch=epoch)
        for instance in self._blocks.known():
            self._configs.publish(instance, self._blocks.overlaid(instance))
        self._blocks.forget_unused()

    async def show_blocks(self) -> None:
        """Write what the filters in front refuse where a person reads it; raises OSError."""
        for instance in self._blocks.unshown():
            with suppress(FileNotFoundError, KeyError):  # the launch has ended meanwhile
                directory = self._blocks.directory(instance)
                await asyncio.to_thread(replace_files, directory, self._blocks.files(instance))

    def blocks(self, instance: str) -> int:
        """Return the number of the blocks that a sidecar has confirmed to enforce."""
        return self._configs.blocks(instance)

    async def apply(
        self,
        view: PolicyView,
        launches: Collection[Launch],
        *,
        epoch: str,
        only: str | None = None,
        held: Collection[str] = (),
    ) -> float | None:
        """Make the files of every launch's sidecar (or of ``only`` one) agree with the policy.

        A sidecar whose policy, application, endpoints and credentials are what they were is not rendered again:
        with fifty sidecars, a new one costs as much as with one.  ``epoch`` is a text that differs whenever keys
        or revocations of tokens differ.  Raises OSError when the disk refuses.

        The sidecars of ``held`` services keep what they have, if they have anything.  So does, for a while, one that
        runs and lacks tokens: all of them after a restart of the agent, new ones after an edit.  Returns after how
        many seconds it gets its files without them; None when none waits.
        """
        async with self._lock:
            chosen = [
                launch
                for launch in launches
                if only in {None, launch.instance}
                and not (launch.service in held and self._configs.published(launch.instance) is not None)
            ]
            for due in self._due(view, chosen, endpoints_of(launches), epoch):
                instance = due.sidecar.instance
                before = self._blocks.without(instance)
                try:
                    configuration = await asyncio.to_thread(_write, view, due, before)
                    service = view.snapshot.services.get(due.sidecar.service)
                    self._blocks.base(
                        instance,
                        configuration,
                        directory=due.sidecar.directory,
                        own="" if service is None else str(service.spiffe_id),
                        streams=view.streams(due.sidecar.service),
                        epoch=due.epoch,
                    )
                    self._configs.publish(instance, self._blocks.overlaid(instance))
                except FileNotFoundError:
                    continue  # the launch has ended meanwhile, and its directory is gone
                self._rendered[instance] = due.grounds
            now = asyncio.get_running_loop().time()
            return max(0.0, min(self._deferred.values()) - now) if self._deferred else None

    def keep_only(self, instances: Collection[str]) -> None:
        """Forget the sidecars that are not among ``instances``."""
        self._configs.keep_only(instances)
        self._blocks.keep_only(instances)
        self._rendered = {k: v for k, v in self._rendered.items() if k in instances}
        self._deferred = {k: v for k, v in self._deferred.items() if k in instances}
        self._audiences = {k: v for k, v in self._audiences.items() if k in instances}

    def enforced(self, instance: str) -> str | None:
        """Return the hash of the policy that a sidecar has confirmed to enforce."""
        return self._configs.enforced(instance)

    def _due(
        self, view: PolicyView, launches: Collection[Launch], endpoints: dict[str, Endpoints], epoch: str
    ) -> list[_Due]:
        """Return the sidecars whose grounds have changed, each with what matters to it."""
        due: list[_Due] = []
        for launch in launches:
            service = view.snapshot.services.get(launch.service)
            reach = view.reach(launch.service)
            relevant = {target: places for target, places in endpoints.items() if target in reach}
            checked = epoch if view.checks_credentials(launch.service) else ""
            audiences = {(a.target, a.operation) for a in view.audiences(launch.service)}
            carried = None
            if service is not None and audiences:
                carried = carried_by(self._tokens, service.spiffe_id, audiences)
            app = launch.facts.get("app")
            grounds = (view.snapshot.hash, app, tuple(relevant.items()), checked, carried)
            if self._waits_for_tokens(launch, audiences, carried):
                continue
            if self._rendered.get(launch.instance) != grounds:
                sidecar = self.sidecar_of(launch)
                due.append(_Due(grounds, sidecar=sidecar, endpoints=relevant, epoch=checked, carried=carried))
        return due

    def _waits_for_tokens(
        self, launch: Launch, audiences: Collection[Audience], carried: Carried | None
    ) -> bool:
        """Tell whether a running sidecar had better keep what it has until its tokens are there.

        One that this process has not configured yet carries tokens that are good; files made before ours are fetched
        would take them away.  One that is to carry a token for the first time could not make its calls meanwhile.
        """
        missing = set(audiences) - (frozenset() if carried is None else carried.tokens)
        patience = _PATIENCE_SECONDS
        if self._configs.published(launch.instance) is not None:
            missing -= self._audiences.get(launch.instance, frozenset())
            patience = _NEW_TOKEN_SECONDS
        now = asyncio.get_running_loop().time()
        if launch.envoy is not None and missing:
            until = self._deferred.setdefault(launch.instance, now + patience)
            if now < until:
                return True
        self._deferred.pop(launch.instance, None)
        self._audiences[launch.instance] = frozenset(audiences)
        return False

    def sidecar_of(self, launch: Launch) -> Sidecar:
        """Return the specification of a launch's sidecar."""
        sockets = Path(launch.directories["sockets"])
        certificate, key = (str(launch.facts.get(name) or "") for name in ("edge_certificate", "edge_key"))
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
            edge=(str(launch.facts["edge"]), launch.ports["edge"]) if "edge" in launch.ports else None,
            edge_certificate=None if not certificate else CertificateFiles(Path(certificate), Path(key)),
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


def _write(view: PolicyView, due: _Due, held: Configuration | None) -> Configuration:
    """Write the files of a sidecar; return what its Envoy is to be given."""
    snapshot, sidecar = view.snapshot, due.sidecar
    if sidecar.service in snapshot.services:
        files = render_sidecar(
            snapshot, sidecar, due.endpoints, index=view.index, epoch=due.epoch, carried=due.carried
        )
        write_files(sidecar.directory, files)
    else:
        replace_files(sidecar.directory, closing_files(snapshot, sidecar))
    return load_configuration(sidecar.directory, held)
