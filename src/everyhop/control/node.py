# SPDX-License-Identifier: Apache-2.0
"""The agent's use cases: follow the server, keep every sidecar's files true, report, forward records."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from everyhop.agent import Launch, LaunchState
from everyhop.control.launching import edge_of, egress_secret, environment_of, plan_launch
from everyhop.control.messages import AgentReport, InstanceReport, LaunchReply
from everyhop.control.policy_view import PolicyView
from everyhop.control.pseudonym_memory import PseudonymMemory
from everyhop.control.rollout import Rollout, waves_of
from everyhop.control.spool_ends import close_spool, mark_ended, note_killed
from everyhop.control.watching import ShadowWatch
from everyhop.core.errors import AccessDenied, EveryhopError, NotFound, Unavailable
from everyhop.dataplane.envoy import envoy_argv
from everyhop.dataplane.spool import DEFAULT_LIMIT, Delivery, SpoolReader
from everyhop.policy import decode_snapshot
from everyhop.spiffe.bundle import decode_bundle
from everyhop.wire.processes import read_stat

if TYPE_CHECKING:
    from everyhop.agent import IdentityCache, LaunchRegistry, ServiceTokens, WorkloadService
    from everyhop.agent.changes import Changes
    from everyhop.auditlog import Record
    from everyhop.control.app_decisions import ApplicationDecisions
    from everyhop.control.blocks_held import HeldBlocks
    from everyhop.control.client import ControlClient
    from everyhop.control.credentials import Credentials
    from everyhop.control.launching import Places
    from everyhop.control.messages import LaunchRequest, LaunchState as LaunchNews, RecordsAccepted, Update
    from everyhop.control.sealer import AgentSealer
    from everyhop.control.sidecars import Sidecars
    from everyhop.control.token_truth import TokenTruth
    from everyhop.core.clock import Clock, Entropy
    from everyhop.core.secret import Secret
    from everyhop.dataplane.sds import SecretDiscovery
    from everyhop.policy.model import Snapshot
    from everyhop.spiffe import SpiffeId

_log = logging.getLogger(__name__)

REPORT_SECONDS: Final = 2.0
FIRST_RECONNECT_SECONDS: Final = 0.1
LAST_RECONNECT_SECONDS: Final = 2.0
SPOOL_IDLE_SECONDS: Final = 0.1
SYNC_SECONDS: Final = 0.1
_LONGEST_TIMER: Final = 3600.0


class Follower(Protocol):
    """Processes beside the agent that judge by the same truth and write records of their own."""

    @property
    def spools(self) -> frozenset[str]:
        """Return the names of their directories in the spool."""

    def take(self, update: Update) -> None:
        """Pass on what is new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePorts:
    """Everything the node stands on."""

    client: ControlClient
    registry: LaunchRegistry
    identities: IdentityCache
    workloads: WorkloadService
    secrets: SecretDiscovery
    sidecars: Sidecars
    tokens: ServiceTokens
    truth: TokenTruth
    credentials: Credentials
    changes: Changes
    places: Places
    key: Secret
    envoy: Path
    envoy_concurrency: int
    record_flush_ms: int
    entropy: Entropy
    clock: Clock
    decisions: ApplicationDecisions
    sealer: AgentSealer
    spool_limit: int = DEFAULT_LIMIT
    blocks: HeldBlocks
    authorizers: Follower | None = None


