# SPDX-License-Identifier: Apache-2.0
"""Keys for clients outside of the trust domain: shown once, stored as a MAC, exchanged at the edge."""

from everyhop.apikeys.format import DETECTION_REGEX, ParsedKey, checksum_of, parse_key
from everyhop.apikeys.model import (
    ApiKeyEntry,
    ApiKeyPrincipal,
    ApiKeyRefused,
    ApiKeySettings,
    CreatedKey,
    TooManyFailures,
)
from everyhop.apikeys.ports import ApiKeyEvent, ApiKeyStore, ApiKeyTransaction, EdgeScopes
from everyhop.apikeys.service import ApiKeys

__all__ = [
    "DETECTION_REGEX",
    "ApiKeyEntry",
    "ApiKeyEvent",
    "ApiKeyPrincipal",
    "ApiKeyRefused",
    "ApiKeySettings",
    "ApiKeyStore",
    "ApiKeyTransaction",
    "ApiKeys",
    "CreatedKey",
    "EdgeScopes",
    "ParsedKey",
    "TooManyFailures",
    "checksum_of",
    "parse_key",
]
