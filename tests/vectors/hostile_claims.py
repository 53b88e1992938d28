# SPDX-License-Identifier: Apache-2.0
"""Hostile claims: signed by the right key, and still not to be believed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from tests.vectors.token_maker import ABSENT, Maker, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    Entry = tuple[str, str, str, str]

MALFORMED: Final = "TOKEN_MALFORMED"
INVALID: Final = "TOKEN_INVALID"
EXPIRED: Final = "TOKEN_EXPIRED"
ISSUER: Final = "UNAUTHORIZED_ISSUER"
AUDIENCE: Final = "AUDIENCE_MISMATCH"
BINDING: Final = "BINDING_MISMATCH"
SCOPE: Final = "INSUFFICIENT_SCOPE"
NO_NUMBERS: Final = (None, "1", True, False, [1], {"a": 1}, 1.5, "")


def hostile_claims(make: Maker, service: str, operation: str, now: int) -> Iterator[Entry]:
    yield from _times(make, now)
    yield from _issuers(make)
    yield from _audiences(make, service, operation)
    yield from _callers(make)
    yield from _bindings(make)
    yield from _scopes(make, service, operation)
    yield from _actors(make)
    yield from _others(make)


def _raw(make: Maker, name: str, value: str) -> str:
    """The good claims with one member written as it stands, also when JSON has no such value."""
    rest = {key: kept for key, kept in make.claims.items() if key != name}
    return make.with_payload(text(rest)[:-1] + f',"{name}":{value}}}'.encode())


def _times(make: Maker, now: int) -> Iterator[Entry]:
    date = "RFC 7519 2 (NumericDate), 4.1.4"
    for value in NO_NUMBERS:
        yield f"exp is {json.dumps(value)}", make.with_claims(exp=value), MALFORMED, date
    yield "exp as numeric text", make.with_claims(exp=str(now + 290)), MALFORMED, date
    yield "exp with a fraction", make.with_claims(exp=now + 290.0), MALFORMED, date
    for value in ("NaN", "Infinity", "-Infinity", "1e308", "1e10", "0x7fffffff", "9" * 400):
        yield f"exp is {value[:12]}", _raw(make, "exp", value), MALFORMED, date
    yield "exp in 30 million years", make.with_claims(exp=10**15), MALFORMED, date
    yield "exp negative", make.with_claims(exp=-1), MALFORMED, date
    yield "exp missing", make.with_claims(exp=ABSENT), MALFORMED, "RFC 9068 2.2"
    old = "RFC 7519 4.1.4; skew of 5 seconds"
    yield "expired by more than the skew", make.with_claims(exp=now - 6, iat=now - 300), EXPIRED, old
    yield "expired a day ago", make.with_claims(exp=now - 86400, iat=now - 86700), EXPIRED, old
    yield "exp is 0", make.with_claims(exp=0, iat=0), EXPIRED, old
    for value in NO_NUMBERS:
        yield f"iat is {json.dumps(value)}", make.with_claims(iat=value), MALFORMED, "RFC 7519 4.1.6"
    yield "iat missing", make.with_claims(iat=ABSENT), MALFORMED, "RFC 9068 2.2"
    yield "iat negative", make.with_claims(iat=-1), MALFORMED, "RFC 7519 4.1.6"
    skew = "RFC 7519 4.1.5, 4.1.6; skew of 30 seconds"
    yield "iat beyond the skew", make.with_claims(iat=now + 35), INVALID, skew
    yield "iat in an hour", make.with_claims(iat=now + 3600, exp=now + 3900), INVALID, skew
    for value in (None, "1", True, 1.5, [1]):
        yield f"nbf is {json.dumps(value)}", make.with_claims(nbf=value), MALFORMED, "RFC 7519 4.1.5"
    yield "nbf beyond the skew", make.with_claims(nbf=now + 35), INVALID, skew
    yield "nbf in an hour", make.with_claims(nbf=now + 3600), INVALID, skew
    life = "RFC 9068 4; at most an hour"
    yield "lives for longer than an hour", make.with_claims(iat=now - 10, exp=now + 3591), INVALID, life
    yield "issued in 1970", make.with_claims(iat=0), INVALID, life
    yield "over before it starts", make.with_claims(iat=now + 10, exp=now + 5), INVALID, life


def _issuers(make: Maker) -> Iterator[Entry]:
    source = "RFC 8725 3.8; CVE-2024-53861, CVE-2025-30144"
    issuer = make.claims["iss"]
    others = {
        "a prefix": issuer[:-1],
        "a suffix": f"{issuer}.attacker.example",
        "with a slash after it": f"{issuer}/",
        "in upper case": issuer.upper(),
        "with a path": f"{issuer}/tenant",
        "in front of another": f"https://attacker.example/{issuer}",
        "with a user before it": issuer.replace("://", "://x@"),
        "with a blank": f" {issuer}",
        "another": "https://attacker.example",
        "a SPIFFE ID": "spiffe://shop.example",
    }
    for name, value in others.items():
        yield f"iss {name}", make.with_claims(iss=value), ISSUER, source
    for value in ([issuer], None, "", 1, {"iss": issuer}, [issuer, "https://attacker.example"]):
        yield f"iss is {json.dumps(value)[:60]}", make.with_claims(iss=value), MALFORMED, source
    yield "iss missing", make.with_claims(iss=ABSENT), MALFORMED, "RFC 9068 2.2"


def _audiences(make: Maker, service: str, operation: str) -> Iterator[Entry]:
    source = "RFC 8725 3.9; RFC 9068 4"
    others = {
        "another service": "ledger",
        "longer": f"{service}s",
        "shorter": service[:-1],
        "in upper case": service.upper(),
        "with a blank": f"{service} ",
        "with a slash": f"{service}/",
        "another operation": f"{service}#not-{operation}",
        "an empty operation": f"{service}#",
        "two in one text": f"{service} ledger",
        "another service's operation": f"ledger#{operation}",
        "everything": "*",
        "the issuer": make.claims["iss"],
    }
    for name, value in others.items():
        yield f"aud {name}", make.with_claims(aud=value), AUDIENCE, source
    if "#" in make.claims["aud"]:
        yield "aud too wide", make.with_claims(aud=service), AUDIENCE, "per-operation audience"
    right = make.claims["aud"]
    for value in ([right], ["ledger", right], [right, right], [], None, "", 1, True, {"aud": right}):
        yield (
            f"aud is {json.dumps(value)[:32]}",
            make.with_claims(aud=value),
            MALFORMED,
            "one audience; SPIFFE JWT-SVID 6.2",
        )
    yield "aud missing", make.with_claims(aud=ABSENT), MALFORMED, "RFC 9068 2.2; CWE-287"


def _callers(make: Maker) -> Iterator[Entry]:
    peer = make.claims["client_id"]
    source = "RFC 9068 2.2, 5"
    for value in ("", None, 1, [peer], {"sub": peer}):
        yield f"sub is {json.dumps(value)[:24]}", make.with_claims(sub=value), MALFORMED, source
    yield "sub missing", make.with_claims(sub=ABSENT), MALFORMED, source
    yield "sub of somebody else, without act", make.with_claims(sub="alice"), MALFORMED, "RFC 8693 4.1"
    other = peer.rpartition("/")[0] + "/another"
    foreign = peer.replace("://", "://evil-", 1)
    for name, value in (("sibling", other), ("of another trust domain", foreign), ("longer", f"{peer}s")):
        yield (
            f"caller is a {name}",
            make.with_claims(sub=value, client_id=value),
            BINDING,
            "RFC 8705 3; ASVS 10.3.5",
        )
    bad = {
        "empty": "",
        "null": None,
        "a name": "orders",
        "a URL": "https://shop.example/service/orders",
        "a trust domain": "spiffe://shop.example",
        "with dots": "spiffe://shop.example/service/../admin",
        "with a slash after it": f"{peer}/",
        "with a query": f"{peer}?x",
        "with a line end": f"{peer}\n",
        "in upper case": peer.replace("spiffe://", "SPIFFE://"),
        "with a port": "spiffe://shop.example:1/service/orders",
        "with percent-encoding": "spiffe://shop.example/service/%6frders",
        "a list": [peer],
    }
    for name, value in bad.items():
        claims: dict[str, Any] = {"client_id": value}
        if isinstance(value, str) and value:
            claims["sub"] = value
        yield f"client_id {name}", make.with_claims(**claims), MALFORMED, "RFC 9068 2.2; SPIFFE-ID 2"
    yield "client_id missing", make.with_claims(client_id=ABSENT), MALFORMED, source


def _bindings(make: Maker) -> Iterator[Entry]:
    digest = make.claims["cnf"]["x5t#S256"]
    source = "RFC 8705 3.1; RFC 7800 3"
    yield "bound to nothing", make.with_claims(cnf=ABSENT), BINDING, source
    yield (
        "bound to another certificate",
        make.with_claims(cnf={"x5t#S256": "B" * 42 + "A"}),
        BINDING,
        "RFC 8705 3",
    )
    yield "bound to a key, no proof sent", make.with_claims(cnf={"jkt": digest}), BINDING, "RFC 9449 7.1"
    bad = {
        "empty": {},
        "null": None,
        "text": digest,
        "a list": [digest],
        "of both kinds": {"x5t#S256": digest, "jkt": digest},
        "of a kind nobody knows": {"kid": "k"},
        "with a kind nobody knows": {"x5t#S256": digest, "kid": "k"},
        "a whole key": {"jwk": {"kty": "EC"}},
        "too short": {"x5t#S256": digest[:-1]},
        "empty text": {"x5t#S256": ""},
        "null inside": {"x5t#S256": None},
        "padded": {"x5t#S256": f"{digest}="},
        "of the other alphabet": {"x5t#S256": "+" + digest[1:]},
        "with unused bits": {"x5t#S256": digest[:-1] + "B"},
        "by SHA-1": {"x5t": "A" * 27},
    }
    for name, value in bad.items():
        yield f"cnf {name}", make.with_claims(cnf=value), MALFORMED, source


def _scopes(make: Maker, service: str, operation: str) -> Iterator[Entry]:
    source = "RFC 6750 3.1; RFC 6749 3.3"
    others = {
        "another operation": f"{service}.not-{operation}",
        "another service": f"ledger.{operation}",
        "longer": f"{service}.{operation}s",
        "shorter": f"{service}.{operation[:-1]}",
        "in upper case": f"{service}.{operation}".upper(),
        "everything": "*",
        "everything of the service": f"{service}.*",
        "the service": service,
        "separated by a comma": f"ledger.read,{service}.{operation}",
    }
    for name, value in others.items():
        yield f"scope {name}", make.with_claims(scope=value), SCOPE, source
    yield "scope missing", make.with_claims(scope=ABSENT), SCOPE, source
    yield "scope empty", make.with_claims(scope=""), SCOPE, source
    right = make.claims["scope"]
    for value in (
        [right],
        None,
        1,
        {right: True},
        f"{right}  {right}",
        f" {right}",
        f"{right}\n",
        f"{right}\\",
        "é",
    ):
        yield f"scope is {json.dumps(value)[:40]}", make.with_claims(scope=value), MALFORMED, source


def _actors(make: Maker) -> Iterator[Entry]:
    peer = make.claims["client_id"]
    source = "RFC 8693 4.1"
    five: Any = None
    for _ in range(5):
        five = {"sub": peer, "act": five} if five else {"sub": peer}
    bad = {
        "five deep": five,
        "null": None,
        "text": peer,
        "a list": [{"sub": peer}],
        "without sub": {},
        "with an empty sub": {"sub": ""},
        "with sub as a number": {"sub": 1},
        "with more than names": {"sub": peer, "exp": 1},
        "null inside": {"sub": peer, "act": {"sub": None}},
        "of somebody else": {"sub": peer + "x"},
        "with the caller below another": {"sub": peer + "x", "act": {"sub": peer}},
    }
    for name, value in bad.items():
        yield f"act {name}", make.with_claims(sub="alice", act=value), MALFORMED, source


def _others(make: Maker) -> Iterator[Entry]:
    for value in ("", None, 1, ["a"], "x" * 300, "a\nb", "a\0"):
        yield (
            f"jti is {json.dumps(value)[:16]}",
            make.with_claims(jti=value),
            MALFORMED,
            "RFC 9068 2.2; RFC 7519 4.1.7",
        )
    yield "jti missing", make.with_claims(jti=ABSENT), MALFORMED, "RFC 9068 2.2"
    for value in ("", None, 1, ["a"], "x" * 300, "a\r\nb"):
        yield f"txn is {json.dumps(value)[:16]}", make.with_claims(txn=value), MALFORMED, "RFC 8417 2.2"
