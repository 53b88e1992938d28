# SPDX-License-Identifier: Apache-2.0
"""Logs as tiles, in a directory or at a URL, for those who verify them."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import httpx

from everyhop.auditlog.verifying import Entry
from everyhop.core.errors import InputError, NotFound, Unavailable
from everyhop.tlog import Tile, parse_checkpoint, read_bundle, width_of
from everyhop.tlog.note import MAX_NOTE_BYTES
from everyhop.tlog.tiles import MAX_BUNDLE_BYTES, WIDTH

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKPOINT: Final = "checkpoint"
TIMEOUT_SECONDS: Final = 20.0
_OK: Final = 200
_NOT_FOUND: Final = 404
_REFUSED: Final = frozenset({401, 403})


class Files(Protocol):
    """Files of a log by their paths."""

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """Return a file.

        Raises NotFound when it is not there, InputError when it is larger, Unavailable when nobody answers.
        """


class DirectoryFiles:
    """Files below one directory; symbolic links out of it are the business of who made it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """Return a file."""
        try:
            with (self._root / path).open("rb") as file:
                data = file.read(max_bytes + 1)
        except FileNotFoundError as error:
            raise NotFound(f"there is no {path} in {self._root}") from error
        except OSError as error:
            raise Unavailable(f"cannot read {self._root / path}: {error.strerror}", retry=False) from error
        if len(data) > max_bytes:
            raise InputError(f"{path} has more than {max_bytes} bytes")
        return data


class UrlFiles:
    """Files below one URL prefix, ``http``, ``https``, or ``unix:`` and the path of a socket."""

    def __init__(self, url: str, *, context: ssl.SSLContext | None = None) -> None:
        """``context`` says whom to believe over TLS, and which SVID to show."""
        self._base, transport = _reach(url, context)
        self._http = httpx.Client(
            transport=transport, timeout=TIMEOUT_SECONDS, follow_redirects=False, trust_env=False
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """Return a file."""
        url = f"{self._base}/{path}"
        try:
            with self._http.stream("GET", url) as answer:
                if answer.status_code == _NOT_FOUND:
                    raise NotFound(f"there is no {url}")
                if answer.status_code in _REFUSED:
                    raise Unavailable(
                        f"{url} is not shown to us ({answer.status_code})",
                        hint="show the SVID of a reader: --svid DIR",
                        retry=False,
                    )
                if answer.status_code != _OK:
                    raise Unavailable(f"{url} answers {answer.status_code}")
                data = bytearray()
                for chunk in answer.iter_bytes():
                    data += chunk
                    if len(data) > max_bytes:
                        raise InputError(f"{url} has more than {max_bytes} bytes")
        except httpx.HTTPError as error:
            raise Unavailable(f"{url} does not answer: {str(error) or type(error).__name__}") from error
        return bytes(data)


def _reach(url: str, context: ssl.SSLContext | None) -> tuple[str, httpx.HTTPTransport]:
    if url.startswith("unix:"):
        path = url.removeprefix("unix:").removeprefix("//")
        if not Path(path).is_socket():
            raise Unavailable(f"nobody listens at {path[:200]}")
        return "http://log", httpx.HTTPTransport(uds=path)
    if not url.startswith(("https://", "http://")):
        raise InputError(f"not a URL of a log: {url[:200]}", hint="https://…, or unix:/path/of/a.sock")
    return url.rstrip("/"), httpx.HTTPTransport(verify=context or ssl.create_default_context())


class TileSource:
    """The ``LogSource`` port on files.  Its size is what its checkpoint says, which nobody has to believe yet."""

    def __init__(self, files: Files) -> None:
        """Read the checkpoint.  Raises InputError for one that is none, NotFound, or Unavailable."""
        self._files = files
        self._note = files.read(CHECKPOINT, max_bytes=MAX_NOTE_BYTES)
        self.size = parse_checkpoint(self._note)[0].size
        self.root: bytes | None = None
        self.first_kept = self._find_first()
        self._bundle: tuple[int, list[bytes]] = (-1, [])

    def tile(self, tile: Tile) -> bytes:
        """Return hashes; of a partial tile that is gone, those of the full one."""
        return self._read(tile)

    def entries(self, start: int, count: int) -> list[Entry | None]:
        """Return records; one bundle is held at a time."""
        found: list[Entry | None] = []
        index = start
        while index < start + count:
            n, offset = divmod(index, WIDTH)
            bundle = self._entries(n)
            found += [Entry(line) for line in bundle[offset : offset + start + count - index]]
            index = start + len(found)
        return found

    def unsealed(self) -> int:
        """Return 0: what is behind the checkpoint is no part of these files."""
        return 0

    def notes(self) -> Iterator[bytes]:
        """Yield the checkpoint."""
        yield self._note

    def _entries(self, n: int) -> list[bytes]:
        if self._bundle[0] != n:
            tile = Tile(None, n, width_of(self.size, None, n))
            self._bundle = n, self._split(tile)
        return self._bundle[1]

    def _split(self, tile: Tile) -> list[bytes]:
        try:
            return read_bundle(tile, self._files.read(tile.path, max_bytes=MAX_BUNDLE_BYTES))
        except NotFound as error:
            data = self._whole(tile, MAX_BUNDLE_BYTES, error)
            return read_bundle(Tile(None, tile.index), data)[: tile.width]

    def _read(self, tile: Tile) -> bytes:
        try:
            return self._files.read(tile.path, max_bytes=WIDTH * 32)
        except NotFound as error:
            return self._whole(tile, WIDTH * 32, error)[: tile.width * 32]

    def _whole(self, tile: Tile, max_bytes: int, missing: NotFound) -> bytes:
        """Return the full tile in the place of a partial one; raises what is missing when that is not there either."""
        if tile.is_full:
            raise missing
        try:
            return self._files.read(Tile(tile.level, tile.index).path, max_bytes=max_bytes)
        except NotFound:
            raise missing from None

    def _find_first(self) -> int:
        """Return the first index whose bundle is there: bundles go from the beginning, by age."""
        low, high = 0, self.size // WIDTH
        if not self.size or self._has(0):
            return 0
        while low < high:
            middle = (low + high) // 2
            if self._has(middle):
                high = middle
            else:
                low = middle + 1
        return low * WIDTH

    def _has(self, n: int) -> bool:
        try:
            self._files.read(Tile(None, n, width_of(self.size, None, n)).path, max_bytes=MAX_BUNDLE_BYTES)
        except NotFound:
            return False
        return True
