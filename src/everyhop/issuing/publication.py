# SPDX-License-Identifier: Apache-2.0
"""The JWKS that the stored keys form: all of them, whatever their status (RFC 7517 section 5)."""

from __future__ import annotations

import json
from typing import Final

from everyhop.issuing.material import open_public
from everyhop.issuing.model import IssuingState
from everyhop.jose.jwk import Jwk

USE: Final = "sig"


def jwks_of(state: IssuingState) -> bytes:
    """Return the document; equal keys give equal bytes."""
    keys = [
        Jwk(key=open_public(key), kid=key.kid, use=USE, alg=key.algorithm).to_members() for key in state.keys
    ]
    return json.dumps({"keys": keys}, separators=(",", ":")).encode()
