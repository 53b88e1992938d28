# SPDX-License-Identifier: Apache-2.0
"""Addresses of the server's face, as text: where it listens, what its certificate names, what the issuer is."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from everyhop.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVER_PATH: Final = "/everyhop/server"
"""Path of the SPIFFE ID of the server's face; no policy can give it to a service."""

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.IGNORECASE)
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # read, not bound
_MAX_PORT: Final = 65535
_MAX_DNS_NAME: Final = 253
_MAX_ISSUER: Final = 512
_MAX_NAMES: Final = 32


class Listen(NamedTuple):
    """An IP address and a port; port 0 means one that is chosen and kept."""

    host: str
    port: int


def is_address(text: str) -> bool:
    """Tell whether a text is an IP address, without brackets."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def parse_listen(text: str) -> Listen:
    """Parse ``HOST:PORT``, e.g. ``127.0.0.1:8443`` or ``[::1]:0``.

    Raises SettingsError; the host is an IP address, because a name could mean several, and another one tomorrow.
    """
    host, colon, port = text.rpartition(":")
    if not colon:
        raise SettingsError(f"api_listen is HOST:PORT, not {text[:80]!r}", hint="for example 127.0.0.1:8443")
    if not _PORT.fullmatch(port) or int(port) > _MAX_PORT:
        raise SettingsError(f"api_listen: no port: {port[:20]!r}", hint="a number between 0 and 65535")
    is_bracketed = host.startswith("[") and host.endswith("]")
    address = host[1:-1] if is_bracketed else host
    if not is_address(address):
        raise SettingsError(f"api_listen: {host[:80]!r} is no IP address", hint="for example 127.0.0.1:8443")
    if is_bracketed != (":" in address):
        raise SettingsError("api_listen: an IPv6 address stands in brackets", hint="for example [::1]:8443")
    return Listen(str(ipaddress.ip_address(address)), int(port))


def check_names(names: Sequence[str]) -> None:
    """Refuse what is neither a DNS name nor an IP address; raises SettingsError."""
    if len(names) > _MAX_NAMES:
        raise SettingsError(f"api_names: at most {_MAX_NAMES}")
    for name in names:
        if "*" in name:
            raise SettingsError("api_names: no wildcards; name each host")
        if not is_address(name) and not (_DNS_NAME.fullmatch(name) and len(name) <= _MAX_DNS_NAME):
            raise SettingsError(f"api_names: {name[:80]!r} is neither a DNS name nor an IP address")


def check_issuer(issuer: str) -> None:
    """Refuse what is no issuer identifier (RFC 8414 section 2); raises SettingsError.

    Narrower than the standard: no user, no trailing slash, only unreserved characters in the path.
    """
    try:
        parts = urlsplit(issuer)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise SettingsError("issuer: host and port cannot be read") from error
    if parts.scheme != "https" or not issuer.startswith("https://"):
        raise SettingsError("issuer is an https URL")
    if "?" in issuer or "#" in issuer:
        raise SettingsError("issuer has no query and no fragment")
    if "@" in parts.netloc:
        raise SettingsError("issuer has no user")
    if not host or not (is_address(host) or _DNS_NAME.fullmatch(host)) or port == 0:
        raise SettingsError("issuer: no host that can be called")
    if issuer.endswith("/"):
        raise SettingsError("issuer does not end with a slash", hint=issuer.rstrip("/")[:200])
    if not _PATH.fullmatch(parts.path) or len(issuer) > _MAX_ISSUER:
        raise SettingsError(
            f"issuer: its path has letters, digits and . _ ~ - only, and the whole at most {_MAX_ISSUER} bytes"
        )


def url_of(listen: Listen) -> str:
    """Return the URL under which this machine reaches the face; for "every address" it is the loopback one."""
    host = _LOOPBACK.get(listen.host, listen.host)
    return f"https://[{host}]:{listen.port}" if ":" in host else f"https://{host}:{listen.port}"


def certificate_names(listen: Listen, names: Sequence[str]) -> tuple[str, ...]:
    """Return every name of the face's certificate: its own, loopback, and those of the settings; each once."""
    own = _LOOPBACK.get(listen.host, listen.host)
    return tuple(dict.fromkeys(["localhost", "127.0.0.1", own, *(name.lower() for name in names)]))
