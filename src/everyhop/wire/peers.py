# SPDX-License-Identifier: Apache-2.0
"""Who is at the other end of a Unix socket, by the kernel's word alone (SPIFFE_Workload_Endpoint.md section 5)."""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

from everyhop.core.errors import AttestationError
from everyhop.wire.processes import ProcessHandle, read_ids

_SO_PEERPIDFD: Final = 77  # Linux 6.5; not yet named by every supported Python
_UCRED: Final = struct.Struct("3i")
_NO_PIDFD_OPTION: Final = frozenset({errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.ENOSYS})


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerInfo:
    """The process that connected.

    ``uid`` and ``gid`` are its effective ids at the moment of ``connect`` (SO_PEERCRED).  ``process`` is held
    for the life of the connection and tells when the process has ended, also when another process inherited
    the socket.
    """

    pid: int
    uid: int
    gid: int
    process: ProcessHandle

    def is_alive(self) -> bool:
        """Tell whether the process that connected still runs."""
        return self.process.is_alive()


def peer_of(connection: socket.socket, *, kernel_pidfd: bool = True) -> PeerInfo:
    """Establish the peer of an accepted Unix stream socket.

    The caller closes ``process`` at the end.  With ``kernel_pidfd`` false, SO_PEERPIDFD is not asked for
    (older kernels): then whoever has the pid now must have the peer's uid and live on after the check.  What
    remains uncovered in that case is stated in docs/adr/0009.

    Raises AttestationError when the peer is gone, is in another pid namespace, or cannot be told.
    """
    pid, uid, gid = _credentials(connection)
    fd = _peer_pidfd(connection) if kernel_pidfd and pid > 0 else None
    if fd is not None:
        return PeerInfo(pid=pid, uid=uid, gid=gid, process=ProcessHandle.adopt(pid, fd))
    process = ProcessHandle.open(pid)
    if uid not in read_ids(pid).uids or not process.is_alive():
        process.close()
        raise AttestationError(f"process {pid} is not the one that connected")
    return PeerInfo(pid=pid, uid=uid, gid=gid, process=process)


def uid_of(connection: socket.socket) -> int:
    """Return the effective uid of the process that connected, as it was then (SO_PEERCRED); raises AttestationError.

    In another user namespace than ours, a user that this one does not map is the kernel's overflow uid.
    """
    return _credentials(connection)[1]


def _credentials(connection: socket.socket) -> tuple[int, int, int]:
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except OSError as error:
        raise AttestationError("the kernel gives no credentials for this socket") from error
    pid, uid, gid = _UCRED.unpack(raw)
    return pid, uid, gid


def _peer_pidfd(connection: socket.socket) -> int | None:
    """Return the kernel's pidfd of the peer, None where the kernel has no such option."""
    try:
        fd = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if error.errno in _NO_PIDFD_OPTION:
            return None
        # EINVAL, ESRCH or ENODATA: the process was reaped before we asked.
        raise AttestationError("the process that connected is gone") from error
    os.set_inheritable(fd, False)
    return fd
