# SPDX-License-Identifier: Apache-2.0
"""Envoy's questions about credentials (external authorization, v3) on the agent's ``authz.sock``.

This module only translates; what is believed is decided by :class:`everyhop.control.credentials.Credentials`.
Only the Envoy of a living launch is answered.  Whatever goes wrong refuses the call, without saying what.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from everyhop.anomaly.looking import BlockedError
from everyhop.api.refused_texts import authorization_texts
from everyhop.control.credentials import Passed
from everyhop.control.deciding import FactsDenied, Shown
from everyhop.control.shown_credentials import Shown as LookedAt
from everyhop.core.decision import Reason
from everyhop.core.errors import AccessDenied, EveryhopError, InputError, TokenError, Unavailable
from everyhop.dataplane import _names as names
from everyhop.sdk.headers import Headers, MalformedCredentialError, bearer_token, txn_token
from everyhop.tokens.codes import TokenCode, challenge, status_of
from everyhop.wire.ext_authz import CHECK, OVERWRITE, CheckRequest, CheckResponse
from everyhop.wire.rpc import Call, Cardinality, Method, Service
from everyhop.wire.transport import Limits, PeerServer
from everyhop.x509.certificates import certificates_from_pem
from everyhop.x509.thumbprint import x5t_s256

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.agent import Launch, LaunchRegistry
    from everyhop.control.credentials import Credentials
    from everyhop.control.deciding import Why
    from everyhop.control.refused_credentials import RefusedCredentials
    from everyhop.wire.ext_authz import AttributeContext

log = logging.getLogger(__name__)

INSTANCE: Final = "x-everyhop-instance"
POINT: Final = "x-everyhop-point"
DECISION: Final = b"x-everyhop-decision"
RBAC: Final = "envoy.filters.http.rbac"
OPERATION: Final = "shadow_effective_policy_id"
VERDICT: Final = "enforced_effective_policy_id"

MAX_WAITING: Final = 512
DEADLINE_SECONDS: Final = 1.8  # Envoy gives up after two: it is better to know why
BLOCKED_STATUS: Final = 429
UNAVAILABLE: Final = 503
_PERMISSION_DENIED: Final = 7  # google.rpc.Code
_LIMITS: Final = Limits(streams_per_connection=1024, resets_per_connection=1_000_000)
_MAX_DECISION: Final = 64
_TITLES: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    429: "Blocked",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class _Question:
    """A check request, read."""

    attributes: AttributeContext
    headers: Headers
    fields: Mapping[str, tuple[bytes, ...]]
    decision: str

    @classmethod
    def read(cls, request: CheckRequest) -> _Question:
        http = request.attributes.request.http
        fields = [(field.key, field.raw_value or field.value) for field in http.header_map.headers]
        decisions = [value for name, value in fields if name.lower() == DECISION]
        decision = decisions[0][:_MAX_DECISION].decode("ascii", "replace") if len(decisions) == 1 else ""
        lines: dict[str, tuple[bytes, ...]] = {}
        for name, value in fields:
            key = name.lower().decode("latin-1")
            lines[key] = (*lines.get(key, ()), value)
        decision = decision if decision.isprintable() else ""
        return cls(request.attributes, Headers(fields), lines, decision)

    @property
    def operation(self) -> str:
        """Return the operation that Envoy's policy filter has found."""
        name = self._metadata(OPERATION)
        if not name:
            raise InputError("the question names no operation")
        return name

    def _metadata(self, field: str) -> str:
        metadata = self.attributes.metadata_context.filter_metadata
        return metadata[RBAC].fields[field].string_value if RBAC in metadata else ""

    def shown(self, caller: str) -> Shown:
        """Return what the call shows; raises TokenError for a credential that has more than one reading."""
        http = self.attributes.request.http
        query = http.path.partition(b"?")[2]
        certificate = self.attributes.source.certificate
        try:
            return Shown(
                caller=caller,
                x5t=thumbprint_of(certificate) if certificate else None,
                operation=self.operation,
                token=bearer_token(self.headers, query),
                txn=txn_token(self.headers),
                source=self.attributes.source.address.socket_address.address or None,
                method=_text(http.method),
                path=_text(http.path),
                fields=self.fields,
                asks=names.asks_for_facts(self._metadata(VERDICT)),
            )
        except MalformedCredentialError as error:
            raise TokenError(TokenCode.TOKEN_MALFORMED, str(error)) from error


