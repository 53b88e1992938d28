# SPDX-License-Identifier: Apache-2.0
"""Processes that stay the same process: a pid together with its start time and, where it can be had, a pidfd.

A pid alone names nothing: the kernel gives it to somebody else once its owner is gone.  A pidfd refers to
one process for ever and reports its end; without one, the pair (pid, start time) is checked again each time.
"""

from __future__ import annotations

import contextlib
import os
import select
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, final

from everyhop.core.errors import AttestationError

_PROC: Final = Path("/proc")
_MAX_STAT_BYTES: Final = 4096
_IDS: Final = 4  # real, effective, saved, file-system
_DEAD_STATES: Final = frozenset("ZXx")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ProcessRef:
    """A process of this boot: ``start_time`` is in clock ticks since boot (field 22 of ``/proc/PID/stat``)."""

    pid: int
    start_time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStat:
    """What ``/proc/PID/stat`` says: one-letter ``state``, ``parent`` pid, ``start_time`` in ticks since boot."""

    state: str
    parent: int
    start_time: int

    @property
    def is_dead(self) -> bool:
        """Tell whether the process has ended and only waits to be reaped."""
        return self.state in _DEAD_STATES


def parse_stat(raw: bytes) -> ProcessStat:
    """Parse the content of ``/proc/PID/stat``.

    The command's name stands in parentheses and may itself hold spaces and parentheses, so fields are counted
    from the last one.  Raises AttestationError when the text has another shape.
    """
    try:
        fields = raw[raw.rindex(b")") + 1 :].split()
        return ProcessStat(state=fields[0].decode("ascii"), parent=int(fields[1]), start_time=int(fields[19]))
    except (ValueError, IndexError) as error:
        raise AttestationError("the kernel's description of a process could not be read") from error


def read_stat(pid: int) -> ProcessStat:
    """Return the kernel's description of a process; raises AttestationError when there is none."""
    try:
        with (_PROC / str(pid) / "stat").open("rb") as file:
            return parse_stat(file.read(_MAX_STAT_BYTES))
    except OSError as error:
        raise AttestationError(f"process {pid} is gone") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIds:
    """The ids of a process: real, effective, saved and file-system, in this order."""

    uids: tuple[int, ...]
    gids: tuple[int, ...]

    @property
    def effective(self) -> tuple[int, int]:
        """Return the effective uid and gid, which are what a connection of the process shows."""
        return self.uids[1], self.gids[1]


def read_ids(pid: int) -> ProcessIds:
    """Return the ids of whoever has this pid now; raises AttestationError when there is nobody."""
    found: dict[str, tuple[int, ...]] = {}
    try:
        for line in (_PROC / str(pid) / "status").read_text("utf-8", errors="replace").splitlines():
            name, _, words = line.partition(":")
            if name in {"Uid", "Gid"}:
                found[name] = tuple(int(word) for word in words.split())
    except OSError as error:
        raise AttestationError(f"process {pid} is gone") from error
    except ValueError as error:
        raise AttestationError(f"the ids of process {pid} could not be read") from error
    uids, gids = found.get("Uid", ()), found.get("Gid", ())
    if len(uids) != _IDS or len(gids) != _IDS:
        raise AttestationError(f"the ids of process {pid} are not told")
    return ProcessIds(uids=uids, gids=gids)


def boot_id() -> str:
    """Return the kernel's id of this boot; start times are only comparable within one."""
    return (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()


@final
class ProcessHandle:
    """One process, held so that its end is noticed.  Close it to give the descriptor back."""

    __slots__ = ("_fd", "ref")
    ref: ProcessRef

    def __init__(self, ref: ProcessRef, fd: int | None) -> None:
        self.ref = ref
        self._fd = fd

    @classmethod
    def adopt(cls, pid: int, fd: int | None) -> Self:
        """Take over a pidfd (or None) for ``pid``; the descriptor is closed if this fails.

        Raises AttestationError when the process is gone, or is in another pid namespace (pid 0).
        """
        try:
            if pid <= 0:
                raise AttestationError(
                    "the process is in another pid namespace",
                    hint="let the agent share the host's pid namespace",
                )
            stat = read_stat(pid)
            handle = cls(ProcessRef(pid=pid, start_time=stat.start_time), fd)
            if not handle.is_alive():  # asked after reading: what was read belongs to this very process
                raise AttestationError(f"process {pid} is gone")
        except BaseException:
            if fd is not None:
                os.close(fd)
            raise
        return handle

    @classmethod
    def open(cls, pid: int) -> Self:
        """Open the process that has this pid now; raises AttestationError when there is none."""
        fd: int | None = None
        if pid > 0:
            try:
                fd = os.pidfd_open(pid)
            except ProcessLookupError as error:
                raise AttestationError(f"process {pid} is gone") from error
            except OSError:
                fd = None  # a kernel before 5.3, or a sandbox without the call: start time alone
        return cls.adopt(pid, fd)

    @classmethod
    def reopen(cls, ref: ProcessRef) -> Self:
        """Open a process remembered from earlier in this boot; raises AttestationError if it is another by now."""
        handle = cls.open(ref.pid)
        if handle.ref != ref:
            handle.close()
            raise AttestationError(f"process {ref.pid} is gone and its number was given to another")
        return handle

    @property
    def fd(self) -> int | None:
        """The pidfd, readable once the process has ended; None where the kernel has none."""
        return self._fd

    def is_alive(self) -> bool:
        """Tell whether this very process still runs (a process waiting to be reaped does not)."""
        if self._fd is not None:
            poller = select.poll()
            poller.register(self._fd, select.POLLIN)
            return not poller.poll(0)
        try:
            stat = read_stat(self.ref.pid)
        except AttestationError:
            return False
        return stat.start_time == self.ref.start_time and not stat.is_dead

    def close(self) -> None:
        """Give the descriptor back; twice is once.  The start time remains as the means to tell."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                os.close(fd)

    def __repr__(self) -> str:
        return f"ProcessHandle(pid={self.ref.pid}, start_time={self.ref.start_time})"
