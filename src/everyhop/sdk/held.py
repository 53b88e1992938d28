# SPDX-License-Identifier: Apache-2.0
"""A value that somebody keeps fresh: read from any thread, waited for, dropped when it is withdrawn."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from everyhop.core.errors import EveryhopError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

log = logging.getLogger(__name__)

_ALL: Final[weakref.WeakSet[Held[Any]]] = weakref.WeakSet()


class Held(Generic[T]):
    """At most one value, and why there is none."""

    def __init__(self, what: str) -> None:
        self.what: Final = what
        self._changed = threading.Condition()
        self._value: T | None = None
        self._absent: EveryhopError = Unavailable(f"there is no {what} yet")
        self._is_final = False
        self._listeners: list[Callable[[T | None], None]] = []
        _ALL.add(self)

    def get(self) -> T:
        """Return the value; raise why there is none: Unavailable, AccessDenied after a withdrawal."""
        value = self._value
        if value is None:
            raise _fresh(self._absent)
        return value

    def peek(self) -> T | None:
        """Return the value, or None."""
        return self._value

    def put(self, value: T) -> None:
        """Replace the value and tell everybody."""
        self._change(value, None)

    def drop(self, why: EveryhopError) -> None:
        """Have no value, for a reason that may pass."""
        if self._value is None:
            self._absent = why
        else:
            self._change(None, why)

    def fail(self, why: EveryhopError) -> None:
        """Say that no update will come any more; a value that is held stays."""
        with self._changed:
            self._is_final = True
            self._absent = why
            self._changed.notify_all()
        self._tell(self._value)

    def wait(self, timeout: float | None = None) -> T:
        """Return the value once there is one; raise why there is none when ``timeout`` seconds are over."""
        with self._changed:
            self._changed.wait_for(lambda: self._value is not None or self._is_final, timeout)
        return self.get()

    async def wait_async(self, seconds: float | None = None) -> T:
        """Do the same without blocking the event loop."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def tell(_: T | None) -> None:
            loop.call_soon_threadsafe(changed.set)

        stop = self.on_update(tell)
        try:
            async with asyncio.timeout(seconds):
                while self._value is None and not self._is_final:
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            pass
        finally:
            stop()
        return self.get()

    def on_update(self, listener: Callable[[T | None], None]) -> Callable[[], None]:
        """Call ``listener`` with each new value, None for a withdrawal; return what ends it.

        It runs on the thread that brought the value and must be quick; what it raises is logged.
        """
        with self._changed:
            self._listeners.append(listener)

        def stop() -> None:
            with self._changed:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return stop

    def _change(self, value: T | None, why: EveryhopError | None) -> None:
        with self._changed:
            self._value = value
            if why is not None:
                self._absent = why
            self._changed.notify_all()
        self._tell(value)

    def _tell(self, value: T | None) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(value)
            except Exception:
                log.exception("a listener for the %s failed", self.what)

    def after_fork(self) -> None:
        """Make the lock anew: the thread that may have held it does not exist here."""
        self._changed = threading.Condition()


def _fresh(error: EveryhopError) -> EveryhopError:
    """Return a copy to raise: one exception raised by many threads would collect their tracebacks."""
    if isinstance(error, Unavailable):
        return Unavailable(error.message, hint=error.hint, retry=error.retry)
    return type(error)(error.message, hint=error.hint)


def _after_fork_in_child() -> None:
    for held in tuple(_ALL):
        held.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
