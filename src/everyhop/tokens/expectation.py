# SPDX-License-Identifier: Apache-2.0
"""What a call demands of a token that is already believed: for whom, from whom, for what."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

import msgspec

from everyhop.core.errors import TokenError
from everyhop.tokens.codes import TokenCode
from everyhop.tokens.revocations import NOTHING_REVOKED, Revocations

if TYPE_CHECKING:
    from everyhop.tokens.access import AccessToken


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """The demands of one call.

    ``audience`` is the service.  A token for ``audience#operation`` alone will always do; with ``per_operation``
    nothing wider will.  ``operation`` None asks for no scope.  ``peer`` is the SPIFFE ID of the TLS peer, ``x5t`` the digest of its certificate, ``jkt`` the
    thumbprint of the key that a verified DPoP proof was made with.

    ``bound`` False leaves out what can only be known on a connection: it is for inspection, never for a call.
    """

    audience: str
    operation: str | None = None
    per_operation: bool = False
    peer: str | None = None
    x5t: str | None = None
    jkt: str | None = None
    bound: bool = True


def check(token: AccessToken, expected: Expectation, revocations: Revocations = NOTHING_REVOKED) -> None:
    """Raise TokenError unless the token is good for this very call; see the module for the order."""
    _check_audience(token, expected)
    if revocations.any and revocations.is_revoked(token):
        raise TokenError(TokenCode.TOKEN_REVOKED, "the token was revoked")
    if expected.peer is not None and token.client_id != expected.peer:
        raise TokenError(TokenCode.BINDING_MISMATCH, "the token is of another caller than the peer")
    _check_binding(token, expected)
    operation = expected.operation
    if (
        operation is not None
        and f"{expected.audience}.{operation}" not in token.scope
        and operation not in token.scope
    ):
        raise TokenError(TokenCode.INSUFFICIENT_SCOPE, "the scope of the token does not hold the operation")


def _check_audience(token: AccessToken, expected: Expectation) -> None:
    if not expected.per_operation and token.audience == expected.audience:
        return
    if expected.operation is not None and token.audience == f"{expected.audience}#{expected.operation}":
        return
    raise TokenError(TokenCode.AUDIENCE_MISMATCH, "the token is for another audience")


def _check_binding(token: AccessToken, expected: Expectation) -> None:
    """Demand that the token's key was used on this connection (RFC 8705 section 3, RFC 9449 section 7.1)."""
    if token.x5t is not None:
        presented, wanted = expected.x5t, token.x5t
    elif token.jkt is not None:
        presented, wanted = expected.jkt, token.jkt
    elif expected.bound or expected.x5t is not None or expected.jkt is not None:
        raise TokenError(TokenCode.BINDING_MISMATCH, "the token is bound to nothing")
    else:
        return
    if presented is None and not expected.bound:
        return
    if presented is None or not hmac.compare_digest(presented, wanted):
        raise TokenError(TokenCode.BINDING_MISMATCH, "the token is bound to another key than the caller's")
