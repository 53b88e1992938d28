# SPDX-License-Identifier: Apache-2.0
"""The workloads that ``everyhop run`` started: what makes a process ``run:SERVICE``, and who may ask for secrets.

A launch lives exactly as long as its ``run`` process.  The registry is written to a file, so an agent that
was restarted knows the launches that went on without it; a process is recognised by pid, start time and
boot, never by pid alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from everyhop.agent.changes import Changes
from everyhop.agent.launch_file import Launch, LaunchState, read_launches, write_launches
from everyhop.core.errors import AttestationError, Conflict, InputError, NotFound
from everyhop.wire.processes import ProcessHandle, ProcessRef, boot_id, read_stat

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from everyhop.wire.peers import PeerInfo

log = logging.getLogger(__name__)

MAX_LAUNCHES: Final = 4096

__all__ = ["MAX_LAUNCHES", "Launch", "LaunchRegistry", "LaunchState"]


@dataclass(slots=True)
class _Live:
    launch: Launch
    run: ProcessHandle


class LaunchRegistry:
    """Launches by instance id.

    All use is from one event loop's thread (or from a program without one).  Every change bumps ``changes``
    and ``version``, and is on disk when the call returns.
    """

    def __init__(self, file: Path, *, changes: Changes | None = None) -> None:
        """Pick up the launches that ``file`` names and that still run; a file of another boot is ignored."""
        self.changes = changes or Changes()
        self.version = 0
        self._file = file
        self._boot = boot_id()
        self._live: dict[str, _Live] = {}
        for launch in read_launches(file, self._boot):
            try:
                handle = ProcessHandle.reopen(launch.run)
            except AttestationError:
                log.info("launch %s of %s ended while the agent was away", launch.instance, launch.service)
                continue
            self._adopt(_Live(launch, handle))

    def register(self, launch: Launch) -> Launch:
        """Add a launch whose ``run`` process lives.

        Raises AttestationError when that process is gone or is another than named, Conflict when the instance
        id is taken, InputError at 4096 launches.
        """
        if launch.instance in self._live:
            raise Conflict(f"the instance {launch.instance!r} exists")
        if len(self._live) >= MAX_LAUNCHES:
            raise InputError(f"at most {MAX_LAUNCHES} launches")
        self._adopt(_Live(launch, ProcessHandle.reopen(launch.run)))
        self._changed()
        return launch

    def update(
        self,
        instance: str,
        *,
        envoy: ProcessRef | None = None,
        state: LaunchState | None = None,
        facts: dict[str, str | int | bool | None] | None = None,
    ) -> Launch:
        """Note the sidecar's process, the state or further facts; raises NotFound for an unknown instance."""
        live = self._find(instance)
        launch = live.launch
        if envoy is not None:
            launch = replace(launch, envoy=envoy)
        if state is not None:
            launch = replace(launch, state=state)
        if facts is not None:
            launch = replace(launch, facts={**launch.facts, **facts})
        if launch != live.launch:
            live.launch = launch
            self._changed()
        return launch

    def set_envoy(self, instance: str, pid: int | None) -> Launch:
        """Note the sidecar's present pid, which must be a child of the ``run`` process; None when it is down.

        Raises NotFound for an unknown instance, AttestationError when the process is not its child.
        """
        live = self._find(instance)
        envoy = None
        if pid is not None:
            stat = read_stat(pid)
            if stat.parent != live.launch.run.pid or not live.run.is_alive():
                raise AttestationError(f"process {pid} is not a child of the launch {instance!r}")
            envoy = ProcessRef(pid=pid, start_time=stat.start_time)
        if envoy != live.launch.envoy:
            live.launch = replace(live.launch, envoy=envoy)
            self._changed()
        return live.launch

    def remove(self, instance: str) -> None:
        """Forget a launch; nothing happens when it is unknown."""
        if instance in self._live:
            self._drop(instance)
            self._changed()

    def get(self, instance: str) -> Launch:
        """Return a launch; raises NotFound when there is none or its process has ended."""
        return self._find(instance).launch

    def live(self) -> tuple[Launch, ...]:
        """Return the launches whose process runs, oldest first."""
        self.reap()
        return tuple(live.launch for live in self._live.values())

    def reap(self) -> tuple[Launch, ...]:
        """Forget launches whose ``run`` process has ended; return them."""
        ended = tuple(live.launch for live in self._live.values() if not live.run.is_alive())
        for launch in ended:
            log.info("launch %s of %s ended", launch.instance, launch.service)
            self._drop(launch.instance)
        if ended:
            self._changed()
        return ended

    def services_of(self, ancestors: Iterable[ProcessRef]) -> frozenset[str]:
        """Return the services whose living ``run`` process is among a process's ancestors (or itself)."""
        chain = frozenset(ancestors)
        return frozenset(
            live.launch.service
            for live in self._live.values()
            if live.launch.run in chain and live.run.is_alive()
        )

    def check_sidecar(self, peer: PeerInfo, instance: str) -> Launch:
        """Return the launch whose secrets a peer of the SDS socket may have.

        The peer names the instance; it must run as the launch's user and be its registered Envoy, or else a
        direct child of its ``run`` process.  Raises AttestationError otherwise.
        """
        live = self._live.get(instance)
        if live is None or not live.run.is_alive():
            raise AttestationError(f"no launch has the instance id {instance[:64]!r}")
        launch = live.launch
        if peer.uid != launch.uid:
            raise AttestationError(f"the peer of {instance!r} runs as another user (uid {peer.uid})")
        if peer.process.ref != launch.envoy:
            parent = read_stat(peer.pid).parent
            if parent != launch.run.pid or not live.run.is_alive():
                raise AttestationError(f"process {peer.pid} is not the sidecar of {instance!r}")
        if not peer.is_alive():
            raise AttestationError(f"process {peer.pid} is gone")
        return launch

    def close(self) -> None:
        """Give the descriptors back; the file stays for the next start."""
        for live in self._live.values():
            _unwatch(live.run)
            live.run.close()
        self._live.clear()

    def _find(self, instance: str) -> _Live:
        live = self._live.get(instance)
        if live is None or not live.run.is_alive():
            raise NotFound(f"no launch has the instance id {instance[:64]!r}")
        return live

    def _adopt(self, live: _Live) -> None:
        self._live[live.launch.instance] = live
        if live.run.fd is not None:
            with contextlib.suppress(RuntimeError):  # without a loop the caller reaps
                asyncio.get_running_loop().add_reader(live.run.fd, self.reap)

    def _drop(self, instance: str) -> None:
        live = self._live.pop(instance)
        _unwatch(live.run)
        live.run.close()

    def _changed(self) -> None:
        self.version += 1
        write_launches(self._file, self._boot, [live.launch for live in self._live.values()])
        self.changes.bump()


def _unwatch(handle: ProcessHandle) -> None:
    if handle.fd is None:
        return
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop().remove_reader(handle.fd)
