# SPDX-License-Identifier: Apache-2.0
"""Attacks by headers that others might believe: the application tells which of them it saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from everyhop.demo.model import Attempt, Seen

if TYPE_CHECKING:
    from everyhop.demo.range import Range
    from everyhop.demo.raw import Reply

_THEME: Final = "header"
_FORGED: Final = "forged"
_CLEAN: Final = "saw storefront, nothing forged"
_ADMIN: Final = f"spiffe://shop.example/service/{_FORGED}"

_SPOOFS: Final[tuple[tuple[str, tuple[tuple[str, str], ...]], ...]] = (
    ("x-forwarded-client-cert", (("x-forwarded-client-cert", f"By=spiffe://x;URI={_ADMIN}"),)),
    ("x-everyhop-caller", (("x-everyhop-caller", _ADMIN),)),
    (
        "x-everyhop-caller, twice and in capitals",
        (("X-EVERYHOP-CALLER", _ADMIN), ("X-Everyhop-Caller", _ADMIN)),
    ),
    ("x-everyhop-operation", (("x-everyhop-operation", f"{_FORGED}-export"),)),
    ("x-everyhop-decision", (("x-everyhop-decision", f"{_FORGED}-id"),)),
    (
        "Connection: x-everyhop-caller (hop-by-hop)",
        (("connection", "x-everyhop-caller, x-everyhop-decision"),),
    ),
    (
        "x-forwarded-for, -host, -proto, -prefix",
        (
            ("x-forwarded-for", f"10.0.0.1, {_FORGED}"),
            ("x-forwarded-host", f"{_FORGED}.example"),
            ("x-forwarded-proto", _FORGED),
            ("x-forwarded-prefix", f"/{_FORGED}"),
        ),
    ),
    ("Forwarded", (("forwarded", f"for={_FORGED};host={_FORGED}"),)),
    (
        "x-original-url, x-rewrite-url",
        (("x-original-url", f"/admin/{_FORGED}"), ("x-rewrite-url", f"/admin/{_FORGED}")),
    ),
    (
        "x-http-method-override and its kin",
        (("x-http-method-override", f"DELETE-{_FORGED}"), ("x-method-override", f"DELETE-{_FORGED}")),
    ),
    ("x-envoy-original-path", (("x-envoy-original-path", f"/admin/{_FORGED}"),)),
)


def judge(reply: Reply) -> Seen:
    """Say whom the application took for its caller, and whether anything forged arrived."""
    if reply.status != 200:  # noqa: PLR2004  # the request itself is legitimate
        return Seen(text=reply.text, decision=reply.decision)
    told = reply.json
    caller = str(told.get("caller")).rpartition("/")[2]
    arrived = sorted({str(name) for name, value in told.get("saw", []) if _FORGED in str(value)})
    rest = f"forged {', '.join(arrived)}" if arrived else "nothing forged"
    return Seen(text=f"saw {caller}, {rest}")


def _spoof(headers: Sequence[tuple[str, str]]) -> Callable[[Range], Seen]:
    return lambda field: judge(field.call("storefront", "orders", "GET", "/orders/7", headers=headers))


def _through_egress(field: Range) -> Seen:
    """Forge headers from inside a workload, through its own sidecar."""
    from everyhop.demo.puppet import AUTHORIZATION

    headers = [
        ("proxy-authorization", AUTHORIZATION.decode()),
        ("x-everyhop-caller", _ADMIN),
        ("x-forwarded-client-cert", f"URI={_ADMIN}"),
        ("x-forwarded-for", _FORGED),
    ]
    data = field.request("GET", "http://storefront/", "storefront", headers=headers)
    return judge(field.stage.puppets["shopper"].send("proxy", data))


def _refused(*headers: tuple[str, str]) -> Callable[[Range], Seen]:
    def run(field: Range) -> Seen:
        reply = field.call("storefront", "orders", "GET", "/orders/7", headers=headers)
        return Seen(text=reply.text)

    return run


def attacks() -> list[Attempt]:
    """Return the attacks of this theme."""
    spoofs = [
        Attempt(theme=_THEME, name=name, expected=_CLEAN, run=_spoof(headers), reaches=True)
        for name, headers in _SPOOFS
    ]
    return [
        *spoofs,
        Attempt(
            theme=_THEME,
            name="forged identity from inside, through the own egress",
            expected="saw shopper, nothing forged",
            run=_through_egress,
            reaches=True,
        ),
        Attempt(
            theme=_THEME,
            name="underscore twin x_everyhop_caller (WSGI folds _)",
            expected="400",
            run=_refused(("x_everyhop_caller", _ADMIN)),
        ),
        Attempt(
            theme=_THEME,
            name="underscore twin X_Forwarded_Proto",
            expected="400",
            run=_refused(("X_Forwarded_Proto", _FORGED)),
        ),
        Attempt(theme=_THEME, name="two Host headers", expected="400", run=_refused(("host", "payments"))),
    ]
