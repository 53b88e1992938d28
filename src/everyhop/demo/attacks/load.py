# SPDX-License-Identifier: Apache-2.0
"""Attacks on availability and on change: stalled connections, and an edited policy."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Final

from everyhop.demo.attacks import identity
from everyhop.demo.model import Attempt, Seen
from everyhop.demo.raw import describe_error, read_reply
from everyhop.demo.stage import wait_for

if TYPE_CHECKING:
    from everyhop.demo.range import Range

_THEME: Final = "load and change"
STALLED: Final = 400
_IN_TIME_SECONDS: Final = 1.0
_DROPPED_WITHIN_SECONDS: Final = 12.0
_ENFORCED_WITHIN_SECONDS: Final = 2.0  # the bar is one second; this machine may be busy with other things
_GIVE_UP_SECONDS: Final = 5.0
_UNTRUSTED: Final = "untrusted-client"
_CLIENT_HELLO_START: Final = bytes.fromhex("160301020001")


class Stall:
    """Connections that never finish: a third without a byte, a third in TLS, a third in their headers."""

    def __init__(self) -> None:
        self._open: list[socket.socket] = []

    def start(self, field: Range) -> Seen:
        """Open them all, then make a good request and say how it went."""
        context = field.identity("storefront").context()
        for number in range(STALLED):
            connection = field.dial_ingress("orders")
            if number % 3 == 1:
                connection.sendall(_CLIENT_HELLO_START)
            elif number % 3 == 2:  # noqa: PLR2004  # the third kind
                connection = context.wrap_socket(connection, server_hostname="orders")
                connection.sendall(b"GET /orders HTTP/1.1\r\nhost: orders\r\nx-slow: ")
            self._open.append(connection)
        started = time.monotonic()
        reply = field.call("storefront", "orders", "GET", "/orders")
        seconds = time.monotonic() - started
        pace = "in time" if seconds < _IN_TIME_SECONDS else f"after {seconds:.1f} s"
        return Seen(
            text=f"{reply.text} {pace}", note=f"{seconds * 1000:.0f} ms with {len(self._open)} stalled"
        )

    def finish(self, field: Range) -> Seen:
        """Say what became of them."""
        del field
        deadline = time.monotonic() + _DROPPED_WITHIN_SECONDS
        dropped = 0
        for connection in self._open:
            dropped += _is_dropped(connection, deadline)
            connection.close()
        return Seen(text=f"{dropped} of {len(self._open)} dropped")


def _is_dropped(connection: socket.socket, deadline: float) -> bool:
    """Tell whether the other side has ended a connection; an answer such as 408 comes before that."""
    try:
        while True:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            if not connection.recv(4096):
                return True
    except TimeoutError:
        return False
    except OSError:
        return True


def _edit(field: Range) -> Seen:
    """Take a right away while a client holds its connection open; then give it back."""
    policy = field.stage.policy
    text = policy.read_text("utf-8")
    edited = text.replace("operations: [list, read, files, page]", "operations: [list, read, page]")
    with field.connect("orders", field.identity("storefront")) as connection:

        def ask() -> int | None:
            connection.sendall(field.request("GET", "/files/report", "orders"))
            return read_reply(connection).status

        def seconds_until(status: int, content: str) -> float:
            policy.write_text(content, "utf-8")
            started = time.monotonic()
            while ask() != status:
                if time.monotonic() - started > _GIVE_UP_SECONDS:
                    break
                time.sleep(0.02)
            return time.monotonic() - started

        try:
            before = ask()
            taken, given = seconds_until(403, edited), seconds_until(200, text)
        except OSError as error:
            return Seen(text=describe_error(error))
        finally:
            policy.write_text(text, "utf-8")
    slow = "" if max(taken, given) < _ENFORCED_WITHIN_SECONDS else ", slowly"
    return Seen(
        text=f"{before}, then 403, then 200{slow}",
        note=f"enforced after {taken * 1000:.0f} ms, undone after {given * 1000:.0f} ms",
    )


def _broken(field: Range) -> Seen:
    """Write a text with a mistake: it is refused, and the old policy stays."""
    policy = field.stage.policy
    text = policy.read_text("utf-8")
    before = field.stage.status()["snapshot"]
    try:
        policy.write_text(
            text.replace("to: payments, operations: [charge", "to: paymnets, operations: [charge"), "utf-8"
        )
        rejected = _wait_for_rejection(field)
        after = field.stage.status()["snapshot"]
        reply = field.call("storefront", "orders", "GET", "/orders")
    finally:
        policy.write_text(text, "utf-8")
    kept = "old one in force" if before == after else "another one in force"
    return Seen(text=f"{'refused' if rejected else 'taken'}, {kept}, {reply.text}", note=rejected)


def _wait_for_rejection(field: Range) -> str | None:
    deadline = time.monotonic() + _GIVE_UP_SECONDS
    while time.monotonic() < deadline:
        rejected = field.stage.status().get("rejected_policy")
        words = [str(problem["message"]) for problem in (rejected or {}).get("problems", [])]
        if found := next((text for text in words if "paymnets" in text), None):
            return found
        time.sleep(0.05)
    return None


def _handshakes_in_the_log(field: Range) -> Seen:
    """Look for the attempts that never became a request: whoever was not believed left a record all the same."""
    wanted = sum(attempt.expected.startswith("TLS alert") for attempt in identity.attacks())
    found = 0

    def look() -> bool:
        nonlocal found
        page = field.stage.admin.get("/v1/records", service="orders", decision="deny", limit=1000)
        found = sum(record.get("reason") == _UNTRUSTED for record in page["records"])
        return found >= wanted

    text = "all there" if wait_for(look, _GIVE_UP_SECONDS) else f"{found} of {wanted}"
    return Seen(text=text, note=f"{found} records of untrusted clients")


def attacks() -> list[Attempt]:
    """Return the attacks of this theme; the order matters: connections stall while the policy is edited."""
    stall = Stall()
    return [
        Attempt(
            theme=_THEME,
            name=f"{STALLED} stalled connections, and one good request",
            expected="200 in time",
            run=stall.start,
            reaches=True,
        ),
        Attempt(
            theme=_THEME,
            name="a right taken away, and given back, on one connection",
            expected="200, then 403, then 200",
            run=_edit,
            reaches=True,
        ),
        Attempt(
            theme=_THEME,
            name="a policy with a mistake",
            expected="refused, old one in force, 200",
            run=_broken,
            reaches=True,
        ),
        Attempt(
            theme=_THEME,
            name="what became of the stalled connections",
            expected=f"{STALLED} of {STALLED} dropped",
            run=stall.finish,
        ),
        Attempt(
            theme=_THEME,
            name="handshakes refused above, in the decision log",
            expected="all there",
            run=_handshakes_in_the_log,
        ),
    ]
