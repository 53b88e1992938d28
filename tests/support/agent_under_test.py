# SPDX-License-Identifier: Apache-2.0
"""The agent's Workload API on a real Unix socket, in an event loop of its own thread."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

from tests.support.workloads import AuthorityForTests, FakeControlPlane, FixedEntropy, RealClock, policy

from everyhop.agent import Changes, IdentityCache, Launch, LaunchRegistry, TokenCache, WorkloadService
from everyhop.api.workload_api import workload_server
from everyhop.control.app_decisions import ApplicationDecisions
from everyhop.providers.attestors import ProcInspector
from everyhop.wire.processes import ProcessRef, read_stat
from everyhop.wire.sockets import UnixListener


class AgentUnderTest:
    """Start with ``with``; every method may be called from the test's own thread."""

    def __init__(self, directory: Path, *, limits=None, kernel_pidfd=True, started=True):
        self.socket = directory / "w.sock"
        self.endpoint = f"unix://{self.socket}"
        self.clock = RealClock()
        self.authority = AuthorityForTests(self.clock)
        self.control = FakeControlPlane(self.authority)
        self._directory = directory
        self._options = {"limits": limits, "kernel_pidfd": kernel_pidfd}
        self.decisions = None
        self._started = started
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc_info):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _serve(self):
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
        finally:
            self._loop.close()

    async def _main(self):
        self._stop = asyncio.Event()
        changes = Changes()
        self.launches = LaunchRegistry(self._directory / "launches.json", changes=changes)
        self.identities = IdentityCache(
            control=self.control, clock=self.clock, entropy=FixedEntropy(), changes=changes
        )
        inspector = ProcInspector()
        self.service = WorkloadService(
            inspector=inspector,
            launches=self.launches,
            identities=self.identities,
            tokens=TokenCache(control=self.control, clock=self.clock),
            clock=self.clock,
            changes=changes,
        )
        tasks = [asyncio.create_task(self.identities.run()), asyncio.create_task(self.service.run())]
        self.decisions = ApplicationDecisions(
            self.service, self._directory / "decisions", clock=self.clock, entropy=FixedEntropy()
        )
        self.server = workload_server(self.service, decisions=self.decisions, **self._options)
        listener = UnixListener.bind(self.socket, mode=0o777)
        await self.server.start(listener)
        if self._started:
            self._publish()
        self._ready.set()
        await self._stop.wait()
        await self.server.close()
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.launches.close()
        inspector.close()

    def _publish(self):
        self.service.apply_bundle(self.authority.bundle(), self.authority.name)

    def call(self, function, *arguments, **named):
        """Run a function inside the agent's loop and return its result."""

        async def run():
            result = function(*arguments, **named)
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(20)

    def apply(self, services):
        """Put {service: workload text} in force."""
        self.call(self.service.apply_snapshot, policy(services))

    def publish(self):
        self.call(self._publish)

    def rotate(self):
        self.authority.rotate()
        self.publish()

    def launch(self, instance, service, pid=None):
        """Register a process (this one by default) as a launch."""
        pid = os.getpid() if pid is None else pid
        ref = ProcessRef(pid=pid, start_time=read_stat(pid).start_time)
        return self.call(
            self.launches.register, Launch(instance=instance, service=service, uid=os.getuid(), run=ref)
        )
