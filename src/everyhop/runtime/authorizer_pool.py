# SPDX-License-Identifier: Apache-2.0
"""The agent's side of the workers that answer foreign proxies: sockets, start, truth, restart.

The agent binds both sockets and hands them down; every worker accepts on them.  A worker that dies is started anew with
the whole truth of the moment; meanwhile its share of the connections goes to the others, or waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from typing import TYPE_CHECKING, Final

import msgspec

from everyhop.control.messages import Update
from everyhop.runtime.authorizer_channel import WorkerPlan, frame
from everyhop.wire.sockets import UnixListener

if TYPE_CHECKING:
    from collections.abc import Iterable

    from everyhop.control.asking import AskingProxy
    from everyhop.core.clock import Entropy
    from everyhop.runtime.layout import StateLayout
    from everyhop.runtime.settings import Settings

_log = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS: Final = 0.1
LARGEST_BACKOFF_SECONDS: Final = 5.0
STABLE_SECONDS: Final = 20.0
_EVERYBODY: Final = 0o666
_OWNER: Final = 0o600
_NAME_BYTES: Final = 6


def socket_mode(proxies: Iterable[AskingProxy]) -> int:
    """Return the mode of the sockets: 0600, unless the settings name another user.

    A file mode cannot name that user alone, so the kernel's word about each peer decides (SO_PEERCRED).
    """
    return _OWNER if {proxy.uid for proxy in proxies} <= {os.getuid(), 0} else _EVERYBODY


class AuthorizerPool:
    """Workers and what they were told.  Used from the agent's event loop."""

    def __init__(self, layout: StateLayout, settings: Settings, entropy: Entropy) -> None:
        """Bind the sockets; raises Conflict or Unavailable when that cannot be."""
        self._settings = settings
        self._spool = layout.spool
        self._names = [
            f"authorizer-{number}-{entropy.token_bytes(_NAME_BYTES).hex()}"
            for number in range(settings.authorizer_workers)
        ]
        self._truth = Update()
        self._has_truth = asyncio.Event()
        self._channels: dict[str, asyncio.StreamWriter] = {}
        self.pids: dict[str, int] = {}
        mode = socket_mode(settings.authorizers)
        with contextlib.ExitStack() as stack:
            self._listeners = [
                stack.enter_context(contextlib.closing(UnixListener.bind(path, mode=mode)))
                for path in (layout.authorizer_socket, layout.authorizer_http_socket)
            ]
            self._open = stack.pop_all()

    @property
    def spools(self) -> frozenset[str]:
        """Return the names of the workers' directories in the spool: new ones at each start of the agent."""
        return frozenset(self._names)

    def take(self, update: Update) -> None:
        """Remember what is new and pass it on."""
        kept = self._truth
        self._truth = Update(
            snapshot=update.snapshot or kept.snapshot,
            bundle=update.bundle or kept.bundle,
            tokens=update.tokens or kept.tokens,
            blocks=update.blocks or kept.blocks,
        )
        if not (update.snapshot or update.bundle or update.tokens or update.blocks):
            return
        self._has_truth.set()
        for channel in self._channels.values():
            channel.write(frame(msgspec.structs.replace(update, authority=None)))

    async def run(self) -> None:
        """Keep every worker running until cancelled."""
        await self._has_truth.wait()
        async with asyncio.TaskGroup() as group:
            for name in self._names:
                group.create_task(self._keep(name))

    def close(self) -> None:
        """Stop listening."""
        self._open.close()

    async def _keep(self, name: str) -> None:
        wait = FIRST_BACKOFF_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                code: int | str = await self._run_once(name)
            except OSError as error:  # no process or descriptor left: not worth the agent's life
                code = str(error)
            if loop.time() - started > STABLE_SECONDS:
                wait = FIRST_BACKOFF_SECONDS
            _log.error(
                "a worker for foreign proxies ended; it is started anew",
                extra={"worker": name, "exit_code": code, "wait_seconds": wait},
            )
            await asyncio.sleep(wait)
            wait = min(wait * 2, LARGEST_BACKOFF_SECONDS)

    async def _run_once(self, name: str) -> int:
        """Run one worker to its end; return its exit code."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            process = await self._start(theirs)
        except BaseException:
            ours.close()
            raise
        _, channel = await asyncio.open_connection(sock=ours)
        try:
            channel.write(frame(self._plan(name)))
            channel.write(frame(self._truth))
            self._channels[name] = channel
            self.pids[name] = process.pid
            return await process.wait()
        finally:
            self._channels.pop(name, None)
            self.pids.pop(name, None)
            channel.close()  # the worker ends by that
            if process.returncode is None:
                await asyncio.shield(process.wait())

    async def _start(self, channel: socket.socket) -> asyncio.subprocess.Process:
        """Start a worker on its end of the channel, which is closed here."""
        with channel:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "everyhop.runtime.authorizer_worker",
                stdin=channel.fileno(),
                pass_fds=[listener.sock.fileno() for listener in self._listeners],
                process_group=0,  # Ctrl-C is for the agent
            )

    def _plan(self, name: str) -> WorkerPlan:
        grpc, http = self._listeners
        return WorkerPlan(
            parent=os.getpid(),
            grpc_fd=grpc.sock.fileno(),
            http_fd=http.sock.fileno(),
            spool=str(self._spool / name),
            proxies=list(self._settings.authorizers),
            log_level=self._settings.log_level,
            redis_url=self._settings.redis_url,
        )
