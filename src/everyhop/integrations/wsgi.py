# SPDX-License-Identifier: Apache-2.0
"""WSGI: every request is verified before the application sees it.

    app = EveryhopMiddleware(app)

Put it outermost.  The request target is the server's ``RAW_URI`` or ``REQUEST_URI`` (gunicorn, uWSGI, Werkzeug and
others give one); where a server only keeps the decoded ``PATH_INFO`` (wsgiref), a path that has several spellings is
refused.  The caller is what the sidecar says on the workload's own socket, else the certificate of the TLS connection
where the server shows its socket (gunicorn, Werkzeug); else nobody, which is refused.
"""

from __future__ import annotations

import io
import socket
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from everyhop.core.errors import TrustError
from everyhop.integrations._arrival import (
    OTHER_PATH,
    PEER_KEY,
    Checks,
    OwnSocket,
    flaw_of_decoded,
    forgotten,
    same_path,
    visible,
)
from everyhop.integrations._workload import Shield
from everyhop.sdk import serving, wsgi_peer
from everyhop.sdk.model import Peer, Refusal, Request, Verified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Environ = dict[str, Any]
    StartResponse = Callable[..., Callable[[bytes], object]]
    Application = Callable[[Environ, StartResponse], Iterable[bytes]]

_SOCKETS: Final = ("gunicorn.socket", "werkzeug.socket")
_CHUNK: Final = 64 * 1024
_MAX_LENGTH_DIGITS: Final = 18


class EveryhopMiddleware:
    """Serves ``app`` to verified calls only.

    ``guard`` defaults to the one of this process's workload, ``sidecar_socket`` to ``$EVERYHOP_SOCKET``.
    """

    def __init__(
        self, app: Application, guard: Checks | None = None, *, sidecar_socket: str | None = None
    ) -> None:
        self.app = app
        self._shield: Final = Shield(guard)
        self._own: Final = OwnSocket(sidecar_socket)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        started = False
        verified: Verified | None = None
        withheld: list[bytes] = []

        def watched(*arguments: Any) -> Callable[[bytes], object]:
            nonlocal started
            started = True
            if withheld:
                return lambda _part: None
            refusal = None if verified is None else forgotten(verified, int(arguments[0][:3]))
            if refusal is not None:
                withheld[:] = _refuse(refusal, environ, start_response, was_started=False)
                return lambda _part: None
            return start_response(*arguments)

        try:
            guard = self._shield.guard()
            request = request_of(environ, self._own)
            verified = guard.check(request)
            if not request.via_sidecar:
                hide(environ, verified)
            if verified.checks_body:
                check_body(guard, verified, environ)
            with serving(verified):
                answer = self.app(environ, watched)
        except Refusal as refusal:
            return _refuse(refusal, environ, start_response, was_started=started)
        if withheld:
            if hasattr(answer, "close"):
                answer.close()
            return withheld
        if isinstance(answer, list | tuple) or _is_file(answer, environ):
            return answer
        return _Answer(answer, verified, withheld)


class _Answer:
    """The application's answer: each part of it is made while its call is the current one.

    A server may ask for the parts from another thread, so nothing stays set between them.
    """

    __slots__ = ("_chunks", "_close", "_verified", "_withheld")

    def __init__(self, answer: Iterable[bytes], verified: Verified, withheld: list[bytes]) -> None:
        self._withheld = withheld  # what is to be sent instead, once the application has begun to answer
        self._close = getattr(answer, "close", None)
        self._verified = verified
        with serving(verified):
            self._chunks = iter(answer)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._withheld:
            raise StopIteration
        with serving(self._verified):
            part = next(self._chunks, None)
        if self._withheld:
            return self._withheld[0]
        if part is None:
            raise StopIteration
        return part

    def close(self) -> None:
        """Close the application's answer (PEP 3333: always called)."""
        if self._close is not None:
            with serving(self._verified):
                self._close()


def request_of(environ: Environ, own: OwnSocket) -> Request:
    """Return what the client sent, or as its ``flaw`` why the server's variables leave that unclear."""
    connection = next((environ[name] for name in _SOCKETS if name in environ), None)
    via_sidecar = own.path is not None and (
        _is_own(connection, own) if connection is not None else _is_unnamed(environ, own)
    )
    raw, flaw = _target(environ)
    return Request(
        method=environ["REQUEST_METHOD"],
        raw_path=raw,
        headers=_headers(environ),
        peer=None if via_sidecar else _peer_of(environ),
        via_sidecar=via_sidecar,
        query=environ.get("QUERY_STRING", "").encode("latin-1", "replace"),
        flaw=flaw,
        source_ip=None if via_sidecar else environ.get("REMOTE_ADDR") or None,
    )


