# SPDX-License-Identifier: Apache-2.0
"""WSGI: an audit event for every request, when its answer is complete."""

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
from everyhop.integrations._audit_asgi import READS
from everyhop.integrations._own_audit import own_audit
from everyhop.integrations.wsgi import answer_refusal
from everyhop.sdk import current, serving
from everyhop.sdk.events import AuditEvent
from everyhop.sdk.model import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from everyhop.integrations._audit import Audit
    from everyhop.integrations.wsgi import Application, Environ, StartResponse
    from everyhop.sdk.model import Verified


class WsgiAuditMiddleware:
    """Records what ``app`` does for others; arguments and place as :class:`everyhop.integrations.audit.AuditMiddleware`."""

    def __init__(
        self, app: Application, audit: Audit | None = None, *, required: bool = False, reads: bool = True
    ) -> None:
        self.app = app
        self._audit: Final = audit or own_audit
        self._required: Final = required
        self._reads: Final = reads

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        method = environ["REQUEST_METHOD"]
        if method in READS and not self._reads:
            return self.app(environ, start_response)
        if self._required:
            try:
                self._audit.demand(AuditEvent.now(action_of(method, None), outcome="attempt", method=method))
            except Refusal as refusal:
                return answer_refusal(refusal, environ, start_response)
        entry = _Entry(self._audit, method)

        def watched(*arguments: Any) -> Callable[[bytes], object]:
            entry.status = int(arguments[0][:3])
            entry.route = _route_of(environ)  # Flask takes the request away at its end
            return start_response(*arguments)

        with described(entry.said):
            try:
                answer = self.app(environ, watched)
            except BaseException as error:
                entry.failed(error)
                raise
        return _Answer(answer, entry)


class _Entry:
    """One request until its event is made, once."""

    def __init__(self, audit: Audit, method: str) -> None:
        self._audit = audit
        self._method = method
        self._begun = time.monotonic()
        self._is_over = False
        self.verified: Verified | None = current()
        self.said = Described()
        self.status: int | None = None
        self.route: str | None = None

    def failed(self, error: BaseException) -> None:
        if self.status is None:
            self.status = error.status if isinstance(error, Refusal) else 500
        self._end(outcome_of_error(error), type(error).__name__)

    def ended(self, *, is_complete: bool) -> None:
        is_well = is_complete and self.status is not None
        self._end(outcome_of_status(self.status or 500) if is_well else "failure", None)

    def _end(self, outcome: str, failure: str | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self.verified is None:
            self._put(outcome, failure)
        else:
            with serving(self.verified):  # the server may close the answer outside of the call
                self._put(outcome, failure)

    def _put(self, outcome: str, failure: str | None) -> None:
        self._audit.put(
            event_of(
                self.said,
                action_of(self._method, self.route),
                outcome,
                begun=self._begun,
                failure=failure,
                method=self._method,
                route=self.route,
                status=self.status,
            )
        )


class _Answer:
    """The application's answer; its end, its failure or its early close is the end of the request."""

    __slots__ = ("_answer", "_chunks", "_entry")

    def __init__(self, answer: Iterable[bytes], entry: _Entry) -> None:
        self._answer = answer
        self._chunks: Iterator[bytes] | None = None
        self._entry = entry

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            with described(self._entry.said):
                if self._chunks is None:
                    self._chunks = iter(self._answer)
                return next(self._chunks)
        except StopIteration:
            self._entry.ended(is_complete=True)
            raise
        except BaseException as error:
            self._entry.failed(error)
            raise

    def close(self) -> None:
        """Close the application's answer (PEP 3333: always called), and end the request."""
        close = getattr(self._answer, "close", None)
        if close is not None:
            try:
                with described(self._entry.said):
                    close()
            except BaseException as error:
                self._entry.failed(error)
                raise
        # A list is complete whether the server has asked for its end or not.
        self._entry.ended(is_complete=isinstance(self._answer, list | tuple))


def _route_of(environ: Environ) -> str | None:
    """Return the template of the route where the framework leaves one: Flask does."""
    rule = getattr(getattr(environ.get("werkzeug.request"), "url_rule", None), "rule", None)
    return rule if isinstance(rule, str) else None
