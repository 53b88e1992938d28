# SPDX-License-Identifier: Apache-2.0
"""A kubeconfig as a value: one server, how to believe it, and how to be believed there.

Used are certificate authorities, client certificates and bearer tokens, inline or in files.  Refused by name is what would run a
program (``exec``, ``auth-provider``), what would leave the server unverified, and what this reader does not do (passwords,
impersonation, proxies): a surprise here would be somebody else's identity.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import yaml

from everyhop.core.errors import InputError
from everyhop.core.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_BYTES: Final = 4 * 1024 * 1024
_MAX_SECRET: Final = 1024 * 1024
_SAFE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_REFUSED_OF_USERS: Final = {
    "exec": "it runs a program to get credentials; get a token yourself and put it there as token or tokenFile",
    "auth-provider": "such plugins are gone from Kubernetes; put a token or a client certificate there",
    "username": "passwords are not sent; put a token or a client certificate there",
    "password": "passwords are not sent; put a token or a client certificate there",
    "as": "nobody is impersonated; use credentials of your own",
    "as-groups": "nobody is impersonated; use credentials of your own",
    "as-uid": "nobody is impersonated; use credentials of your own",
}
_REFUSED_OF_CLUSTERS: Final = {
    "insecure-skip-tls-verify": "the server would not be verified; name its certificate authority",
    "proxy-url": "no proxy is used",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterAccess:
    """How to reach one API server.

    ``server`` is its https URL without a path's end slash, ``authorities`` PEM of those that sign its certificate (None: those of
    this system), ``server_name`` the name in that certificate where it is not the URL's.  ``certificate`` and ``key`` are PEM.
    """

    server: str
    authorities: bytes | None
    server_name: str | None
    certificate: bytes | None
    key: Secret | None
    token: Secret | None


def read_kubeconfig(path: Path, context: str | None = None) -> ClusterAccess:
    """Read a kubeconfig (at most 4 MiB) and one of its contexts, by default the current one.

    Raises InputError, with the name of what is wrong, missing or refused.
    """
    document = _document(path)
    name = context if context is not None else document.get("current-context")
    if not isinstance(name, str) or not name:
        raise InputError(f"{path}: there is no current context", hint="name one with --context")
    chosen = _named(document, "contexts", "context", name, path)
    cluster = _named(document, "clusters", "cluster", chosen.get("cluster"), path)
    user = _named(document, "users", "user", chosen.get("user"), path)
    _refuse(cluster, _REFUSED_OF_CLUSTERS, f"{path}: cluster {chosen.get('cluster')}")
    _refuse(user, _REFUSED_OF_USERS, f"{path}: user {chosen.get('user')}")
    certificate = _held(user, "client-certificate", path)
    key = _held(user, "client-key", path)
    if (certificate is None) != (key is None):
        raise InputError(f"{path}: a client certificate and its key go together")
    server_name = cluster.get("tls-server-name")
    return ClusterAccess(
        server=_server(cluster, path),
        authorities=_held(cluster, "certificate-authority", path),
        server_name=server_name if isinstance(server_name, str) else None,
        certificate=certificate,
        key=None if key is None else Secret(key),
        token=_token(user, path),
    )


def _document(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise InputError(f"{path} has more than {MAX_BYTES} bytes")
    try:
        document = yaml.load(content, Loader=_SAFE)  # noqa: S506  # the safe loader, in C where it was built
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no YAML that can be read") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} is no kubeconfig")
    return document


def _named(document: Mapping[str, Any], part: str, inner: str, name: object, path: Path) -> Mapping[str, Any]:
    entries = document.get(part)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("name") == name:
            found = entry.get(inner)
            return found if isinstance(found, dict) else {}
    raise InputError(f"{path}: there is no {inner} {str(name)[:80]!r}")


def _refuse(entry: Mapping[str, Any], refused: Mapping[str, str], where: str) -> None:
    for key, why in refused.items():
        if entry.get(key):
            raise InputError(f"{where}: {key} is refused", hint=why)


def _server(cluster: Mapping[str, Any], path: Path) -> str:
    server = cluster.get("server")
    url = urlsplit(server) if isinstance(server, str) else None
    if url is None or url.scheme != "https" or not url.hostname or url.username or url.query or url.fragment:
        raise InputError(f"{path}: the server is no https URL", hint="credentials are sent over TLS only")
    return str(server).rstrip("/")


def _held(entry: Mapping[str, Any], key: str, path: Path) -> bytes | None:
    """Return what is held inline (``KEY-data``, base64), or in the file of that name, relative to the kubeconfig."""
    inline = entry.get(f"{key}-data")
    if inline:
        try:
            return base64.b64decode(str(inline), validate=True)
        except (binascii.Error, ValueError) as error:
            raise InputError(f"{path}: {key}-data is no base64") from error
    name = entry.get(key)
    return None if not name else _file(path.parent / str(name), path)


def _file(name: Path, path: Path) -> bytes:
    try:
        with name.open("rb") as stream:
            return stream.read(_MAX_SECRET)
    except OSError as error:
        raise InputError(f"{path}: cannot read {name}: {error.strerror}") from error


def _token(user: Mapping[str, Any], path: Path) -> Secret | None:
    text = user.get("token")
    if not text and user.get("tokenFile"):
        text = _file(path.parent / str(user["tokenFile"]), path).decode("utf-8", "replace").strip()
    if not text:
        return None
    if not isinstance(text, str) or not text.isascii() or not text.isprintable() or " " in text:
        raise InputError(f"{path}: the token is none that can be sent")
    return Secret(text.encode())
