# SPDX-License-Identifier: Apache-2.0
"""One process that answers foreign proxies; the agent starts it, tells it the truth, and its end is the worker's.

Kept apart from the agent, so that a flood of questions slows down nobody's keys.  Standard input is a socket to the
agent: when that closes, so does this process, and proxies are refused by their own rule for an absent authorizer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from everyhop.api.authorizer_grpc import GrpcAuthorizer, grpc_authorizer
from everyhop.api.authorizer_http import KEEP_ALIVE_SECONDS, HttpAuthorizer
from everyhop.api.http import http_server, serve_until_stopped
from everyhop.control.blocks_held import HeldBlocks
from everyhop.control.credentials import Credentials
from everyhop.control.external_decisions import ExternalDecisions
from everyhop.control.messages import Update
from everyhop.control.policy_view import PolicyView
from everyhop.control.proxied_callers import ProxiedCallers
from everyhop.control.token_truth import TokenTruth
from everyhop.core.errors import EveryhopError, Unavailable
from everyhop.dataplane.asked_log import AskedLog
from everyhop.policy import decode_snapshot
from everyhop.runtime.authorizer_channel import WorkerPlan, read_frame
from everyhop.runtime.logs import configure_logging
from everyhop.runtime.prctl import end_with_parent, forbid_tracing
from everyhop.runtime.settings import Settings
from everyhop.runtime.single_use import single_use
from everyhop.runtime.system import SystemClock
from everyhop.spiffe.bundle import decode_bundle
from everyhop.wire.sockets import UnixListener

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from everyhop.core.clock import Clock
    from everyhop.policy.model import Snapshot
    from everyhop.tokens.access import AccessToken

_log = logging.getLogger(__name__)


class Worker:
    """Decisions that follow the truth as the agent passes it on.  Used from one event loop."""

    def __init__(
        self, *, directory: Path, clock: Clock, spend: Callable[[AccessToken], Awaitable[None]]
    ) -> None:
        self.truth = TokenTruth(clock)
        self.callers = ProxiedCallers(clock)
        self.blocks = HeldBlocks(None, clock)
        self.credentials = Credentials(
            tokens=None, exchanger=None, spend=spend, clock=clock, blocks=self.blocks
        )
        self.log = AskedLog(directory)
        self.decisions = ExternalDecisions(
            credentials=self.credentials,
            callers=self.callers,
            record=self.log.write,
            clock=clock,
            blocks=self.blocks,
        )
        self._snapshot: Snapshot | None = None

    async def take(self, update: Update) -> None:
        """Take over what is new; raises InputError or Unavailable for what cannot be, and then nothing may be served."""
        if update.blocks:
            self.blocks.take(bytes(update.blocks))
        if update.snapshot:
            view = await asyncio.to_thread(_compile, bytes(update.snapshot))
            self.credentials.apply_policy(view)
            self.decisions.apply_policy(view)
            self._snapshot = view.snapshot
        if self._snapshot is None:
            raise Unavailable("there is no policy yet")
        if update.tokens:
            self.truth.take(bytes(update.tokens), self._snapshot.trust_domain)
            self.credentials.apply_verifier(self.truth.verifier)
        if update.bundle:
            self.callers.apply_bundle(decode_bundle(self._snapshot.trust_domain, bytes(update.bundle)))


def _compile(document: bytes) -> PolicyView:
    """Return a policy that is ready to be asked."""
    view = PolicyView(decode_snapshot(document))
    _ = view.engine
    return view


async def refuse_single_use(token: AccessToken) -> None:
    """Refuse a token for one call: without Redis there is no one place that knows all uses of it."""
    del token
    raise Unavailable("single-use tokens at foreign proxies need redis_url in the settings", retry=False)


async def serve(worker: Worker, plan: WorkerPlan, reader: asyncio.StreamReader) -> None:
    """Serve both sockets and take over each truth until the agent is gone."""
    proxies = {proxy.uid: proxy for proxy in plan.proxies}
    over_grpc = GrpcAuthorizer(worker.decisions, proxies)
    over_http = HttpAuthorizer(worker.decisions, proxies)
    await worker.take(await read_frame(reader, Update))
    grpc_server = grpc_authorizer(over_grpc)
    await grpc_server.start(_inherited(plan.grpc_fd))
    web_server = http_server(_nobody, admit=over_http.application, keep_alive=KEEP_ALIVE_SECONDS)
    serving = asyncio.create_task(serve_until_stopped(web_server, _inherited(plan.http_fd).sock))
    _log.info("answering foreign proxies", extra={"pid": os.getpid(), "uids": sorted(proxies)})
    try:
        while True:
            await worker.take(await read_frame(reader, Update))
    finally:
        web_server.stop()
        await grpc_server.close()
        await serving
        worker.log.close()


async def _nobody(scope: object, receive: object, send: object) -> NoReturn:
    """Stand in for the application of a connection that has none: each has its own."""
    del scope, receive, send
    raise Unavailable("a connection without a peer")


def _inherited(descriptor: int) -> UnixListener:
    """Return a listener that the agent has bound; its name is the agent's to remove."""
    listening = socket.socket(fileno=descriptor)
    listening.setblocking(False)
    return UnixListener(listening, Path(listening.getsockname()), (0, 0))


async def _main() -> int:
    channel = socket.socket(fileno=0)
    channel.setblocking(False)
    reader, _writer = await asyncio.open_connection(sock=channel)
    plan = await read_frame(reader, WorkerPlan)
    end_with_parent(signal.SIGKILL, plan.parent)
    configure_logging(plan.log_level)
    clock = SystemClock()
    spend = single_use(Settings(redis_url=plan.redis_url), clock) if plan.redis_url else refuse_single_use
    try:
        await serve(Worker(directory=Path(plan.spool), clock=clock, spend=spend), plan, reader)
    except EveryhopError as error:
        _log.warning("the worker ends", extra={"reason": error.message})
    return 1


def main() -> int:
    """Run a worker; it ends with the agent, or when a truth cannot be taken over."""
    forbid_tracing()
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    return asyncio.run(_main())


if __name__ == "__main__":
    raise SystemExit(main())
