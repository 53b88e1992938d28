# SPDX-License-Identifier: Apache-2.0
"""The health check of a sidecar: its port is open, and no other port of its network is but on loopback.

An application that listens on every address would be reached past its sidecar; Compose cannot forbid it, so at least nobody takes
it for healthy.
"""

from __future__ import annotations

from typing import Final

_PROGRAM: Final = """\
import pathlib, sys
PORT, LISTENS = {port}, "0A"
open_ports = set()
for name in ("tcp", "tcp6"):
    file = pathlib.Path({directory!r}) / name
    for line in file.read_text().splitlines()[1:] if file.exists() else ():
        local, _, state = line.split()[1:4]
        host, port = local.split(":")
        is_loopback = host[-2:] == "7F" if len(host) == 8 else host == "0" * 24 + "01000000" or (
            host[:24] == "0000000000000000FFFF0000" and host[-2:] == "7F")
        if state == LISTENS and not is_loopback:
            open_ports.add(int(port, 16))
sys.exit(0 if open_ports == {{PORT}} else "open beside the sidecar: " + str(sorted(open_ports - {{PORT}})))
"""


def probe(port: int, directory: str = "/proc/net") -> str:
    """Return a Python program that ends with 0 where ``port`` and nothing else listens for other machines."""
    return _PROGRAM.format(port=port, directory=directory)
