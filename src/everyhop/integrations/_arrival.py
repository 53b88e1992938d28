# SPDX-License-Identifier: Apache-2.0
"""Where a request came from, and where the client said it wanted to go: what every server side needs to know.

A server hands a framework more than the client sent, and less.  What is decided on is the request target as on the
wire; where a server only keeps the decoded path, it is used when it has one spelling, and refused otherwise.
Identity headers are believed on one socket only: the one in ``$EVERYHOP_SOCKET``, which nobody but the workload's own
sidecar can open.
"""

from __future__ import annotations

import logging
import os
import stat
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote_to_bytes

from everyhop.sdk.headers import TXN_TOKEN, is_hidden
from everyhop.sdk.model import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from everyhop.sdk.model import Request, Verified

log = logging.getLogger(__name__)

OTHER_PATH: Final = "the path that the framework routes by is not the one that was sent"
_OK: Final = 200
_REDIRECT: Final = 300
OWN_SOCKET_VARIABLE: Final = "EVERYHOP_SOCKET"
PEER_KEY: Final = "everyhop.peer"
"""Where a server's glue puts the :class:`everyhop.sdk.Peer` of a connection (ASGI extensions, WSGI environ)."""

# What stands in a path as itself (RFC 3986 section 3.3, without ";" and "%"): such a path has one spelling.
_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,=:@/")


class Checks(Protocol):
    """What a middleware needs of :class:`everyhop.sdk.Guard`."""

    @property
    def max_body(self) -> int:
        """Return the largest body that is checked, in bytes."""
        ...

    def check(self, request: Request) -> Verified:
        """Return the verified call or raise Refusal."""
        ...

    def check_body(self, verified: Verified, content_types: Sequence[str], body: bytes) -> None:
        """Raise Refusal when the body is not what the operation's schema asks for."""
        ...


class OwnSocket:
    """The Unix socket that this workload's sidecar talks to; ``path`` is None where there is no sidecar."""

    __slots__ = ("_is_bound", "path")

    def __init__(self, path: str | None = None) -> None:
        self.path: Final = path or os.environ.get(OWN_SOCKET_VARIABLE) or None
        self._is_bound = False

    def is_named(self, name: object) -> bool:
        """Tell whether ``name``, the local address of a connection, is this socket."""
        return self.path is not None and isinstance(name, str) and name == self.path

    def is_only_unnamed(self) -> bool:
        """Tell whether a connection without any address can only be one of this socket: somebody has bound it.

        For servers that say nothing of a Unix socket but nothing else of an address either.
        """
        if not self._is_bound and self.path is not None:
            try:
                self._is_bound = stat.S_ISSOCK(os.stat(self.path).st_mode)  # noqa: PTH116  # on a request's way
            except OSError:
                return False
        return self._is_bound


def forgotten(verified: Verified, status: int) -> Refusal | None:
    """Return what to answer instead of a success when the application has checked no resource and owes it.

    The policy let the call in because some resource may be allowed; an answer without a check might be about another.
    """
    if not (_OK <= status < _REDIRECT and verified.owes_authorization):
        return None
    text = f"{verified.operation} was answered with {status} without authorize() or visible()"
    log.error("%s: the answer is withheld, decision=%s", text, verified.decision_id)
    return verified.refusal(500, "AUTHORIZATION_MISSING", "authorization-missing", text)


def same_path(raw: bytes, decoded: bytes) -> bool:
    """Tell whether ``decoded``, which the framework routes by, is what ``raw`` says, without its query.

    A rewrite between the wire and the framework would make the decision one about another path.
    """
    path = raw.partition(b"?")[0]
    return path == decoded if b"%" not in path else unquote_to_bytes(path) == decoded


def flaw_of_decoded(decoded: bytes) -> str | None:
    """Return why a decoded path does not tell what was sent; None when it has one spelling."""
    if _PLAIN.issuperset(decoded):
        return None
    return "the server kept only the decoded path, which has more than one spelling"


def visible(headers: Iterable[tuple[bytes, bytes]], verified: Verified) -> list[tuple[bytes, bytes]]:
    """Return the headers that an application may see of a call that came past no sidecar.

    Taken away is what a caller could claim in another's place, and a transaction token that nobody has verified.
    """
    hides_user = verified.txn_token is None
    return [
        (name, value)
        for name, value in headers
        if not is_hidden(name) and not (hides_user and name.lower() == TXN_TOKEN)
    ]
