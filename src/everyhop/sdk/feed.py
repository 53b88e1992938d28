# SPDX-License-Identifier: Apache-2.0
"""One connection to the agent with the watchers on it, running in one event loop, begun anew after a fork."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, Final, TypeVar

from everyhop.core.errors import Unavailable
from everyhop.sdk.clients import AsyncWorkloadApiClient
from everyhop.sdk.endpoint import socket_path
from everyhop.sdk.loops import refuse_own_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from everyhop.sdk.loops import Runner

    T = TypeVar("T")
    Part = Callable[[AsyncWorkloadApiClient], Coroutine[Any, Any, None]]

_CLOSE_SECONDS: Final = 5.0


class Feed:
    """Runs each part (a watcher on the client) until :meth:`close`; also carries single calls.

    ``parts`` may grow until :meth:`start`.
    """

    def __init__(self, runner: Runner, socket: str | None) -> None:
        self.runner: Final = runner
        self.parts: list[Part] = []
        self._endpoint = f"unix://{socket_path(socket)}"
        self._lock = threading.Lock()
        self._pid = 0
        self._closed = False
        self._running: Future[None] | None = None
        self._stopping = asyncio.Event()
        self._client: AsyncWorkloadApiClient | None = None

    def start(self) -> None:
        """Begin to watch, once a process; cheap when it runs already."""
        if self._pid == os.getpid() or self._closed:
            return
        if self._pid:  # a child: whoever held the lock in the parent is not here
            self._lock = threading.Lock()
        with self._lock:
            if self._pid == os.getpid():
                return
            self._client = None
            self._stopping = asyncio.Event()
            self._pid = os.getpid()
            self._running = self.runner.submit(self._main(tuple(self.parts), self._stopping))

    def submit(self, call: Callable[[AsyncWorkloadApiClient], Coroutine[Any, Any, T]]) -> Future[T]:
        """Make one call on the connection; raises Unavailable after :meth:`close`."""
        if self._closed:
            raise Unavailable("this workload was closed", retry=False)
        self.start()

        async def work() -> T:
            return await call(self._here())

        return self.runner.submit(work())

    def close(self) -> None:
        """End the watchers and the connection, from a thread that is not the loop's."""
        refuse_own_loop(self.runner)
        ending = self._stop()
        if ending is not None:
            ending.result(_CLOSE_SECONDS)
        self.runner.release()

    async def aclose(self) -> None:
        """Do the same inside the loop."""
        ending = self._stop()
        if ending is not None:
            await asyncio.wrap_future(ending)
        self.runner.release()

    def _stop(self) -> Future[None] | None:
        """Tell the watchers to end; return what is done when they have."""
        was_closed, self._closed = self._closed, True
        if was_closed or self._running is None or self._pid != os.getpid():
            return None
        try:
            self.runner.loop.call_soon_threadsafe(self._stopping.set)
        except RuntimeError:  # the program's loop is closed, and everything in it with it
            return None
        return self._running

    def _here(self) -> AsyncWorkloadApiClient:
        if self._client is None:
            self._client = AsyncWorkloadApiClient(self._endpoint)
        return self._client

    async def _main(self, parts: Sequence[Part], stopping: asyncio.Event) -> None:
        client = self._here()
        watchers = [asyncio.create_task(part(client)) for part in parts]
        try:
            await stopping.wait()
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
            client.close()


def result_of(future: Future[T], seconds: float) -> T:
    """Wait for a call; Unavailable when it takes longer."""
    try:
        return future.result(seconds)
    except (TimeoutError, CancelledError):
        raise Unavailable("the agent did not answer in time") from None
