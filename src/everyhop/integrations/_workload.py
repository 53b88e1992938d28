# SPDX-License-Identifier: Apache-2.0
"""The process's own workload and guard, connected at first use and shared by everything that names no other."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import EveryhopError
from everyhop.sdk.model import Refusal

if TYPE_CHECKING:
    from everyhop.integrations._arrival import Checks
    from everyhop.sdk.guard import Guard
    from everyhop.sdk.workload import Workload

log: Final = logging.getLogger("everyhop.decisions")

_LOCK: Final = threading.Lock()
_workload: Workload | None = None
_guard: Guard | None = None


def own_workload() -> Workload:
    """Return this process's workload; the first call connects to the Workload API and may wait for it."""
    global _workload
    with _LOCK:
        if _workload is None:
            from everyhop.sdk import connect

            _workload = connect()
        return _workload


def own_guard() -> Guard:
    """Return the guard of this process's workload."""
    global _guard
    workload = own_workload()
    with _LOCK:
        if _guard is None:
            from everyhop.sdk.guard import Guard

            _guard = Guard(workload)
        return _guard


class Shield:
    """A guard, given or to be found at first use; without one, everything is refused with 503."""

    __slots__ = ("_guard", "is_own")

    def __init__(self, guard: Checks | None) -> None:
        self._guard = guard
        self.is_own = guard is None

    @property
    def is_ready(self) -> bool:
        """Tell whether :meth:`guard` returns at once."""
        return self._guard is not None

    def guard(self) -> Checks:
        """Return the guard; raise Refusal (503) while the Workload API cannot be reached."""
        found = self._guard
        if found is None:
            try:
                found = self._guard = own_guard()
            except EveryhopError as error:
                log.warning("a call is refused: no guard: %s", error.message)
                raise Refusal(503, "UNAVAILABLE", f"no guard: {error.message}") from error
        return found
