# SPDX-License-Identifier: Apache-2.0
"""Attacks from the same machine: on the sockets and files of applications, agent, server and sidecars."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from everyhop.demo.identities import private_number
from everyhop.demo.model import Attempt, Seen
from everyhop.demo.otheruser import as_nobody, can_change_user, try_file, try_socket
from everyhop.demo.puppet import workload_secret
from everyhop.demo.workload_client import SECURITY_HEADER, ask_for_secret, fetch_identity
from everyhop.x509.keys import encode_private_key

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from everyhop.demo.range import Range
    from everyhop.runtime.layout import StateLayout

_THEME: Final = "local"


def _workload_api(
    metadata: Mapping[str, str] = SECURITY_HEADER, *, other_user: bool = False
) -> Callable[[Range], Seen]:
    """Return an attack by a process outside every run: the demo's own, or one of another user."""

    def run(field: Range) -> Seen:
        def ask() -> str:
            found = fetch_identity(str(field.stage.layout.workload_socket), metadata=metadata)
            return found if isinstance(found, str) else "an identity"

        if not other_user:
            return Seen(text=ask())
        if can_change_user():
            return Seen(text=as_nobody(ask), note="tried as nobody")
        return Seen(text=ask(), note="as this user: not root here")

    return run


def _sds(field: Range) -> Seen:
    """Ask for the key of payments' sidecar, as a process of the same user that is no sidecar."""
    instance = str(field.instance("payments")["id"])
    return Seen(text=ask_for_secret(str(field.stage.layout.sds_socket), instance=instance))


def _socket(choose: Callable[[StateLayout], Path]) -> Callable[[Range], Seen]:
    return lambda field: try_socket(choose(field.stage.layout))


def _file(choose: Callable[[StateLayout], Path]) -> Callable[[Range], Seen]:
    return lambda field: try_file(choose(field.stage.layout))


def _of(service: str, name: str) -> Callable[[Range], Seen]:
    """Return an attack on a socket of a service's instance."""
    return lambda field: try_socket(field.stage.layout.instances / str(field.instance(service)["id"]) / name)


def _key_on_disk(field: Range) -> Seen:
    """Search every file of the state, as its owner, for private keys of services and CA and for egress secrets."""
    keys = [field.identity(name).key for name in ("storefront", "orders", "payments")]
    keys.append(encode_private_key(field.forger.real.key).reveal())
    needles = [b"PRIVATE KEY", *(private_number(der) for der in keys)]
    needles += [workload_secret(puppet.pid) for puppet in field.stage.puppets.values()]
    files = [path for path in field.stage.layout.root.rglob("*") if path.is_file()]
    found = [path.name for path in files if any(needle in path.read_bytes() for needle in needles)]
    return Seen(text=", ".join(found) or "not found", note=f"{len(files)} files, {len(needles)} needles")


def attacks() -> list[Attempt]:
    """Return the attacks of this theme."""
    rows: list[tuple[str, str, Callable[[Range], Seen]]] = [
        ("Workload API, a process that no run has started", "PermissionDenied", _workload_api()),
        ("Workload API, another user", "PermissionDenied", _workload_api(other_user=True)),
        ("Workload API without the security header", "InvalidArgument", _workload_api({})),
        (
            "Workload API, security header with another value",
            "InvalidArgument",
            _workload_api({"workload.spiffe.io": "1"}),
        ),
        ("a sidecar's key, by a process that is no sidecar", "PermissionDenied", _sds),
        ("sidecars' secret socket, another user", "EACCES", _socket(lambda s: s.sds_socket)),
        ("application's socket (uvicorn makes it 0666), another user", "EACCES", _of("orders", "app.sock")),
        ("application's socket of the ledger, another user", "EACCES", _of("ledger", "app.sock")),
        ("Envoy's admin socket, another user", "EACCES", _of("orders", "admin.sock")),
        ("admin socket of the server, another user", "EACCES", _socket(lambda s: s.admin_socket)),
        ("agent's socket, another user", "EACCES", _socket(lambda s: s.agent_socket)),
        ("agents' door of the server, another user", "EACCES", _socket(lambda s: s.server_socket)),
        ("database, another user", "EACCES", _file(lambda s: s.database)),
        ("key-encryption key, another user", "EACCES", _file(lambda s: s.keys / "kek")),
        ("keys and secrets in clear, in any file of the state", "not found", _key_on_disk),
    ]
    return [Attempt(theme=_THEME, name=name, expected=expected, run=run) for name, expected, run in rows]
