# SPDX-License-Identifier: Apache-2.0
"""Judge a token that lies on a desk: no connection, so no peer, unless a certificate is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from everyhop.core.errors import TokenError
from everyhop.jose.encoding import decode_base64url
from everyhop.jose.strict_json import parse_claims
from everyhop.tokens.access import verify_access_token
from everyhop.tokens.expectation import Expectation, check
from everyhop.tokens.keyset import KeySet, StaticKeys
from everyhop.tokens.revocations import NOTHING_REVOKED, Revocations
from everyhop.tokens.verifier import missing
from everyhop.x509.thumbprint import x5t_s256

if TYPE_CHECKING:
    from datetime import datetime


def verify_line(
    line: str,
    keys: KeySet,
    *,
    issuer: str,
    service: str,
    operation: str | None = None,
    per_operation: bool = False,
    now: datetime,
    certificate: bytes | None = None,
    peer: str | None = None,
    revocations: Revocations = NOTHING_REVOKED,
) -> dict[str, Any]:
    """Return ``{"ok": True, "code": None, "claims": {...}}``, or ``{"ok": False, "code": CODE}``; never raises.

    ``line`` is one token with the line end that it came with.  With ``certificate`` (DER) the token must be bound
    to it; with ``peer`` it must be of that caller.  With ``per_operation`` a token for the whole service will not do.
    """
    token = line.removesuffix("\n").removesuffix("\r")
    expected = Expectation(
        audience=service,
        operation=operation,
        per_operation=per_operation,
        peer=peer,
        x5t=None if certificate is None else x5t_s256(certificate),
        bound=False,
    )
    try:
        if not token:
            raise missing()
        check(verify_access_token(token, StaticKeys(keys), issuer=issuer, now=now), expected, revocations)
    except TokenError as error:
        return {"ok": False, "code": str(error.token_code)}
    claims = parse_claims(decode_base64url(token.split(".")[1]))
    return {"ok": True, "code": None, "claims": claims}
