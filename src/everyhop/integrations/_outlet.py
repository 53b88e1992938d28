# SPDX-License-Identifier: Apache-2.0
"""Where audit events go: to the agent, or, while there is none, to the log of this process.

An application never waits for it and never fails by it, except where it demands that an event is taken first.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import EveryhopError, Unavailable
from everyhop.integrations._workload import own_workload

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from everyhop.sdk.events import AuditEvent

    class Taker(Protocol):
        """What of a workload is needed here."""

        @property
        def takes_events(self) -> bool: ...

        def note_event(self, event: AuditEvent, *, lost: int = 0) -> None: ...

        def submit_event(self, event: AuditEvent) -> Future[None]: ...


log: Final = logging.getLogger("everyhop.audit")

MAX_WAITING: Final = 2048
RETRY_SECONDS: Final = 30.0


class Outlet:
    """Takes events from any thread.  ``workload`` of None is this process's own, connected in the background."""

    def __init__(
        self,
        workload: Taker | None = None,
        *,
        connect: Callable[[], Taker] = own_workload,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._given = workload
        self._connect = connect
        self._monotonic = monotonic
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._workload = self._given
        self._connecting: Future[Taker] | None = None
        self._waiting: deque[AuditEvent] = deque()
        self._lost = 0
        self._retry_at = float("-inf")
        self._has_warned = False

    def put(self, event: AuditEvent) -> None:
        """Take an event; never blocks and never raises."""
        self._begin_in_child()
        with self._lock:
            workload = self._workload
            if workload is None and self._try_to_connect() is not None:
                if len(self._waiting) < MAX_WAITING:
                    self._waiting.append(event)
                else:
                    self._lost += 1
                return
        if workload is not None and workload.takes_events:
            workload.note_event(event)
            return
        self._only_log(event)

    def submit(self, event: AuditEvent) -> Future[None]:
        """Hand an event over; done when it is on the node's disk, or Unavailable."""
        self._begin_in_child()
        with self._lock:
            workload = self._workload
            connecting = None if workload is not None else self._try_to_connect()
        taken: Future[None] = Future()
        if workload is not None:
            _submit(workload, event, taken)
        elif connecting is not None:
            connecting.add_done_callback(lambda done: _submit_when_connected(done, event, taken))
        else:
            taken.set_exception(Unavailable("there is no agent to take an audit event"))
        return taken

    def _try_to_connect(self) -> Future[Taker] | None:
        """Return what will be connected, None while it is too early to try again.  The lock is held."""
        if self._connecting is None:
            if self._monotonic() < self._retry_at:
                return None
            self._connecting = Future()
            thread = threading.Thread(
                target=self._connect_now, args=(self._connecting,), name="everyhop-audit", daemon=True
            )
            thread.start()
        return self._connecting

    def _connect_now(self, done: Future[Taker]) -> None:
        try:
            workload = self._connect()
        except Exception as error:  # noqa: BLE001  # whatever is wrong with it, the application goes on
            with self._lock:
                self._connecting, self._retry_at = None, self._monotonic() + RETRY_SECONDS
                waiting, self._waiting = self._waiting, deque()
            message = error.message if isinstance(error, EveryhopError) else type(error).__name__
            self._warn(message)
            for event in waiting:
                self._only_log(event)
            done.set_exception(Unavailable(f"there is no agent to take an audit event: {message}"))
            return
        with self._lock:
            self._workload, self._connecting = workload, None
            waiting, self._waiting = self._waiting, deque()
            lost, self._lost = self._lost, 0
            for event in waiting:
                workload.note_event(event, lost=lost)
                lost = 0
        done.set_result(workload)

    def _only_log(self, event: AuditEvent) -> None:
        self._warn("the agent does not take them")
        log.info("%s", json.dumps(event.to_dict(), default=str))

    def _warn(self, why: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning("audit events are in the log of this process only: %s", why)

    def _begin_in_child(self) -> None:
        """Begin anew after a fork: what waits is the parent's to report."""
        if self._pid != os.getpid():
            self._begin()


def _submit(workload: Taker, event: AuditEvent, taken: Future[None]) -> None:
    try:
        _follow(workload.submit_event(event), taken)
    except EveryhopError as error:
        taken.set_exception(error)


def _submit_when_connected(done: Future[Taker], event: AuditEvent, taken: Future[None]) -> None:
    error = done.exception()
    if error is not None:
        taken.set_exception(error)
    else:
        _submit(done.result(), event, taken)


def _follow(inner: Future[None], taken: Future[None]) -> None:
    def finish(done: Future[None]) -> None:
        if done.cancelled():
            taken.set_exception(Unavailable("the connection to the agent ended"))
        elif (error := done.exception()) is not None:
            taken.set_exception(error)
        else:
            taken.set_result(None)

    inner.add_done_callback(finish)
