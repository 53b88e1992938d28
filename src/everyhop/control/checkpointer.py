# SPDX-License-Identifier: Apache-2.0
"""The log's head, signed every second that it grew, and told to those who keep it elsewhere.

One of several servers signs at a time.  What is told elsewhere is told at least once and in order, the newest when
there was no time for each: a checkpoint vouches for every one before it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from everyhop.core.clock import rfc3339
from everyhop.core.errors import EveryhopError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from everyhop.auditlog.checkpointing import Checkpointer
    from everyhop.auditlog.checkpoints import StoredCheckpoint
    from everyhop.control.leader import Leader

T = TypeVar("T")
_log = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 5.0


class Shipper(Protocol):
    """A place outside where checkpoints are kept."""

    @property
    def name(self) -> str:
        """Return what it is called in messages; no secret."""

    async def ship(self, checkpoint: StoredCheckpoint) -> None:
        """Hand a checkpoint over; raises EveryhopError when that did not work."""


@dataclass(slots=True)
class _Place:
    """One shipper, the newest checkpoint for it, and how it went."""

    shipper: Shipper
    wanted: StoredCheckpoint | None = None
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    shipped: int = 0
    problem: str | None = None


class LogSealing:
    """Signs and tells, while this server leads.  Used from one event loop."""

    def __init__(
        self,
        checkpointer: Checkpointer,
        *,
        leader: Leader,
        pool: Executor,
        shippers: Sequence[Shipper] = (),
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        """``interval`` is in seconds; ``pool`` runs what blocks."""
        self._checkpointer = checkpointer
        self._leader = leader
        self._pool = pool
        self._places = [_Place(shipper) for shipper in shippers]
        self._interval = interval
        self._last: StoredCheckpoint | None = None
        self._problem: str | None = None

    async def run(self) -> None:
        """Sign and tell until cancelled."""
        await self._leader.run(self._work)

    def status(self) -> dict[str, object]:
        """Return what was signed last here, and what is wrong, as plain values."""
        last = self._last
        return {
            "signing": self._leader.is_leading,
            "size": None if last is None else last.size,
            "signed_at": None if last is None else rfc3339(last.signed_at),
            "problem": self._problem,
            "shipped": {
                place.shipper.name: {"size": place.shipped, "problem": place.problem}
                for place in self._places
            },
        }

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            for place in self._places:
                group.create_task(self._ship(place))
            try:
                while True:
                    await self._sign()
                    await asyncio.sleep(self._interval)
            except asyncio.CancelledError:
                await self._sign()  # what came last before the end
                raise

    async def _sign(self) -> None:
        try:
            signed = await self._call(self._checkpointer.step)
        except EveryhopError as error:
            if error.message != self._problem:
                _log.error("the log's head is not signed: %s", error.message)  # a verdict, no fault of ours
            self._problem = error.message
            return
        self._problem = None
        await self._call(self._checkpointer.thin)
        if signed is not None:
            self._last = signed
            for place in self._places:
                place.wanted = signed
                place.grown.set()

    async def _ship(self, place: _Place) -> None:
        while True:
            await place.grown.wait()
            place.grown.clear()
            wanted = place.wanted
            assert wanted is not None  # noqa: S101  # set before the event
            try:
                await place.shipper.ship(wanted)
            except EveryhopError as error:
                if place.problem is None:
                    _log.warning(
                        "a checkpoint was not handed over to %s: %s", place.shipper.name, error.message
                    )
                place.problem = error.message
                await asyncio.sleep(RETRY_SECONDS)
                place.grown.set()
                continue
            place.problem, place.shipped = None, wanted.size

    async def _call(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)
