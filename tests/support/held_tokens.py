# SPDX-License-Identifier: Apache-2.0
"""Service tokens as an agent would hold them, made by a test, and the check that belongs to them.

A token here is a text that says what it is; what is tested is how it travels.
"""

from __future__ import annotations

import time
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.support.check_service import passes, refuses

from everyhop.x509.thumbprint import x5t_s256


class HeldTokens:
    """Tokens for the certificate of ``shown`` (by SPIFFE ID), or for the current one; ``serial`` makes new ones."""

    def __init__(self):
        self.mesh = None
        self.shown = {}
        self.serial = 1
        self.missing = set()

    def generation(self, spiffe_id):
        return self.shown.get(str(spiffe_id)) or self.mesh.identities.current(spiffe_id)

    def token_for(self, spiffe_id, target, operation, x5t):
        if (target, operation) in self.missing:
            return None
        return f"{spiffe_id.path.rpartition('/')[2]}.{target}.{operation or '-'}.{x5t}.{self.serial}"


def thumbprint(pem):
    """Return ``x5t#S256`` of a certificate as a check is shown it."""
    der = x509.load_pem_x509_certificate(unquote_to_bytes(pem)).public_bytes(Encoding.DER)
    return x5t_s256(der)


def judge(request, *, life=60):
    """Check a call as the agent would: audience, binding; ``life`` is how long it is remembered."""
    shown = request.all("authorization")
    if not shown:
        return refuses(401, "MISSING_TOKEN")
    parts = shown[0].removeprefix("Bearer ").split(".")
    if len(parts) != 5:
        return refuses(401, "TOKEN_MALFORMED")
    caller, target, operation, x5t, _ = parts
    if target != request.destination.rpartition("/")[2]:
        return refuses(401, "AUDIENCE_MISMATCH")
    if operation not in {"-", request.rbac["shadow_effective_policy_id"]}:
        return refuses(401, "AUDIENCE_MISMATCH")
    if x5t != thumbprint(request.certificate) or caller != request.principal.rpartition("/")[2]:
        return refuses(401, "BINDING_MISMATCH")
    return passes(until=int(time.time()) + life)
