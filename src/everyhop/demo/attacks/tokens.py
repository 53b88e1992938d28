# SPDX-License-Identifier: Apache-2.0
"""Attacks with tokens: none, foreign, forged with the real key, stolen, replayed, taken back, of another purpose."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from everyhop.demo.model import Attempt, Seen
from everyhop.demo.stage import wait_for
from everyhop.demo.treasury import LIFE_SECONDS
from everyhop.tokens import x5t_s256

if TYPE_CHECKING:
    from everyhop.demo.range import Range
    from everyhop.demo.raw import Reply

_THEME: Final = "token"
_CHARGE: Final = ("POST", "/v1/charges")
_BODY: Final = b'{"cents": 1}'
_REVOKED_WITHIN_SECONDS: Final = 2.0  # the bar is one second; this machine may be busy with other things


def _x5t(field: Range, service: str) -> str:
    return x5t_s256(field.identity(service).chain[0])


def _show(
    field: Range,
    *headers: tuple[str, str],
    caller: str = "orders",
    call: tuple[str, str] = _CHARGE,
    target: str = "payments",
) -> Reply:
    return field.call(caller, target, *call, headers=headers, body=_BODY if call[0] == "POST" else b"")


def _seen(reply: Reply) -> Seen:
    return Seen(text=reply.text, decision=reply.decision)


def _bearer(make: Callable[[Range], str], **more: Any) -> Callable[[Range], Seen]:
    """Return an attack that shows a token to payments."""
    return lambda field: _seen(_show(field, ("authorization", f"Bearer {make(field)}"), **more))


def _forged(header: dict[str, Any] | None = None, **changed: Any) -> Callable[[Range], Seen]:
    """Return an attack with claims of the attacker's choice and the issuer's real signature."""

    def make(field: Range) -> str:
        claims = field.treasury.claims("orders", _x5t(field, "orders"), **changed)
        return field.treasury.sign(claims, **(header or {}))

    return _bearer(make)


def _with_claims(make: Callable[[Range, dict[str, Any]], str]) -> Callable[[Range], Seen]:
    return _bearer(lambda field: make(field, field.treasury.claims("orders", _x5t(field, "orders"))))


def _repeated_member(field: Range) -> str:
    """Write ``aud`` twice: a reader that keeps the first and one that keeps the last see two tokens."""
    now = int(time.time())
    claims = field.treasury.claims("orders", _x5t(field, "orders"), aud="orders", iat=now, exp=now + 60)
    text = str(claims).replace("'", '"')[:-1] + ', "aud": "payments"}'
    return field.treasury.sign(text.encode())


def _twice(field: Range) -> Seen:
    token = f"Bearer {field.treasury.mint('orders', 'payments')}"
    return _seen(_show(field, ("authorization", token), ("authorization", "Bearer forged")))


def _in_query(field: Range) -> Seen:
    token = field.treasury.mint("orders", "payments")
    return _seen(_show(field, call=("POST", f"/v1/charges?access_token={token}")))


def _stolen(field: Range) -> Seen:
    """Let storefront, which may ask for the balance, come with the token of orders for it."""
    token = field.treasury.mint("orders", "payments", "balance")
    headers = ("authorization", f"Bearer {token}")
    return _seen(_show(field, headers, caller="storefront", call=("GET", "/v1/balance")))


def _replayed(field: Range) -> Seen:
    """Use a single-use token a second time, on a connection of its own."""
    headers = ("authorization", f"Bearer {field.treasury.mint('orders', 'payments')}")
    first = _show(field, headers, ("x-first", "1"), call=("POST", "/v1/captures"))
    if first.text != "200":
        return Seen(text=f"the first use: {first.text}", decision=first.decision)
    return _seen(_show(field, headers, call=("POST", "/v1/captures")))


def _revoked(field: Range) -> Seen:
    """Use a token that works, take it back, and use it again."""
    token = field.treasury.mint("orders", "payments")
    headers = ("authorization", f"Bearer {token}")
    first = _show(field, headers)
    if first.text != "200":
        return Seen(text=f"before: {first.text}", decision=first.decision)
    field.treasury.revoke(token)
    started = time.monotonic()
    found: list[Reply] = []

    def is_refused() -> bool:
        found[:] = [_show(field, headers)]
        return found[0].status != first.status

    wait_for(is_refused, _REVOKED_WITHIN_SECONDS)
    note = f"{(time.monotonic() - started) * 1000:.0f} ms after the revocation"
    return Seen(text=found[0].text, decision=found[0].decision, note=note)


def _user(make: Callable[[Range], str]) -> Callable[[Range], Seen]:
    """Return an attack with a user's context that nobody gave: storefront places an order for mallory."""

    def run(field: Range) -> Seen:
        headers = [("txn-token", make(field))]
        return _seen(field.call("storefront", "orders", "POST", "/orders", headers=headers, body=_BODY))

    return run


def _user_header(field: Range) -> Seen:
    """Claim a user in the headers that the sidecar sets: they are gone, and what arrives has no user."""
    headers = [("x-everyhop-user", "mallory"), ("x-everyhop-user-roles", "admin")]
    reply = field.call("storefront", "orders", "POST", "/orders", headers=headers, body=_BODY)
    forged = [name for name, _ in reply.json.get("saw", []) if name.startswith("x-everyhop-user")]
    return Seen(text=f"{reply.text}, {'forged: ' + ', '.join(forged) if forged else 'nobody is acted for'}")