class ExternalAuthorization:
    """Answers the sidecars of this node.  All use is from one event loop."""

    def __init__(
        self, credentials: Credentials, launches: LaunchRegistry, refused: RefusedCredentials | None = None
    ) -> None:
        """``refused`` is told what was shown and not believed."""
        self._refused = refused
        self._credentials = credentials
        self._launches = launches
        self._waiting = 0

    async def check(self, call: Call[CheckRequest, CheckResponse]) -> None:
        """Answer one question; raises AttestationError for a peer that is no sidecar."""
        (instance,) = call.metadata(INSTANCE) or ("",)
        (point,) = call.metadata(POINT) or ("",)
        launch = self._launches.check_sidecar(call.peer, instance)
        question = _Question.read(await call.receive_only())
        await call.send(await self._answer(launch, point, question))

    async def _answer(self, launch: Launch, point: str, question: _Question) -> CheckResponse:
        try:
            if self._waiting >= MAX_WAITING:
                raise Unavailable("too many checks are waiting")
            self._waiting += 1
            try:
                async with asyncio.timeout(DEADLINE_SECONDS):
                    return passed(await self._judge(launch, point, question))
            finally:
                self._waiting -= 1
        except TokenError as error:
            code = error.token_code
            _tell(logging.INFO, launch, point, question, f"{code}: {error.message}")
            self._note(launch, point, question)
            return denied(status_of(code), code, question.decision, authenticate=challenge(code))
        except FactsDenied as error:
            _tell(logging.INFO, launch, point, question, error.message)
            return _denied_by_facts(error.why, question.decision)
        except BlockedError as error:
            _tell(logging.INFO, launch, point, question, error.message)
            return _denied_by_block(error, question.decision)
        except EveryhopError as error:
            _tell(logging.WARNING, launch, point, question, error.message)
        except TimeoutError:
            _tell(logging.WARNING, launch, point, question, "no answer in time")
        except Exception:
            log.exception("a check failed; the call is refused")
        return denied(UNAVAILABLE, "UNAVAILABLE", question.decision)

    def _note(self, launch: Launch, point: str, question: _Question) -> None:
        """Have what was shown looked at: at an ingress by the caller's identity, at an edge by its address."""
        values = question.fields.get("authorization", ())
        if self._refused is None or not values or point == "egress":
            return
        source = question.attributes.source
        shown = LookedAt(
            where=point,
            caller=source.principal or None if point == "ingress" else None,
            source=source.address.socket_address.address or None,
            target=launch.service,
            decision=question.decision or None,
        )
        self._refused.note(authorization_texts(value.decode("latin-1") for value in values), shown)

    async def _judge(self, launch: Launch, point: str, question: _Question) -> Passed:
        match point:
            case "ingress":
                caller = question.attributes.source.principal
                if not caller:
                    raise InputError("the question names no caller")
                return await self._credentials.ingress(launch.service, question.shown(caller))
            case "egress":
                about = question.attributes.context_extensions
                return await self._credentials.egress(
                    launch.service, about["target"], about["operation"], about["generation"]
                )
            case "edge":
                return await self._credentials.edge(launch.service, question.shown("outside"))
            case _:
                raise InputError("the question is of no known point")


def authorization_server(authorization: ExternalAuthorization) -> PeerServer:
    """Return the gRPC server for ``authz.sock``.  Start it in the event loop that made it."""
    method = Method(
        path=CHECK,
        cardinality=Cardinality.UNARY_UNARY,
        request=CheckRequest,
        reply=CheckResponse,
        handler=authorization.check,
    )
    return PeerServer([Service([method])], limits=_LIMITS)


def thumbprint_of(certificate: str) -> str:
    """Return ``x5t#S256`` of a certificate as Envoy sends it (URL-encoded PEM); raises InputError."""
    return x5t_s256(certificates_from_pem(unquote_to_bytes(certificate))[0])


def passed(answer: Passed) -> CheckResponse:
    """Return the message that lets a call go on."""
    response = CheckResponse()
    for name, value in answer.headers.items():
        option = response.ok_response.headers.add(append_action=OVERWRITE)
        option.header.key, option.header.value = name.encode(), value.encode("ascii")
    response.ok_response.headers_to_remove.extend(answer.remove)
    response.ok_response.SetInParent()
    metadata: dict[str, Any] = {}
    if answer.until is not None:
        metadata["until"] = answer.until
        metadata["headers"] = answer.headers
    if answer.user is not None:
        metadata[names.SUBJECT] = answer.user
    if answer.api_key is not None:
        metadata[names.API_KEY] = answer.api_key
    if answer.why is not None:
        metadata[names.WHY] = names.why(answer.why.decision, answer.why.facts)
    response.dynamic_metadata.update(metadata)
    return response


def _denied_by_facts(why: Why, decision: str) -> CheckResponse:
    if why.decision.reason is Reason.USER_REQUIRED:
        code = TokenCode.USER_REQUIRED
        return denied(status_of(code), code, decision, authenticate=challenge(code), why=why)
    return denied(why.decision.status, AccessDenied.code, decision, why=why)


def _denied_by_block(error: BlockedError, decision: str) -> CheckResponse:
    response = denied(BLOCKED_STATUS, error.code, decision, retry_after=error.retry_after)
    response.dynamic_metadata.update({names.WHY: names.why_blocked(error.block.subject)})
    return response


def denied(
    status: int,
    code: str,
    decision: str,
    *,
    authenticate: str | None = None,
    retry_after: int | None = None,
    why: Why | None = None,
) -> CheckResponse:
    """Return the message that refuses a call: problem+json with the code and the decision id, nothing else.

    ``why`` is for the record.
    """
    response = CheckResponse()
    response.status.code = _PERMISSION_DENIED
    refusal = response.denied_response
    refusal.status.code = status
    title = _TITLES[status]
    problem = {"type": "about:blank", "title": title, "status": status, "code": code}
    refusal.body = json.dumps(problem | ({"decision": decision} if decision else {}))
    headers = {"content-type": "application/problem+json"}
    if authenticate is not None:
        headers["www-authenticate"] = authenticate
    if retry_after is not None:
        headers["retry-after"] = str(retry_after)
    for name, value in headers.items():
        option = refusal.headers.add(append_action=OVERWRITE)
        option.header.key, option.header.value = name.encode(), value.encode("ascii")
    metadata = {"code": code, "title": title}
    if why is not None:
        metadata[names.WHY] = names.why(why.decision, why.facts)
    response.dynamic_metadata.update(metadata)
    return response


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _tell(level: int, launch: Launch, point: str, question: _Question, reason: str) -> None:
    log.log(
        level,
        "call refused: %s",
        reason,
        extra={
            "instance": launch.instance,
            "service": launch.service,
            "point": point,
            "decision": question.decision,
        },
    )
