# SPDX-License-Identifier: Apache-2.0
"""Loopback ports for one launch: free now, and not promised to another launch."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from everyhop.core.errors import Conflict, Unavailable

if TYPE_CHECKING:
    from collections.abc import Container

_ATTEMPTS = 200


def is_free(port: int) -> bool:
    """Tell whether nobody listens on a loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(taken: Container[int]) -> int:
    """Return a port that the kernel gives out and that is not in ``taken``; raises Unavailable when none is left."""
    for _ in range(_ATTEMPTS):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in taken:
            return port
    raise Unavailable("no free loopback port")


def chosen_port(port: int, taken: Container[int]) -> int:
    """Return the port that the user chose; raises Conflict when it is in use or promised."""
    if port in taken or not is_free(port):
        raise Conflict(f"port {port} is in use", hint="leave --port out to get a free one in $PORT")
    return port
