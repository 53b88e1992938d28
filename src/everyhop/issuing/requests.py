# SPDX-License-Identifier: Apache-2.0
"""What is asked of the token service, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final

ADMIN: Final = "admin"
"""Who asks when it is the owner of the state directory, not a workload."""

PDP_AUDIENCE: Final = "urn:everyhop:authzen"
"""Audience of tokens for the decision point's AuthZEN endpoints; no service can be named so."""


class TokenType(StrEnum):
    """Types of tokens as RFC 8693 section 3 and the transaction tokens draft name them; API keys are ours."""

    ACCESS = "urn:ietf:params:oauth:token-type:access_token"
    ID = "urn:ietf:params:oauth:token-type:id_token"
    JWT = "urn:ietf:params:oauth:token-type:jwt"
    TRANSACTION = "urn:ietf:params:oauth:token-type:txn_token"
    API_KEY = "urn:everyhop:params:oauth:token-type:api_key"


@dataclass(frozen=True, slots=True, kw_only=True)
class MintRequest:
    """One access token for ``caller`` (the SPIFFE ID of the attested or mTLS peer, never what a request says).

    ``target`` is a service; ``operation`` is given exactly where the policy says ``token: operation`` and makes the
    audience ``target#operation``.  ``scope`` holds ``operation`` or ``target.operation``; None asks for everything
    that the policy grants there.  ``x5t`` or ``jkt`` is what the token is bound to.  ``ttl`` only shortens.
    """

    caller: str
    target: str
    operation: str | None = None
    scope: frozenset[str] | None = None
    x5t: str | None = None
    jkt: str | None = None
    ttl: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRequest:
    """One token for another (RFC 8693).

    ``caller`` as in :class:`MintRequest`; it is the actor.  For an access token ``target``, ``operation``, ``scope``,
    ``x5t`` and ``jkt`` are as there; for a transaction token ``scope`` is its purpose and ``roles`` what is left of the
    user's.  ``source`` is the IP address of the outside client, ``context`` what the transaction token says about the
    request (``rctx``).
    """

    caller: str
    subject_token: str = field(repr=False)
    subject_token_type: str
    requested_token_type: str = TokenType.ACCESS
    target: str | None = None
    operation: str | None = None
    scope: frozenset[str] | None = None
    roles: frozenset[str] | None = None
    x5t: str | None = None
    jkt: str | None = None
    actor_token: str | None = field(default=None, repr=False)
    actor_token_type: str | None = None
    source: str | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    ttl: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A token.  ``token_type`` is ``Bearer``, ``DPoP``, or ``N_A`` for one that is no access token; times in seconds.

    ``roles`` are the user's in a transaction token.
    """

    token: str = field(repr=False)
    token_type: str
    issued_token_type: TokenType
    audience: str
    scope: frozenset[str]
    subject: str
    jti: str
    issued_at: int
    expires_at: int
    txn: str | None = None
    roles: tuple[str, ...] = ()

    @property
    def expires_in(self) -> int:
        """Return its life in seconds."""
        return self.expires_at - self.issued_at
