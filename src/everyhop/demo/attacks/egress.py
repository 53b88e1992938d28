# SPDX-License-Identifier: Apache-2.0
"""Attacks through the egress: others who use a workload's way out, and workloads that want out elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from everyhop.demo.model import Attempt, Seen
from everyhop.demo.otheruser import try_file, try_socket
from everyhop.demo.puppet import AUTHORIZATION, workload_secret

if TYPE_CHECKING:
    from everyhop.demo.range import Range

_THEME: Final = "egress"
_OWN: Final = ("proxy-authorization", AUTHORIZATION.decode())
_GUESS: Final = base64.b64encode(b"everyhop:" + b"0" * 64).decode()


def _stranger(*headers: tuple[str, str]) -> Callable[[Range], Seen]:
    """Return an attack by a process that is no part of the workload: the demo's own."""

    def run(field: Range) -> Seen:
        data = field.request("GET", "http://storefront/", "storefront", headers=headers)
        return Seen(text=field.local(field.stage.puppets["shopper"].proxy, data).text)

    return run


def _other_secret(field: Range) -> Seen:
    """Let a workload use the proxy of another one with its own secret."""
    data = field.request("GET", "http://storefront/", "storefront", headers=[_OWN])
    intruder, shopper = field.stage.puppets["intruder"], field.stage.puppets["shopper"]
    return Seen(text=intruder.send(f"port:{shopper.proxy[1]}", data).text)


def _from(workload: str, method: str, target: str, host: str, via: str = "proxy") -> Callable[[Range], Seen]:
    """Return an attack from inside a workload, through its own sidecar and with its own secret."""

    def run(field: Range) -> Seen:
        data = field.request(method, target, host, headers=[_OWN] if via == "proxy" else [])
        reply = field.stage.puppets[workload].send(via, data)
        return Seen(text=f"{reply.text} {reply.json.get('code', '')}".strip())

    return run


def _denied_by_ingress(field: Range) -> Seen:
    """Let the egress pass what the callee's own sidecar refuses."""
    data = field.request("GET", "http://orders/orders", "orders", headers=[_OWN])
    reply = field.stage.puppets["intruder"].send("proxy", data)
    return Seen(text=reply.text, decision=reply.decision)


def _sockets(field: Range) -> Path:
    return field.stage.layout.instances / str(field.instance("payments")["id"])


def _environment(field: Range) -> Seen:
    return try_file(Path(f"/proc/{field.stage.puppets['shopper'].pid}/environ"))


def _command_lines(field: Range) -> Seen:
    """Look for any launch's secret where every user of the machine can look: in the list of processes."""
    secret = workload_secret(field.stage.puppets["shopper"].pid)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found = secret in path.read_bytes()
        except OSError:
            continue
        if found:
            return Seen(text="the secret is in a command line")
    return Seen(text="not found")


def attacks() -> list[Attempt]:
    """Return the attacks of this theme."""
    undeclared = "403 UNDECLARED_DESTINATION"
    rows: list[tuple[str, str, Callable[[Range], Seen]]] = [
        ("another local process, no secret", "407", _stranger()),
        (
            "another local process, a guessed secret",
            "407",
            _stranger(("proxy-authorization", f"Basic {_GUESS}")),
        ),
        ("another local process, Bearer instead", "407", _stranger(("proxy-authorization", "Bearer x"))),
        ("another workload with its own secret", "407", _other_secret),
        (
            "a destination that nobody declared",
            undeclared,
            _from("shopper", "GET", "http://evil.example/", "evil.example"),
        ),
        (
            "the cloud's metadata address",
            undeclared,
            _from("shopper", "GET", "http://169.254.169.254/latest/meta-data/", "169.254.169.254"),
        ),
        (
            "CONNECT to an arbitrary address",
            undeclared,
            _from("shopper", "CONNECT", "127.0.0.1:22", "127.0.0.1:22"),
        ),
        (
            "CONNECT to a tcp service without a right",
            undeclared,
            _from("shopper", "CONNECT", "ledger:5432", "ledger:5432"),
        ),
        (
            "CONNECT through to an HTTP service",
            undeclared,
            _from("shopper", "CONNECT", "storefront:80", "storefront:80"),
        ),
        (
            "a declared service, no right to it at all",
            undeclared,
            _from("intruder", "POST", "http://notify/notifications", "notify"),
        ),
        (
            "the same by the Unix socket",
            undeclared,
            _from("intruder", "POST", "/notifications", "notify", "egress"),
        ),
        ("a reachable service, no right to the operation", "403 no-rule", _denied_by_ingress),
        ("egress socket, as another user", "EACCES", lambda f: try_socket(_sockets(f) / "egress.sock")),
        (
            "socket of a tcp service, as another user",
            "EACCES",
            lambda f: try_socket(_sockets(f) / "tcp-ledger.sock"),
        ),
        ("the workload's environment, as another user", "EACCES", _environment),
        ("the secret in the list of processes", "not found", _command_lines),
    ]
    return [Attempt(theme=_THEME, name=name, expected=expected, run=run) for name, expected, run in rows]
