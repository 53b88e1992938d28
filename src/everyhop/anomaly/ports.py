# SPDX-License-Identifier: Apache-2.0
"""What detectors are to the engine, and what the engine needs of those who act on findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from everyhop.anomaly.finding import Finding
from everyhop.anomaly.model import Block, BlockMode, Blocks, Subject
from everyhop.anomaly.observation import Observation


class Detector(Protocol):
    """One who watches.  Pure and deterministic: the same observations in the same order give the same findings.

    Memory is bounded by the detector itself, whatever callers make up.  Called from one thread, in the order of the log.
    """

    @property
    def name(self) -> str:
        """Return a stable code: lower case, digits, dashes."""

    def observe(self, observation: Observation, now: datetime) -> Sequence[Finding]:
        """Take one observation and return what it shows; ``now`` is the engine's clock (aware UTC).

        ``now`` is for telling a backlog from the present.  What is learned goes by ``observation.time``.  Never raises.
        """

    def state(self) -> Mapping[str, bytes]:
        """Return what must survive a restart, by key: at most 10,000 keys (names), 64 KiB each.  Empty is fine."""

    def restore(self, state: Mapping[str, bytes]) -> None:
        """Take back what :meth:`state` gave, perhaps of an earlier release; leaves out what cannot be read, never raises."""


class Responder(Protocol):
    """Who blocks.  ``control.responding`` is the one of the server."""

    @property
    def blocks(self) -> Blocks:
        """Return the blocks in force."""

    async def block(
        self,
        subject: Subject,
        *,
        mode: BlockMode,
        until: datetime | None,
        reason: str,
        by: str,
        finding: str | None = None,
    ) -> Block:
        """Block a subject; durable, recorded and on its way to every enforcement point when it returns.

        Raises Conflict for one that may not be blocked, Unavailable when it cannot be made durable.
        """

    async def unblock(self, subject: Subject, *, reason: str, by: str) -> Block:
        """Lift a block; raises NotFound when there is none."""
