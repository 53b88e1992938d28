# SPDX-License-Identifier: Apache-2.0
"""Tokens for attackers: real ones, and what nobody but the holder of the real signing key could write.

As with certificates, the demo owns its state directory: it can sign with the issuer's own key what the issuer would
never issue.  A signature alone must not be enough.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from everyhop.core.errors import Unavailable
from everyhop.issuing.material import open_private, open_public
from everyhop.issuing.model import KeyStatus
from everyhop.jose.encoding import decode_base64url, encode_base64url
from everyhop.providers.keystores import FileKeyStore
from everyhop.storage import open_storage
from everyhop.tokens import ACCESS_TYPE, TRANSACTION_TYPE, Es256Signer, signer_for

if TYPE_CHECKING:
    from everyhop.demo.stage import Stage
    from everyhop.tokens.mint import Rs256Signer

LIFE_SECONDS: Final = 300
_DOMAIN: Final = "shop.example"


class Treasury:
    """Mints and forges for one trust domain."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._issuer = str(stage.status()["urls"]["issuer"])

    # -- real tokens

    def mint(self, caller: str, target: str, operation: str | None = None, *scope: str) -> str:
        """Return a real token that is bound to the SVID which the agent holds for the caller."""
        message = {"caller": caller, "target": target, "operation": operation, "scope": list(scope) or None}
        return str(self._stage.agent.post("/v1/token", message)["token"])

    def revoke(self, token: str) -> None:
        """Take a token back."""
        self._stage.admin.post("/v1/tokens/revoke", {"token": token})

    def api_key(self, *scopes: str) -> tuple[str, str]:
        """Return a new API key and its lookup id."""
        made = self._stage.admin.post("/v1/api-keys", {"owner": "the demo", "scopes": list(scopes)})
        return str(made["key"]), str(made["entry"]["lookup"])

    def revoke_api_key(self, lookup: str) -> None:
        """Take an API key back."""
        self._stage.admin.delete(f"/v1/api-keys/{lookup}")

    # -- forged tokens

    @cached_property
    def real(self) -> Es256Signer | Rs256Signer:
        """The issuer's own key."""
        storage = open_storage(self._stage.layout.database)
        try:
            keys = storage.issuing.load().keys
        finally:
            storage.close()
        active = next((key for key in keys if key.status is KeyStatus.ACTIVE), None)
        if active is None:
            raise Unavailable("the trust domain has no active signing key")
        keystore = FileKeyStore(self._stage.layout.keys / "kek", create=False)
        self._public = open_public(active).public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return signer_for(active.kid, open_private(active, keystore))

    @cached_property
    def stranger(self) -> Es256Signer:
        """A key of somebody else under the name of the real one."""
        return Es256Signer(self.real.kid, ec.generate_private_key(ec.SECP256R1()))

    def claims(self, caller: str, x5t: str, **changed: Any) -> dict[str, Any]:
        """Return the claims of a good token for payments with some changed; None takes one out."""
        now = int(time.time())
        identity = f"spiffe://{_DOMAIN}/service/{caller}"
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": identity,
            "client_id": identity,
            "aud": "payments",
            "scope": "payments.charge",
            "jti": f"demo-{now}-{time.monotonic_ns()}",
            "iat": now,
            "exp": now + LIFE_SECONDS,
            "cnf": {"x5t#S256": x5t},
        }
        claims.update(changed)
        return {name: value for name, value in claims.items() if value is not None}

    def transaction(self, **changed: Any) -> dict[str, Any]:
        """Return the claims of a good transaction token of an administrator with some changed."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": _DOMAIN,
            "sub": "mallory",
            "txn": "demo",
            "req_wl": f"spiffe://{_DOMAIN}/service/storefront",
            "scope": "",
            "jti": f"demo-{time.monotonic_ns()}",
            "iat": now,
            "exp": now + LIFE_SECONDS,
            "tctx": {"kind": "user", "idp": "https://login.example", "roles": ["admin"]},
        }
        claims.update(changed)
        return {name: value for name, value in claims.items() if value is not None}

    def sign(
        self,
        claims: dict[str, Any] | bytes,
        *,
        by: Es256Signer | Rs256Signer | None = None,
        typ: str = ACCESS_TYPE,
        **header: Any,
    ) -> str:
        """Return a compact token; ``header`` replaces members of the profile's header, None takes one out."""
        signer = by or self.real
        members = {"alg": signer.alg.value, "kid": signer.kid, "typ": typ, **header}
        shown = json.dumps({k: v for k, v in members.items() if v is not None}).encode()
        payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        text = f"{encode_base64url(shown)}.{encode_base64url(payload)}"
        return f"{text}.{encode_base64url(signer.sign(text.encode()))}"

    def sign_txn(self, claims: dict[str, Any], *, by: Es256Signer | Rs256Signer | None = None) -> str:
        """Return a transaction token."""
        return self.sign(claims, by=by, typ=TRANSACTION_TYPE)

    def unsigned(self, claims: dict[str, Any], alg: str) -> str:
        """Return a token that says it needs no signature."""
        head = json.dumps({"alg": alg, "kid": self.real.kid, "typ": ACCESS_TYPE}).encode()
        return f"{encode_base64url(head)}.{encode_base64url(json.dumps(claims).encode())}."

    def hmac_with_public_key(self, claims: dict[str, Any]) -> str:
        """Return a token whose MAC key is the issuer's public key, which everybody knows."""
        kid = self.real.kid
        head = json.dumps({"alg": "HS256", "kid": kid, "typ": ACCESS_TYPE}).encode()
        text = f"{encode_base64url(head)}.{encode_base64url(json.dumps(claims).encode())}"
        mac = hmac.new(self._public, text.encode(), hashlib.sha256).digest()
        return f"{text}.{encode_base64url(mac)}"

    @staticmethod
    def tampered(token: str, **changed: Any) -> str:
        """Return a token with other claims under the old signature."""
        head, payload, signature = token.split(".")
        claims = {**json.loads(decode_base64url(payload)), **changed}
        body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
        return f"{head}.{body}.{signature}"
