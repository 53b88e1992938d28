# SPDX-License-Identifier: Apache-2.0
"""Attacks on the transport: other protocols, older protocols, and a server that is not who it should be."""

from __future__ import annotations

import ssl
import sys
from typing import TYPE_CHECKING, Final

from everyhop.demo import http2
from everyhop.demo.model import Attempt, Seen
from everyhop.demo.puppet import AUTHORIZATION
from everyhop.demo.raw import alert_after_handshake, describe_error, read_reply, secure
from everyhop.demo.stage import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from everyhop.demo.range import Range
    from everyhop.demo.raw import Reply

_THEME: Final = "transport"
_MEET_SECONDS: Final = 10.0


def _plain_http(field: Range) -> Seen:
    return Seen(text=field.plain("orders", field.request("GET", "/orders", "orders")).text)


def _plain_preface(field: Range) -> Seen:
    return Seen(text=field.plain("orders", http2.PREFACE + http2.frame(4, 0, 0, b"")).text)


def _preface_in_http1(field: Range) -> Seen:
    """Negotiate HTTP/1.1 and speak HTTP/2 all the same."""
    try:
        with field.connect("orders", field.identity("storefront"), alpn=("http/1.1",)) as connection:
            connection.sendall(http2.PREFACE)
            return Seen(text=read_reply(connection).text)
    except OSError as error:
        return Seen(text=describe_error(error))


def _old_tls(field: Range) -> Seen:
    context = field.identity("storefront").context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        with secure(field.dial_ingress("orders"), context, name="orders") as connection:
            return Seen(text=alert_after_handshake(connection) or "TLS 1.2 accepted")
    except OSError as error:
        return Seen(text=describe_error(error))


def _h2c_upgrade(field: Range) -> Seen:
    """Ask to leave HTTP/1.1 and its checks behind; the answer must be of HTTP/1.1, to this request alone."""
    headers = [
        ("connection", "Upgrade, HTTP2-Settings"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
    ]
    reply = field.call("storefront", "orders", "GET", "/admin/export", headers=headers)
    return Seen(text=reply.text, decision=reply.decision)


def _impostor(kind: str) -> Callable[[Range], Seen]:
    """Return an attack in which a rogue process holds the place of ``catalog`` with a certificate of ``kind``."""

    def run(field: Range) -> Seen:
        stage, shopper = field.stage, field.stage.puppets["shopper"]
        headers = [("proxy-authorization", AUTHORIZATION.decode())]
        data = field.request("GET", "http://catalog/search", "catalog", headers=headers)
        last: list[Reply] = []

        def is_met() -> bool:
            """Call until the caller's sidecar has found the rogue: endpoints take a moment to spread."""
            last.append(shopper.send("proxy", data))
            return bool(stage.output("rogue"))

        argv = [sys.executable, "-m", "everyhop.demo.rogue", str(stage.layout.root), "catalog", kind]
        stage.spawn("rogue", argv)
        try:
            met = wait_for(is_met, _MEET_SECONDS)
            told = [str(line["saw"]) for line in stage.output("rogue")]
        finally:
            stage.stop("rogue")
            (stage.logs / "rogue.out").write_bytes(b"")
        if not met:
            return Seen(text="the rogue was never met", note=stage.last_words("rogue")[-200:])
        # Without TLS there is no certificate to distrust: the log knows a connection that failed, no more.
        decision = None if kind == "plain" else last[-1].decision
        leaked = [word for word in told if word != "nothing"]
        return Seen(text=f"{leaked or 'no byte'}, {last[-1].text}", decision=decision)

    return run


def attacks() -> list[Attempt]:
    """Return the attacks of this theme."""
    refused = "no byte, 503 untrusted-server"
    rows: list[tuple[str, str, Callable[[Range], Seen]]] = [
        ("plain HTTP to the TLS port", "closed", _plain_http),
        ("h2c preface to the TLS port", "closed", _plain_preface),
        ("HTTP/2 preface inside an HTTP/1.1 session", "400", _preface_in_http1),
        ("h2c upgrade inside TLS", "403 no-rule", _h2c_upgrade),
        ("TLS 1.2 at most", "TLS alert: protocol version", _old_tls),
        ("a rogue server with a self-made CA", refused, _impostor("stranger")),
        ("a rogue server with another service's SVID", refused, _impostor("intruder")),
        ("a rogue server without TLS", "no byte, 503", _impostor("plain")),
    ]
    return [Attempt(theme=_THEME, name=name, expected=expected, run=run) for name, expected, run in rows]