class Node:
    """One node's agent.  Used from one event loop."""

    def __init__(self, ports: NodePorts) -> None:
        self._p = ports
        self._view: PolicyView | None = None
        self._watch = ShadowWatch()
        self._rollout = Rollout([frozenset()], 0.0)
        self._bundle_sequence = 0
        self._spools: dict[str, SpoolReader] = {}
        self._names = PseudonymMemory(ports.client)
        self._waiting = 0
        self._quarantined: frozenset[SpiffeId] = frozenset()
        self._block_timer: asyncio.TimerHandle | None = None

    @property
    def snapshot(self) -> Snapshot:
        """Return the snapshot that this node enforces; raises Unavailable before the first."""
        if self._view is None:
            raise Unavailable("the agent has no policy yet")
        return self._view.snapshot

    @property
    def is_ready(self) -> bool:
        """Tell whether workloads can be launched and attested."""
        return self._view is not None and self._bundle_sequence > 0 and self._p.truth.sequence > 0

    async def run(self) -> None:
        """Do all of it until cancelled."""
        self._resume_spools()
        self._enforce_blocks()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._p.identities.run())
            group.create_task(self._p.workloads.run())
            group.create_task(self._p.tokens.run())
            group.create_task(self._follow_server())
            group.create_task(self._follow_changes())
            group.create_task(self._report_regularly())
            group.create_task(self._report_blocks())
            group.create_task(self._keep_blocks())
            group.create_task(self._forward_records())
            group.create_task(self._sync_spools())

    # -- what the server says

    async def _follow_server(self) -> None:
        wait = FIRST_RECONNECT_SECONDS
        while True:
            try:
                async for update in self._p.client.updates():
                    await self._take(update)
                    if wait > FIRST_RECONNECT_SECONDS:
                        wait = FIRST_RECONNECT_SECONDS
                        self._p.identities.retry_now()
                        self._p.tokens.retry_now()
            except Unavailable as error:
                # Before the first update it is only the server that takes its time to start.
                level = logging.WARNING if self.is_ready else logging.INFO
                _log.log(level, "server out of reach; serving what is held", extra={"reason": error.message})
            except EveryhopError as error:
                _log.error("an update was refused", extra={"reason": error.message})  # no fault of ours
            await asyncio.sleep(wait)
            wait = min(wait * 2, LAST_RECONNECT_SECONDS)

    async def _take(self, update: Update) -> None:
        """Take over what is new.  What judges calls comes first: it must be in force before a sidecar asks."""
        if update.blocks:
            self._p.blocks.take(bytes(update.blocks))
            self._enforce_blocks()
        if update.snapshot:
            view = PolicyView(await asyncio.to_thread(decode_snapshot, bytes(update.snapshot)))
            self._plan_rollout(view)
            self._view = view
            self._p.sealer.identify(view.snapshot.trust_domain)
            self._watch.take(view)
            self._p.credentials.apply_policy(view, self._rollout.held)
            self._p.workloads.apply_snapshot(view.snapshot)
        if update.tokens:
            before = self._p.truth.issuer
            self._p.truth.take(bytes(update.tokens), self.snapshot.trust_domain)
            self._p.credentials.apply_verifier(self._p.truth.verifier)
            is_other = before is not None and before != self._p.truth.issuer
            self._p.tokens.drop(lambda token: is_other or self._p.truth.is_dead(token))
        if update.bundle:
            bundle = decode_bundle(self.snapshot.trust_domain, bytes(update.bundle))
            self._bundle_sequence = bundle.sequence or 0
            self._p.workloads.apply_bundle(bundle, update.authority)
        elif update.authority is not None:
            bundle_held = self._p.identities.bundle
            if bundle_held is not None:
                self._p.workloads.apply_bundle(bundle_held, update.authority)
        if self._p.authorizers is not None:
            self._p.authorizers.take(update)

    # -- blocks

    def _enforce_blocks(self) -> None:
        """Refuse whom the blocks of the moment name, everywhere on this node; look again when the first one ends."""
        blocks = self._p.blocks
        if self._block_timer is not None:
            self._block_timer.cancel()
        left, loop = blocks.seconds_left(), asyncio.get_running_loop()
        if left is not None:
            self._block_timer = loop.call_later(min(left, _LONGEST_TIMER), self._enforce_blocks)
        try:
            self._p.sidecars.apply_blocks(blocks(), epoch=blocks.epoch)
        except OSError as error:
            _log.error("a sidecar's open streams cannot be cut", extra={"reason": str(error)})
        self._apply_quarantine()
        self._p.tokens.retry_now()  # whoever was refused tokens may have them again
        self._p.changes.bump()

    async def _keep_blocks(self) -> None:
        """Put what is enforced on the disk, too, for the next start and for whoever reads a sidecar's files.

        Behind the enforcement and not before it: many changes in a row are written once.
        """
        while True:
            version = self._p.changes.version
            try:
                await self._p.blocks.keep()
                await self._p.sidecars.show_blocks()
            except OSError as error:
                _log.error("blocks cannot be kept on disk", extra={"reason": str(error)})
            await self._p.changes.beyond(version)

    def _apply_quarantine(self) -> None:
        """Take identities away from quarantined services of this node, and give them back when it is over."""
        now = self._p.blocks.quarantined()
        begun, self._quarantined = now - self._quarantined, now
        self._p.identities.withhold(now)
        self._p.workloads.withhold(now)
        if begun and self._view is not None:
            services = {s.name for s in self._view.snapshot.services.values() if s.spiffe_id in begun}
            for launch in self._p.registry.live():
                if launch.service in services:
                    self._cut(launch)

    def _cut(self, launch: Launch) -> None:
        """End every connection of a sidecar at once: its Envoy ends, and `run` starts one that listens to nothing."""
        envoy = launch.envoy
        with suppress(EveryhopError, ProcessLookupError):
            if envoy is not None and read_stat(envoy.pid).start_time == envoy.start_time:
                os.kill(envoy.pid, signal.SIGTERM)
                self._p.registry.set_envoy(launch.instance, None)

    def _enforced_blocks(self) -> int:
        """Return the number of the blocks that this agent and each of its running sidecars enforce."""
        running = [launch.instance for launch in self._p.registry.live() if launch.envoy is not None]
        return min([self._p.blocks.sequence, *map(self._p.sidecars.blocks, running)])

    async def _report_blocks(self) -> None:
        """Tell as soon as blocks are in force, whatever else is going on."""
        told = -1
        while True:
            version = self._p.changes.version
            enforced = self._enforced_blocks()
            if enforced != told:
                told = enforced
                await self._report()
            await self._p.changes.beyond(version)

    # -- sidecars

    async def _follow_changes(self) -> None:
        """Write every sidecar's files anew after each change; unchanged files are not touched."""
        while True:
            version = self._p.changes.version
            try:
                await self._apply()
            except OSError as error:
                _log.error("sidecar files cannot be written", extra={"reason": str(error)})
            await self._report()
            await self._p.changes.beyond(version)

    async def _apply(self, *, only: str | None = None) -> None:
        view = self._view
        if view is None:
            return
        launches = self._p.registry.live()
        services = {launch.service for launch in launches} & view.snapshot.services.keys()
        needs = {view.snapshot.services[name].spiffe_id: view.audiences(name) for name in services}
        self._p.tokens.need({k: v for k, v in needs.items() if k not in self._quarantined})
        rollout = self._rollout
        wait = await self._p.sidecars.apply(
            view,
            launches,
            epoch=self._p.truth.epoch,
            only=only,
            held=rollout.held,
        )
        loop = asyncio.get_running_loop()
        if rollout.advance(lambda name: self._has_taken_over(name, view), loop.time()):
            self._p.credentials.apply_policy(view, rollout.held)
            self._p.changes.bump()
        for seconds in (wait, rollout.seconds_left(loop.time())):
            if seconds is not None:
                loop.call_later(seconds, self._p.changes.bump)
        for launch in launches:
            self._spool_of(launch.instance)
        # Asked anew: a launch may have been registered while the files were written, and its directories are in use.
        await self._clean_up({launch.instance for launch in self._p.registry.live()})

    def _plan_rollout(self, view: PolicyView) -> None:
        """Decide in which order the sidecars of this node take a new policy over."""
        services = {launch.service for launch in self._p.registry.live()}
        waves = [frozenset(services)] if self._view is None else waves_of(self._view, view, services)
        self._rollout = Rollout(waves, asyncio.get_running_loop().time())

    def _has_taken_over(self, service: str, view: PolicyView) -> bool:
        """Tell whether every sidecar of a service that ever confirmed a policy has confirmed this one."""
        instances = [x.instance for x in self._p.registry.live() if x.service == service and x.envoy]
        enforced = [self._p.sidecars.enforced(instance) for instance in instances]
        return all(found in {None, view.snapshot.hash} for found in enforced)

    async def _clean_up(self, live: set[str]) -> None:
        """Remove what ended launches left, except decisions that the server does not have yet.

        What to remove is decided here and now; a launch that is registered meanwhile has another name.
        """
        self._p.sidecars.keep_only(live)
        parents = (self._p.places.instances, self._p.places.envoy)
        for path in [path for parent in parents for path in parent.iterdir() if path.name not in live]:
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    # -- launches

    async def launch(self, request: LaunchRequest) -> LaunchReply:
        """Prepare a sidecar for ``everyhop run``.

        Raises what :func:`plan_launch` raises, Unavailable at start, AccessDenied for a quarantined service.
        """
        if not self.is_ready:
            raise Unavailable("the agent is starting; try again")
        wanted = self.snapshot.services.get(request.service)
        if wanted is not None and wanted.spiffe_id in self._quarantined:
            raise AccessDenied(f"{request.service} is quarantined", hint="who is, and why: everyhop blocks")
        launch = plan_launch(
            self.snapshot,
            request.service,
            request.pid,
            places=self._p.places,
            live=self._p.registry.live(),
            entropy=self._p.entropy,
            port=request.port,
            edge=edge_of(request.edge, request.edge_certificate, request.edge_key),
        )
        self._p.registry.register(launch)
        await self._apply(only=launch.instance)
        service = self.snapshot.services[request.service]
        with suppress(EveryhopError):  # Envoy waits for its secrets anyhow; this makes the first call fast
            await self._p.identities.x509(service.spiffe_id, wait_seconds=5.0)
        sockets = Path(launch.directories["sockets"])
        return LaunchReply(
            id=launch.instance,
            service=launch.service,
            spiffe_id=str(service.spiffe_id),
            envoy_argv=envoy_argv(
                self._p.envoy,
                self._p.sidecars.sidecar_of(launch),
                concurrency=self._p.envoy_concurrency,
                flush_ms=self._p.record_flush_ms,
            ),
            environment=environment_of(launch, egress_secret(self._p.key, launch.instance), self._p.places),
            admin_socket=str(sockets / "admin.sock"),
            app_socket=str(sockets / "app.sock"),
            app_port=launch.ports["app"],
            ingress=f"127.0.0.1:{launch.ports['ingress']}",
            log_file=str(self._p.places.logs / f"{launch.service}-{launch.instance}.envoy.log"),
        )

    def note(self, instance: str, news: LaunchNews) -> None:
        """Take what ``run`` tells of its processes; raises NotFound when the launch is not known (any more)."""
        restarts = int(self._p.registry.get(instance).facts.get("envoy_restarts") or 0)
        self._p.registry.set_envoy(instance, news.envoy_pid)
        if news.envoy_restarts > restarts:
            note_killed(self._p.places.spool / instance, now=self._p.clock.now())
        state = LaunchState.STARTING
        if news.draining:
            state = LaunchState.DRAINING
        elif news.app is not None:
            state = LaunchState.RUNNING
        self._p.registry.update(
            instance,
            state=state,
            facts={"app": news.app, "envoy_restarts": news.envoy_restarts, "child_pid": news.child_pid},
        )

    def end(self, instance: str, *, is_clean: bool = False) -> None:
        """Forget a launch; ``is_clean`` says that its Envoy has ended in order."""
        if is_clean:
            mark_ended(self._p.places.spool / instance)
        self._p.registry.remove(instance)

    def launches_of(self, service: str) -> list[Launch]:
        """Return the launches of a service; raises NotFound when there is none."""
        found = [launch for launch in self._p.registry.live() if launch.service == service]
        if not found:
            raise NotFound(f"no sidecar of {service!r} runs here")
        return found

    # -- reports and records

    def _instance(self, launch: Launch) -> InstanceReport:
        service = self.snapshot.services.get(launch.service)
        identity = None if service is None else self._p.identities.current(service.spiffe_id)
        child = launch.facts.get("child_pid")
        state = {LaunchState.RUNNING: "ready"}.get(launch.state, launch.state.value)
        if service is None:
            state = "undeclared"
        elif service.spiffe_id in self._quarantined:
            state = "quarantined"
        elif launch.envoy is None:
            state = "sidecar down"
        elif launch.state is LaunchState.STARTING and not service.operations and service.tcp is None:
            state = "running"  # it has no doors, so nothing of it will ever listen
        return InstanceReport(
            id=launch.instance,
            service=launch.service,
            pid=child if isinstance(child, int) else launch.run.pid,
            ingress=f"127.0.0.1:{launch.ports['ingress']}",
            state=state,
            app=str(launch.facts["app"]) if launch.facts.get("app") else None,
            edge=f"{launch.facts['edge']}:{launch.ports['edge']}" if "edge" in launch.ports else None,
            envoy_pid=None if launch.envoy is None else launch.envoy.pid,
            svid_expires_at=None if identity is None else identity.expires_at,
            envoy_restarts=int(launch.facts.get("envoy_restarts") or 0),
            snapshot=self._p.sidecars.enforced(launch.instance),
        )

    def _held_sequence(self) -> int:
        """Return the lowest bundle sequence that this agent and each of its running sidecars hold."""
        services = self.snapshot.services
        cut = {service.name for service in services.values() if service.spiffe_id in self._quarantined}
        running = [
            x.instance for x in self._p.registry.live() if x.envoy is not None and x.service not in cut
        ]
        return min([self._bundle_sequence, *(self._p.secrets.acknowledged_bundle(i) for i in running)])

    async def _report(self) -> None:
        if self._view is None:
            return
        report = AgentReport(
            agent=self._p.client.agent,
            snapshot=self._view.snapshot.hash,
            bundle_sequence=self._held_sequence(),
            instances=[self._instance(launch) for launch in self._p.registry.live()],
            spooled=self._waiting,
            token_sequence=self._p.truth.sequence,
            block_sequence=self._enforced_blocks(),
        )
        with suppress(EveryhopError):
            await self._p.client.report(report)

    async def _report_regularly(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            await self._report()

    def _spool_of(self, instance: str) -> SpoolReader:
        if instance not in self._spools:
            self._spools[instance] = SpoolReader(
                self._p.places.spool / instance,
                instance=instance,
                reopen=partial(self._reopen_log, instance),
                limit=self._p.spool_limit,
            )
        return self._spools[instance]

    def _reopen_log(self, instance: str) -> None:
        """Ask a sidecar to go on in a new log file (SIGUSR1)."""
        with suppress(EveryhopError, ProcessLookupError):
            envoy = self._p.registry.get(instance).envoy
            if envoy is not None and read_stat(envoy.pid).start_time == envoy.start_time:
                os.kill(envoy.pid, signal.SIGUSR1)

    def _resume_spools(self) -> None:
        for path in sorted(self._p.places.spool.iterdir()):
            if path.is_dir():
                self._spool_of(path.name)
        for name in self._own_spools():
            self._spool_of(name)

    def _own_spools(self) -> frozenset[str]:
        """Return the spools that belong to no launch and stay."""
        return frozenset() if self._p.authorizers is None else self._p.authorizers.spools

    def _all_spools(self) -> list[SpoolReader]:
        return [*self._spools.values(), *self._p.decisions.spools]

    async def _forward_records(self) -> None:
        """Hand decisions to the server, in order per sidecar; keep them on disk until it has them."""
        wait = SPOOL_IDLE_SECONDS
        while True:
            moved, is_away, has_failed = 0, False, False
            for spool in self._all_spools():
                try:
                    if is_away:
                        spool.tend()
                    else:
                        moved += await spool.forward(self._deliver)
                except Unavailable:
                    is_away = True
                    spool.tend()
                except Exception:  # noqa: BLE001  # one that cannot be sent or read must not stop the others
                    _log.exception(
                        "the spool of %s could not be forwarded; it is tried again", spool.producer
                    )
                    has_failed = True
            self._drop_finished()
            self._waiting = sum(spool.pending() for spool in self._all_spools())
            if has_failed:
                wait = LAST_RECONNECT_SECONDS
            else:
                wait = min(wait * 2, LAST_RECONNECT_SECONDS) if is_away else SPOOL_IDLE_SECONDS
            if not moved:
                # With some spread, so that agents do not all come at once when the server is back.
                spread = 1.0 + (0.5 * self._p.entropy.fraction() if is_away else 0.0)
                await asyncio.sleep(wait * spread)

    async def _deliver(self, records: list[Record], previous: bytes) -> Delivery:
        """Sign records of one producer and hand them over."""

        async def hand_over(named: list[Record]) -> RecordsAccepted:
            seal, chain = self._p.sealer.seal(named, previous)
            return await self._p.client.send_records(named, seal, chain)

        accepted = await self._names.send(self._watch.annotate(records), hand_over)
        return Delivery(held=accepted.held, head=accepted.head, conflicts=tuple(accepted.conflicts))

    async def _sync_spools(self) -> None:
        """Keep spools within their bound, and on the disk a tenth of a second after they were written."""
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            for spool in self._all_spools():
                try:
                    spool.tend()
                    await asyncio.to_thread(spool.sync)
                except OSError as error:
                    _log.warning("the spool of %s cannot be made durable: %s", spool.producer, error)

    def _drop_finished(self) -> None:
        """Drop the spools of ended launches of which the server has everything."""
        live = {launch.instance for launch in self._p.registry.live()} | self._own_spools()
        for instance in self._spools.keys() - live:
            if not close_spool(self._p.places.spool / instance, now=self._p.clock.now()):
                continue  # there is a gap to be told now
            if not self._spools[instance].pending():
                del self._spools[instance]
                shutil.rmtree(self._p.places.spool / instance, ignore_errors=True)

    def describe_sidecars(self, service: str) -> dict[str, Any]:
        """Return the configuration files of a service's sidecars as parsed JSON, secrets left out."""
        answer: dict[str, Any] = {}
        for launch in self.launches_of(service):
            root = Path(launch.directories["envoy"])
            answer[launch.instance] = {
                str(path.relative_to(root)): msgspec.json.decode(path.read_bytes())
                for path in sorted(root.rglob("*.json"))
            }
        return answer
