# SPDX-License-Identifier: Apache-2.0
"""Decisions for proxies that are not ours: the same engine, the same credentials, the same records as everywhere.

A call is let through only when every step has said so and the record is written.  Whatever goes wrong is a refusal;
what a client sees of it is a code and the decision id.
"""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from everyhop.anomaly.looking import BlockedError, refuse_blocked
from everyhop.anomaly.model import Block, Blocks
from everyhop.auditlog.model import MAX_NAME, MAX_PATH, clip
from everyhop.auditlog.trace import MAX_TRACEPARENT
from everyhop.control.asking import ALLOWED, AMBIGUOUS, BLOCKED, DENIED, UNAVAILABLE, Answer
from everyhop.control.credentials import TXN_HEADER
from everyhop.control.deciding import FactsDenied, Shown
from everyhop.control.identity_headers import (
    CALLER_HEADER,
    DECISION_HEADER,
    OPERATION_HEADER,
    folded,
    removed_headers,
)
from everyhop.control.proxied_callers import ProxiedCaller
from everyhop.control.responding import detail_of
from everyhop.core.decision import Reason
from everyhop.core.errors import EveryhopError, InputError, TokenError, TrustError, Unavailable
from everyhop.dataplane.asked_log import ASKED, AskedLine
from everyhop.dataplane.local_replies import ACCESS_DENIED, AMBIGUOUS_PATH, CHECK_UNAVAILABLE
from everyhop.policy.model import Protocol as Speech
from everyhop.tokens.codes import TokenCode, status_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from everyhop.auditlog.model import Scalar
    from everyhop.control.asking import AskingProxy, Form, Question
    from everyhop.control.credentials import Credentials, Passed
    from everyhop.control.policy_view import PolicyView
    from everyhop.control.proxied_callers import ProxiedCallers
    from everyhop.core.clock import Clock
    from everyhop.core.decision import Decision

_log = logging.getLogger(__name__)

MALFORMED: Final = "malformed-question"
NOT_PERMITTED: Final = "proxy-not-permitted"
OVERLOADED: Final = "overloaded"
TIMED_OUT: Final = "timeout"
FAILED: Final = "check-failed"

_MAX_WHY: Final = 512
_NOBODY: Final = ProxiedCaller("unknown")
_UPGRADE: Final = "upgrade"


@dataclass(slots=True)
class _Asked:
    """What is known so far about a question that is being answered: all of it becomes the record."""

    proxy: AskingProxy
    form: Form
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started: float = field(default_factory=time.monotonic)
    question: Question | None = None
    caller: str | None = None
    decision: Decision | None = None
    user: str | None = None
    facts: str = ""
    why: str | None = None
    block: Block | None = None


