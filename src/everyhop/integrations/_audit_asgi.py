# SPDX-License-Identifier: Apache-2.0
"""ASGI: an audit event for every request and WebSocket."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from everyhop.integrations._audit import (
    Described,
    action_of,
    described,
    event_of,
    outcome_of_error,
    outcome_of_status,
)
from everyhop.integrations._own_audit import own_audit
from everyhop.integrations.asgi import answer_refusal
from everyhop.sdk.events import AuditEvent
from everyhop.sdk.model import Refusal

if TYPE_CHECKING:
    from everyhop.integrations._audit import Audit
    from everyhop.integrations.asgi import Application, Message, Receive, Scope, Send

READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_DENIED_HANDSHAKE: Final = 403
_ANSWERED: Final = 101
_INTERNAL_ERROR: Final = 1011  # RFC 6455 section 7.4.1


class AuditMiddleware:
    """Records what ``app`` does for others; it stands inside ``EveryhopMiddleware``, which says who they are.

    ``reads=False`` leaves GET, HEAD and OPTIONS out.  With ``required`` a request that is recorded at all is served only
    after the agent has taken its ``attempt`` to the disk, and refused with 503 otherwise; its end is told in the background.
    """

    def __init__(
        self, app: Application, audit: Audit | None = None, *, required: bool = False, reads: bool = True
    ) -> None:
        self.app = app
        self._audit: Final = audit or own_audit
        self._required: Final = required
        self._reads: Final = reads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the server; lifespan and whatever else there is pass as they are."""
        is_socket = scope["type"] == "websocket"
        method = "GET" if is_socket else scope.get("method", "GET")
        if scope["type"] not in {"http", "websocket"} or (
            method in READS and not self._reads and not is_socket
        ):
            await self.app(scope, receive, send)
            return
        begun, seen = time.monotonic(), _Seen(is_socket=is_socket)
        with described(Described()) as said:
            if self._required:
                attempt = AuditEvent.now(action_of(method, None), outcome="attempt", method=method)
                try:
                    await self._audit.demand_async(attempt)
                except Refusal as refusal:
                    await answer_refusal(refusal, scope, receive, send)
                    return

            async def watched(message: Message) -> None:
                seen.take(message)
                await send(message)

            outcome, failure = "failure", None
            try:
                await self.app(scope, receive, watched)
                outcome = seen.outcome
            except BaseException as error:
                outcome, failure = outcome_of_error(error), type(error).__name__
                if isinstance(error, Refusal) and seen.status is None:
                    seen.status = error.status
                raise
            finally:
                route = getattr(scope.get("route"), "path", None)
                self._audit.put(
                    event_of(
                        said,
                        action_of(method, route),
                        outcome,
                        begun=begun,
                        failure=failure,
                        method=method,
                        route=route if isinstance(route, str) else None,
                        status=seen.status if failure is None or seen.status is not None else 500,
                    )
                )


class _Seen:
    """What an application has answered so far."""

    def __init__(self, *, is_socket: bool) -> None:
        self._is_socket = is_socket
        self.status: int | None = None
        self._is_complete = False
        self._failed = False

    def take(self, message: Any) -> None:
        kind = message["type"]
        if kind in {"http.response.start", "websocket.http.response.start"}:
            self.status = message["status"]
        elif kind in {"http.response.body", "websocket.http.response.body"}:
            self._is_complete = not message.get("more_body", False)
        elif kind == "websocket.accept":
            self.status = _ANSWERED
        elif kind == "websocket.close":
            self._is_complete = True
            if self.status is None:
                self.status = _DENIED_HANDSHAKE
            self._failed = message.get("code", 1000) == _INTERNAL_ERROR

    @property
    def outcome(self) -> str:
        """Return what came of it: an answer that was never finished is a failure."""
        if self.status is None or self._failed or not (self._is_complete or self._is_socket):
            return "failure"
        return outcome_of_status(self.status)
