# SPDX-License-Identifier: Apache-2.0
"""Attacks from outside of the trust domain: at the edge of storefront, and at the server's token endpoint."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from everyhop.apikeys.format import checksum_of
from everyhop.demo.model import Attempt, Seen
from everyhop.demo.stage import wait_for

if TYPE_CHECKING:
    from everyhop.demo.range import Range
    from everyhop.demo.raw import Reply

_THEME: Final = "edge"
_GUESSES: Final = 60
_REVOKED_WITHIN_SECONDS: Final = 2.0
_ALPHABET: Final = string.ascii_letters + string.digits


def _call(field: Range, *headers: tuple[str, str], path: str = "/", method: str = "GET") -> Seen:
    reply = field.outside("storefront", method, path, headers=headers)
    return _seen(reply)


def _seen(reply: Reply) -> Seen:
    return Seen(text=reply.text, decision=reply.decision)


def _with(*headers: tuple[str, str], path: str = "/") -> Callable[[Range], Seen]:
    return lambda field: _call(field, *headers, path=path)


def _guess(lookup: str) -> str:
    """Return a key of the right form with the right checksum: only the secret is a guess."""
    body = f"eh_live_key_{lookup}_{''.join(secrets.choice(_ALPHABET) for _ in range(32))}"
    return f"{body}_{checksum_of(body)}"


def _guesses(field: Range) -> Seen:
    """Guess secrets of a key whose lookup id is known."""
    _, lookup = field.treasury.api_key("storefront.home")
    seen = {_call(field, ("authorization", f"Bearer {_guess(lookup)}")).text for _ in range(_GUESSES)}
    return Seen(text=" ".join(sorted(seen)), note=f"{_GUESSES} guesses")


def _narrow(field: Range) -> Seen:
    key, _ = field.treasury.api_key("storefront.home")
    reply = field.outside(
        "storefront", "POST", "/checkout", headers=[("authorization", f"Bearer {key}")], body=b"{}"
    )
    return _seen(reply)


def _revoked(field: Range) -> Seen:
    key, lookup = field.treasury.api_key("storefront.home")
    headers = ("authorization", f"Bearer {key}")
    before = _call(field, headers)
    field.treasury.revoke_api_key(lookup)
    found: list[Seen] = []

    def is_refused() -> bool:
        found[:] = [_call(field, headers)]
        return found[0].text != before.text

    wait_for(is_refused, _REVOKED_WITHIN_SECONDS)
    return Seen(text=f"{before.text}, then {found[0].text}")


def _inside(field: Range) -> Seen:
    """Show an API key to a sidecar inside: it is no token there."""
    key, _ = field.treasury.api_key("storefront.home")
    headers = [("authorization", f"Bearer {key}")]
    return _seen(field.call("orders", "payments", "POST", "/v1/charges", headers=headers, body=b"{}"))


def _what_arrives(field: Range) -> Seen:
    """Send every header of the inside from outside: none of them arrives, and the key does not either."""
    key, _ = field.treasury.api_key("storefront.home")
    forged = [
        ("x-everyhop-caller", "spiffe://shop.example/service/orders"),
        ("x-everyhop-user", "forged"),
        ("x-everyhop-user-roles", "forged"),
        ("x-forwarded-client-cert", "URI=forged"),
        ("txn-token", "forged"),
    ]
    reply = field.outside("storefront", "GET", "/", headers=[("authorization", f"Bearer {key}"), *forged])
    values = " ".join(str(value) for _, value in reply.json.get("saw", []))
    found = [text for text in ("forged", key) if text in values]
    caller = reply.json.get("caller")
    return Seen(text=f"{reply.text} from {caller}, {'forged headers arrived' if found else 'nothing forged'}")


def _token_endpoint(identity: str | None, **form: str) -> Callable[[Range], Seen]:
    """Return an attack at the server's token endpoint, with the certificate of a service or without any."""

    def run(field: Range) -> Seen:
        reply = field.server("POST", "/oauth/token", urlencode(form).encode(), caller=identity)
        return Seen(text=f"{reply.text} {reply.json.get('error', '')}".strip())

    return run


_CLIENT: Final = {"grant_type": "client_credentials"}


def attacks() -> list[Attempt]:
    """Return the attacks of this theme."""
    rows: list[tuple[str, str, Callable[[Range], Seen]]] = [
        ("no credential", "401 MISSING_TOKEN", _with()),
        ("not a key", "401 TOKEN_INVALID", _with(("authorization", "Bearer forged"))),
        ("a key with a typing error", "401 TOKEN_INVALID", _with(("authorization", "Bearer " + _guess("AAAAAAAA")[:-1] + "_"))),
        ("a made-up key with the right checksum", "401 TOKEN_INVALID", lambda f: _call(f, ("authorization", f"Bearer {_guess('AAAAAAAA')}"))),
        ("a service's token from outside", "401 AUDIENCE_MISMATCH", lambda f: _call(f, ("authorization", f"Bearer {f.treasury.mint('storefront', 'orders')}"))),
        ("an operation that the key is not for", "403 INSUFFICIENT_SCOPE", _narrow),
        ("an undeclared operation", "403 unknown-operation", _with(path="/orders")),
        ("a probe", "403 no-rule", _with(path="/healthz")),
        ("an ambiguous path", "400 ambiguous-path", _with(path="/%2e%2e/")),
        ("an API key shown inside", "401 TOKEN_MALFORMED", _inside),
        ("token endpoint without a certificate", "401 invalid_client", _token_endpoint(None, **_CLIENT, audience="payments")),
        ("token endpoint: another client's name", "401 invalid_client", _token_endpoint("storefront", **_CLIENT, audience="orders", client_id="spiffe://shop.example/service/orders")),
        ("token endpoint: a service that is not granted", "400 invalid_target", _token_endpoint("intruder", **_CLIENT, audience="payments")),
        ("token endpoint: a scope beyond the policy", "400 invalid_scope", _token_endpoint("orders", **_CLIENT, audience="payments", scope="payments.refund")),
    ]  # fmt: skip
    arriving = [
        ("a key that was taken back", "200, then 401", _revoked),
        ("headers of the inside", "200 from outside, nothing forged", _what_arrives),
    ]
    # Last, because whoever guesses is slowed down: everybody at that address is for a while.
    guessing = Attempt(theme=_THEME, name="guessing a key's secret", expected="401", run=_guesses)
    return [
        *(Attempt(theme=_THEME, name=n, expected=e, run=r) for n, e, r in rows),
        *(Attempt(theme=_THEME, name=n, expected=e, run=r, reaches=True) for n, e, r in arriving),
        guessing,
    ]
