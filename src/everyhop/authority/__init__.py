# SPDX-License-Identifier: Apache-2.0
"""The signing authority of a trust domain: its keys, their life, and the SVIDs that they sign."""

from everyhop.authority.model import (
    AuthorityEntry,
    AuthorityKind,
    AuthoritySettings,
    AuthorityState,
    AuthorityStatus,
    Change,
    IssuedJwt,
    IssuedX509,
)
from everyhop.authority.ports import AuthorityEvent, AuthorityStore, AuthorityTransaction, KeyStore
from everyhop.authority.service import Authority

__all__ = [
    "Authority",
    "AuthorityEntry",
    "AuthorityEvent",
    "AuthorityKind",
    "AuthoritySettings",
    "AuthorityState",
    "AuthorityStatus",
    "AuthorityStore",
    "AuthorityTransaction",
    "Change",
    "IssuedJwt",
    "IssuedX509",
    "KeyStore",
]