class ExternalDecisions:
    """Answers questions under the policy, bundle and token truth of the moment.  All use is from one event loop."""

    def __init__(
        self,
        *,
        credentials: Credentials,
        callers: ProxiedCallers,
        record: Callable[[AskedLine], None],
        clock: Clock,
        blocks: Callable[[], Blocks] = Blocks,
    ) -> None:
        """``record`` makes a decision durable or raises Unavailable; ``blocks`` are those of the moment."""
        self._blocks = blocks
        self._credentials = credentials
        self._callers = callers
        self._record = record
        self._clock = clock
        self._view: PolicyView | None = None
        self._speech: dict[tuple[str, str], Speech] = {}

    def apply_policy(self, view: PolicyView) -> None:
        """Decide by this policy from now on."""
        self._view = view
        self._speech = {
            (service.name, operation.name): operation.protocol
            for service in view.snapshot.services.values()
            for operation in service.operations
        }

    async def answer(self, proxy: AskingProxy, form: Form, read: Callable[[], Question]) -> Answer:
        """Answer one question.

        ``read`` makes it from what the proxy sent and raises InputError when it cannot.  Never raises but
        CancelledError.
        """
        asked = _Asked(proxy, form)
        try:
            asked.question = question = read()
            return await self._judge(asked, question)
        except TokenError as error:
            asked.why = error.message
            return self._refuse(
                asked, status_of(error.token_code), error.token_code, error.token_code, token=error.token_code
            )
        except FactsDenied as error:
            asked.decision, asked.facts = error.why.decision, error.why.facts
            return self._deny(asked, error.why.decision)
        except BlockedError as error:
            asked.block = error.block
            return self._refuse(
                asked, BLOCKED, str(Reason.BLOCKED), error.code, retry_after=error.retry_after
            )
        except InputError as error:
            asked.why = error.message
            return self._refuse(asked, AMBIGUOUS, MALFORMED, "MALFORMED_QUESTION")
        except EveryhopError as error:
            _log.warning("a question could not be answered", extra={"reason": error.message})
            asked.why = error.message
        except Exception:  # noqa: BLE001  # a fault of ours refuses the call
            _log.exception("a question could not be answered")
        return self._refuse(asked, UNAVAILABLE, FAILED, CHECK_UNAVAILABLE)

    def refuse(self, proxy: AskingProxy, form: Form, reason: str) -> Answer:
        """Refuse a question that is not even read: too many wait, or it took too long."""
        return self._refuse(_Asked(proxy, form), UNAVAILABLE, reason, CHECK_UNAVAILABLE)

    async def _judge(self, asked: _Asked, question: Question) -> Answer:
        if question.target not in asked.proxy.services:
            asked.why = f"uid {asked.proxy.uid} may not ask about this service"
            return self._refuse(asked, DENIED, NOT_PERMITTED, ACCESS_DENIED)
        caller = self._caller(asked, question)
        asked.caller = caller.spiffe_id
        refuse_blocked(self._blocks(), self._clock.now(), identity=caller.spiffe_id, address=question.source)
        view = self._held()
        decision = asked.decision = view.engine.decide(
            caller=caller.spiffe_id, target=question.target, method=question.method, path=question.path
        )
        operation = decision.operation
        is_open = operation is not None and decision.reason is not Reason.UNKNOWN_CALLER
        asks = is_open and view.by_facts(caller.spiffe_id, question.target, operation or "")
        if not (decision.is_allowed or asks):
            return self._deny(asked, decision)
        if self._changes_protocol(question, decision):
            asked.why = "the request asks for another protocol than the operation speaks"
            return self._refuse(asked, DENIED, str(Reason.UNKNOWN_OPERATION), ACCESS_DENIED)
        passed = None
        if operation is not None:  # else the policy is only watched here, and does not know the operation
            passed = await self._check(view, question, caller, operation, asks=asks)
        return self._allow(asked, question, caller, passed)

    def _deny(self, asked: _Asked, decision: Decision) -> Answer:
        if decision.reason is Reason.USER_REQUIRED:
            code = TokenCode.USER_REQUIRED
            return self._refuse(asked, status_of(code), str(decision.reason), code, token=code)
        answered = AMBIGUOUS_PATH if decision.reason is Reason.AMBIGUOUS_PATH else ACCESS_DENIED
        return self._refuse(asked, decision.status, str(decision.reason), answered)

    def _held(self) -> PolicyView:
        if self._view is None:
            raise Unavailable("there is no policy yet")
        return self._view

    def _caller(self, asked: _Asked, question: Question) -> ProxiedCaller:
        """Return who calls; nobody that any policy knows when that cannot be believed."""
        try:
            return self._callers.identify(question.principal, question.certificate)
        except (InputError, TrustError) as error:
            asked.why = error.message
            return _NOBODY

    def _changes_protocol(self, question: Question, decision: Decision) -> bool:
        """Tell whether a request would leave HTTP where no WebSocket is declared: what follows could not be seen."""
        if not any(folded(name) == _UPGRADE for name, _ in question.headers):
            return False
        return self._speech.get((decision.target, decision.operation or "")) is not Speech.WEBSOCKET

    async def _check(
        self, view: PolicyView, question: Question, caller: ProxiedCaller, operation: str, *, asks: bool
    ) -> Passed | None:
        """Check credentials and facts where the policy asks for some, as for a sidecar."""
        if not asks and view.requirement(caller.spiffe_id, question.target, operation).is_empty:
            return None
        token, txn = question.presented()
        shown = Shown(
            caller=caller.spiffe_id,
            x5t=caller.x5t,
            operation=operation,
            token=token,
            txn=txn,
            source=question.source,
            method=question.method,
            path=question.path,
            fields=lines_of(question),
            asks=asks,
        )
        return await self._credentials.ingress(question.target, shown)

    def _allow(
        self,
        asked: _Asked,
        question: Question,
        caller: ProxiedCaller,
        passed: Passed | None,
    ) -> Answer:
        if passed is not None and passed.why is not None:
            asked.decision, asked.facts = passed.why.decision, passed.why.facts
        decision = asked.decision
        assert decision is not None  # noqa: S101  # _judge has set it
        headers = {
            CALLER_HEADER: caller.spiffe_id,
            OPERATION_HEADER: decision.operation or "",
            DECISION_HEADER: asked.id,
        }
        also: tuple[str, ...] = (TXN_HEADER,)  # what was not verified goes no further
        if passed is not None:
            asked.user, also = passed.user, passed.remove
            headers |= passed.headers
            txn = question.presented().txn
            if passed.user is not None and txn is not None:
                headers[TXN_HEADER] = txn
        self._write(asked, allowed=True, reason=str(decision.reason), status=ALLOWED)
        return Answer(
            status=ALLOWED,
            code="",
            decision=asked.id,
            headers=headers,
            remove=removed_headers(question.headers, also=also, kept=headers.keys()),
        )

    def _refuse(
        self,
        asked: _Asked,
        status: int,
        reason: str,
        code: str,
        *,
        token: str | None = None,
        retry_after: int | None = None,
    ) -> Answer:
        answer = Answer(
            status=status, code=code, decision=asked.id, token_code=token, retry_after=retry_after
        )
        try:
            self._write(asked, allowed=False, reason=reason, status=status)
        except Unavailable as error:
            _log.error("%s; the call is refused", error.message)
            answer = replace(answer, decision="")  # there is nothing to look up
        return answer

    def _write(self, asked: _Asked, *, allowed: bool, reason: str, status: int) -> None:
        question, decision = asked.question, asked.decision
        self._record(
            AskedLine(
                kind=ASKED,
                id=asked.id,
                time=self._clock.now(),
                form=asked.form.value,
                uid=asked.proxy.uid,
                allowed=allowed,
                reason=reason,
                status=status,
                ms=round((time.monotonic() - asked.started) * 1000, 3),
                caller=asked.caller,
                target=clip(question.target) if question else None,
                operation=decision.operation if decision else None,
                method=clip(question.method, MAX_NAME) if question else None,
                # Without its query, which may hold what belongs into no log.
                path=clip(question.path.partition("?")[0], MAX_PATH) if question else None,
                rule=decision.rule if decision else None,
                snapshot=decision.snapshot if decision else None,
                user=asked.user,
                trace=None if question is None else _trace_of(question),
                why=None if asked.why is None else clip(asked.why, _MAX_WHY),
                more=_more(asked),
            )
        )


