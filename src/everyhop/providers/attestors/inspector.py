# SPDX-License-Identifier: Apache-2.0
"""Facts of a process, read from ``/proc`` so that they belong to one living process.

Everything is read by pid, and then the process is asked for through its pidfd: while it lives, the kernel
gives its pid to nobody else, so all that was read before is of that process.  A process may still replace
its program (``execve``) between two reads; the executable is therefore identified first and last.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import pwd
from collections import defaultdict
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from everyhop.agent.model import ProcessFacts
from everyhop.core.errors import AttestationError, EveryhopError, InputError
from everyhop.providers.attestors.digests import ExecutableDigests
from everyhop.wire.processes import ProcessRef, read_stat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everyhop.wire.peers import PeerInfo

MAX_ANCESTORS: Final = 128
MAX_GROUPS: Final = 1024
WORKERS: Final = 16
WORKERS_PER_UID: Final = 2

_ATTEMPTS: Final = 3
_MAX_STATUS_BYTES: Final = 1024 * 1024


class ProcInspector:
    """Reads ``/proc`` on threads of its own, so that hashing a large program stalls nobody.

    One user's processes take at most two of them: a program on a file system that its owner serves (FUSE) can
    make a read wait for ever, and then it is that user who waits.

    The agent sees the executable of its own user's processes; of others' only with CAP_SYS_PTRACE (root).
    What it cannot see is missing from the facts, with the reason.
    """

    def __init__(self, *, digests: ExecutableDigests | None = None, executor: Executor | None = None) -> None:
        self._digests = digests or ExecutableDigests()
        self._executor = executor or ThreadPoolExecutor(WORKERS, thread_name_prefix="attest")
        self._turns: defaultdict[int, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(WORKERS_PER_UID)
        )

    async def inspect(self, peer: PeerInfo, *, path: bool, sha256: bool) -> ProcessFacts:
        """Return the facts of a living peer; raises AttestationError when it is gone or cannot be told."""
        loop = asyncio.get_running_loop()
        async with self._turns[peer.uid]:
            return await loop.run_in_executor(
                self._executor, lambda: self.read(peer, path=path, sha256=sha256)
            )

    def read(self, peer: PeerInfo, *, path: bool, sha256: bool) -> ProcessFacts:
        """Do the same at once, blocking."""
        if peer.pid <= 0:
            raise AttestationError("the process is in another pid namespace")
        groups = _supplementary_groups(peer.pid)
        unknown: dict[str, str] = {}
        found_path, digest = self._executable(peer.pid, unknown, path=path, sha256=sha256)
        facts = ProcessFacts(
            pid=peer.pid,
            uid=peer.uid,
            gid=peer.gid,
            user=_user_name(peer.uid),
            group=_group_name(peer.gid),
            groups=groups,
            group_names=tuple(sorted(filter(None, map(_group_name, groups)))),
            path=found_path,
            sha256=digest,
            ancestors=tuple(_ancestors(peer.process.ref)),
            unknown=unknown,
        )
        if not peer.is_alive():  # asked last: see the module's docstring
            raise AttestationError(f"process {peer.pid} is gone")
        return facts

    def close(self) -> None:
        """End the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _executable(
        self, pid: int, unknown: dict[str, str], *, path: bool, sha256: bool
    ) -> tuple[str | None, str | None]:
        """Return path and digest of the program as far as asked for; what is not known says why."""
        if not path and not sha256:
            return None, None
        try:
            descriptor = os.open(f"/proc/{pid}/exe", os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError:
            reason = "the agent may not see the program of another user's process; run the agent as root"
            return _not_known(unknown, reason, path=path, sha256=sha256)
        except OSError as error:
            return _not_known(unknown, f"no program: {error.strerror}", path=path, sha256=sha256)
        try:
            found_path = _path_of(pid, descriptor, unknown) if path else None
            digest = self._digest(descriptor, unknown) if sha256 else None
            if not _runs(pid, descriptor):
                raise AttestationError(f"process {pid} replaced its program while it was looked at")
        finally:
            os.close(descriptor)
        return found_path, digest

    def _digest(self, descriptor: int, unknown: dict[str, str]) -> str | None:
        try:
            return self._digests.of(descriptor)
        except InputError as error:
            unknown["sha256"] = error.message
        except OSError as error:
            unknown["sha256"] = f"the program cannot be read: {error.strerror}"
        return None


def _not_known(unknown: dict[str, str], reason: str, *, path: bool, sha256: bool) -> tuple[None, None]:
    if path:
        unknown["path"] = reason
    if sha256:
        unknown["sha256"] = reason
    return None, None


def _path_of(pid: int, descriptor: int, unknown: dict[str, str]) -> str | None:
    """Return the program's path if that path means this very file to everybody else.

    After the file was deleted or replaced, or where the process sees another mount namespace, the name may
    belong to something else; then there is no path.
    """
    try:
        path = str(Path(f"/proc/{pid}/exe").readlink())
    except OSError as error:
        unknown["path"] = f"no program: {error.strerror}"
        return None
    if not path.startswith("/"):
        unknown["path"] = "the program has no path (it runs from memory)"
        return None
    try:
        same = _same_file(os.stat(path), os.fstat(descriptor))  # noqa: PTH116  # a string that may end in " (deleted)"
    except OSError:
        same = False
    if not same:
        unknown["path"] = (
            f"{path} is not the file that runs: it was deleted or replaced, or lies in another mount namespace"
        )
        return None
    return path


def _runs(pid: int, descriptor: int) -> bool:
    try:
        return _same_file(Path(f"/proc/{pid}/exe").stat(), os.fstat(descriptor))
    except OSError:
        return False


def _same_file(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _supplementary_groups(pid: int) -> tuple[int, ...]:
    try:
        with Path(f"/proc/{pid}/status").open("rb") as file:
            text = file.read(_MAX_STATUS_BYTES)
    except OSError as error:
        raise AttestationError(f"process {pid} is gone") from error
    for line in text.splitlines():
        if line.startswith(b"Groups:"):
            return tuple(sorted({int(word) for word in line.split()[1 : 1 + MAX_GROUPS]}))
    return ()


def _ancestors(process: ProcessRef) -> Iterator[ProcessRef]:
    """Yield the process, its parent, and so on up to the first process of the machine."""
    current = process
    yield current
    for _ in range(MAX_ANCESTORS):
        parent = _parent_of(current)
        if parent is None:
            return
        yield parent
        current = parent


def _parent_of(child: ProcessRef) -> ProcessRef | None:
    """Return the parent, None at the top, or where the chain cannot be told for sure.

    A parent that dies hands its children on, and its number may be taken by another process: only if the child
    still names the same parent after that one was read was it read while it was the parent.
    """
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(EveryhopError):
            before = read_stat(child.pid)
            if before.start_time != child.start_time:
                return None
            if before.parent <= 0:
                return None
            parent = read_stat(before.parent)
            after = read_stat(child.pid)
            if (after.parent, after.start_time) == (before.parent, child.start_time):
                return ProcessRef(pid=before.parent, start_time=parent.start_time)
    return None


def _user_name(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def _group_name(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None
