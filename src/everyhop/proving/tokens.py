# SPDX-License-Identifier: Apache-2.0
"""The access tokens that are tried, and which of them the policy takes (docs/reference/tokens.md)."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from everyhop.evaluators.model import Token
from everyhop.policy.model import TokenMode
from everyhop.proving.model import TokenState

if TYPE_CHECKING:
    from everyhop.policy.model import Operation
    from everyhop.proving.model import Caller
    from everyhop.targets.intents import Intents

_NO_ISSUER: Final = "https://no-issuer.invalid"
_OTHER_ISSUER: Final = "https://other-issuer.invalid"
_OTHER: Final = "everyhop-other"

_ALWAYS: Final = tuple(state for state in TokenState if state not in {TokenState.GOOD, TokenState.USED})
_IRRELEVANT: Final = (TokenState.GOOD, TokenState.EXPIRED, TokenState.FORGED, TokenState.WRONG_ISSUER)


def token_states(operation: Operation) -> tuple[TokenState, ...]:
    """Return the states to try beside the plain one: all where a token is asked for, a few where none is."""
    if operation.token is TokenMode.NONE:
        return _IRRELEVANT
    return (*_ALWAYS, TokenState.USED) if operation.once else _ALWAYS


def is_taken(state: TokenState, operation: Operation) -> bool:
    """Tell whether the policy takes a token in this state at an operation that asks for one."""
    match state:
        case TokenState.GOOD | TokenState.ONE_OPERATION | TokenState.BARE_SCOPE:
            return True
        case TokenState.WHOLE_SERVICE:
            return operation.token is TokenMode.SERVICE
        case TokenState.USED:
            return not operation.once
        case _:
            return False


def token_of(
    state: TokenState, operation: Operation, service: str, caller: Caller, intents: Intents
) -> Token | None:
    """Return the token in a state that a caller carries to an operation; None for none."""
    if state is TokenState.NONE:
        return None
    tokens = intents.settings.tokens
    issuer = _NO_ISSUER if tokens is None else tokens.issuer
    subject = _subject(caller, intents)
    audience = f"{service}#{operation.name}" if operation.token is TokenMode.OPERATION else service
    scope = f"{service}.{operation.name}"
    audience = _audience(state, audience, service, operation)
    scope = _scope(state, scope, service, operation)
    if state is TokenState.WRONG_ISSUER:
        issuer = _OTHER_ISSUER
    elif state is TokenState.OTHER_SUBJECT:
        subject = f"spiffe://{intents.snapshot.trust_domain.name}/{_OTHER}"
    elif state in {TokenState.SUBJECT_AFTER, TokenState.SUBJECT_BEFORE}:
        subject = f"{subject}-x" if state is TokenState.SUBJECT_AFTER else f"x-{subject}"
    return Token(
        issuer=issuer,
        subject=subject,
        audiences=(audience,),
        claims=MappingProxyType({"scope": scope, "client_id": subject}),
        is_expired=state is TokenState.EXPIRED,
        is_forged=state is TokenState.FORGED,
    )


def _subject(caller: Caller, intents: Intents) -> str:
    """Return the subject: of whom a caller poses as, for the strongest thief has a token of the right subject."""
    service = intents.snapshot.services.get(caller.claims_to_be or "")
    if service is not None:
        return str(service.spiffe_id)
    return caller.own_peer or f"spiffe://{intents.snapshot.trust_domain.name}/{_OTHER}"


def _audience(state: TokenState, plain: str, service: str, operation: Operation) -> str:
    match state:
        case TokenState.WRONG_AUDIENCE:
            return _OTHER
        case TokenState.OTHER_OPERATION:
            return f"{service}#{_OTHER}"
        case TokenState.WHOLE_SERVICE:
            return service
        case TokenState.ONE_OPERATION:
            return f"{service}#{operation.name}"
        case TokenState.AUDIENCE_AFTER:
            return f"{plain}-x"
        case TokenState.AUDIENCE_BEFORE:
            return f"x-{plain}"
        case _:
            return plain


def _scope(state: TokenState, plain: str, service: str, operation: Operation) -> str:
    match state:
        case TokenState.NARROW_SCOPE:
            return f"{service}.{_OTHER}"
        case TokenState.BARE_SCOPE:
            return operation.name
        case TokenState.SCOPE_AFTER:
            return f"{plain}-x"
        case TokenState.SCOPE_BEFORE:
            return f"x-{plain}"
        case TokenState.BARE_SCOPE_AFTER:
            return f"{operation.name}-x"
        case TokenState.BARE_SCOPE_BEFORE:
            return f"x-{operation.name}"
        case _:
            return plain
