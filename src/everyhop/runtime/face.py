# SPDX-License-Identifier: Apache-2.0
"""The server's face as a process: where it listens, with which files it starts, whether it serves."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from everyhop.admission.webhook import MAX_BODY_BYTES, PATH
from everyhop.core.errors import Conflict, SettingsError, Unavailable
from everyhop.dataplane.envoy import envoy_argv, envoy_version, locate_envoy
from everyhop.dataplane.face import Face, render_face
from everyhop.dataplane.model import Limits
from everyhop.runtime.face_address import Listen, parse_listen, url_of

if TYPE_CHECKING:
    from everyhop.runtime.layout import StateLayout
    from everyhop.runtime.settings import Settings

_PORT_FILE: Final = "port"
_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST: Final = 20000
_FEWEST: Final = 1000
_ATTEMPTS: Final = 200
_CONNECTION_SECONDS: Final = 300.0  # a certificate that ends meanwhile is asked for again
_PATIENCE_SECONDS: Final = 3.0  # the face of an `up` that was killed is dying


@dataclass(frozen=True, slots=True, kw_only=True)
class FacePlan:
    """How to start the face, and how to ask it whether it serves."""

    listen: Listen
    argv: tuple[str, ...]
    log: Path
    admin_socket: Path


def face_address(layout: StateLayout, settings: Settings) -> Listen:
    """Return where the face listens: as the settings say, or at the port of this state directory.

    A port is chosen once and kept, because it is part of the issuer of every token.  Raises SettingsError for a
    setting that cannot be read, Unavailable when there is no port to choose.
    """
    wanted = parse_listen(settings.api_listen)
    if wanted.port:
        return wanted
    file = layout.face / _PORT_FILE
    with suppress(FileNotFoundError):
        return wanted._replace(port=_kept(file))
    chosen = wanted._replace(port=_choose(wanted.host))
    with suppress(FileExistsError):  # the other process of ours was quicker
        _write_once(file, f"{chosen.port}\n")
    return wanted._replace(port=_kept(file))


def face_url(layout: StateLayout, settings: Settings) -> str:
    """Return the URL under which this machine reaches the face."""
    return url_of(face_address(layout, settings))


def issuer_of(layout: StateLayout, settings: Settings) -> str:
    """Return ``iss`` of everything this server issues."""
    return settings.issuer or face_url(layout, settings)


def plan_face(layout: StateLayout, settings: Settings) -> FacePlan:
    """Write the configuration of the face and return how to start it.

    Raises SettingsError when there is no Envoy or it is too old, and what :func:`face_address` raises.
    """
    binary = locate_envoy(settings.envoy)
    envoy_version(binary)
    listen = face_address(layout, settings)
    face = Face(
        listen=listen,
        directory=layout.face,
        upstream_socket=layout.oauth_socket,
        sds_socket=layout.face_socket,
        admin_socket=layout.face_admin_socket,
        limits=Limits(connections=settings.max_connections, connection_age=_CONNECTION_SECONDS),
        large_bodies=((PATH, MAX_BODY_BYTES),) if settings.admission else (),
    )
    _replace(layout.face / "bootstrap.json", render_face(face))
    return FacePlan(
        listen=listen,
        argv=tuple(envoy_argv(binary, face, concurrency=settings.envoy_concurrency)),
        log=layout.logs / "face.log",
        admin_socket=layout.face_admin_socket,
    )


def require_free(listen: Listen) -> None:
    """Wait until nobody listens at the address; raises Conflict when somebody goes on, SettingsError for no address."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (trouble := _trouble(listen)) is not None:
        if trouble not in {errno.EADDRINUSE, errno.EACCES}:
            raise SettingsError(f"api_listen: cannot listen at {listen.host}: {os.strerror(trouble)}")
        if trouble == errno.EACCES or time.monotonic() > deadline:
            raise Conflict(
                f"the server's face cannot listen at {listen.host}:{listen.port}: {os.strerror(trouble)}",
                hint="the port belongs to the issuer of tokens, so it is kept: free it, or set api_listen",
            )
        time.sleep(0.05)


def _trouble(listen: Listen) -> int | None:
    """Try to bind as Envoy does; return the error's number, None when it works."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.host, listen.port))
        except OSError as error:
            return error.errno or errno.EIO
    return None


def _choose(host: str) -> int:
    """Return a free port outside of the range from which outgoing connections take theirs.

    Such a connection would keep the face from coming back to its port.
    """
    try:
        end = int(_EPHEMERAL.read_text("ascii").split()[0])
    except (OSError, ValueError, IndexError):
        end = 0
    for _ in range(_ATTEMPTS):
        port = _LOWEST + secrets.randbelow(end - _LOWEST) if end - _LOWEST >= _FEWEST else 0
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise SettingsError(f"api_listen: cannot listen at {host}: {error.strerror}") from error
            chosen: int = probe.getsockname()[1]
            return chosen
    raise Unavailable("no free port for the server's face", hint="name one: api_listen", retry=False)


def _kept(file: Path) -> int:
    text = file.read_text("ascii", errors="replace").strip()
    if not text.isdecimal() or not 0 < int(text) <= 65535:  # noqa: PLR2004  # the largest port
        raise SettingsError(f"{file} holds no port", hint="write the port of the issuer there, or remove it")
    return int(text)


def _write_once(file: Path, text: str) -> None:
    """Make a file appear whole; raises FileExistsError when there is one."""
    scratch = _scratch(file, text.encode("ascii"))
    try:
        os.link(scratch, file)
    finally:
        scratch.unlink()


def _replace(file: Path, content: bytes) -> None:
    _scratch(file, content).replace(file)


def _scratch(file: Path, content: bytes) -> Path:
    """Write a file for our user alone beside ``file``."""
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
    return scratch


def describe(layout: StateLayout, settings: Settings) -> dict[str, str]:
    """Return the URLs of ``everyhop status -o json``."""
    local = face_url(layout, settings)
    return {
        "api": local,
        "issuer": issuer_of(layout, settings),
        "jwks": local + "/jwks",
        "authzen": local,
        "token": local + "/oauth/token",
        "log": local + "/log",
    }
