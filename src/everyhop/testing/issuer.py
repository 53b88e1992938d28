# SPDX-License-Identifier: Apache-2.0
"""An issuer of tokens for tests: real signatures, made in this process, and every way to make them wrong."""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

from everyhop.jose.encoding import encode_base64url
from everyhop.tokens.mint import Es256Signer
from everyhop.x509.keys import generate_private_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ISSUER: Final = "https://issuer.test"
LIFE_SECONDS: Final = 300


class Issuer:
    """Mints access and transaction tokens of the product's profile.

    Every claim and header can be overridden, to be wrong on purpose: ``access(…, exp=0)``; None removes it.
    """

    def __init__(self, trust_domain: str = "shop.example", *, issuer: str = ISSUER) -> None:
        self.trust_domain: Final = trust_domain
        self.issuer: Final = issuer
        self._signers: list[Es256Signer] = []
        self._prepared: Es256Signer | None = None
        self.sequence = 0
        self.revoked: dict[str, Any] = {"kids": [], "jtis": {}, "txns": {}}
        self.rotate()

    @property
    def kid(self) -> str:
        """Return the name of the key that signs now."""
        return self._signers[-1].kid

    @property
    def jwks(self) -> dict[str, Any]:
        """Return the JWK Set: the key that signs, the ones before it that were not forgotten, a prepared one."""
        published = [*self._signers, *([self._prepared] if self._prepared else [])]
        return {"keys": [signer.public().to_members() for signer in published]}

    def prepare(self) -> None:
        """Publish the next key, which signs from :meth:`rotate` on: give everybody time to learn of it."""
        self._prepared = _new_signer()
        self.sequence += 1

    def rotate(self, *, forget: bool = False) -> None:
        """Sign with the prepared key, or a new one, from now on; with ``forget`` the set holds only this one."""
        if forget:
            self._signers.clear()
        self._signers.append(self._prepared or _new_signer())
        self._prepared = None
        del self._signers[:-8]
        self.sequence += 1

    def revoke(self, *, kid: str | None = None, jti: str | None = None, txn: str | None = None) -> None:
        """Take back a key, a token or a transaction; contexts built from now on say so."""
        end = int(time.time()) + LIFE_SECONDS
        if kid is not None:
            self.revoked["kids"].append(kid)
        if jti is not None:
            self.revoked["jtis"][jti] = end
        if txn is not None:
            self.revoked["txns"][txn] = end
        self.sequence += 1

    def spiffe_id(self, service: str) -> str:
        """Return ``spiffe://TRUST_DOMAIN/service/NAME``; a SPIFFE ID is returned as it is."""
        return service if "://" in service else f"spiffe://{self.trust_domain}/service/{service}"

    def access(
        self,
        caller: str,
        target: str,
        operation: str | None = None,
        *,
        scope: Iterable[str] = (),
        x5t: str | None = None,
        header: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> str:
        """Return an access token of ``caller`` for ``target`` (and one operation), bound to a certificate."""
        now = int(time.time())
        who = self.spiffe_id(caller)
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": who,
            "client_id": who,
            "aud": target if operation is None else f"{target}#{operation}",
            "scope": " ".join(scope) or (f"{target}.{operation}" if operation else ""),
            "jti": secrets.token_urlsafe(16),
            "iat": now,
            "exp": now + LIFE_SECONDS,
        }
        if x5t is not None:
            claims["cnf"] = {"x5t#S256": x5t}
        return self.sign({"typ": "at+jwt", **(header or {})}, {**claims, **overrides})

    def transaction(
        self,
        subject: str,
        *,
        roles: Iterable[str] = (),
        requester: str = "storefront",
        kind: str = "user",
        header: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> str:
        """Return a transaction token for a user (or ``kind="client"``)."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": self.trust_domain,
            "sub": subject,
            "txn": secrets.token_urlsafe(16),
            "req_wl": self.spiffe_id(requester),
            "scope": "",
            "jti": secrets.token_urlsafe(16),
            "iat": now,
            "exp": now + LIFE_SECONDS,
            "tctx": {"idp": "https://idp.test", "kind": kind, "roles": list(roles)},
            "rctx": {},
        }
        return self.sign({"typ": "txntoken+jwt", **(header or {})}, {**claims, **overrides})

    def sign(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
        """Return any header and claims, signed; members that are None are left out."""
        signer = self._signers[-1]
        full = {"alg": "ES256", "kid": signer.kid, **header}
        parts = [encode_base64url(_json(members)) for members in (full, claims)]
        signing_input = ".".join(parts)
        return f"{signing_input}.{encode_base64url(signer.sign(signing_input.encode()))}"


def _new_signer() -> Es256Signer:
    return Es256Signer(secrets.token_hex(8), generate_private_key())


def _json(members: Mapping[str, Any]) -> bytes:
    kept = {name: value for name, value in members.items() if value is not None}
    return json.dumps(kept, separators=(",", ":")).encode()
