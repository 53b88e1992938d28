# SPDX-License-Identifier: Apache-2.0
"""Hostile headers: the algorithm, the key's name, keys that the token brings along, extensions, types."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID
from tests.vectors.token_maker import ABSENT, Maker, b64, es256, hs256, join, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    Entry = tuple[str, str, str, str]

MALFORMED: Final = "TOKEN_MALFORMED"
INVALID: Final = "TOKEN_INVALID"
UNKNOWN: Final = "UNKNOWN_KEY_ID"

# The attacker's own keys; which ones they are does not matter, so they are made once.
THIEF: Final = ec.generate_private_key(ec.SECP256R1())
THIEF_384: Final = ec.generate_private_key(ec.SECP384R1())
THIEF_RSA: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)
THIEF_ED: Final = ed25519.Ed25519PrivateKey.generate()


def hostile_headers(make: Maker) -> Iterator[Entry]:
    yield from _algorithms(make)
    yield from _public_key_as_secret(make)
    yield from _brought_keys(make)
    yield from _names(make)
    yield from _extensions(make)
    yield from _types(make)


def _algorithms(make: Maker) -> Iterator[Entry]:
    none = "RFC 8725 3.1; CVE-2022-23540, CVE-2026-28802"
    for alg in ("none", "None", "NONE", "nOnE", ""):
        yield f"alg {alg or 'empty'}, no signature", make.with_header(lambda _: b"", alg=alg), INVALID, none
    yield "alg none, signature kept", make.with_header(alg="none"), INVALID, none
    yield "alg missing", make.with_header(alg=ABSENT), MALFORMED, "RFC 7515 4.1.1; CVE-2026-22817"
    yield "alg null", make.with_header(alg=None), MALFORMED, "RFC 7515 4.1.1"
    yield "alg as a list", make.with_header(alg=["ES256"]), MALFORMED, "RFC 7515 4.1.1"
    yield "alg in lower case", make.with_header(alg="es256"), INVALID, "RFC 7515 4.1.1 (case-sensitive)"
    yield "alg with a blank", make.with_header(alg="ES256 "), INVALID, "RFC 7515 4.1.1"
    yield "ES256, empty signature", make.with_signature(lambda _: b""), INVALID, "RFC 8725 3.2"
    confusion = "RFC 8725 3.1, 3.2"
    yield "ES384 of another key", make.with_header(_es384, alg="ES384"), INVALID, confusion
    yield "RS256 of another key", make.with_header(_rs256, alg="RS256"), INVALID, confusion
    yield "PS256 of another key", make.with_header(_ps256, alg="PS256"), INVALID, confusion
    yield "EdDSA of another key", make.with_header(THIEF_ED.sign, alg="EdDSA"), INVALID, confusion
    yield "alg says RS256, signed with ES256", make.with_header(alg="RS256"), INVALID, confusion
    yield "alg says ES384, signed with ES256", make.with_header(alg="ES384"), INVALID, confusion
    yield "alg says ES512, signed with ES256", make.with_header(alg="ES512"), INVALID, confusion
    yield "alg unknown", make.with_header(alg="ES256K"), INVALID, "RFC 8725 3.1"


def _public_key_as_secret(make: Maker) -> Iterator[Entry]:
    public = make.signer.key.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    numbers = public.public_numbers()
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": b64(numbers.x.to_bytes(32, "big")),
        "y": b64(numbers.y.to_bytes(32, "big")),
    }
    source = "RFC 8725 2.1; CVE-2024-37568, CVE-2023-48223"
    secrets = {
        "the public PEM": pem,
        "the public PEM, stripped": pem.strip(),
        "the public DER": der,
        "an empty key": b"",
        "a zero byte": b"\0",
    }
    for name, secret in secrets.items():
        yield f"HS256 with {name}", make.with_header(hs256(secret), alg="HS256"), INVALID, source
    yield (
        "HS256 with the public PEM after a blank",
        make.with_header(hs256(b" " + pem), alg="HS256"),
        INVALID,
        "CVE-2026-34950",
    )
    for name, spelled in (("compact", text(jwk)), ("spaced", json.dumps(jwk).encode())):
        token = make.with_header(hs256(spelled), alg="HS256")
        yield f"HS256 with the public JWK, {name}", token, INVALID, "CVE-2026-48526"


def _brought_keys(make: Maker) -> Iterator[Entry]:
    numbers = THIEF.public_key().public_numbers()
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": b64(numbers.x.to_bytes(32, "big")),
        "y": b64(numbers.y.to_bytes(32, "big")),
    }
    chain = [b64encode(_certificate()).decode()]
    thief = es256(THIEF)
    yield "signed by another key under our kid", make.with_header(thief), INVALID, "SPIFFE federation 4.2"
    yield "jwk in the header", make.with_header(thief, jwk=jwk), INVALID, "CVE-2018-0114, CVE-2026-27962"
    yield "jwk in the header, signed by us", make.with_header(jwk=jwk), INVALID, "RFC 8725 3.10"
    yield (
        "jwk in the header, kid of its own",
        make.with_header(thief, jwk=jwk, kid="mine"),
        UNKNOWN,
        "CVE-2018-0114",
    )
    yield "x5c of the attacker", make.with_header(thief, x5c=chain), INVALID, "RFC 7515 4.1.6; CVE-2026-27962"
    remote = "RFC 8725 3.10; CVE-2026-48522"
    for scheme in ("http://127.0.0.1:9/k", "http://169.254.169.254/latest", "file:///etc/passwd", "data:,{}"):
        yield f"jku {scheme[:12]}", make.with_header(thief, jku=scheme), INVALID, remote
    yield "jku, signed by us", make.with_header(jku="https://issuer.example/jwks"), INVALID, remote
    yield "x5u", make.with_header(thief, x5u="http://127.0.0.1:9/c"), INVALID, remote
    yield "x5t#S256 in the header", make.with_header(**{"x5t#S256": "A" * 43}), INVALID, "RFC 7515 4.1.8"


def _names(make: Maker) -> Iterator[Entry]:
    source = "RFC 8725 3.10"
    hostile = (
        "../../../../dev/null",
        "/proc/sys/kernel/randomize_va_space",
        "' OR '1'='1",
        "k1' UNION SELECT 'secret' --",
        "$(id)",
        "|id",
        "http://127.0.0.1:9/",
        "never-published",
        f"{make.signer.kid} ",
        make.signer.kid.upper() + "X",
        f"{make.signer.kid}.{make.signer.kid}",
    )
    for kid in hostile:
        yield f"kid {kid}"[:40], make.with_header(kid=kid), UNKNOWN, source
    yield "kid with NUL", make.with_header(kid=f"{make.signer.kid}\0"), MALFORMED, source
    yield "kid with a line end", make.with_header(kid=f"{make.signer.kid}\r\nX: y"), MALFORMED, source
    yield "kid empty", make.with_header(kid=""), MALFORMED, "RFC 7515 4.1.4"
    yield "kid of 600 characters", make.with_header(kid="k" * 600), MALFORMED, source
    yield "kid of 64 KiB", make.with_header(kid="k" * 65536), MALFORMED, source
    for kid in (1, None, True, ["k1"], {"k": 1}):
        yield f"kid is {json.dumps(kid)}", make.with_header(kid=kid), MALFORMED, "RFC 7515 4.1.4"
    yield "kid missing", make.with_header(kid=ABSENT), MALFORMED, "the profile names its key"


def _extensions(make: Maker) -> Iterator[Entry]:
    crit = "RFC 7515 4.1.11; CVE-2026-32597, CVE-2025-59420"
    for value in (["x-unknown"], [], "exp", ["exp"], ["alg"], ["exp", "exp"], [1], None, {}):
        yield f"crit {json.dumps(value)}", make.with_header(crit=value), INVALID, crit
    yield (
        "crit names a member that is there",
        make.with_header(crit=["x-one"], **{"x-one": 1}),
        INVALID,
        crit,
    )
    b64_source = "RFC 7797 6"
    yield (
        "b64 false with crit",
        make.with_header(b64=False, crit=["b64"]),
        INVALID,
        "RFC 7797; GHSA-wphv-vfrh-23q5",
    )
    yield "b64 false without crit", make.with_header(b64=False), INVALID, b64_source
    yield "b64 true", make.with_header(b64=True), INVALID, b64_source
    header = {**make.header, "b64": False, "crit": ["b64"]}
    payload = text(make.claims).decode()
    signing_input = f"{b64(header)}.{payload}"
    raw = f"{signing_input}.{b64(make.sign(signing_input.encode()))}"
    yield "b64 false, payload in clear", raw, MALFORMED, "RFC 7797 3"
    yield "zip on a JWS", make.with_header(zip="DEF"), INVALID, "RFC 7516 4.1.3; CVE-2024-28102"
    yield "cty JWT", make.with_header(cty="JWT"), INVALID, "RFC 8725 3.11"
    yield (
        "a member that nobody knows",
        make.with_header(**{"x-note": "hello"}),
        INVALID,
        "profile of three members",
    )
    yield "iss in the header", make.with_header(iss="https://issuer.example"), INVALID, "RFC 7519 5.3"
    yield (
        "p2c of ten million",
        make.with_header(alg="PBES2-HS256+A128KW", p2c=10**7, p2s="AAAA"),
        INVALID,
        "WS-2023-0431",
    )


def _types(make: Maker) -> Iterator[Entry]:
    source = "RFC 9068 4, RFC 8725 3.11, ASVS 9.2.2"
    right = make.typ
    for typ in (
        "JWT",
        "jwt",
        right.upper(),
        f"application/{right}",
        "dpop+jwt",
        "refresh+jwt",
        "",
        f"{right} ",
    ):
        yield f"typ {typ or 'empty'}", make.with_header(typ=typ), INVALID, source
    yield "typ missing", make.with_header(typ=ABSENT), INVALID, source
    yield "typ null", make.with_header(typ=None), INVALID, source
    yield "typ as a list", make.with_header(typ=[right]), INVALID, source
    other = "txntoken+jwt" if right == "at+jwt" else "at+jwt"
    yield "typ of our other kind of token", make.with_header(typ=other), INVALID, source
    head = make.header
    for name in ("alg", "kid", "typ"):
        members = ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in head.items())
        doubled = f'{{{members},"{name}":{json.dumps(head[name])}}}'.encode()
        yield (
            f"{name} twice in the header",
            make.with_raw_header(doubled),
            MALFORMED,
            "RFC 7515 4; RFC 8259 4",
        )
    yield "header is a list", make.with_raw_header(text([head])), MALFORMED, "RFC 7515 4"
    yield "header is text", make.with_raw_header(b'"ES256"'), MALFORMED, "RFC 7515 4"
    yield "header is null", make.with_raw_header(b"null"), MALFORMED, "RFC 7515 4"
    yield "header is empty", join(b"", make.claims, make.sign), MALFORMED, "RFC 7515 4"
    yield (
        "header with a mark of byte order",
        make.with_raw_header(b"\xef\xbb\xbf" + text(head)),
        MALFORMED,
        "RFC 8259 8.1",
    )
    yield "header of 1 MiB", make.with_header(x="a" * 2**20), MALFORMED, "CVE-2025-61920"


def _es384(message: bytes) -> bytes:
    r, s = decode_dss_signature(THIEF_384.sign(message, ec.ECDSA(hashes.SHA384())))
    return r.to_bytes(48, "big") + s.to_bytes(48, "big")


def _rs256(message: bytes) -> bytes:
    return THIEF_RSA.sign(message, padding.PKCS1v15(), hashes.SHA256())


def _ps256(message: bytes) -> bytes:
    return THIEF_RSA.sign(message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())


def _certificate() -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "thief")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, THIEF.public_key(), 1, now, now + timedelta(days=1))
    return builder.sign(THIEF, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
