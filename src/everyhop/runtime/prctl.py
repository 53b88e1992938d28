# SPDX-License-Identifier: Apache-2.0
"""Linux process controls that the standard library lacks."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def adopt_orphans() -> None:
    """Make this process the parent of its orphaned descendants (PR_SET_CHILD_SUBREAPER).

    A workload that double-forks stays below its ``everyhop run``, and so keeps its identity.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def forbid_tracing() -> None:
    """Keep other processes of the same user from reading this one's memory (PR_SET_DUMPABLE 0)."""
    _prctl(_PR_SET_DUMPABLE, 0)


def end_with_parent(number: signal.Signals, parent: int) -> None:
    """Get ``number`` when the parent dies; raises OSError when it is not ``parent`` (any more)."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        raise OSError("the parent has died already")


def die_with_parent(number: signal.Signals, *, own_group: bool) -> Callable[[], None]:
    """Return a ``preexec_fn``: the child gets ``number`` when its parent dies, and clear signal state.

    With ``own_group`` (for processes of ours, not the user's command) the child leaves the terminal's process
    group, so that Ctrl-C reaches only its parent, and the files it makes are for its user alone.
    Call only from a process without other threads.
    """
    parent = os.getpid()

    def prepare() -> None:
        _prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)
        if own_group:
            os.setpgid(0, 0)
            os.umask(0o077)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())

    return prepare
