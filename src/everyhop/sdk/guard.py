# SPDX-License-Identifier: Apache-2.0
"""The guard: the one enforcement that every middleware calls, whatever its framework.

From method, raw path, headers and peer to a verified call or a refusal, in the order of the data plane: identity, blocks,
path, operation, caller, token, user, single use.  Default deny; an error denies; ambiguity is 400.
"""

from __future__ import annotations

import logging
import threading
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NoReturn

from everyhop.anomaly.looking import find_block
from everyhop.core.decision import Reason
from everyhop.core.errors import EveryhopError, TokenError
from everyhop.core.secret import Secret
from everyhop.policy.model import Protocol, TokenMode, UserMode
from everyhop.sdk.bodies import DEFAULT_MAX_BODY, BodyChecks
from everyhop.sdk.clock import SystemClock
from everyhop.sdk.context import CallerRule
from everyhop.sdk.deciding import Deciding, Facts
from everyhop.sdk.decisions import log_decision
from everyhop.sdk.doors import Ambiguous, Doors
from everyhop.sdk.headers import (
    TRACEPARENT,
    TRACESTATE,
    Headers,
    MalformedCredentialError,
    bearer_token,
    caller_of,
    decision_of,
    txn_token,
)
from everyhop.sdk.model import Caller, Decided, Refusal, Request, User, Verified
from everyhop.sdk.trace import parse_trace
from everyhop.sdk.verification import Verification, user_of
from everyhop.tokens.codes import TokenCode, challenge, status_of
from everyhop.tokens.expectation import Expectation
from everyhop.tokens.replay import MemoryReplayGuard, ReplayGuard
from everyhop.tokens.verifier import spend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from everyhop.core.clock import Clock
    from everyhop.sdk.context import ContextSource, OperationContext, ServiceContext
    from everyhop.tokens.access import AccessToken
    from everyhop.tokens.transaction import TxnToken

log = logging.getLogger(__name__)

_MAX_PATH_SHOWN: Final = 512


@dataclass(frozen=True, slots=True)
class _Compiled:
    """One context, ready to be asked."""

    context: ServiceContext
    doors: Doors
    verification: Verification
    bodies: BodyChecks
    deciding: Deciding


@dataclass(slots=True)
class _Call:
    """What is known so far of the call being checked."""

    request: Request
    headers: Headers
    decision_id: str
    snapshot: str = ""
    caller: Caller | None = None
    operation: OperationContext | None = None
    rule: CallerRule | None = None
    user: User | None = None
    facts: Facts | None = None


