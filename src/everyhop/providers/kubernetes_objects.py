# SPDX-License-Identifier: Apache-2.0
"""Objects of a cluster, read by kind: GET requests and nothing else.

A list is read in pages (``limit`` and ``continue``, Kubernetes API concepts, "Retrieving large results sets in chunks"); one whose
token has expired meanwhile (410) is begun anew, once.  A kind that the server does not have holds no objects; one that may not be
read is an error: drift that is not seen is none that is not there.
"""

from __future__ import annotations

import json
import os
import ssl
import tempfile
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx

from everyhop.core.errors import AccessDenied, InputError, TrustError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType
    from typing import Self

    from everyhop.providers.kubeconfig import ClusterAccess

PAGE: Final = 500
MAX_PAGES: Final = 2_000
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_SECONDS: Final = 30.0
_DISCARDED: Final = ("managedFields",)


class ClusterReader:
    """A connection to one API server; use it as a context.  Raises InputError for certificates that cannot be used."""

    def __init__(self, access: ClusterAccess) -> None:
        self._access = access
        headers = {"accept": "application/json", "user-agent": "everyhop"}
        if access.token is not None:
            headers["authorization"] = f"Bearer {access.token.reveal().decode()}"
        self._client = httpx.Client(
            verify=_context(access),
            headers=headers,
            timeout=MAX_SECONDS,
            follow_redirects=False,
            trust_env=False,
        )
        name = access.server_name
        self._extensions: dict[str, Any] = {} if name is None else {"sni_hostname": name}
        self._versions: dict[str, list[str]] = {}
        self._resources: dict[str, list[dict[str, Any]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def read(self, kinds: Iterable[tuple[str, str]]) -> dict[str, bytes]:
        """Return every object of kinds (group and kind), as one JSON list for each, by the address where it was read.

        Raises Unavailable, and AccessDenied or TrustError where the server does not believe or permit.
        """
        found: dict[str, bytes] = {}
        for group, kind in dict.fromkeys(kinds):
            address = self._address(group, kind)
            if address is None:
                continue
            path, version = address
            items = [_object(item, version, kind) for item in self._list(path)]
            document = {"apiVersion": "v1", "kind": "List", "items": items}
            found[f"{self._access.server}{path}"] = json.dumps(document).encode()
        return found

    # -- discovery

    def _address(self, group: str, kind: str) -> tuple[str, str] | None:
        """Return the path and the version of a kind, None where the server has none."""
        for version in self._of_group(group):
            for resource in self._of_version(version):
                if resource.get("kind") == kind and "/" not in str(resource.get("name")):
                    return f"{_root(version)}/{resource['name']}", version
        return None

    def _of_group(self, group: str) -> list[str]:
        if not group:
            return ["v1"]
        if group not in self._versions:
            document = self._get(f"/apis/{group}", is_optional=True) or {}
            preferred = document.get("preferredVersion") or {}
            entries = [preferred, *(document.get("versions") or ())]
            names = [
                str(entry["groupVersion"])
                for entry in entries
                if isinstance(entry, dict) and entry.get("groupVersion")
            ]
            self._versions[group] = list(dict.fromkeys(names))
        return self._versions[group]

    def _of_version(self, version: str) -> list[dict[str, Any]]:
        if version not in self._resources:
            document = self._get(_root(version), is_optional=True) or {}
            resources = document.get("resources")
            self._resources[version] = [one for one in resources or () if isinstance(one, dict)]
        return self._resources[version]

    # -- lists

    def _list(self, path: str) -> list[dict[str, Any]]:
        with suppress(_ExpiredError):
            return list(self._pages(path))
        try:  # the list grew old while it was read: once more, from its beginning
            return list(self._pages(path))
        except _ExpiredError as error:
            raise Unavailable(f"{path}: the list grows old faster than it is read") from error

    def _pages(self, path: str) -> Iterator[dict[str, Any]]:
        token = ""
        for _ in range(MAX_PAGES):
            document = self._get(path, {"limit": str(PAGE), **({"continue": token} if token else {})}) or {}
            items = document.get("items")
            if not isinstance(items, list):
                raise Unavailable(f"{path}: the answer is no list", retry=False)
            yield from (item for item in items if isinstance(item, dict))
            metadata = document.get("metadata")
            token = str(metadata.get("continue") or "") if isinstance(metadata, dict) else ""
            if not token:
                return
        raise Unavailable(f"{path}: more than {MAX_PAGES} pages", retry=False)

    def _get(
        self, path: str, query: dict[str, str] | None = None, *, is_optional: bool = False
    ) -> dict[str, Any] | None:
        try:
            with self._client.stream(
                "GET", f"{self._access.server}{path}", params=query, extensions=self._extensions
            ) as answer:
                status = answer.status_code
                content = _limited(answer, path) if status == HTTPStatus.OK else b""
        except httpx.HTTPError as error:
            cause = error.__cause__ or error
            raise Unavailable(
                f"{self._access.server} cannot be read ({type(error).__name__}: {cause})"
            ) from error
        if status == HTTPStatus.NOT_FOUND and is_optional:
            return None
        if status == HTTPStatus.GONE and query is not None and "continue" in query:
            raise _ExpiredError
        if status == HTTPStatus.UNAUTHORIZED:
            raise TrustError(
                f"{path}: the server does not know who asks (401)", hint="the credentials may have expired"
            )
        if status == HTTPStatus.FORBIDDEN:
            raise AccessDenied(f"{path}: these credentials may not list it (403)")
        if status != HTTPStatus.OK:
            raise Unavailable(f"{path}: the server answers {status}")
        try:
            document = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise Unavailable(f"{path}: the answer is no JSON", retry=False) from error
        return document if isinstance(document, dict) else {}


class _ExpiredError(Exception):
    """The token of a list is too old."""


def _root(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def _limited(answer: httpx.Response, path: str) -> bytes:
    content = bytearray()
    for chunk in answer.iter_bytes():
        content += chunk
        if len(content) > MAX_BYTES:
            raise Unavailable(f"{path}: an answer has at most {MAX_BYTES} bytes", retry=False)
    return bytes(content)


def _object(item: dict[str, Any], version: str, kind: str) -> dict[str, Any]:
    """Return an item with the kind and version that a list leaves out, and without what nobody reads."""
    metadata = item.get("metadata")
    kept = {key: value for key, value in (metadata or {}).items() if key not in _DISCARDED}
    return {"apiVersion": version, "kind": kind, **item, "metadata": kept}


def _context(access: ClusterAccess) -> ssl.SSLContext:
    try:
        text = None if access.authorities is None else access.authorities.decode("ascii")
        context = ssl.create_default_context(cadata=text)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if access.certificate is not None and access.key is not None:
            _load(context, access.certificate, access.key.reveal())
    except (ssl.SSLError, ValueError) as error:
        raise InputError("a certificate or key of the kubeconfig cannot be used") from error
    return context


def _load(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Give a context a client certificate: the library reads files only, so they stand in a private directory for a moment."""
    with tempfile.TemporaryDirectory(prefix="everyhop-") as name:
        files = []
        for part, content in (("tls.crt", certificate), ("tls.key", key)):
            path = Path(name) / part
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(content)
            files.append(str(path))
        context.load_cert_chain(files[0], files[1])
