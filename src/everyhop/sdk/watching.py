# SPDX-License-Identifier: Apache-2.0
"""Watching a stream for ever: reconnect, keep what is held, refuse what is malformed, obey a withdrawal."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from everyhop.core.errors import AccessDenied, EveryhopError, InputError, TrustError, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from everyhop.sdk.held import Held

Message = TypeVar("Message")
Value = TypeVar("Value")

log = logging.getLogger(__name__)

FIRST_SECONDS: Final = 0.05
LONGEST_SECONDS: Final = 2.0
_DOUBLINGS: Final = 12  # more would only make large numbers of an outage of hours


@dataclass(slots=True)
class Backoff:
    """How long to wait before the next attempt: doubling from 50 ms to 2 s, less up to a half at random."""

    first: float = FIRST_SECONDS
    longest: float = LONGEST_SECONDS
    fraction: Callable[[], float] = random.random
    failures: int = 0

    def next(self) -> float:
        """Return the seconds to wait, and count a failure."""
        bound = min(self.longest, self.first * (1 << min(self.failures, _DOUBLINGS)))
        self.failures += 1
        return bound * (1 - self.fraction() / 2)

    def reset(self) -> None:
        """Begin again after a success."""
        self.failures = 0


class Watcher(Generic[Message, Value]):
    """Keeps a :class:`Held` fresh from a stream.

    ``open_stream`` starts the stream, ``read`` turns a message into a value or raises InputError or TrustError.
    """

    def __init__(
        self,
        held: Held[Value],
        open_stream: Callable[[], AsyncGenerator[Message, None]],
        read: Callable[[Message], Value],
        *,
        backoff: Backoff | None = None,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self._held = held
        self._open = open_stream
        self._read = read
        self._backoff = backoff or Backoff()
        self._sleep = sleep
        self._is_down = False
        self.refused = 0
        """How many updates were refused as malformed."""

    async def run(self) -> None:
        """Watch until cancelled, or until the agent says that the request itself is wrong."""
        while True:
            try:
                await self._once()
            except AccessDenied as error:
                self._withdraw(error)
            except InputError as error:
                log.error("the agent refuses to serve the %s: %s", self._held.what, error.message)  # noqa: TRY400
                self._held.fail(error)
                return
            except EveryhopError as error:
                self._interrupted(error)
            except Exception as error:  # a watcher that dies silently leaves old keys in use for ever
                log.warning("watching the %s failed", self._held.what, exc_info=True)
                self._interrupted(Unavailable(f"watching failed ({type(error).__name__})"))
            await self._sleep(self._backoff.next())

    async def _once(self) -> None:
        async with aclosing(self._open()) as messages:
            async for message in messages:
                if self._accept(message):
                    self._backoff.reset()

    def _accept(self, message: Message) -> bool:
        try:
            value = self._read(message)
        except (InputError, TrustError) as error:
            self.refused += 1
            log.warning(
                "an update of the %s is refused, the one before stays: %s", self._held.what, error.message
            )
            return False
        if self._is_down:
            log.info("served again: %s", self._held.what)
            self._is_down = False
        self._held.put(value)
        return True

    def _withdraw(self, error: AccessDenied) -> None:
        if self._held.peek() is not None:
            log.warning("withdrawn: %s: %s", self._held.what, error.message)
        self._held.drop(error)

    def _interrupted(self, error: EveryhopError) -> None:
        """Keep what is held; say it once an outage."""
        if not self._is_down:
            log.warning("not served at the moment: %s: %s", self._held.what, error.message)
            self._is_down = True
        if self._held.peek() is None:
            self._held.drop(error)