class _Denied(Exception):  # noqa: N818  # an outcome on its way to becoming a Refusal
    def __init__(
        self,
        status: int,
        code: str,
        reason: str,
        detail: str,
        challenge: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        self.status, self.code, self.reason, self.detail = status, code, reason, detail
        self.challenge = challenge


class Guard:
    """Checks requests under the context of the moment.  Safe to share between threads and event loops.

    ``source`` is a :class:`everyhop.sdk.Workload` or a fixed :class:`everyhop.sdk.ServiceContext`; ``decisions``
    gets every decision and must not block (a workload's agent gets them for the audit log besides); ``replay`` remembers used tokens of ``once`` operations: give all
    replicas of a service one store.
    """

    def __init__(
        self,
        source: ContextSource,
        *,
        replay: ReplayGuard | None = None,
        clock: Clock | None = None,
        decisions: Callable[[Decided], None] = log_decision,
        max_body: int = DEFAULT_MAX_BODY,
    ) -> None:
        self._source = source
        self._clock: Clock = clock or SystemClock()
        self._replay: ReplayGuard = replay or MemoryReplayGuard(clock=self._clock)
        self._hook = decisions
        self._report: Callable[[Decided], None] | None = getattr(source, "note_decision", None)
        self._lock = threading.Lock()
        self._compiled: _Compiled | None = None
        self.max_body: Final = max_body

    def check(self, request: Request) -> Verified:
        """Return the verified call, or raise Refusal; anything unexpected refuses with 503.

        The decision on a call whose body is to be checked is noted by :meth:`check_body`.
        """
        headers = Headers(request.headers)
        call = _Call(request, headers, decision_of(request, headers) or str(uuid.uuid4()))
        try:
            verified = self._check(call)
        except _Denied as denied:
            self._refuse(call, denied)
        except Exception as error:
            detail = error.message if isinstance(error, EveryhopError) else type(error).__name__
            if not isinstance(error, EveryhopError):
                log.exception("a check failed; the call is refused")
            self._refuse(call, _Denied(503, "UNAVAILABLE", "not-ready", detail))
        if not verified.checks_body:
            self._decisions(verified.decided(status=200, code="ALLOWED", reason="allowed"))
        return verified

    def check_body(self, verified: Verified, content_types: Sequence[str], body: bytes) -> None:
        """Check a request body of a verified call against its operation's JSON Schema; raise Refusal.

        ``content_types`` are all values of ``Content-Type``.  413 above ``max_body``, 415 unless it is JSON,
        400 for what is not one strict JSON text, 422 with pointers where the schema does not hold.  Nothing is
        checked for an operation without a schema.
        """
        compiled = self._compile()
        refusal = compiled.bodies.check(verified, content_types, body, max_bytes=self.max_body)
        if refusal is None:
            if verified.checks_body:
                self._decisions(verified.decided(status=200, code="ALLOWED", reason="allowed"))
            return
        raise verified.refusal(
            refusal.status, refusal.code, "body", refusal.message, pointers=refusal.pointers
        )

    # -- the steps

    def _check(self, call: _Call) -> Verified:
        compiled = self._compile()
        call.snapshot = compiled.context.snapshot
        caller = call.caller = caller_of(call.request, call.headers)
        if caller is None:
            raise _Denied(
                403, "MISSING_IDENTITY", "no-identity", "neither a sidecar nor TLS names the caller"
            )
        self._refuse_blocked(compiled, identity=caller.spiffe_id)
        _refuse_unclear(call)
        operation = call.operation = _find(compiled.doors, call.request, call.headers)
        call.rule = operation.callers.get(caller.spiffe_id) or operation.deciding.get(caller.spiffe_id)
        if call.rule is None:
            raise _Denied(403, "ACCESS_DENIED", "no-rule", "no rule opens this operation to this caller")
        try:
            token, txn = self._credentials(compiled, call, caller, operation, call.rule.user)
        except TokenError as error:
            raise _denied_token(TokenCode(error.token_code), error.message) from error
        except MalformedCredentialError as error:
            raise _denied_token(TokenCode.TOKEN_MALFORMED, str(error)) from error
        return Verified(
            caller=caller,
            user=call.user,
            operation=operation.name,
            decision_id=call.decision_id,
            snapshot=call.snapshot,
            trace=parse_trace(call.headers.text(TRACEPARENT), call.headers.text(TRACESTATE)),
            rule=call.rule.rule,
            token=token,
            txn_token=txn,
            checks_body=operation.body is not None,
            method=_method(call.request),
            path=_path(call.request),
            note=self._decisions,
            facts=call.facts,
        )

    def _credentials(
        self,
        compiled: _Compiled,
        call: _Call,
        caller: Caller,
        operation: OperationContext,
        mode: UserMode,
    ) -> tuple[AccessToken | None, Secret | None]:
        """Verify the access token and the user's as operation and rule ask; use up what is good for one call.

        Where nothing is asked, nothing is looked at; where something is, both fields must have one reading.
        """
        if operation.token is TokenMode.NONE and mode is UserMode.NONE:
            self._decide(compiled, call, caller, None)
            return None, None
        bearer, presented = bearer_token(call.headers, _query(call.request)), txn_token(call.headers)
        token = self._token(compiled, caller, operation, bearer)
        self._refuse_blocked(compiled, subject=None if token is None else token.subject)
        txn: Secret | None = None
        person: TxnToken | None = None
        if mode is UserMode.REQUIRED and presented is None:
            raise TokenError(TokenCode.USER_REQUIRED, "no Txn-Token")
        if mode is not UserMode.NONE and presented is not None:
            verified = compiled.verification.verifier.transaction(presented)
            self._refuse_blocked(compiled, subject=verified.subject)
            if mode is UserMode.REQUIRED and not verified.is_person:
                raise TokenError(TokenCode.USER_REQUIRED, "an API key's transaction has no user")
            call.user = user_of(verified)
            person = verified if verified.is_person else None
            txn = Secret(presented.encode("ascii"))
        if not self._decide(compiled, call, caller, person):
            call.user = txn = None
        if operation.once and token is not None:
            spend(token, self._replay)
        return token, txn

    def _refuse_blocked(
        self, compiled: _Compiled, *, identity: str | None = None, subject: str | None = None
    ) -> None:
        """Refuse a caller, user or API key that is blocked, before anything else is said of the call."""
        blocks = compiled.context.blocks
        if not blocks.by_subject:
            return
        now = self._clock.now()
        block = find_block(blocks, now, identity=identity, subject=subject)
        if block is not None:
            kind = block.subject.kind.value
            raise _Denied(429, "BLOCKED", Reason.BLOCKED.value, kind, retry_after=block.seconds_left(now))

    def _decide(self, compiled: _Compiled, call: _Call, caller: Caller, person: TxnToken | None) -> bool:
        """Have the facts of a call decide where they count; return whether its user is believed.

        What its own sidecar let through was decided there.
        """
        operation = call.operation
        assert operation is not None  # noqa: S101  # found before its credentials are looked at
        facts = call.facts = Facts.of(
            compiled.deciding,
            call.request,
            operation,
            caller.spiffe_id,
            person,
            self._clock.now(),
            self._note(call),
        )
        if caller.via_sidecar or caller.spiffe_id in operation.callers:
            return True
        decision = facts.decide()
        if decision is None:
            raise _Denied(403, "ACCESS_DENIED", "no-rules", "facts decide, and the context holds no rules")
        call.rule = CallerRule(rule=compiled.deciding.rule_id(decision), user=UserMode.OPTIONAL)
        if decision.reason is Reason.USER_REQUIRED:
            raise TokenError(TokenCode.USER_REQUIRED, "no Txn-Token of a person")
        if not decision.is_allowed:
            raise _Denied(403, "ACCESS_DENIED", decision.reason.value, "denied by the facts of the call")
        return compiled.deciding.believes_user(decision)

    def _note(self, call: _Call) -> Callable[[bool, str, str, str | None, str], None]:
        """Return what records a decision that the application asks for during a call."""

        def note(allowed: bool, reason: str, operation: str, rule: str | None, detail: str) -> None:  # noqa: FBT001
            code = "ALLOWED" if allowed else "ACCESS_DENIED"
            status = 200 if allowed else 403
            decided = self._decided(call, status=status, code=code, reason=reason, detail=detail)
            self._decisions(replace(decided, allowed=allowed, operation=operation, rule=rule))

        return note

    def _token(
        self, compiled: _Compiled, caller: Caller, operation: OperationContext, bearer: str | None
    ) -> AccessToken | None:
        """Verify the access token where the operation demands one.

        A client beyond the edge has none: its credential ended there, and what arrives is its Txn-Token.
        """
        if operation.token is TokenMode.NONE or caller.is_outside:
            return None
        return compiled.verification.verifier.access(
            bearer,
            Expectation(
                audience=compiled.context.service,
                operation=operation.name,
                per_operation=operation.token is TokenMode.OPERATION,
                peer=caller.spiffe_id,
                x5t=caller.x5t,
            ),
        )

    # -- the context of the moment

    def _compile(self) -> _Compiled:
        """Return the compiled context; compiled once a change, the verifier kept while its keys are the same."""
        context = self._source.context
        compiled = self._compiled
        if compiled is not None and compiled.context is context:
            return compiled
        with self._lock:
            compiled = self._compiled
            if compiled is None or compiled.context is not context:
                verification = None if compiled is None else compiled.verification
                if verification is None or not verification.follow(context):
                    verification = Verification(context, self._clock)
                deciding = Deciding(context, None if compiled is None else compiled.deciding)
                self._compiled = compiled = _Compiled(
                    context, Doors(context), verification, BodyChecks(context), deciding
                )
            return compiled

    # -- the record

    def _decisions(self, decided: Decided) -> None:
        self._hook(decided)
        if self._report is not None:
            self._report(decided)

    def _refuse(self, call: _Call, denied: _Denied) -> NoReturn:
        self._decisions(
            self._decided(
                call,
                status=denied.status,
                code=denied.code,
                reason=denied.reason,
                detail=denied.detail,
            )
        )
        raise Refusal(
            denied.status,
            denied.code,
            denied.detail,
            decision_id=call.decision_id,
            challenge=denied.challenge,
            retry_after=denied.retry_after,
        ) from denied

    def _decided(
        self, call: _Call, *, status: int, code: str, reason: str, detail: str | None = None
    ) -> Decided:
        return Decided(
            allowed=False,
            decision_id=call.decision_id,
            method=_method(call.request),
            path=_path(call.request),
            status=status,
            code=code,
            reason=reason,
            caller=None if call.caller is None else call.caller.spiffe_id,
            operation=None if call.operation is None else call.operation.name,
            user=None if call.user is None else call.user.subject,
            rule=None if call.rule is None else call.rule.rule,
            snapshot=call.snapshot,
            detail=detail,
            trace=parse_trace(call.headers.text(TRACEPARENT)).record,
            via_sidecar=call.request.via_sidecar,
        )


def _refuse_unclear(call: _Call) -> None:
    """Refuse what has more than one reading, before anything is decided on one of them."""
    if call.request.flaw is not None:
        raise _Denied(400, "AMBIGUOUS_PATH", "ambiguous-path", call.request.flaw)
    if (flaw := call.request.bad_header or call.headers.flaw) is not None:
        raise _Denied(400, "BAD_REQUEST", "ambiguous-header", flaw)


def _method(request: Request) -> str:
    return _shown(request.method[:32])


def _path(request: Request) -> str:
    path = request.raw_path.partition(b"?")[0][:_MAX_PATH_SHOWN]
    return _shown(path.decode("ascii", "backslashreplace"))


def _shown(text: str) -> str:
    """Return text that stays on its line of a log."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _find(doors: Doors, request: Request, headers: Headers) -> OperationContext:
    found = doors.find(request.method, request.raw_path)
    if isinstance(found, Ambiguous):
        raise _Denied(400, "AMBIGUOUS_PATH", "ambiguous-path", found.explanation)
    if found is None:
        raise _Denied(
            403, "ACCESS_DENIED", "unknown-operation", "no declared operation has this method and path"
        )
    if found.protocol is not Protocol.WEBSOCKET and (request.is_websocket or headers.asks_for_websocket):
        # Whoever has such a connection says on it what no policy sees.
        raise _Denied(403, "ACCESS_DENIED", "wrong-protocol", "this operation is not one for a WebSocket")
    return found


def _query(request: Request) -> bytes:
    return request.query or request.raw_path.partition(b"?")[2]


def _denied_token(code: TokenCode, detail: str) -> _Denied:
    return _Denied(status_of(code), code.value, code.value.lower().replace("_", "-"), detail, challenge(code))
