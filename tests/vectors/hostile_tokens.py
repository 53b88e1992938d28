# SPDX-License-Identifier: Apache-2.0
"""The hostile tokens: more than two hundred, each with the code it gets and where the attack is written down.

``hostile_tokens`` makes them from a signer and a moment, so that every enforcement point can be shown the same set
under its own issuer.  Run this file to see the list.  The JWK Sets are in ``hostile_jwks.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.vectors.hostile_claims import hostile_claims
from tests.vectors.hostile_forms import hostile_forms
from tests.vectors.hostile_headers import hostile_headers
from tests.vectors.hostile_jwks import HostileJwks, hostile_jwks
from tests.vectors.hostile_transactions import hostile_transaction_claims
from tests.vectors.token_maker import Maker, Signer

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "HostileJwks",
    "HostileToken",
    "Signer",
    "good_claims",
    "hostile_jwks",
    "hostile_tokens",
    "hostile_txn_tokens",
    "maker",
    "txn_maker",
]

MAX_HEADER_VALUE: Final = 16 * 1024


@dataclass(frozen=True)
class HostileToken:
    """A token that must be refused with ``code``; ``source`` is a clause, a CVE or a public vector."""

    name: str
    token: str
    code: str
    source: str

    @property
    def fits_a_header(self) -> bool:
        """Whether it can be sent as ``Authorization: Bearer …`` at all, and be read as one there."""
        plain = self.token.isascii() and self.token.isprintable() and self.token == self.token.strip()
        return plain and 0 < len(self.token) <= MAX_HEADER_VALUE


def good_claims(
    *, issuer: str, service: str, operation: str, peer: str, x5t: str, now: int, per_operation: bool = False
) -> dict[str, Any]:
    """The claims of the token that is accepted; every hostile one differs from it in one respect."""
    return {
        "iss": issuer,
        "sub": peer,
        "client_id": peer,
        "aud": f"{service}#{operation}" if per_operation else service,
        "scope": f"{service}.{operation}",
        "jti": "01J9ZQ4M7K3T5V8W2X6Y0B1C2D",
        "iat": now - 10,
        "exp": now + 290,
        "cnf": {"x5t#S256": x5t},
    }


def maker(
    signer: Signer,
    *,
    issuer: str,
    service: str,
    operation: str,
    peer: str,
    x5t: str,
    now: int,
    per_operation: bool = False,
) -> Maker:
    """The maker of the good token and of its neighbours."""
    claims = good_claims(
        issuer=issuer,
        service=service,
        operation=operation,
        peer=peer,
        x5t=x5t,
        now=now,
        per_operation=per_operation,
    )
    return Maker(signer, claims)


def hostile_tokens(
    signer: Signer,
    *,
    issuer: str,
    service: str,
    operation: str,
    peer: str,
    x5t: str,
    now: int,
    per_operation: bool = False,
) -> list[HostileToken]:
    """Tokens that a verifier of ``issuer``, for ``service`` and ``operation``, must refuse from ``peer`` at ``now``.

    ``now`` is in seconds, ``x5t`` the digest of the peer's certificate (the tokens are bound to it).  With
    ``per_operation`` the audience that is right is ``service#operation``.
    """
    make = maker(
        signer,
        issuer=issuer,
        service=service,
        operation=operation,
        peer=peer,
        x5t=x5t,
        now=now,
        per_operation=per_operation,
    )
    return [HostileToken(*entry) for entry in _entries(make, service, operation, now)]


def _entries(make: Maker, service: str, operation: str, now: int) -> Iterator[tuple[str, str, str, str]]:
    yield from hostile_headers(make)
    yield from hostile_forms(make)
    yield from hostile_claims(make, service, operation, now)


def txn_maker(signer: Signer, *, issuer: str, trust_domain: str, requester: str, now: int) -> Maker:
    """The maker of the good transaction token and of its neighbours."""
    claims = {
        "iss": issuer,
        "aud": trust_domain,
        "sub": "alice",
        "txn": "01J9ZQ4M7K3T5V8W2X6Y0B1C2E",
        "req_wl": requester,
        "scope": "orders.create",
        "jti": "01J9ZQ4M7K3T5V8W2X6Y0B1C2F",
        "iat": now - 10,
        "exp": now + 290,
        "tctx": {
            "roles": ["clerk"],
            "idp": "https://idp.example",
            "kind": "user",
            "acr": "1",
            "amr": ["pwd"],
        },
        "rctx": {"ip": "192.0.2.1"},
    }
    return Maker(signer, claims, typ="txntoken+jwt")


def hostile_txn_tokens(
    signer: Signer, *, issuer: str, trust_domain: str, requester: str, now: int
) -> list[HostileToken]:
    """Transaction tokens that a verifier of ``issuer`` in ``trust_domain`` must refuse at ``now``."""
    make = txn_maker(signer, issuer=issuer, trust_domain=trust_domain, requester=requester, now=now)
    entries = [*hostile_headers(make), *hostile_transaction_claims(make, now)]
    return [HostileToken(*entry) for entry in entries]


if __name__ == "__main__":
    from cryptography.hazmat.primitives.asymmetric import ec

    found = hostile_tokens(
        Signer(ec.generate_private_key(ec.SECP256R1()), "k1"),
        issuer="https://issuer.example",
        service="payments",
        operation="charge",
        peer="spiffe://shop.example/service/orders",
        x5t="A" * 43,
        now=1_772_366_400,
    )
    for entry in found:
        print(f"{entry.code:<20} {entry.name:<44} {entry.source}")
    print(len(found), "tokens,", len(hostile_jwks()), "key sets")
