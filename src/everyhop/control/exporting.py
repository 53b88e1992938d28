# SPDX-License-Identifier: Apache-2.0
"""Exports: each receiver gets the log in its order, at least once, from where its cursor stands.

The cursor moves after the receiver has the records, never before and never back.  Receivers know nothing of each
other: each has its own cursor, lease, connection and pause, and what waits for one waits in the log, not in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec

from everyhop.auditlog import Event, Kind, decode_record
from everyhop.control.leader import Leader
from everyhop.core.clock import rfc3339
from everyhop.core.errors import EveryhopError, NotFound, Unavailable
from everyhop.exports import Item, RefusedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from concurrent.futures import Executor

    from everyhop.auditlog import Record, RecordStore
    from everyhop.auditlog.consumer import Consumers, Leases, Progress
    from everyhop.auditlog.model import Scalar
    from everyhop.core.clock import Clock, Entropy
    from everyhop.exports import ExportSettings, Sink, Told

T = TypeVar("T")
_log = logging.getLogger(__name__)

PREFIX: Final = "export:"
ACTION: Final = "export"
PAGE_BYTES: Final = 2 * 1024 * 1024  # what one receiver may hold of the log in memory
MAX_PAGE: Final = 1000
IDLE_SECONDS: Final = 0.25
FIRST_PAUSE: Final = 0.5
_MAX_ERROR: Final = 500


class LogLines(Protocol):
    """The log's lines with their numbers."""

    def read(self, after: int, *, limit: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """Return number and line of the records behind ``after``, oldest first."""

    def head(self) -> int:
        """Return the number of the newest record, 0 when there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One receiver: its settings, and what makes its sink."""

    settings: ExportSettings
    open: Callable[[], Sink]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPorts:
    """What exports stand on.  ``pool`` runs short questions to the database; nothing slow runs there."""

    lines: LogLines
    records: RecordStore
    consumers: Consumers
    leases: Leases
    clock: Clock
    entropy: Entropy
    pool: Executor
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep)


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a cursor's row says beside the position, so that every server can show it."""

    error: str | None = None
    since: datetime | None = None
    disabled: bool = False


