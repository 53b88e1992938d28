# SPDX-License-Identifier: Apache-2.0
"""Pseudonyms on a node: asked for in batches before records are signed, and remembered for a short time.

While the server is away nothing is named, and nothing is sent: records wait in the spool, as they would anyhow.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from everyhop.auditlog.personal import disguise, persons_in
from everyhop.core.errors import Conflict, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from everyhop.auditlog import Record
    from everyhop.auditlog.personal import Wish

T = TypeVar("T")
MAX_CACHED: Final = 10_000
MAX_ASKED: Final = 500
LIFE_SECONDS: Final = 60.0


class Server(Protocol):
    """The server, as far as it gives pseudonyms."""

    async def pseudonyms(self, wanted: Sequence[Wish], /) -> list[str]:
        """Return a pseudonym for each value, in the order given.  Raises Unavailable."""


class PseudonymMemory:
    """Puts pseudonyms into records.  Used from one event loop."""

    def __init__(self, server: Server, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._monotonic = monotonic
        self._names: dict[Wish, str] = {}
        self._since = monotonic()

    async def apply(self, records: Sequence[Record]) -> list[Record]:
        """Return the records with pseudonyms for everybody whom they name.  Raises Unavailable."""
        wanted: set[Wish] = set().union(*(persons_in(record) for record in records))
        if not wanted:
            return list(records)
        await self._learn(wanted)
        names = self._names
        return [disguise(record, lambda kind, value: names.get((kind, value))) for record in records]

    async def send(self, records: Sequence[Record], send: Callable[[list[Record]], Awaitable[T]]) -> T:
        """Put pseudonyms in, hand the records to ``send`` and return its answer.

        When that raises Conflict, somebody was forgotten meanwhile: the memory is dropped and it is tried once more.
        """
        try:
            return await send(await self.apply(records))
        except Conflict:
            self._names = {}
            try:
                return await send(await self.apply(records))
            except Conflict as error:
                raise Unavailable("the server does not take these records now") from error

    async def _learn(self, wanted: set[Wish]) -> None:
        now = self._monotonic()
        if now - self._since > LIFE_SECONDS or len(self._names) + len(wanted) > MAX_CACHED:
            self._names, self._since = {}, now
        missing = [wish for wish in wanted if wish not in self._names]
        for start in range(0, len(missing), MAX_ASKED):
            asked = missing[start : start + MAX_ASKED]
            self._names |= zip(asked, await self._server.pseudonyms(asked), strict=True)
