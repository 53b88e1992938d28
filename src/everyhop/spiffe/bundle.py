# SPDX-License-Identifier: Apache-2.0
"""Trust bundles (SPIFFE_Trust_Domain_and_Bundle.md section 4; X509-SVID.md section 6; JWT-SVID.md section 6).

A bundle is everything that a trust domain's SVIDs may be checked against, and nothing else: bundles of
different trust domains are never merged (SPIFFE_Federation.md section 4.2).
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from everyhop.core.errors import InputError
from everyhop.jose.jwk import Jwk, public_key_to_jwk
from everyhop.jose.strict_json import parse_json_object
from everyhop.spiffe.ids import TrustDomain
from everyhop.x509.certificates import decode_certificate
from everyhop.x509.chain import is_ca

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_BUNDLE_BYTES: Final = 1024 * 1024
MAX_BUNDLE_KEYS: Final = 256

# A tuple, not a set: what stands there may be a list, which no set can be asked about.
_KEY_TYPES: Final = ("EC", "RSA")
_X509_USE: Final = "x509-svid"
_JWT_USE: Final = "jwt-svid"
_MAX_HINT_SECONDS: Final = 366 * 24 * 3600
_MAX_SEQUENCE: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The public authorities of one trust domain.

    ``x509_authorities`` are CA certificates in DER; ``jwt_authorities`` maps ``kid`` to a public key.  Both may
    be empty, which means that nothing is trusted (section 4.1.3).
    """

    trust_domain: TrustDomain
    x509_authorities: tuple[bytes, ...]
    jwt_authorities: Mapping[str, Jwk]
    sequence: int | None = None
    refresh_hint: timedelta | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "jwt_authorities", MappingProxyType(dict(self.jwt_authorities)))

    @property
    def x509_der(self) -> bytes:
        """Return the CA certificates joined, as the Workload API sends them (section 5.2.2)."""
        return b"".join(self.x509_authorities)


def encode_bundle(bundle: Bundle) -> bytes:
    """Return the bundle document: a JWK Set in UTF-8 with ``spiffe_sequence`` and ``spiffe_refresh_hint``."""
    document: dict[str, Any] = {"keys": _x509_entries(bundle) + _jwt_entries(bundle)}
    if bundle.sequence is not None:
        document["spiffe_sequence"] = bundle.sequence
    if bundle.refresh_hint is not None:
        document["spiffe_refresh_hint"] = int(bundle.refresh_hint.total_seconds())
    return json.dumps(document, separators=(",", ":")).encode()


def encode_jwt_bundle(bundle: Bundle) -> bytes:
    """Return the JWK Set of the JWT authorities alone (Workload API section 6.2.2)."""
    return json.dumps({"keys": _jwt_entries(bundle)}, separators=(",", ":")).encode()


def decode_bundle(trust_domain: TrustDomain, document: bytes) -> Bundle:
    """Read a bundle document of ``trust_domain``, of at most 1 MiB and 256 keys.

    An entry of an unknown ``kty`` or ``use``, or without what its use demands, is ignored by itself (section 4.1.3);
    so is an X.509 entry without ``x5c``, and every ``x5c`` value but the first (X509-SVID.md section 6.2).
    Raises InputError when the document is not a JSON object, repeats a member, has no ``keys``, or its sequence or
    hint is not a number in range.
    """
    members = parse_json_object(document, max_bytes=MAX_BUNDLE_BYTES)
    keys = members.get("keys")
    if not isinstance(keys, list):
        raise InputError("the bundle has no array 'keys'")
    if len(keys) > MAX_BUNDLE_KEYS:
        raise InputError(f"the bundle has more than {MAX_BUNDLE_KEYS} keys")
    hint = _integer(members, "spiffe_refresh_hint", _MAX_HINT_SECONDS)
    entries = [entry for entry in keys if isinstance(entry, dict)]
    return Bundle(
        trust_domain=trust_domain,
        x509_authorities=_x509_authorities(entries),
        jwt_authorities=_jwt_authorities(entries),
        sequence=_integer(members, "spiffe_sequence", _MAX_SEQUENCE),
        refresh_hint=None if hint is None else timedelta(seconds=hint),
    )


def _x509_entries(bundle: Bundle) -> list[dict[str, Any]]:
    return [_x509_entry(der) for der in bundle.x509_authorities]


def _x509_entry(der: bytes) -> dict[str, Any]:
    key = decode_certificate(der).public_key()
    # X509-SVID.md section 6.1: no kid, exactly one certificate.
    return {
        **public_key_to_jwk(key),  # type: ignore[arg-type]  # another type of key raises InputError or AttributeError inside
        "use": _X509_USE,
        "x5c": [b64encode(der).decode()],
    }


def _jwt_entries(bundle: Bundle) -> list[dict[str, Any]]:
    entries = []
    for kid, key in bundle.jwt_authorities.items():
        entries.append(Jwk(key=key.key, kid=kid, use=_JWT_USE, alg=key.alg).to_members())
    return entries


def _x509_authorities(entries: list[dict[str, Any]]) -> tuple[bytes, ...]:
    found: dict[bytes, None] = {}
    for entry in entries:
        if entry.get("use") == _X509_USE and entry.get("kty") in _KEY_TYPES:
            certificate = _first_certificate(entry.get("x5c"))
            if certificate is not None:
                found[certificate] = None
    return tuple(found)


def _first_certificate(x5c: object) -> bytes | None:
    """Return the one CA certificate of an entry, or None when there is none that could be trusted."""
    if not isinstance(x5c, list) or not x5c or not isinstance(x5c[0], str):
        return None
    try:
        der = b64decode(x5c[0], validate=True)  # RFC 7517 section 4.7: base64, not base64url
        return der if is_ca(decode_certificate(der)) else None
    except (ValueError, InputError):
        return None


def _jwt_authorities(entries: list[dict[str, Any]]) -> dict[str, Jwk]:
    found: dict[str, Jwk] = {}
    ambiguous: set[str] = set()
    for entry in entries:
        if entry.get("use") != _JWT_USE:
            continue
        try:
            key = Jwk.from_members(entry)
        except InputError:
            continue
        if key.kid is None:
            continue
        if key.kid in found:
            ambiguous.add(key.kid)  # two keys of one name: trusting neither is the only safe reading
        found[key.kid] = key
    return {kid: key for kid, key in found.items() if kid not in ambiguous}


def _integer(members: dict[str, Any], name: str, highest: int) -> int | None:
    value = members.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= highest:
        raise InputError(f"{name!r} is not an integer from 0 to {highest}")
    return value
