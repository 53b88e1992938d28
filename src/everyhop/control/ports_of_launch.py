# SPDX-License-Identifier: Apache-2.0
"""Loopback ports for one launch: free now, and not promised to another launch."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

from everyhop.core.errors import Conflict, InputError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Container

_ATTEMPTS = 200
_LOOPBACK = "127.0.0.1"
_MAX_PORT = 65535


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether nobody listens on a port of an address of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # connections that have ended do not count
        try:
            probe.bind((host, port))
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


def chosen_address(text: str, taken: Container[int]) -> tuple[str, int]:
    """Return host and port of ``[HOST:]PORT``; without a host, or with ``localhost``, it is the loopback address.

    Raises InputError when it is no address, Conflict when it is in use or promised.
    """
    host, _, number = text.rpartition(":")
    host = {"": _LOOPBACK, "localhost": _LOOPBACK}.get(host, host).removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
        if not number.isascii() or not number.isdecimal() or not 0 <= int(number) <= _MAX_PORT:
            raise ValueError(number)
    except ValueError as error:
        hint = "for example --edge 8443, --edge 0.0.0.0:8443 or --edge [::]:8443"
        raise InputError(
            f"{text[:80]!r} is not [HOST:]PORT with an IP address of this machine", hint=hint
        ) from error
    port = int(number) or free_port(taken)
    if port in taken or not is_free(port, host):
        raise Conflict(
            f"{host}:{port} cannot be bound here",
            hint="another process listens there, or the address is not this machine's",
        )
    return host, port
