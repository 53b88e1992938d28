# SPDX-License-Identifier: Apache-2.0
"""An HTTP client for attackers: exactly the bytes given go out, and whatever comes back is told.

Nothing here is safe to use for anything else: names are not checked, and answers are read loosely.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

READ_BYTES: Final = 65536
PATIENCE_SECONDS: Final = 3.0
ALERT_SECONDS: Final = 0.25

Connection = socket.socket | ssl.SSLSocket


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back.  ``status`` is None when no HTTP answer came; ``end`` then says what happened instead."""

    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    end: str = ""
    rest: bytes = field(default=b"", repr=False)

    def header(self, name: str) -> str | None:
        """Return the first header of a name (in lower case)."""
        return next((value for key, value in self.headers if key == name), None)

    @property
    def text(self) -> str:
        """Say in short what came back."""
        return self.end if self.status is None else str(self.status)

    @property
    def json(self) -> dict[str, Any]:
        """Return the body as JSON, empty when it is none."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def decision(self) -> str | None:
        """Return the decision id that the answer carries, in a header or in its body."""
        found = self.header("x-everyhop-decision") or self.json.get("decision")
        return found if isinstance(found, str) and len(found) > 1 else None


def request(
    method: str,
    target: str | bytes,
    *,
    host: str,
    headers: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
) -> bytes:
    """Write one request; nothing is checked or encoded (text is Latin-1)."""
    raw = target.encode("latin-1") if isinstance(target, str) else target
    lines = [f"host: {host}", *(f"{name}: {value}" for name, value in headers)]
    if body:
        lines.append(f"content-length: {len(body)}")
    head = "\r\n".join(lines).encode("latin-1")
    return method.encode("latin-1") + b" " + raw + b" HTTP/1.1\r\n" + head + b"\r\n\r\n" + body


def dial(address: tuple[str, int] | str) -> socket.socket:
    """Connect to a port of this machine or to a Unix socket."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE_SECONDS)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


def secure(plain: socket.socket, context: ssl.SSLContext, *, name: str) -> ssl.SSLSocket:
    """Do the TLS handshake; closes the socket when that fails."""
    try:
        return context.wrap_socket(plain, server_hostname=name)
    except OSError:
        plain.close()
        raise


def describe_error(error: OSError) -> str:
    """Say in short how a connection failed; TLS alerts by their name."""
    if isinstance(error, ssl.SSLError) and error.reason:
        reason = str(error.reason).lower()
        for prefix in ("tlsv13_alert_", "tlsv1_alert_", "sslv3_alert_"):
            if reason.startswith(prefix):
                return f"TLS alert: {reason.removeprefix(prefix).replace('_', ' ')}"
        return f"TLS: {reason.replace('_', ' ')}"
    if isinstance(error, TimeoutError):
        return "silence"
    if isinstance(error, (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError)):
        return "closed"
    if isinstance(error, PermissionError):
        return "EACCES"
    return error.strerror or type(error).__name__


def alert_after_handshake(connection: ssl.SSLSocket) -> str | None:
    """Wait for the server's word on our certificate: in TLS 1.3 it comes after our side of the handshake."""
    connection.settimeout(ALERT_SECONDS)
    try:
        data = connection.recv(1)
    except TimeoutError:
        connection.settimeout(PATIENCE_SECONDS)
        return None
    except OSError as error:
        return describe_error(error)
    return "closed" if not data else f"unexpected byte {data!r}"


def read_reply(connection: Connection, *, patience: float = PATIENCE_SECONDS, head: bool = False) -> Reply:
    """Read one answer: by its length, in chunks, or until the end."""
    connection.settimeout(patience)
    deadline = time.monotonic() + patience
    data = b""
    while True:
        if (reply := parse_reply(data, head=head, ended=False)) is not None:
            return reply
        try:
            part = connection.recv(READ_BYTES) if time.monotonic() < deadline else None
        except OSError as error:
            return parse_reply(data, head=head, ended=True) or Reply(end=describe_error(error), rest=data)
        if part is None:
            return Reply(end="silence", rest=data)
        if not part:
            return parse_reply(data, head=head, ended=True) or Reply(end="closed", rest=data)
        data += part


def parse_reply(data: bytes, *, head: bool, ended: bool) -> Reply | None:
    """Return the first answer in ``data``, None while it is not complete; informational answers are skipped."""
    top, gap, rest = data.partition(b"\r\n\r\n")
    if not gap:
        return None
    lines = top.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) < 2 or not words[1].isdecimal():  # noqa: PLR2004  # version and status
        return Reply(end=f"no HTTP: {lines[0][:20]!r}")
    status = int(words[1])
    headers = tuple((n.strip().lower(), v.strip()) for n, _, v in (line.partition(":") for line in lines[1:]))
    if 100 <= status < 200 and status != 101:  # noqa: PLR2004  # informational, but not an upgrade
        return parse_reply(rest, head=head, ended=ended)
    reply = Reply(status=status, headers=headers)
    if head or status in {101, 204, 304}:
        return _with(reply, b"", rest)
    if reply.header("transfer-encoding") == "chunked":
        found = _dechunk(rest)
        return None if found is None else _with(reply, *found)
    length = reply.header("content-length")
    if length is None:
        return _with(reply, rest, b"") if ended else None
    size = int(length)
    return _with(reply, rest[:size], rest[size:]) if len(rest) >= size else None


def _with(reply: Reply, body: bytes, rest: bytes) -> Reply:
    return Reply(status=reply.status, headers=reply.headers, body=body, rest=rest)


def _dechunk(data: bytes) -> tuple[bytes, bytes] | None:
    body = b""
    while True:
        line, gap, data = data.partition(b"\r\n")
        if not gap:
            return None
        size = int(line.partition(b";")[0], 16)
        if len(data) < size + 2:
            return None
        body, data = body + data[:size], data[size + 2 :]
        if size == 0:
            return body, data
