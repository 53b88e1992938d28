# SPDX-License-Identifier: Apache-2.0
"""The bundle that the stored authorities form: all of them, whatever their status."""

from __future__ import annotations

from datetime import timedelta

from everyhop.authority.model import AuthorityKind, AuthorityState
from everyhop.jose.algorithms import Algorithm
from everyhop.jose.jwk import Jwk
from everyhop.spiffe.bundle import Bundle
from everyhop.spiffe.ids import TrustDomain
from everyhop.x509.keys import decode_public_key


def bundle_of(trust_domain: TrustDomain, state: AuthorityState, refresh_hint: timedelta) -> Bundle:
    """Return the bundle; equal states give equal bundles."""
    return Bundle(
        trust_domain=trust_domain,
        x509_authorities=tuple(e.public for e in state.entries if e.kind is AuthorityKind.X509),
        jwt_authorities={
            e.id: Jwk(key=decode_public_key(e.public), kid=e.id, use="jwt-svid", alg=Algorithm.ES256)
            for e in state.entries
            if e.kind is AuthorityKind.JWT
        },
        sequence=state.sequence,
        refresh_hint=refresh_hint,
    )
