# SPDX-License-Identifier: Apache-2.0
"""Hostile JWK Sets: documents that an issuer must never publish and a verifier must never take."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tests.vectors.token_maker import ABSENT, b64, changed

if TYPE_CHECKING:
    from collections.abc import Iterator

PRIMES: Final = [p for p in range(2, 702) if all(p % q for q in range(2, p))]


@dataclass(frozen=True)
class HostileJwks:
    """A document that must be refused whole."""

    name: str
    document: bytes
    source: str


def good_ec(kid: str = "k1") -> dict[str, Any]:
    """A public key that is accepted."""
    numbers = _ec_key().public_key().public_numbers()
    x, y = (b64(n.to_bytes(32, "big")) for n in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid, "use": "sig", "alg": "ES256"}


def good_rsa(kid: str = "r1") -> dict[str, Any]:
    """Another one."""
    return {
        "kty": "RSA",
        "n": _integer(_rsa_key(2048)),
        "e": "AQAB",
        "kid": kid,
        "use": "sig",
        "alg": "RS256",
    }


def hostile_jwks() -> list[HostileJwks]:
    """Documents that must be refused, whole, though most hold a good key too."""
    found = [HostileJwks(name, document, source) for name, document, source in _documents()]
    for name, source, key in [*_ec_keys(), *_rsa_keys(), *_members()]:
        found.append(HostileJwks(name, _set(key), source))
        found.append(HostileJwks(f"{name}, beside a good one", _set(good_ec("g"), key), source))
    return found


def _set(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


def _members() -> Iterator[tuple[str, str, dict[str, Any]]]:
    key = good_ec()
    source = "RFC 7517 4"
    for name, changes in {
        "kty missing": {"kty": ABSENT},
        "kty oct": {"kty": "oct", "k": "AAAA"},
        "private key of another type": {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43, "d": "A" * 43},
        "kty a number": {"kty": 1},
        "kid missing": {"kid": ABSENT},
        "kid a number": {"kid": 1},
        "kid null": {"kid": None},
        "kid empty": {"kid": ""},
        "kid too long": {"kid": "k" * 513},
        "use enc": {"use": "enc"},
        "use unknown": {"use": "jwt-svid"},
        "use a list": {"use": ["sig"]},
        "key_ops sign": {"key_ops": ["sign"]},
        "key_ops encrypt": {"key_ops": ["encrypt"]},
        "key_ops empty": {"key_ops": []},
        "key_ops verify twice": {"key_ops": ["verify", "verify"]},
        "key_ops text": {"key_ops": "verify"},
        "alg HS256": {"alg": "HS256"},
        "alg none": {"alg": "none"},
        "alg ES384 on P-256": {"alg": "ES384"},
        "alg RS256 on an EC key": {"alg": "RS256"},
        "alg ES521": {"alg": "ES521"},
        "alg null": {"alg": None},
        "alg of encryption": {"alg": "ECDH-ES"},
    }.items():
        yield name, source, changed(key, changes)


def _ec_keys() -> Iterator[tuple[str, str, dict[str, Any]]]:
    key, source = good_ec(), "RFC 7518 6.2; Wycheproof json_web_key"
    for name, changes in {
        "private EC key": {"d": "AAAA"},
        "point off the curve": {"x": key["y"], "y": key["x"]},
        "point at infinity": {"x": b64(bytes(32)), "y": b64(bytes(32))},
        "coordinate too short": {"x": b64(bytes(31))},
        "coordinate too long": {"x": b64(bytes(33))},
        "coordinate missing": {"y": ABSENT},
        "coordinate padded": {"x": key["x"] + "="},
        "curve secp256k1": {"crv": "secp256k1"},
        "curve of another size": {"crv": "P-521"},
        "curve missing": {"crv": ABSENT},
        "private EC key in disguise": {"d": None},
    }.items():
        yield name, source, changed(key, changes)


def _rsa_keys() -> Iterator[tuple[str, str, dict[str, Any]]]:
    key, source = good_rsa(), "RFC 7518 6.3; RFC 8725 3.5"
    for name, changes in {
        "RSA of 1024 bits": {"n": _integer(_rsa_key(1024))},
        "RSA of 16384 bits": {"n": _integer((1 << 16384) - 1)},
        "RSA with e = 1": {"e": "AQ"},
        "RSA with e = 3": {"e": "Aw"},
        "RSA with an even exponent": {"e": b64(b"\x01\x00\x02")},
        "RSA with a huge exponent": {"e": b64(b"\x01" + bytes(9))},
        "RSA with an even modulus": {"n": _integer(_rsa_key(2048) - 1)},
        "RSA with zeros before the modulus": {"n": "AA" + key["n"]},
        "RSA of the broken generator": {"n": _integer(_roca())},
        "RSA modulus missing": {"n": ABSENT},
        "RSA modulus empty": {"n": ""},
        "private RSA key": {"d": "AAAA"},
        "RSA with a prime": {"p": "AAAA"},
        "RSA with other primes": {"oth": []},
    }.items():
        yield name, source if "broken" not in name else "CVE-2017-15361 (ROCA)", changed(key, changes)


def _documents() -> Iterator[tuple[str, bytes, str]]:
    key = good_ec()
    good = _set(key)
    source = "RFC 7517 5"
    yield "empty", b"", source
    yield "null", b"null", source
    yield "a list", json.dumps([key]).encode(), source
    yield "a page of HTML", b"<!doctype html><title>404</title>", "RFC 8725 3.10"
    yield "one key without a set", json.dumps(key).encode(), source
    yield "no keys", b"{}", source
    yield "keys empty", _set(), source
    yield "keys an object", json.dumps({"keys": {"k1": key}}).encode(), source
    yield "keys null", b'{"keys":null}', source
    yield "a key is text", _set(json.dumps(key)), source
    yield "a key is null", _set(key, None), source
    yield "keys twice", good[:-1] + b"," + good[1:], "RFC 8259 4"
    yield "kid twice in one key", good.replace(b'"kid"', b'"kid": "x", "kid"'), "RFC 7517 4"
    okp = {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43, "kid": "o"}
    yield "no key that is used here", _set(okp, {**key, "kty": "ec"}), source
    yield "one kid for keys of two types", _set(key, {**okp, "kid": "k1"}), "RFC 7517 4.5"
    yield "one kid for one key twice", _set(key, key), "RFC 7517 4.5"
    yield "one kid for two keys", _set(key, good_rsa("k1")), "RFC 7517 4.5"
    yield "33 keys", _set(*(good_ec(f"k{n}") for n in range(33))), "limit"
    yield "larger than 64 KiB", _set({**key, "pad": "a" * 65536}), "limit; CVE-2025-61920"
    yield "nested deep", b'{"keys":' + b"[" * 40 + b"]" * 40 + b"}", "limit"
    yield "nested 100,000 deep", b"[" * 60_000, "limit"
    yield "with a mark of byte order", b"\xef\xbb\xbf" + good, "RFC 8259 8.1"
    yield "in UTF-16", good.decode().encode("utf-16"), "RFC 8259 8.1"
    yield "with something after it", good + b"x", "RFC 8259 2"
    yield "with NaN", good[:-1] + b',"x":NaN}', "RFC 8259 6"
    yield "symmetric key alone", _set({"kty": "oct", "k": "AAAA", "kid": "s", "alg": "HS256"}), "RFC 8725 3.1"
    yield (
        "symmetric key beside a good one",
        _set(key, {"kty": "oct", "k": "AAAA", "kid": "s"}),
        "RFC 8725 3.1",
    )


@functools.cache
def _ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache
def _rsa_key(bits: int) -> int:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits).public_key().public_numbers().n


def _roca() -> int:
    product = 1
    for prime in PRIMES[:126]:
        product *= prime
    return pow(65537, 123456789, product) + ((1 << 2047) // product + 2) * product


def _integer(number: int) -> str:
    return b64(number.to_bytes((number.bit_length() + 7) // 8, "big"))
