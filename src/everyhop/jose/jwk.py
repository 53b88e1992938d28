# SPDX-License-Identifier: Apache-2.0
"""JSON Web Keys, public ones only (RFC 7517): EC on P-256, P-384, P-521, and RSA of 2048 to 8192 bits."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from everyhop.core.errors import InputError
from everyhop.jose.algorithms import Algorithm, VerificationKey, algorithms_for
from everyhop.jose.encoding import decode_base64url, encode_base64url
from everyhop.jose.rsa_structure import has_weak_structure

if TYPE_CHECKING:
    from collections.abc import Mapping

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
MAX_KID_BYTES: Final = 512
_MIN_EXPONENT: Final = 65537
_MAX_EXPONENT: Final = 2**32

_ALGORITHMS: Final = frozenset(a.value for a in Algorithm)
_CURVES: Final[Mapping[str, ec.EllipticCurve]] = MappingProxyType(
    {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
)
_CURVE_NAMES: Final[Mapping[str, str]] = MappingProxyType({c.name: n for n, c in _CURVES.items()})
# RFC 7517 section 4, RFC 7518 section 6: a document of public keys that carries one of these is a leak.
PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_VERIFY_ONLY: Final = ["verify"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Jwk:
    """A public key with its name; ``alg`` narrows what it may verify when the document says so."""

    key: VerificationKey
    kid: str | None
    use: str | None
    alg: Algorithm | None = None

    @property
    def algorithms(self) -> frozenset[Algorithm]:
        """Return the algorithms that this key may verify."""
        possible = algorithms_for(self.key)
        return possible if self.alg is None else possible & {self.alg}

    @classmethod
    def from_members(cls, members: Mapping[str, Any]) -> Jwk:
        """Read the members of a JSON object; unknown members are ignored (RFC 7517 section 4).

        Raises InputError for another ``kty`` or curve, a point off the curve, a weak or huge RSA key, a private
        member, ``key_ops`` for anything but verifying, or a ``kid``, ``use`` or ``alg`` of a wrong type.
        """
        if PRIVATE_MEMBERS & members.keys():
            raise InputError("a published key carries private members")
        kid = _optional_text(members, "kid")
        if kid is not None and not 0 < len(kid.encode()) <= MAX_KID_BYTES:
            raise InputError(f"'kid' is empty or has more than {MAX_KID_BYTES} bytes")
        # RFC 7517 section 4.3; a key that may also sign or encrypt is not the public half of a signing key.
        if members.get("key_ops", _VERIFY_ONLY) != _VERIFY_ONLY:
            raise InputError("the key is not for verifying signatures")
        alg = _optional_text(members, "alg")
        if alg is not None and alg not in _ALGORITHMS:
            raise InputError(f"the key is for the algorithm {alg[:20]!r}, which is not accepted")
        return cls(
            key=_key_from(members),
            kid=kid,
            use=_optional_text(members, "use"),
            alg=None if alg is None else Algorithm(alg),
        )

    def to_members(self) -> dict[str, str]:
        """Return the members of the JSON object, in a fixed order."""
        members = public_key_to_jwk(self.key)
        for name, value in (("use", self.use), ("kid", self.kid), ("alg", self.alg)):
            if value is not None:
                members[name] = str(value)
        return members


def public_key_to_jwk(key: VerificationKey) -> dict[str, str]:
    """Return exactly the members that identify the key, in the order that RFC 7638 section 3 hashes them."""
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"e": _encode_integer(numbers.e), "kty": "RSA", "n": _encode_integer(numbers.n)}
    point, width = key.public_numbers(), (key.curve.key_size + 7) // 8
    if key.curve.name not in _CURVE_NAMES:
        raise InputError(f"keys on the curve {key.curve.name} are not accepted")
    return {
        "crv": _CURVE_NAMES[key.curve.name],
        "kty": "EC",
        "x": encode_base64url(point.x.to_bytes(width, "big")),
        "y": encode_base64url(point.y.to_bytes(width, "big")),
    }


def thumbprint(key: VerificationKey) -> str:
    """Return the SHA-256 thumbprint of a key, base64url (RFC 7638)."""
    canonical = json.dumps(public_key_to_jwk(key), separators=(",", ":"), sort_keys=True)
    return encode_base64url(hashlib.sha256(canonical.encode()).digest())


def _key_from(members: Mapping[str, Any]) -> VerificationKey:
    kty = members.get("kty")
    try:
        if kty == "EC":
            return _ec_key(members)
        if kty == "RSA":
            return _rsa_key(members)
    except (ValueError, OverflowError, UnsupportedAlgorithm) as error:
        raise InputError("the key is not valid") from error
    raise InputError("'kty' is neither EC nor RSA")


def _ec_key(members: Mapping[str, Any]) -> ec.EllipticCurvePublicKey:
    curve = _CURVES.get(_text(members, "crv"))
    if curve is None:
        raise InputError("'crv' is not P-256, P-384 or P-521")
    width = (curve.key_size + 7) // 8
    x, y = (decode_base64url(_text(members, name)) for name in ("x", "y"))
    if len(x) != width or len(y) != width:  # RFC 7518 section 6.2.1.2: full length, leading zeros kept
        raise InputError("a coordinate has the wrong length")
    return ec.EllipticCurvePublicNumbers(
        int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve
    ).public_key()


def _rsa_key(members: Mapping[str, Any]) -> rsa.RSAPublicKey:
    modulus, exponent = (decode_base64url(_text(members, name)) for name in ("n", "e"))
    if modulus[:1] in {b"", b"\0"} or exponent[:1] in {b"", b"\0"}:  # RFC 7518 section 2: the fewest octets
        raise InputError("an RSA number is not in its shortest form")
    if not MIN_RSA_BITS <= int.from_bytes(modulus, "big").bit_length() <= MAX_RSA_BITS:
        raise InputError(f"an RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    if has_weak_structure(int.from_bytes(modulus, "big")):
        raise InputError("the RSA modulus has small factors or was made by a generator that is broken")
    e = int.from_bytes(exponent, "big")
    if not _MIN_EXPONENT <= e < _MAX_EXPONENT:
        raise InputError("the RSA exponent is too small or too large")
    return rsa.RSAPublicNumbers(e, int.from_bytes(modulus, "big")).public_key()


def _encode_integer(number: int) -> str:
    return encode_base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str):
        raise InputError(f"the member {name!r} is missing or not a string")
    return value


def _optional_text(members: Mapping[str, Any], name: str) -> str | None:
    return _text(members, name) if name in members else None
