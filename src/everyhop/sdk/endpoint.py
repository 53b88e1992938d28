# SPDX-License-Identifier: Apache-2.0
"""Where the Workload API is: SPIFFE_ENDPOINT_SOCKET (SPIFFE_Workload_Endpoint.md section 4), Unix sockets only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import SettingsError
from everyhop.core.limits import MAX_SOCKET_PATH_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE: Final = "SPIFFE_ENDPOINT_SOCKET"
_SCHEME: Final = "unix://"


def socket_path(endpoint: str | None = None, *, environment: Mapping[str, str] | None = None) -> str:
    """Return the absolute path of the socket: of ``endpoint``, or of the environment's variable.

    Raises SettingsError when neither is given, or it is anything but ``unix:///absolute/path``.
    """
    source = "the socket" if endpoint is not None else VARIABLE
    text = endpoint if endpoint is not None else (environment or os.environ).get(VARIABLE, "")
    if not text:
        raise SettingsError(
            f"{VARIABLE} is not set", hint="start the program with `everyhop run SERVICE -- …`, or set it"
        )
    hint = "write unix:///absolute/path/of/the.sock"
    if text.startswith("tcp:"):
        raise SettingsError(f"{source} names a TCP address, which is not supported", hint=hint)
    if not text.startswith(_SCHEME):
        raise SettingsError(f"{source} does not start with unix://", hint=hint)
    path = text.removeprefix(_SCHEME)
    if not path.startswith("/"):
        raise SettingsError(f"{source} names a host or a relative path", hint=hint)
    if any(character in path for character in "?#\0") or path.endswith("/"):
        raise SettingsError(f"{source} holds more than a path", hint=hint)
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise SettingsError(f"{source} is longer than the {MAX_SOCKET_PATH_BYTES} bytes of a socket address")
    return path
