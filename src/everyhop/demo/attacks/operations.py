# SPDX-License-Identifier: Apache-2.0
"""Attacks on operations: a known caller at a door that is not for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from everyhop.demo import http2
from everyhop.demo.model import Attempt, Seen
from everyhop.demo.range import MARK
from everyhop.demo.raw import describe_error

if TYPE_CHECKING:
    from everyhop.demo.range import Range

_THEME: Final = "operation"
_CALLS: Final = (
    ("declared operation without a rule", "storefront", "orders", "DELETE", "/orders/7", "403 no-rule"),
    ("the protected export", "storefront", "orders", "GET", "/admin/export", "403 no-rule"),
    ("one hop too far", "storefront", "payments", "POST", "/v1/charges", "403 no-rule"),
    ("deny rule beats the caller's rights", "orders", "payments", "POST", "/v1/charges/7/refund", "403 denied-by-rule"),
    ("undeclared operation", "storefront", "orders", "GET", "/orders/7/invoice", "403 unknown-operation"),
    ("wrong method", "storefront", "orders", "PUT", "/orders/7", "403 unknown-operation"),
    ("HEAD where only GET is declared", "storefront", "orders", "HEAD", "/orders", "403 unknown-operation"),
    ("TRACE", "storefront", "orders", "TRACE", "/orders", "403 unknown-operation"),
    ("lower-case method", "storefront", "orders", "get", "/orders", "400"),
    ("made-up method", "storefront", "orders", "GETX", "/orders", "400"),
    ("plain GET on a WebSocket door by a stranger", "storefront", "notify", "GET", "/live", "403 no-rule"),
)  # fmt: skip


def _call(caller: str, target: str, method: str, path: str) -> Callable[[Range], Seen]:
    def run(field: Range) -> Seen:
        reply = field.call(caller, target, method, path)
        return Seen(text=reply.text, decision=reply.decision)

    return run


def _connect_method(field: Range) -> Seen:
    data = field.request("CONNECT", "ledger:5432", "ledger:5432")
    reply = field.raw("storefront", "orders", data)
    return Seen(text=reply.text)


def _undeclared_upgrade(field: Range) -> Seen:
    headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ]
    reply = field.call("storefront", "orders", "GET", "/orders/7", headers=headers)
    return Seen(text=reply.text)


def _tunnel(caller: str, authority: str = "ledger") -> Callable[[Range], Seen]:
    """Return an attack that asks the ledger's sidecar for a tunnel, as sidecars do among themselves."""

    def run(field: Range) -> Seen:
        headers = [(":method", "CONNECT"), (":authority", authority), (MARK, field.mark)]
        try:
            with field.connect("ledger", field.identity(caller), alpn=("h2",)) as connection:
                reply = http2.call(connection, headers, body=f"BALANCE {field.mark}\n".encode())
        except OSError as error:
            return Seen(text=describe_error(error))
        return Seen(text=reply.text, decision=reply.decision)

    return run


def _bytes_to_tcp(field: Range) -> Seen:
    """Skip the tunnel and speak the ledger's own protocol to its sidecar."""
    return Seen(text=field.raw("payments", "ledger", f"BALANCE {field.mark}\n".encode()).text)


def attacks() -> list[Attempt]:
    """Return the attacks of this theme."""
    return [
        *(
            Attempt(theme=_THEME, name=name, expected=expected, run=_call(caller, target, method, path))
            for name, caller, target, method, path, expected in _CALLS
        ),
        *(
            Attempt(theme=_THEME, name=name, expected=expected, run=run)
            for name, expected, run in (
                ("CONNECT to the ingress", "400", _connect_method),
                ("WebSocket where none is declared", "403", _undeclared_upgrade),
                ("tcp service without a right", "403 no-rule", _tunnel("intruder")),
                ("tcp service by a service with other rights", "403 no-rule", _tunnel("orders")),
                ("the protocol of a tcp service without a tunnel", "400", _bytes_to_tcp),
            )
        ),
    ]
