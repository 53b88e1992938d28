# SPDX-License-Identifier: Apache-2.0
"""A blocking client of the owner's sockets for commands: standard library only, so that they start fast."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from everyhop.core.errors import (
    AccessDenied,
    Conflict,
    EveryhopError,
    InputError,
    NotFound,
    PolicyError,
    Unavailable,
)
from everyhop.core.problems import Problem, Span

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAX_LINE: Final = 1024 * 1024
_BY_STATUS: Final[dict[int, type[EveryhopError]]] = {
    400: InputError,
    403: AccessDenied,
    404: NotFound,
    409: Conflict,
    503: Unavailable,
}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class LocalLink:
    """Requests to one of the sockets under ``STATE/run``."""

    def __init__(self, socket_path: Path, *, timeout: float = 10.0) -> None:
        self._path = socket_path
        self._timeout = timeout

    def get(self, path: str, **query: object) -> Any:  # JSON
        """Return the JSON answer to a GET; query values of None are left out, lists are given several times."""
        shown = {k: v if isinstance(v, list) else str(v) for k, v in query.items() if v is not None}
        content = self._call("GET", f"{path}?{urlencode(shown, doseq=True)}" if shown else path, None)
        return json.loads(content)

    def get_bytes(self, path: str) -> bytes:
        """Return the body of the answer to a GET, unparsed."""
        return self._call("GET", path, None)

    def post(self, path: str, message: object) -> Any:  # JSON
        """Return the JSON answer to a POST of a JSON message."""
        return json.loads(self._call("POST", path, json.dumps(message).encode()))

    def post_lines(self, path: str, message: object) -> list[Any]:  # JSON
        """Return the JSON values of the lines that answer a POST; raises Unavailable where the last one is cut."""
        content = self._call("POST", path, json.dumps(message).encode())
        try:
            return [json.loads(line) for line in content.splitlines()]
        except ValueError as error:
            raise Unavailable(f"{self._path} broke off its answer") from error

    def stream(self, path: str, **query: object) -> Iterator[Any]:  # JSON
        """Yield the JSON values of the lines that answer a GET as they come; raises Unavailable when that ends.

        Query values that are lists are given several times.
        """
        shown = {k: v if isinstance(v, list) else str(v) for k, v in query.items() if v is not None}
        connection = _UnixConnection(self._path, self._timeout)
        try:
            with self._meeting():
                connection.request("GET", f"{path}?{urlencode(shown, doseq=True)}")
                answer = connection.getresponse()
                if answer.status >= http.client.BAD_REQUEST:
                    raise _error_of(answer.status, json.loads(answer.read()))
            while True:
                with self._meeting():
                    line = answer.readline(_MAX_LINE)
                if not line.endswith(b"\n"):
                    raise Unavailable(f"{self._path} ended its stream")
                yield json.loads(line)
        finally:
            connection.close()

    def delete(self, path: str) -> Any:  # JSON
        """Return the JSON answer to a DELETE."""
        return json.loads(self._call("DELETE", path, None))

    def _call(self, method: str, path: str, body: bytes | None) -> bytes:
        connection = _UnixConnection(self._path, self._timeout)
        try:
            with self._meeting():
                connection.request(method, path, body=body, headers={"content-type": "application/json"})
                answer = connection.getresponse()
                status, content = answer.status, answer.read()
        finally:
            connection.close()
        if status >= http.client.BAD_REQUEST:
            raise _error_of(status, json.loads(content))
        return content

    @contextmanager
    def _meeting(self) -> Iterator[None]:
        """Say of what goes wrong on the socket what it means."""
        try:
            yield
        except PermissionError as error:
            raise AccessDenied(
                f"{self._path} belongs to another user", hint="run this as the owner of the state directory"
            ) from error
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise Unavailable(
                f"no trust domain is up at {self._path.parent.parent}",
                hint="start one with: everyhop up   (or name its directory with --state)",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{self._path} does not answer: {type(error).__name__}") from error


def _error_of(status: int, problem: dict[str, Any]) -> EveryhopError:
    """Rebuild the error that a problem document describes."""
    if problems := problem.get("problems"):
        return PolicyError(
            [
                Problem(
                    code=p["code"],
                    span=Span(file=p["file"], line=p["line"], column=p["column"]),
                    message=p["message"],
                    suggestion=p["suggestion"],
                )
                for p in problems
            ]
        )
    kind = _BY_STATUS.get(status, EveryhopError)
    return kind(str(problem.get("detail", f"HTTP status {status}")), hint=problem.get("hint"))
