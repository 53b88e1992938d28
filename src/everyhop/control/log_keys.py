# SPDX-License-Identifier: Apache-2.0
"""Changing the log's key: recorded in the log, so whoever trusts the old key learns of the new one from what it signed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from everyhop.auditlog import Event, Kind

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from everyhop.auditlog.ports import RecordStore
    from everyhop.core.clock import Clock
    from everyhop.tlog import VerifierKey


class RotatingSigner(Protocol):
    """A log's key that can be changed."""

    @property
    def verifiers(self) -> tuple[VerifierKey, ...]:
        """Return the public keys, the newest first."""

    def rotate(self) -> VerifierKey:
        """Add a key that signs beside the others; raises Conflict when there are too many."""

    def retire(self) -> tuple[VerifierKey, ...]:
        """End all keys but the newest."""


class LogKeys:
    """Changes the key of the log.  Used from one event loop."""

    def __init__(self, signer: RotatingSigner, records: RecordStore, clock: Clock, pool: Executor) -> None:
        self._signer = signer
        self._records = records
        self._clock = clock
        self._pool = pool

    async def rotate(self, *, retire: bool) -> list[str]:
        """Add a key, or end the older ones; return the vkeys that sign from now on."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._rotate, retire)

    def _rotate(self, retire: bool) -> list[str]:  # noqa: FBT001  # the one choice, named by who calls
        if retire:
            ended = self._signer.retire()
            detail = {"key": str(self._signer.verifiers[0]), "ended": " ".join(k.key_id.hex() for k in ended)}
        else:
            detail = {"key": str(self._signer.rotate())}
        self._records.note(
            Event(
                kind=Kind.LOG,
                action="key",
                time=self._clock.now(),
                reason="retired" if retire else "rotated",
                detail={**detail},
            )
        )
        return [str(key) for key in self._signer.verifiers]
