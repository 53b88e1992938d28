# SPDX-License-Identifier: Apache-2.0
"""The credentials of a request that a foreign proxy describes, read as the SDK's guard reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.control.asking import Presented
from everyhop.core.errors import TokenError
from everyhop.sdk.headers import Headers, MalformedCredentialError, bearer_token, txn_token
from everyhop.tokens.codes import TokenCode

if TYPE_CHECKING:
    from collections.abc import Sequence


def presented(headers: Sequence[tuple[bytes, bytes]], path: str) -> Presented:
    """Return access token and transaction token; raises TokenError when one has more than one reading."""
    fields = Headers(headers)
    query = path.partition("?")[2].encode("latin-1", "replace")
    try:
        return Presented(token=bearer_token(fields, query), txn=txn_token(fields))
    except MalformedCredentialError as error:
        raise TokenError(TokenCode.TOKEN_MALFORMED, str(error)) from error