def _more(asked: _Asked) -> dict[str, Scalar]:
    """Return what the facts were and what a policy in shadow would have decided, as in a sidecar's record."""
    would = None if asked.decision is None else asked.decision.would
    shown = {
        "facts": asked.facts,
        "would": "" if would is None else would.effect.value,
        "would_reason": "" if would is None else would.reason.value,
        "would_rule": "" if would is None else would.rule or "",
    }
    found: dict[str, Scalar] = {key: value for key, value in shown.items() if value}
    return found | ({} if asked.block is None else detail_of(asked.block.subject))


def _trace_of(question: Question) -> str | None:
    """Return the one ``traceparent`` of a request; it is read strictly when the line becomes a record."""
    values = lines_of(question).get("traceparent", ())
    return values[0].decode("latin-1")[:MAX_TRACEPARENT] if len(values) == 1 else None


def lines_of(question: Question) -> dict[str, tuple[bytes, ...]]:
    """Return the field lines by name.

    What came joined by commas is taken apart, so that two are never read as one; and where a proxy may have written
    ``!`` for a byte that is no UTF-8, there is no single value.
    """
    found: dict[str, tuple[bytes, ...]] = {}
    for name, value in question.headers:
        key = name.lower().decode("latin-1")
        lines = (value,) if question.is_raw else tuple(value.split(b","))
        if not question.is_raw and b"!" in value:
            lines = (b"", b"")
        found[key] = (*found.get(key, ()), *lines)
    return found
