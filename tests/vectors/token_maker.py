# SPDX-License-Identifier: Apache-2.0
"""Write tokens that may be wrong in any one respect.  Shares no code with the product: only `cryptography` signs."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

if TYPE_CHECKING:
    from collections.abc import Callable

    Sign = Callable[[bytes], bytes]

ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ABSENT: Final = object()
"""Give it as a value to leave a member out."""


@dataclass(frozen=True)
class Signer:
    """A P-256 key and the name under which the verifier knows it."""

    key: ec.EllipticCurvePrivateKey
    kid: str


def b64(value: object) -> str:
    data = value if isinstance(value, bytes) else text(value)
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def text(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def changed(members: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**members, **changes}.items() if value is not ABSENT}


def es256(key: ec.EllipticCurvePrivateKey) -> Sign:
    def sign(message: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return sign


def hs256(secret: bytes) -> Sign:
    return lambda message: hmac.new(secret, message, hashlib.sha256).digest()


def join(header: object, payload: object, sign: Sign) -> str:
    signing_input = f"{b64(header)}.{b64(payload)}"
    return f"{signing_input}.{b64(sign(signing_input.encode()))}"


@dataclass(frozen=True)
class Maker:
    """A good token of one signer, and everything near it."""

    signer: Signer
    claims: dict[str, Any]
    typ: str = "at+jwt"

    @property
    def header(self) -> dict[str, Any]:
        return {"alg": "ES256", "kid": self.signer.kid, "typ": self.typ}

    @property
    def sign(self) -> Sign:
        return es256(self.signer.key)

    def good(self) -> str:
        return join(self.header, self.claims, self.sign)

    def with_header(self, sign: Sign | None = None, **changes: Any) -> str:
        return join(changed(self.header, changes), self.claims, sign or self.sign)

    def with_claims(self, **changes: Any) -> str:
        return join(self.header, changed(self.claims, changes), self.sign)

    def with_payload(self, payload: bytes) -> str:
        return join(self.header, payload, self.sign)

    def with_raw_header(self, header: bytes) -> str:
        return join(header, self.claims, self.sign)

    def with_signature(self, change: Callable[[bytes], bytes]) -> str:
        return join(self.header, self.claims, lambda message: change(self.sign(message)))

    def high_s_twin(self) -> str:
        """The one other token that JOSE permits: the same r, and n - s."""
        return self.with_signature(
            lambda raw: raw[:32] + (ORDER - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
        )
