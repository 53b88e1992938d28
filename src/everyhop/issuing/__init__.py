# SPDX-License-Identifier: Apache-2.0
"""Access tokens and transaction tokens: minted, exchanged, revoked; the keys that sign them."""

from everyhop.issuing.errors import GrantRefused, OAuthError
from everyhop.issuing.keys import SigningKeys
from everyhop.issuing.model import (
    IssuingSettings,
    IssuingState,
    KeyChange,
    KeyStatus,
    Revocation,
    RevokedKind,
    SigningKey,
    TokenTruth,
    UserIdentity,
)
from everyhop.issuing.policy_view import PolicyView
from everyhop.issuing.ports import (
    IssuingStore,
    IssuingTransaction,
    SigningEvent,
    TokenEvent,
    TokenJournal,
    UserTokens,
)
from everyhop.issuing.requests import ADMIN, PDP_AUDIENCE, ExchangeRequest, Issued, MintRequest, TokenType
from everyhop.issuing.service import TokenPorts, TokenService

__all__ = [
    "ADMIN",
    "PDP_AUDIENCE",
    "ExchangeRequest",
    "GrantRefused",
    "Issued",
    "IssuingSettings",
    "IssuingState",
    "IssuingStore",
    "IssuingTransaction",
    "KeyChange",
    "KeyStatus",
    "MintRequest",
    "OAuthError",
    "PolicyView",
    "Revocation",
    "RevokedKind",
    "SigningEvent",
    "SigningKey",
    "SigningKeys",
    "TokenEvent",
    "TokenJournal",
    "TokenPorts",
    "TokenService",
    "TokenTruth",
    "TokenType",
    "UserIdentity",
    "UserTokens",
]
