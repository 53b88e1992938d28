# SPDX-License-Identifier: Apache-2.0
"""What a token of everyhop is, and how it is verified: one profile, no IO (RFC 9068, RFC 8725)."""

from everyhop.tokens.access import ACCESS_TYPE, AccessToken, verify_access_token
from everyhop.tokens.codes import TokenCode, challenge, status_of
from everyhop.tokens.dpop import access_token_hash, verify_dpop
from everyhop.tokens.expectation import Expectation, check
from everyhop.tokens.fetched import FetchedKeys
from everyhop.tokens.keyset import (
    HeldKeys,
    KeySet,
    KeySource,
    PinnedKey,
    StaticKeys,
    key_set_of,
    parse_jwks,
)
from everyhop.tokens.mint import (
    AccessClaims,
    Es256Signer,
    Rs256Signer,
    Signer,
    TokenMint,
    TxnClaims,
    access_claims,
    signer_for,
)
from everyhop.tokens.offline import verify_line
from everyhop.tokens.replay import MemoryReplayGuard, ReplayGuard
from everyhop.tokens.revocations import NOTHING_REVOKED, Revocations
from everyhop.tokens.transaction import TRANSACTION_TYPE, TxnToken, verify_txn_token
from everyhop.tokens.verifier import TokenVerifier, spend
from everyhop.x509.thumbprint import x5t_s256

__all__ = [
    "ACCESS_TYPE",
    "NOTHING_REVOKED",
    "TRANSACTION_TYPE",
    "AccessClaims",
    "AccessToken",
    "Es256Signer",
    "Expectation",
    "FetchedKeys",
    "HeldKeys",
    "KeySet",
    "KeySource",
    "MemoryReplayGuard",
    "PinnedKey",
    "ReplayGuard",
    "Revocations",
    "Rs256Signer",
    "Signer",
    "StaticKeys",
    "TokenCode",
    "TokenMint",
    "TokenVerifier",
    "TxnClaims",
    "TxnToken",
    "access_claims",
    "access_token_hash",
    "challenge",
    "check",
    "key_set_of",
    "parse_jwks",
    "signer_for",
    "spend",
    "status_of",
    "verify_access_token",
    "verify_dpop",
    "verify_line",
    "verify_txn_token",
    "x5t_s256",
]
