# SPDX-License-Identifier: Apache-2.0
"""Where the SDK's own work runs: the caller's event loop, or one background thread of this process.

After a fork the child has no such thread; it is made again when something needs it.  What the child inherited of
the parent's loop is closed without a word to the kernel that the parent would hear.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import selectors
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import Future

T = TypeVar("T")

_JOIN_SECONDS: Final = 5.0


class Runner(Protocol):
    """An event loop that work can be given to from any thread."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop; starts it where it is ours and not running."""

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine as a task of the loop."""

    def is_here(self) -> bool:
        """Tell whether the caller runs in the loop."""

    def release(self) -> None:
        """Say that this user is done; the last one stops a loop that is ours."""


class HereRunner:
    """The loop that is running now, of an asyncio program."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop."""
        return self._loop

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine as a task of the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def is_here(self) -> bool:
        """Tell whether the caller runs in the loop."""
        return _running() is self._loop

    def release(self) -> None:
        """Do nothing: the loop is the program's."""


class _Background:
    """The loop and thread of one process, while somebody needs them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.pid = os.getpid()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.selector: selectors.BaseSelector | None = None
        self.thread: threading.Thread | None = None

    def start(self) -> asyncio.AbstractEventLoop:
        with self.lock:
            if self.loop is None:
                self.selector = selectors.DefaultSelector()
                self.loop = asyncio.SelectorEventLoop(self.selector)
                self.thread = threading.Thread(
                    target=_serve, args=(self.loop,), name="everyhop-sdk", daemon=True
                )
                self.thread.start()
            return self.loop

    def stop(self) -> None:
        with self.lock:
            loop, thread, self.loop, self.thread = self.loop, self.thread, None, None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(_JOIN_SECONDS)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()


_background = _Background()
_abandoned: Final[list[Any]] = []  # a parent's loops; their finalizers must not run in the child


def _after_fork_in_child() -> None:
    global _background
    before, _background = _background, _Background()
    if before.loop is not None:
        _abandoned.append(before)
        if before.selector is not None:
            before.selector.close()  # closes our descriptor of the shared epoll; unregistering would touch it


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(lambda: _background.stop())  # noqa: PLW0108  # the one of the process that exits


class BackgroundRunner:
    """The one background thread of this process, shared by everything that is synchronous."""

    def __init__(self) -> None:
        self._pid = 0  # of the process in which this one counts as a user

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop, started if need be: at first use, and again after a fork."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            with _background.lock:
                _background.users += 1
        return _background.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine as a task of the loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def is_here(self) -> bool:
        """Tell whether the caller runs in the loop; never starts it."""
        here = _running()
        return here is not None and here is _background.loop

    def release(self) -> None:
        """Stop the thread when nobody else uses it, and wait for its end."""
        if self._pid != os.getpid():
            return
        self._pid = 0
        with _background.lock:
            _background.users -= 1
            last = _background.users == 0
        if last:
            _background.stop()


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def wait_for(runner: Runner, work: Coroutine[Any, Any, T], *, timeout: float | None = None) -> T:
    """Run a coroutine and wait for it from a thread that is not the loop's; TimeoutError cancels it."""
    refuse_own_loop(runner, work)
    future = runner.submit(work)
    try:
        return future.result(timeout)
    except TimeoutError:
        future.cancel()
        raise


def refuse_own_loop(runner: Runner, work: Coroutine[Any, Any, Any] | None = None) -> None:
    """Raise RuntimeError on the loop's own thread, where waiting would wait for ever."""
    if runner.is_here():
        if work is not None:
            work.close()
        raise RuntimeError("a blocking call inside its own event loop: use the async variant and await it")