class Exporter:
    """Brings the log to one receiver for as long as it runs.  Used from one event loop."""

    def __init__(self, export: Export, ports: ExportPorts) -> None:
        self._settings = export.settings
        self._sink = export.open()
        self._p = ports
        self._key = PREFIX + export.settings.name
        self._cursor = 0  # everything up to here is delivered for good
        self._sent = 0  # everything up to here was handed over, or was not wanted
        self._given = 0  # the last one handed over since the sink was opened
        self._looked_at = 0  # what is missing up to here is told
        self._untold: list[Told] = []
        self._batch = export.settings.batch
        self._pause = 0.0
        self._state = State()

    @property
    def name(self) -> str:
        """Return its name in the settings."""
        return self._settings.name

    async def run(self) -> None:
        """Deliver until cancelled; errors of the receiver and of the database are waited out."""
        await self._begin()
        try:
            while True:
                if self._state.disabled:
                    await self._wait_for_release()
                    continue
                try:
                    await self._step()
                except (EveryhopError, OSError, TimeoutError) as error:
                    await self._failed(error)
        finally:
            await asyncio.shield(self._end())

    async def _begin(self) -> None:
        while True:
            try:
                progress = await self._call(self._p.consumers.get, self._key)
            except Unavailable as error:
                _log.warning(
                    "an export waits for the database", extra={"export": self.name, "why": str(error)}
                )
                await self._p.sleep(self._next_pause())
                continue
            self._pause = 0.0
            self._cursor = self._sent = 0 if progress is None else progress.position
            self._state = state_of(progress)
            return

    async def _step(self) -> None:
        """Deliver one page, or look what has become of the last one when there is nothing new."""
        rows = await self._call(
            self._p.lines.read, self._sent, limit=min(self._batch, MAX_PAGE), max_bytes=PAGE_BYTES
        )
        async with asyncio.timeout(self._settings.timeout.total_seconds()):
            done = await self._deliver(rows) if rows else await self._sink.settle()
        await self._confirm(done)
        await self._tell()
        if rows:
            self._pause = 0.0
        if self._state.error is not None and (rows or self._cursor == self._sent):
            await self._say(State())
            _log.info("an export is well again", extra={"export": self.name})
        if not rows:
            await self._p.sleep(IDLE_SECONDS)

    async def _deliver(self, rows: Sequence[tuple[int, bytes]]) -> int:
        """Hand a page to the sink; return what the sink has confirmed."""
        last = rows[-1][0]
        await self._note_pruned(rows)
        wanted = await self._call(
            self._wanted, rows
        )  # a page of it is work that would hold up everybody here
        if not wanted:
            self._sent = last
            return await self._sink.settle()
        done = await self._sink.send(wanted)
        self._batch = min(self._settings.batch, self._batch * 2)
        self._sent, self._given = last, wanted[-1].index
        return done

    def _wanted(self, rows: Sequence[tuple[int, bytes]]) -> list[Item]:
        items = [Item(index=n, record=decode_record(line), line=line) for n, line in rows]
        return [item for item in items if self._settings.only.matches(item.record)]

    async def _confirm(self, done: int) -> None:
        """Move the cursor to what is confirmed: when the last record given is, all that was passed over is, too."""
        reached = self._sent if done >= self._given else done
        if reached > self._cursor:
            await self._call(self._p.consumers.move, self._key, reached, at=self._p.clock.now())
            self._cursor = reached

    async def _note_pruned(self, rows: Sequence[tuple[int, bytes]]) -> None:
        """Tell, once, of records that the retention took before this receiver could have them."""
        looked_at = max(self._sent, self._looked_at)
        last = rows[-1][0]
        missing = last - looked_at - sum(n > looked_at for n, _ in rows)
        if missing > 0:
            await self._note("pruned", {"from": looked_at + 1, "to": last, "count": missing})
        self._looked_at = max(last, looked_at)

    async def _failed(self, error: Exception) -> None:
        """Go back to the cursor, say why, and wait."""
        await self._restart()
        refused = error if isinstance(error, RefusedError) else None
        text = _told(error)
        if refused is not None and refused.is_final:
            _log.error(
                "a receiver wants no more; its export is off", extra={"export": self.name, "why": text}
            )
            await self._note("disabled", {"error": text})
            await self._say(State(error=text, since=self._p.clock.now(), disabled=True))
            return
        if refused is not None and refused.too_large and self._batch > 1:
            self._batch = max(1, self._batch // 2)
            return
        if self._state.error != text:
            _log.warning("an export does not get through", extra={"export": self.name, "why": text})
            await self._say(State(error=text, since=self._state.since or self._p.clock.now()))
        pause = self._next_pause(is_patient=refused is not None and refused.is_patient)
        if refused is not None and refused.after is not None:
            pause = max(pause, refused.after.total_seconds())
        await self._p.sleep(pause)

    async def _restart(self) -> None:
        await self._close()
        self._sent, self._given = self._cursor, 0

    def _next_pause(self, *, is_patient: bool = False) -> float:
        """Return seconds: twice the last ones up to the longest, and of that a half to the whole at random."""
        longest = self._settings.longest_pause.total_seconds()
        self._pause = longest if is_patient else min(longest, self._pause * 2 or FIRST_PAUSE)
        return self._pause * (0.5 + self._p.entropy.fraction() / 2)

    async def _wait_for_release(self) -> None:
        await self._p.sleep(self._settings.longest_pause.total_seconds() / 60)
        with contextlib.suppress(Unavailable):
            self._state = state_of(await self._call(self._p.consumers.get, self._key))

    async def _close(self) -> None:
        done = await self._sink.close()
        with contextlib.suppress(Unavailable):
            await self._confirm(done)

    async def _end(self) -> None:
        with contextlib.suppress(Unavailable):
            await self._close()
            await self._tell()

    async def _tell(self) -> None:
        self._untold += self._sink.told()
        while self._untold:
            told = self._untold.pop(
                0
            )  # first, so that a note that is cancelled on its way is not written twice
            try:
                await self._note(told.reason, dict(told.detail))
            except Unavailable:
                self._untold.insert(0, told)
                raise

    async def _note(self, reason: str, detail: dict[str, Any]) -> None:
        _log.warning("an export has something to tell", extra={"export": self.name, "reason": reason})
        event = Event(
            kind=Kind.LOG,
            action=ACTION,
            time=self._p.clock.now(),
            reason=reason,
            detail={"name": self.name, **detail},
        )
        await self._call(self._p.records.note, event)

    async def _say(self, state: State) -> None:
        """Keep the state beside the cursor; a database that is down is told by its own error."""
        self._state = state
        with contextlib.suppress(Unavailable):
            text = msgspec.json.encode(state).decode()
            await self._call(self._p.consumers.say, self._key, text, at=self._p.clock.now())

    async def _call(self, call: Callable[..., T], /, *args: object, **kwargs: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._p.pool, partial(call, *args, **kwargs))


class Exports:
    """All receivers of this server; of several servers each brings the log to those whose lease it has."""

    def __init__(
        self, exports: Sequence[Export], ports: ExportPorts, *, holder: str, origin: str | None = None
    ) -> None:
        """``holder`` names this process, ``origin`` the log."""
        self._exports = {export.settings.name: export for export in exports}
        self._p = ports
        self._holder = holder
        self.origin: Final = origin

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with asyncio.TaskGroup() as group:
            for export in self._exports.values():
                leader = Leader(
                    self._p.leases,
                    PREFIX + export.settings.name,
                    self._holder,
                    clock=self._p.clock,
                    pool=self._p.pool,
                )
                group.create_task(leader.run(partial(self._export, export)))
            await asyncio.Event().wait()

    async def _export(self, export: Export) -> None:
        await Exporter(export, self._p).run()

    async def status(self) -> dict[str, dict[str, object]]:
        """Return what ``everyhop status`` shows of each: position, records behind it, last error and since when."""

        def ask() -> tuple[dict[str, Progress], int]:
            return dict(self._p.consumers.all()), self._p.lines.head()

        found, head = await asyncio.get_running_loop().run_in_executor(self._p.pool, ask)
        return {name: shown(found.get(PREFIX + name), head) for name in self._exports}

    async def lines(self, after: int, *, limit: int) -> tuple[list[tuple[int, bytes]], int]:
        """Return number and line of the records behind ``after``, and the number of the newest record."""

        def ask() -> tuple[list[tuple[int, bytes]], int]:
            return self._p.lines.read(after, limit=limit, max_bytes=PAGE_BYTES), self._p.lines.head()

        return await asyncio.get_running_loop().run_in_executor(self._p.pool, ask)

    async def note_once(self, by: str, detail: Mapping[str, Scalar]) -> Record:
        """Record that somebody takes records out of the log by hand; durable when it returns."""
        event = Event(
            kind=Kind.LOG,
            action=ACTION,
            time=self._p.clock.now(),
            caller=by,
            reason="by-hand",
            detail=dict(detail),
        )
        return await asyncio.get_running_loop().run_in_executor(
            self._p.pool, partial(self._p.records.note, event)
        )

    async def release(self, name: str, by: str) -> None:
        """Switch on again what a receiver's 410 has switched off, and record that.  Raises NotFound for no such export."""
        if name not in self._exports:
            raise NotFound(f"there is no export {name[:80]!r}", hint="the settings name: " + self._names())
        now = self._p.clock.now()
        event = Event(
            kind=Kind.LOG, action=ACTION, time=now, caller=by, reason="resumed", detail={"name": name}
        )

        def resume() -> None:
            self._p.records.note(event)
            self._p.consumers.say(PREFIX + name, "", at=now)

        await asyncio.get_running_loop().run_in_executor(self._p.pool, resume)

    def _names(self) -> str:
        return ", ".join(self._exports) or "none"


def state_of(progress: Progress | None) -> State:
    """Return what is kept beside a cursor; an empty state for one that says nothing readable."""
    if progress is None or not progress.state:
        return State()
    try:
        return msgspec.json.decode(progress.state, type=State)
    except msgspec.MsgspecError:
        return State()


def shown(progress: Progress | None, head: int) -> dict[str, object]:
    """Return one export's part of the status."""
    state = state_of(progress)
    position = 0 if progress is None else progress.position
    return {
        "position": position,
        "behind": max(0, head - position),
        "last_error": state.error,
        "since": None if state.since is None else rfc3339(state.since),
        "disabled": state.disabled,
    }


def _told(error: Exception) -> str:
    if isinstance(error, EveryhopError):
        return error.message[:_MAX_ERROR]
    if isinstance(error, TimeoutError):
        return "the receiver did not answer in time"
    return f"{type(error).__name__}: {error}"[:_MAX_ERROR]
