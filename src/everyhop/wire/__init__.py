# SPDX-License-Identifier: Apache-2.0
"""gRPC on Unix sockets: messages, sockets and peers.

The room knows the bytes of the Workload API and of Envoy's secret discovery, how a Unix socket comes into
being, and which process is at its other end.  What to answer is for ``agent``, ``api`` and ``dataplane``.
"""

from everyhop.wire.peers import PeerInfo, peer_of
from everyhop.wire.processes import ProcessHandle, ProcessRef, ProcessStat, boot_id, parse_stat, read_stat
from everyhop.wire.sockets import UnixListener

__all__ = [
    "PeerInfo",
    "ProcessHandle",
    "ProcessRef",
    "ProcessStat",
    "UnixListener",
    "boot_id",
    "parse_stat",
    "peer_of",
    "read_stat",
]
