# SPDX-License-Identifier: Apache-2.0
"""Hostile forms: framing, base64, JSON, and signatures that are none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from tests.vectors.token_maker import ORDER, Maker, b64, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    Entry = tuple[str, str, str, str]

MALFORMED: Final = "TOKEN_MALFORMED"
INVALID: Final = "TOKEN_INVALID"
ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def hostile_forms(make: Maker) -> Iterator[Entry]:
    yield from _framing(make)
    yield from _base64(make)
    yield from _json(make)
    yield from _doubled(make)
    yield from _signatures(make)


def _framing(make: Maker) -> Iterator[Entry]:
    good = make.good()
    header, payload, signature = good.split(".")
    compact = "RFC 7515 3.1, 7.1"
    yield "a blank before", f" {good}", MALFORMED, compact
    yield "a blank after", f"{good} ", MALFORMED, compact
    yield "a line end after", f"{good}\n", MALFORMED, compact
    yield "a tab after", f"{good}\t", MALFORMED, compact
    yield "a NUL after", f"{good}\0", MALFORMED, compact
    yield "a comma and a second token", f"{good},{good}", MALFORMED, "RFC 6750 2.1"
    yield "Bearer within the token", f"Bearer {good}", MALFORMED, "RFC 6750 2.1"
    yield "a dot after", f"{good}.", MALFORMED, compact
    yield "a dot before", f".{good}", MALFORMED, compact
    yield "four parts", f"{good}.{signature}", MALFORMED, compact
    yield "two parts", f"{header}.{payload}", MALFORMED, compact
    yield "one part", header, MALFORMED, compact
    yield "payload empty", f"{header}..{signature}", MALFORMED, "RFC 7515 appendix F"
    yield "dots only", "..", MALFORMED, compact
    yield "eight thousand dots", "." * 8000, MALFORMED, "CVE-2025-27144, CVE-2025-30204"
    yield "a million dots", "." * 10**6, MALFORMED, "CVE-2025-27144, CVE-2025-30204"
    yield (
        "five parts, as a JWE",
        f"{b64({'alg': 'dir', 'enc': 'A128GCM'})}..AAAA.AAAA.AAAA",
        MALFORMED,
        "CVE-2024-28102",
    )
    bomb = {"alg": "dir", "enc": "A128GCM", "zip": "DEF"}
    yield (
        "JWE with zip",
        f"{b64(bomb)}.AAAA.AAAA.{'A' * 4000}.AAAA",
        MALFORMED,
        "CVE-2024-28180, CVE-2025-63811",
    )
    flat = {"protected": header, "payload": payload, "signature": signature}
    yield "flattened JSON", json.dumps(flat), MALFORMED, "CVE-2022-39227; RFC 7515 7.2.2"
    general = {"payload": payload, "signatures": [{"protected": header, "signature": signature}]}
    yield "general JSON", json.dumps(general), MALFORMED, "RFC 7515 7.2.1"
    yield "not ASCII", good.replace(".", "\N{ONE DOT LEADER}", 1), MALFORMED, compact
    yield "8 KiB and one byte", make.with_claims(pad="a" * 8192), MALFORMED, "CVE-2026-48525"
    yield "payload of 2 MiB", make.with_claims(pad="a" * 2**21), MALFORMED, "CVE-2026-48525"
    yield "two parts exchanged", f"{payload}.{header}.{signature}", MALFORMED, compact


def _base64(make: Maker) -> Iterator[Entry]:
    good = make.good()
    header, payload, signature = good.split(".")
    source = "RFC 7515 2; RFC 4648 3.2, 3.3, 3.5"
    last = ALPHABET.index(signature[-1])
    yield "unused bits set", good[:-1] + ALPHABET[last | 1], MALFORMED, "RFC 4648 3.5; Wycheproof 374"
    yield "padding at the end", f"{good}==", MALFORMED, source
    yield "padding in the header", f"{header}=.{payload}.{signature}", MALFORMED, source
    yield "an illegal character", f"{header}.{payload}.{signature[:9]}!{signature[9:]}", MALFORMED, source
    yield "a blank within", f"{header}.{payload[:9]} {payload[9:]}.{signature}", MALFORMED, source
    yield "a line end within", f"{header}.{payload}.{signature[:9]}\n{signature[9:]}", MALFORMED, source
    yield "the other alphabet, plus", f"{header}.{payload}.+{signature[1:]}", MALFORMED, source
    yield "the other alphabet, slash", f"{header}.{payload}./{signature[1:]}", MALFORMED, source
    yield "percent-encoding", f"{header}.{payload}.%41{signature[1:]}", MALFORMED, source
    yield "an impossible length", f"{good}A" if len(signature) % 4 == 0 else f"{good}AAA", MALFORMED, source


def _json(make: Maker) -> Iterator[Entry]:
    claims = text(make.claims)
    inside = claims[:-1]
    source = "RFC 8259; RFC 7519 7.2"
    bodies = {
        "a list": text([make.claims]),
        "text": b'"claims"',
        "a number": b"1",
        "null": b"null",
        "true": b"true",
        "another token": make.good().encode(),
        "another token, quoted": text(make.good()),
        "cut": claims[:-5],
        "with something after it": claims + b"x",
        "two objects": claims + claims,
        "with a NUL after it": claims + b"\0",
        "with a last comma": inside + b",}",
        "with a comment": inside + b"/* */}",
        "in single quotes": claims.replace(b'"', b"'"),
        "holding NaN": inside + b',"x":NaN}',
        "holding an infinity": inside + b',"x":Infinity}',
        "holding 1e400": inside + b',"x":1e400}',
        "holding a raw control character": inside + b',"x":"\x01"}',
        "holding half a surrogate pair": inside + b',"x":"\\ud800"}',
        "not UTF-8": inside + b',"x":"\xff"}',
        "of overlong UTF-8": inside + b',"x":"\xc0\x80"}',
        "in UTF-16": claims.decode().encode("utf-16"),
        "in UTF-32": claims.decode().encode("utf-32"),
        "with a mark of byte order": b"\xef\xbb\xbf" + claims,
        "nested 2,500 lists deep": inside + b',"x":' + b"[" * 2500 + b"]" * 2500 + b"}",
        "nested 900 objects deep": inside + b',"x":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
        "with a number of 5,000 digits": inside + b',"x":' + b"9" * 5000 + b"}",
        "with a leading zero": inside + b',"x":01}',
    }
    for name, body in bodies.items():
        yield f"claims {name}", make.with_payload(body), MALFORMED, source
    yield "claims nested 100,000 deep", make.with_payload(b"[" * 100_000), MALFORMED, "CVE-2026-48525"
    yield "claims are an empty object", make.with_payload(b"{}"), MALFORMED, "RFC 9068 2.2"


def _doubled(make: Maker) -> Iterator[Entry]:
    source = "RFC 7519 4; RFC 8259 4"
    inside = text(make.claims)[:-1]
    for name in ("iss", "sub", "aud", "exp", "client_id", "scope", "jti", "cnf"):
        value = json.dumps(make.claims[name])
        yield (
            f"{name} twice, equal",
            make.with_payload(inside + f',"{name}":{value}}}'.encode()),
            MALFORMED,
            source,
        )
    for name, value in (("aud", '"ledger"'), ("sub", '"admin"'), ("exp", "9999999999")):
        body = inside + f',"{name}":{value}}}'.encode()
        yield f"{name} twice, different", make.with_payload(body), MALFORMED, source
        first = b'{"' + name.encode() + b'":' + value.encode() + b"," + text(make.claims)[1:]
        yield f"{name} twice, the other first", make.with_payload(first), MALFORMED, source
    yield (
        "aud twice, once escaped",
        make.with_payload(inside + b',"\\u0061ud":"ledger"}'),
        MALFORMED,
        source,
    )
    digest = make.claims["cnf"]["x5t#S256"]
    nested = inside + f',"x":{{"cnf":{{"x5t#S256":"{digest}","x5t#S256":"{digest}"}}}}}}'.encode()
    yield "a member twice, two levels down", make.with_payload(nested), MALFORMED, source
    yield "a member twice, in a list", make.with_payload(inside + b',"x":[{"a":1,"a":1}]}'), MALFORMED, source
    yield "an unknown member twice", make.with_payload(inside + b',"x":1,"x":1}'), MALFORMED, source


def _signatures(make: Maker) -> Iterator[Entry]:
    psychic = "CVE-2022-21449; Wycheproof 386-401"
    zero, one, order = (n.to_bytes(32, "big") for n in (0, 1, ORDER))
    top = b"\xff" * 32
    pairs = {
        "r = s = 0": zero + zero,
        "r = 0, s = 1": zero + one,
        "r = 1, s = 0": one + zero,
        "r = s = n": order + order,
        "r = n, s = 1": order + one,
        "r = s = 1": one + one,
        "r = s = 2^256 - 1": top + top,
    }
    for name, raw in pairs.items():
        yield f"signature {name}", make.with_signature(lambda _, raw=raw: raw), INVALID, psychic
    encoding = "RFC 7518 3.4; Wycheproof 379-385"
    yield "signature in DER", make.with_signature(_der), INVALID, encoding
    yield "signature with a byte after it", make.with_signature(lambda raw: raw + b"\0"), INVALID, encoding
    yield "signature less a byte", make.with_signature(lambda raw: raw[:-1]), INVALID, encoding
    yield "signature less its first byte", make.with_signature(lambda raw: raw[1:]), INVALID, encoding
    yield (
        "signature padded to 48 and 48 bytes",
        make.with_signature(lambda raw: bytes(16) + raw[:32] + bytes(16) + raw[32:]),
        INVALID,
        encoding,
    )
    yield "signature twice", make.with_signature(lambda raw: raw + raw), INVALID, encoding
    yield "signature of 512 bytes", make.with_signature(lambda _: b"\x01" * 512), INVALID, encoding
    yield "r and s exchanged", make.with_signature(lambda raw: raw[32:] + raw[:32]), INVALID, encoding
    yield (
        "one bit of the signature",
        make.with_signature(lambda raw: bytes([raw[0] ^ 1]) + raw[1:]),
        INVALID,
        "RFC 7515 5.2",
    )
    other = make.with_claims(jti="another").rpartition(".")[2]
    yield "signature of another token", f"{make.good().rpartition('.')[0]}.{other}", INVALID, "RFC 7515 5.2"
    header, _, signature = make.good().split(".")
    altered = b64({**make.claims, "scope": "payments.charge payments.refund"})
    yield "claims changed after signing", f"{header}.{altered}.{signature}", INVALID, "RFC 7515 5.2"


def _der(raw: bytes) -> bytes:
    return encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