def hide(environ: Environ, verified: Verified) -> None:
    """Take away what no application may see of a call that came past no sidecar; see :func:`visible`."""
    fields = [(_field_name(name), name.encode("latin-1", "replace")) for name in environ if _is_field(name)]
    kept = {variable for _, variable in visible(fields, verified)}
    for _, variable in fields:
        if variable not in kept:
            del environ[variable.decode("latin-1")]


def check_body(guard: Checks, verified: Verified, environ: Environ) -> None:
    """Read the body, at most one byte more than may be, check it, and leave it in ``wsgi.input`` to be read again."""
    body = _read(environ, guard.max_body + 1)
    refuse_cut_off(verified, environ, len(body), guard.max_body)
    content_type = environ.get("CONTENT_TYPE", "")
    guard.check_body(verified, [content_type] if content_type else [], body)
    environ["wsgi.input"] = io.BytesIO(body)
    environ["wsgi.input_terminated"] = True
    environ["CONTENT_LENGTH"] = str(len(body))
    environ.pop("HTTP_TRANSFER_ENCODING", None)


def refuse_cut_off(verified: Verified, environ: Environ, size: int, max_body: int) -> None:
    """Raise Refusal (400) for a body that ended before its length: its beginning may be valid JSON, too."""
    if size < min(int(environ.get("CONTENT_LENGTH") or 0), max_body):
        raise verified.refusal(400, "BODY_MALFORMED", "body", "the body is shorter than its length")


def _target(environ: Environ) -> tuple[bytes, str | None]:
    """Return the request target, and why it is unclear."""
    decoded = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1", "replace")
    given = environ.get("RAW_URI")
    other = environ.get("REQUEST_URI", given)
    if other is None:
        return decoded, flaw_of_decoded(decoded)
    raw: bytes = other.encode("latin-1", "replace")
    if given is not None and given != other:
        return raw, "the server gives two request targets"
    return raw, None if same_path(raw, decoded) else OTHER_PATH


def _headers(environ: Environ) -> list[tuple[bytes, bytes]]:
    found = [
        (_field_name(name), value.encode("latin-1", "replace"))
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
    if length := environ.get("CONTENT_LENGTH"):
        found.append((b"content-length", length.encode("latin-1", "replace")))
    return found


def _is_field(variable: object) -> bool:
    return isinstance(variable, str) and variable.startswith("HTTP_")


@lru_cache(maxsize=1024)
def _field_name(variable: str) -> bytes:
    return variable[5:].replace("_", "-").lower().encode("latin-1", "replace")


def _is_own(connection: Any, own: OwnSocket) -> bool:
    try:
        return connection.family == socket.AF_UNIX and own.is_named(connection.getsockname())
    except (AttributeError, OSError):
        return False


def _is_unnamed(environ: Environ, own: OwnSocket) -> bool:
    return environ.get("REMOTE_ADDR") == "" and own.is_only_unnamed()


def _peer_of(environ: Environ) -> Peer | None:
    peer = environ.get(PEER_KEY)
    if isinstance(peer, Peer):
        return peer
    try:
        return wsgi_peer(environ)
    except TrustError:
        return None


def _is_file(answer: object, environ: Environ) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(answer, wrapper)


def _read(environ: Environ, limit: int) -> bytes:
    """Read the body up to ``limit`` bytes; without a length only a stream that ends by itself is read."""
    stated = environ.get("CONTENT_LENGTH", "")
    if stated:
        if not (stated.isascii() and stated.isdigit() and len(stated) <= _MAX_LENGTH_DIGITS):
            raise Refusal(400, "BODY_MALFORMED", "the content length is not a number")
        limit = min(limit, int(stated))
    elif not environ.get("wsgi.input_terminated"):
        return b""
    chunks: list[bytes] = []
    while limit > 0:
        chunk = environ["wsgi.input"].read(min(limit, _CHUNK))
        if not chunk:
            break
        chunks.append(chunk)
        limit -= len(chunk)
    return b"".join(chunks)


def answer_refusal(refusal: Refusal, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer a request with a refusal, before anything else was sent."""
    return _refuse(refusal, environ, start_response, was_started=False)


def _refuse(
    refusal: Refusal, environ: Environ, start_response: StartResponse, *, was_started: bool
) -> Iterable[bytes]:
    body = refusal.body
    headers = [*refusal.headers, ("content-length", str(len(body)))]
    status = f"{refusal.status} {refusal.title}"
    if was_started:  # with the exception, a server replaces what was begun and not sent, and raises otherwise
        start_response(status, headers, (Refusal, refusal, refusal.__traceback__))
    else:
        start_response(status, headers)
    return [b"" if environ.get("REQUEST_METHOD") == "HEAD" else body]
