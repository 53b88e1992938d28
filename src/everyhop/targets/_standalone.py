# SPDX-License-Identifier: Apache-2.0
"""What proxies outside of a cluster have in common: the application behind them, and the authorizer that they ask.

Options are printable text, and configuration files give some characters a meaning.  So what is written into one is checked here
again, against a short list of characters.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError
from everyhop.dataplane.model import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everyhop.targets.intents import ServiceIntents
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

UNIX: Final = "unix:"
MAX_PORT: Final = 65535
_PATH: Final = re.compile(r"/[A-Za-z0-9._/@+-]*")
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where something listens: ``socket`` is the path of a Unix socket, or None for ``host`` and ``port``."""

    socket: str | None = None
    host: str = ""
    port: int = 0

    @property
    def is_name(self) -> bool:
        """Tell whether the host is a name, which somebody has to resolve."""
        return self.socket is None and not _is_ip(self.host)

    @property
    def is_local(self) -> bool:
        """Tell whether only this machine is involved."""
        if self.socket is not None or self.host == "localhost":
            return True
        return _is_ip(self.host) and ipaddress.ip_address(self.host).is_loopback


def plain_path(view: View, option: str) -> str:
    """Return an option that is a path; raises InputError for characters that a configuration file may read as its own."""
    value = str(view.option(option))
    if not _PATH.fullmatch(value):
        raise InputError(
            f"targets: {view.target}: {option}: {value!r} holds characters that are no part of plain paths",
            hint="letters, digits and . _ / @ + - only",
        )
    return value


def plain_address(text: str, where: str) -> Address:
    """Read ``unix:/PATH`` or ``HOST:PORT``; raises InputError."""
    if text.startswith(UNIX):
        path = text.removeprefix(UNIX)
        if _PATH.fullmatch(path):
            return Address(socket=path)
    else:
        host, _, port = text.rpartition(":")
        if _HOST.fullmatch(host) and port.isascii() and port.isdecimal() and 0 < int(port) <= MAX_PORT:
            return Address(host=host, port=int(port))
    raise InputError(f"{where}: {text!r} is no address", hint="unix:/PATH or HOST:PORT")


def port_option(view: View, option: str) -> int:
    """Return an option that is a port; raises InputError above 65535."""
    value = int(view.option(option))
    if value > MAX_PORT:
        raise InputError(f"targets: {view.target}: {option}: there is no port {value}")
    return value


def authorizer_of(view: View) -> Address | None:
    """Return where everyhop's authorizer answers, None where none is named; raises InputError."""
    if not view.has_authorizer:
        return None
    return plain_address(str(view.option("authorizer")), f"targets: {view.target}: authorizer")


def upstream_of(service: ServiceIntents) -> Address:
    """Return where the application is: ``host`` of its place, else its port on loopback; raises InputError."""
    if service.place.host is None:
        return Address(host=LOOPBACK, port=service.port)
    return plain_address(service.place.host, f"targets: services: {service.name}: host")


def upstream_warnings(view: View, service: ServiceIntents) -> Iterator[Diagnostic]:
    """Warn of an application on another machine: what is between is neither encrypted nor closed to others."""
    upstream = upstream_of(service)
    if not upstream.is_local:
        yield view.warning(
            "upstream",
            f"the way from {view.target} to {service.name} at {upstream.host}:{upstream.port} is neither encrypted"
            " nor closed to others",
            suggestion="put the proxy beside the application and have that listen on loopback",
        )


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
