# SPDX-License-Identifier: Apache-2.0
"""A caller whose identity is in the wrong hands: blocked, on a connection that is open already, and let in again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from everyhop.demo.model import Attempt, Seen
from everyhop.demo.raw import read_reply
from everyhop.demo.stage import wait_for

if TYPE_CHECKING:
    from everyhop.demo.range import Range

_THEME: Final = "block"
_CALLER: Final = "storefront"
_AGAIN_SECONDS: Final = 5.0


def _block(field: Range) -> Seen:
    """Block a caller while it holds a connection open, and let it go on there."""
    with field.connect("orders", field.identity(_CALLER)) as connection:
        connection.sendall(field.request("GET", "/orders", "orders"))
        before = read_reply(connection)
        started = time.monotonic()
        field.stage.everyhop("block", _CALLER, "--for", "5m", "--reason", "the demo")
        seconds = time.monotonic() - started
        field.mark = f"{field.mark}x"  # the request before was legitimate, and arrived
        connection.sendall(field.request("GET", "/orders", "orders"))
        reply = read_reply(connection)
    return Seen(
        text=f"{before.status}, then {reply.text}",
        decision=reply.decision,
        note=f"everyhop block took {seconds * 1000:.0f} ms",
    )


def _unblock(field: Range) -> Seen:
    field.stage.everyhop("unblock", _CALLER, "--reason", "the demo goes on")
    wait_for(lambda: field.call(_CALLER, "orders", "GET", "/orders").status == 200, _AGAIN_SECONDS)  # noqa: PLR2004
    return Seen(text=field.call(_CALLER, "orders", "GET", "/orders").text)


def attacks() -> list[Attempt]:
    """Return them."""
    return [
        Attempt(
            theme=_THEME,
            name="a blocked caller, on an open connection",
            expected="200, then 429 blocked",
            run=_block,
            reaches=True,
        ),
        Attempt(theme=_THEME, name="the same caller, unblocked", expected="200", run=_unblock, reaches=True),
    ]
