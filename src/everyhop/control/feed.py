# SPDX-License-Identifier: Apache-2.0
"""What every agent must hold, and which agents have it.

Push, not polling: an agent's stream wakes at each change.  An agent acknowledges by a report that names the
snapshot it enforces and the bundle sequence that all its sidecars hold; rotation waits for that.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from everyhop.control.messages import AgentReport
    from everyhop.core.clock import Clock

AGENT_GONE_AFTER: Final = timedelta(seconds=15)
_LOOK_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The present truth: encoded documents, and the versions to compare."""

    snapshot: bytes
    snapshot_hash: str
    bundle: bytes
    bundle_sequence: int
    authority: str
    tokens: bytes
    token_sequence: int
    blocks: bytes = b""
    block_sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    report: AgentReport
    at: datetime


class Feed:
    """The present :class:`Truth` with its waiters.  Used from one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._truth: Truth | None = None
        self._changed = asyncio.Event()
        self._reported = asyncio.Event()
        self._seen: dict[str, _Seen] = {}
        self._streams: dict[str, int] = {}
        self._verifiers: dict[str, Callable[[], int | None]] = {}

    @property
    def truth(self) -> Truth | None:
        """Return what agents must hold; None before the first publication."""
        return self._truth

    def publish(self, truth: Truth) -> None:
        """Replace the truth and wake every stream."""
        if truth == self._truth:
            return
        self._truth = truth
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_beyond(self, known: Truth | None, timeout: float) -> Truth | None:  # noqa: ASYNC109  # a heartbeat interval, not a deadline
        """Return the truth as soon as it is not ``known``; the known one after ``timeout`` seconds."""
        event = self._changed
        if self._truth is known:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), timeout)
        return self._truth

    def connected(self, agent: str) -> None:
        """Note a new stream of ``agent``; from now on rotation waits for it."""
        self._streams[agent] = self._streams.get(agent, 0) + 1

    def disconnected(self, agent: str) -> None:
        """Note the end of a stream."""
        left = self._streams.get(agent, 0) - 1
        if left > 0:
            self._streams[agent] = left
        else:
            self._streams.pop(agent, None)

    def report(self, report: AgentReport) -> None:
        """Take an agent's report of what it has applied."""
        self._seen[report.agent] = _Seen(report=report, at=self._clock.now())
        self._reported.set()
        self._reported = asyncio.Event()

    def reports(self) -> list[AgentReport]:
        """Return the last report of each agent that is still alive, by agent id."""
        limit = self._clock.now() - AGENT_GONE_AFTER
        return [
            seen.report
            for agent, seen in sorted(self._seen.items())
            if seen.at >= limit or agent in self._streams
        ]

    def lagging(self, has_applied: Callable[[AgentReport], bool]) -> list[str]:
        """Return the connected agents whose last report does not satisfy ``has_applied``."""
        return [
            a for a in sorted(self._streams) if a not in self._seen or not has_applied(self._seen[a].report)
        ]

    async def wait_applied(self, has_applied: Callable[[AgentReport], bool], timeout: float) -> list[str]:  # noqa: ASYNC109  # returns the laggards instead of raising
        """Wait until every connected agent satisfies ``has_applied``; return the laggards at the deadline."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while lagging := self.lagging(has_applied):
            event = self._reported
            left = deadline - loop.time()
            if left <= 0:
                return lagging
            try:
                await asyncio.wait_for(event.wait(), left)
            except TimeoutError:
                continue
        return []

    # -- the bundle, which others than agents check certificates by as well

    def add_verifier(self, name: str, held: Callable[[], int | None]) -> None:
        """Let rotation wait for a process of ours that is no agent.

        ``held`` tells the sequence of the bundle that it has confirmed, None while it is not connected.
        """
        self._verifiers[name] = held

    def acknowledged_bundle(self) -> int | None:
        """Return the lowest bundle sequence that everyone connected holds; None while an agent has not told."""
        if self.lagging(lambda _: True):
            return None
        present = 0 if self._truth is None else self._truth.bundle_sequence
        held = [report.bundle_sequence for report in self.reports()]
        return min([*held, *self._held_by_verifiers().values()], default=present)

    async def wait_bundle(self, sequence: int, timeout: float) -> list[str]:  # noqa: ASYNC109  # returns the laggards instead of raising
        """Wait until everyone connected holds a bundle; return the laggards at the deadline."""
        deadline = asyncio.get_running_loop().time() + timeout
        lagging = await self.wait_applied(lambda r: r.bundle_sequence >= sequence, timeout)
        while not lagging:
            behind = [name for name, held in self._held_by_verifiers().items() if held < sequence]
            if not behind or asyncio.get_running_loop().time() >= deadline:
                return behind
            await asyncio.sleep(_LOOK_SECONDS)
        return lagging

    def _held_by_verifiers(self) -> dict[str, int]:
        asked = {name: held() for name, held in self._verifiers.items()}
        return {name: held for name, held in asked.items() if held is not None}
