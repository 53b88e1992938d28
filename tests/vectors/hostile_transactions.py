# SPDX-License-Identifier: Apache-2.0
"""Hostile transaction tokens: user context that is forged, stale, of another domain or of a wrong shape."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from tests.vectors.hostile_claims import NO_NUMBERS
from tests.vectors.token_maker import ABSENT, Maker, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    Entry = tuple[str, str, str, str]

DRAFT: Final = "draft-ietf-oauth-transaction-tokens"
MALFORMED: Final = "TOKEN_MALFORMED"
INVALID: Final = "TOKEN_INVALID"


def hostile_transaction_claims(make: Maker, now: int) -> Iterator[Entry]:
    yield from _required(make, now)
    yield from _names(make)
    yield from _context(make)


def _required(make: Maker, now: int) -> Iterator[Entry]:
    for name in ("iss", "aud", "sub", "txn", "req_wl", "jti", "iat", "exp", "tctx"):
        yield f"{name} missing", make.with_claims(**{name: ABSENT}), MALFORMED, DRAFT
        yield f"{name} null", make.with_claims(**{name: None}), MALFORMED, DRAFT
        yield f"{name} a list", make.with_claims(**{name: [make.claims[name]]}), MALFORMED, DRAFT
        doubled = text(make.claims)[:-1] + f',"{name}":{json.dumps(make.claims[name])}}}'.encode()
        yield f"{name} twice", make.with_payload(doubled), MALFORMED, "RFC 7519 4"
    for value in NO_NUMBERS:
        yield f"exp is {json.dumps(value)}", make.with_claims(exp=value), MALFORMED, "RFC 7519 2"
        yield f"iat is {json.dumps(value)}", make.with_claims(iat=value), MALFORMED, "RFC 7519 2"
    yield "over", make.with_claims(exp=now - 6, iat=now - 300), "TOKEN_EXPIRED", "RFC 7519 4.1.4"
    yield "from the future", make.with_claims(iat=now + 35), INVALID, "RFC 7519 4.1.6"
    yield "alive for longer than an hour", make.with_claims(exp=now + 3591), INVALID, DRAFT
    for value in (None, ["a"], 1, "a  b", "a\n"):
        yield f"scope is {json.dumps(value)}", make.with_claims(scope=value), MALFORMED, "RFC 6749 3.3"
    for value in (None, ["a"], "text", 1):
        yield f"rctx is {json.dumps(value)}", make.with_claims(rctx=value), MALFORMED, DRAFT


def _names(make: Maker) -> Iterator[Entry]:
    for issuer in (make.claims["iss"] + "/", make.claims["iss"][:-1], "https://attacker.example"):
        yield f"iss {issuer}", make.with_claims(iss=issuer), "UNAUTHORIZED_ISSUER", "RFC 8725 3.8"
    for domain in ("other.example", make.claims["aud"].upper(), f"spiffe://{make.claims['aud']}", "payments"):
        yield f"aud {domain}", make.with_claims(aud=domain), "AUDIENCE_MISMATCH", "RFC 8725 3.9"
    for name in ("sub", "txn", "jti", "iss", "aud"):
        yield f"{name} empty", make.with_claims(**{name: ""}), MALFORMED, DRAFT
        yield f"{name} with a line end", make.with_claims(**{name: "a\r\nx-roles: admin"}), MALFORMED, DRAFT
    for workload in ("orders", "spiffe://shop.example", "https://shop.example/orders", "spiffe://a/../b"):
        yield f"req_wl {workload}", make.with_claims(req_wl=workload), MALFORMED, DRAFT


def _context(make: Maker) -> Iterator[Entry]:
    good: dict[str, Any] = make.claims["tctx"]
    bad: dict[str, dict[str, Any]] = {
        "roles text": {"roles": "admin"},
        "roles null": {"roles": None},
        "roles an object": {"roles": {"admin": True}},
        "roles of numbers": {"roles": [1]},
        "roles with an empty name": {"roles": [""]},
        "roles with a control character": {"roles": ["a\x7f"]},
        "too many roles": {"roles": ["r"] * 65},
        "a role too long": {"roles": ["r" * 257]},
        "kind unknown": {"kind": "admin"},
        "kind missing": {"kind": ABSENT},
        "kind null": {"kind": None},
        "idp missing": {"idp": ABSENT},
        "idp empty": {"idp": ""},
        "acr a number": {"acr": 1},
        "acr null": {"acr": None},
        "amr text": {"amr": "mfa"},
        "amr null": {"amr": None},
        "auth_time text": {"auth_time": "1"},
        "auth_time true": {"auth_time": True},
        "email a list": {"email": ["a@example.com"]},
    }
    for name, changes in bad.items():
        context = {key: value for key, value in {**good, **changes}.items() if value is not ABSENT}
        yield f"tctx: {name}", make.with_claims(tctx=context), MALFORMED, DRAFT
    roles = text(make.claims).replace(b'"roles":["clerk"]', b'"roles":["clerk"],"roles":["admin"]')
    yield "tctx: roles twice", make.with_payload(roles), MALFORMED, "RFC 8259 4"
