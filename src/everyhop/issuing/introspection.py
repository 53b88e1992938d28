# SPDX-License-Identifier: Apache-2.0
"""Introspection (RFC 7662): to whom a token is shown, and how."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from everyhop.issuing.policy_view import PolicyView
from everyhop.issuing.requests import ADMIN
from everyhop.tokens.access import AccessToken
from everyhop.tokens.transaction import TxnToken

INACTIVE: Final[Mapping[str, Any]] = MappingProxyType({"active": False})
"""The whole answer to everybody whom the token does not concern: it does not tell whether there is such a token."""


def may_inspect(token: AccessToken | TxnToken, asker: str, policy: PolicyView) -> bool:
    """Tell whether ``asker`` is the audience, the client itself, or the owner of the trust domain."""
    if asker == ADMIN:
        return True
    service = policy.service_of(asker)
    if service is None:
        return False
    if isinstance(token, AccessToken):
        return asker == token.client_id or token.audience.partition("#")[0] == service
    # The audience of a transaction token is the trust domain: every service that may see users.
    return asker == token.requester or policy.receives_users(service)


def describe(token: AccessToken | TxnToken) -> dict[str, Any]:
    """Return the answer for an active token (section 2.2)."""
    answer: dict[str, Any] = {
        "active": True,
        "iss": token.issuer,
        "sub": token.subject,
        "scope": " ".join(sorted(token.scope)),
        "jti": token.jti,
        "iat": token.issued_at,
        "exp": token.expires_at,
    }
    if token.txn is not None:
        answer["txn"] = token.txn
    if isinstance(token, TxnToken):
        return {
            **answer,
            "token_type": "N_A",
            "aud": token.trust_domain,
            "req_wl": token.requester,
            "tctx": dict(token.context),
            "rctx": dict(token.request_context),
        }
    answer |= {
        "token_type": "DPoP" if token.jkt else "Bearer",
        "aud": token.audience,
        "client_id": token.client_id,
    }
    if token.x5t is not None:
        answer["cnf"] = {"x5t#S256": token.x5t}
    elif token.jkt is not None:
        answer["cnf"] = {"jkt": token.jkt}
    act: dict[str, Any] | None = None
    for actor in reversed(token.actors):
        act = {"sub": actor} if act is None else {"sub": actor, "act": act}
    if act is not None:
        answer["act"] = act
    return answer