def _user_where_none_is(field: Range) -> Seen:
    """Send a well-signed user to an operation that takes none: it does not arrive."""
    token = field.treasury.sign_txn(field.treasury.transaction())
    reply = field.call("storefront", "orders", "GET", "/orders", headers=[("txn-token", token)])
    forged = [name for name, _ in reply.json.get("saw", []) if "user" in name or name == "txn-token"]
    return Seen(text=f"{reply.text}, {'arrived: ' + ', '.join(forged) if forged else 'no user arrived'}")


def _access_as_transaction(field: Range) -> str:
    return field.treasury.mint("orders", "payments")


def _forgeries() -> list[tuple[str, str, Callable[[Range], Seen]]]:
    now = int(time.time())
    malformed, invalid = "401 TOKEN_MALFORMED", "401 TOKEN_INVALID"
    return [
        ("alg none, no signature", invalid, _with_claims(lambda f, c: f.treasury.unsigned(c, "none"))),
        ("HMAC with the issuer's public key", invalid, _with_claims(lambda f, c: f.treasury.hmac_with_public_key(c))),
        ("the attacker's key under the real kid", invalid, _with_claims(lambda f, c: f.treasury.sign(c, by=f.treasury.stranger))),
        ("claims changed under the old signature", invalid, _bearer(lambda f: f.treasury.tampered(f.treasury.mint("orders", "payments"), scope="payments.refund"))),
        ("unknown kid", "401 UNKNOWN_KEY_ID", _forged({"kid": "no-such-key"})),
        ("embedded jwk", invalid, _forged({"jwk": {"kty": "EC"}})),
        ("jku of the attacker", invalid, _forged({"jku": "https://evil.example/jwks"})),
        ("crit with an unknown extension", invalid, _forged({"crit": ["x"], "x": 1})),
        ("typ JWT", invalid, _forged({"typ": "JWT"})),
        ("another issuer", "401 UNAUTHORIZED_ISSUER", _forged(iss="https://evil.example")),
        ("expired", "401 TOKEN_EXPIRED", _forged(iat=now - 900, exp=now - 600)),
        ("not yet valid", invalid, _forged(nbf=now + 3600)),
        ("a life of a year", invalid, _forged(exp=now + 31_536_000)),
        ("exp as text", malformed, _forged(exp=str(now + LIFE_SECONDS))),
        ("aud written twice", malformed, _bearer(_repeated_member)),
        ("a list of audiences", malformed, _forged(aud=["orders", "payments"])),
        ("not bound to a certificate", "401 BINDING_MISMATCH", _forged(cnf=None)),
        ("bound to another certificate", "401 BINDING_MISMATCH", _forged(cnf={"x5t#S256": "A" * 43})),
        ("another service as subject", "401 BINDING_MISMATCH", _forged(sub="spiffe://shop.example/service/storefront", client_id="spiffe://shop.example/service/storefront")),
        ("a scope that does not hold the operation", "403 INSUFFICIENT_SCOPE", _forged(scope="payments.capture")),
    ]  # fmt: skip


def attacks() -> list[Attempt]:
    """Return the attacks of this theme."""
    stolen = [
        ("no token", "401 MISSING_TOKEN", lambda field: _seen(_show(field))),
        ("not a token", "401 TOKEN_MALFORMED", _bearer(lambda _: "forged")),
        ("two Authorization headers", "401 TOKEN_MALFORMED", _twice),
        ("token in the query", "401 MISSING_TOKEN", _in_query),
        *_forgeries(),
        ("stolen, with the thief's own certificate", "401 BINDING_MISMATCH", _stolen),
        ("meant for another service", "401 AUDIENCE_MISMATCH", _bearer(lambda f: f.treasury.mint("storefront", "orders"), caller="orders")),
        ("meant for another operation", "401 AUDIENCE_MISMATCH", _bearer(lambda f: f.treasury.mint("orders", "payments", "balance"))),
        ("meant for the service, at an operation of its own", "401 AUDIENCE_MISMATCH", _bearer(lambda f: f.treasury.mint("orders", "payments"), call=("GET", "/v1/balance"))),
        ("user signed by the attacker", "401 TOKEN_INVALID", _user(lambda f: f.treasury.sign_txn(f.treasury.transaction(), by=f.treasury.stranger))),
        ("user of another trust domain", "401 AUDIENCE_MISMATCH", _user(lambda f: f.treasury.sign_txn(f.treasury.transaction(aud="evil.example")))),
        ("user of yesterday", "401 TOKEN_EXPIRED", _user(lambda f: f.treasury.sign_txn(f.treasury.transaction(iat=int(time.time()) - 900, exp=int(time.time()) - 600)))),
        ("an access token as user", "401 TOKEN_MALFORMED", _user(_access_as_transaction)),
    ]  # fmt: skip
    arriving = [
        ("used a second time", "401 TOKEN_REPLAYED", _replayed),
        ("taken back while in use", "401 TOKEN_REVOKED", _revoked),
        ("x-everyhop-user from outside", "200, nobody is acted for", _user_header),
        ("a user where the policy takes none", "200, no user arrived", _user_where_none_is),
    ]
    return [
        *(Attempt(theme=_THEME, name=n, expected=e, run=r) for n, e, r in stolen),
        *(Attempt(theme=_THEME, name=n, expected=e, run=r, reaches=True) for n, e, r in arriving),
    ]
