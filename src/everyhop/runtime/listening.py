# SPDX-License-Identifier: Apache-2.0
"""Where does the application listen: on its Unix socket, or on its loopback port?

A port counts only when this user listens on it, so another user who takes the port first is not handed the
workload's traffic.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LISTEN: Final = "0A"
_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LOOPBACK: Final = frozenset(
    {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where the application was found.  ``exposed`` tells that it listens beyond loopback."""

    app: str | None
    exposed: bool = False


def parse_listeners(table: str, port: int) -> list[tuple[str, int]]:
    """Return (local address in the kernel's hexadecimal, uid) of each listener on ``port``."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[3] == _LISTEN:  # noqa: PLR2004  # uid is the eighth column
            address, _, number = fields[1].partition(":")
            if int(number, 16) == port:
                found.append((address, int(fields[7])))
    return found


def find_listening(app_socket: Path, app_port: int) -> Listening:
    """Look for the application; the Unix socket is preferred, because only its user can open it."""
    try:
        if stat.S_ISSOCK(app_socket.stat().st_mode):
            return Listening(app="unix")
    except OSError:
        pass
    listeners: list[tuple[str, int]] = []
    for table in _TABLES:
        try:
            listeners += parse_listeners(table.read_text("ascii"), app_port)
        except OSError:
            continue
    own = [address for address, uid in listeners if uid == os.getuid()]
    if not own or len(own) != len(listeners):
        return Listening(app=None)
    return Listening(app="port", exposed=any(address not in _LOOPBACK for address in own))
