# SPDX-License-Identifier: Apache-2.0
"""Where checkpoints go beside the database: a file, a webhook, witnesses.

A checkpoint holds nothing secret and is signed, so none of these needs a secret, and whoever receives one can check it.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import httpx
import msgspec

from everyhop.auditlog.witnessing import WitnessDialogue
from everyhop.core.clock import rfc3339
from everyhop.core.errors import NotFound, Unavailable
from everyhop.tlog import parse_note
from everyhop.tlog.witness import PATH

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from pathlib import Path

    from everyhop.auditlog.checkpoints import StoredCheckpoint
    from everyhop.auditlog.ports import LogTree
    from everyhop.tlog import CosignerKey, Signature

T = TypeVar("T")
TIMEOUT_SECONDS: Final = 5.0
_MAX_ANSWER: Final = 64 * 1024
_ROUNDS: Final = 3


def encode_shipped(checkpoint: StoredCheckpoint) -> bytes:
    """Return a checkpoint as one JSON object: ``origin``, ``size``, ``root`` (hex), ``signed_at`` and ``note``."""
    return msgspec.json.encode(
        {
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "root": checkpoint.root.hex(),
            "signed_at": rfc3339(checkpoint.signed_at),
            "note": checkpoint.note,
        }
    )


class FileShipper:
    """Appends one line a checkpoint to a file, which may lie on another machine's disk."""

    def __init__(self, path: Path, pool: Executor) -> None:
        self._path = path
        self._pool = pool

    @property
    def name(self) -> str:
        """Return the path."""
        return f"file:{self._path}"

    async def ship(self, checkpoint: StoredCheckpoint) -> None:
        """Append; on the disk when it returns.  Raises Unavailable."""
        line = encode_shipped(checkpoint) + b"\n"
        await asyncio.get_running_loop().run_in_executor(self._pool, partial(self._append, line))

    def _append(self, line: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path, flags, 0o644)
            try:
                if os.write(descriptor, line) != len(line):
                    raise Unavailable(f"the disk of {self._path} is full")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise Unavailable(f"cannot append to {self._path}: {error.strerror}") from error


class WebhookShipper:
    """Posts each checkpoint as JSON."""

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def name(self) -> str:
        """Return scheme and host alone: a path may hold a secret."""
        url = httpx.URL(self._url)
        return f"{url.scheme}://{url.netloc.decode('ascii', 'replace')}"

    async def ship(self, checkpoint: StoredCheckpoint) -> None:
        """Post it.  Raises Unavailable unless the answer is 2xx."""
        status, _ = await post(self._url, "", encode_shipped(checkpoint), "application/json", name=self.name)
        if not httpx.codes.is_success(status):
            raise Unavailable(f"{self.name} answers {status}")


class CosignatureBook:
    """Adds cosignatures to checkpoints that are kept; witnesses answer at the same time, so one at a time."""

    def __init__(self, tree: LogTree, pool: Executor) -> None:
        self.tree = tree
        self._pool = pool
        self._turn = asyncio.Lock()

    async def add(self, checkpoint: StoredCheckpoint, signatures: tuple[Signature, ...]) -> None:
        """Keep the signatures with the checkpoint."""
        async with self._turn:
            await self.call(partial(self._add, checkpoint, signatures))

    def _add(self, checkpoint: StoredCheckpoint, signatures: tuple[Signature, ...]) -> None:
        kept = next(self.tree.checkpoints(checkpoint.origin, behind=checkpoint.size - 1), None)
        if kept is None or kept.size != checkpoint.size:
            raise NotFound(f"there is no checkpoint of {checkpoint.size} records")
        note = parse_note(kept.note.encode()).with_signatures(signatures)
        self.tree.add_cosignatures(replace(kept, note=note.encode()))

    async def call(self, call: Callable[[], T]) -> T:
        """Run what blocks."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)


class WitnessShipper:
    """Has each checkpoint cosigned by one witness."""

    def __init__(self, url: str, key: CosignerKey, book: CosignatureBook) -> None:
        """``url`` is the submission prefix, ``https://…`` or ``unix:/path`` of a socket."""
        self._url = url
        self._dialogue = WitnessDialogue(key)
        self._book = book

    @property
    def name(self) -> str:
        """Return the name of the witness."""
        return f"witness:{self._dialogue.key.name}"

    async def ship(self, checkpoint: StoredCheckpoint) -> None:
        """Have it cosigned, and keep the cosignature.  Raises Unavailable or Conflict."""
        for _ in range(_ROUNDS):
            body = await self._book.call(partial(self._dialogue.request, self._book.tree, checkpoint))
            status, answer = await post(self._url, PATH, body, "text/plain; charset=utf-8", name=self.name)
            signatures = self._dialogue.answer(checkpoint, status, answer)
            if signatures is not None:
                await self._book.add(checkpoint, signatures)
                return
        raise Unavailable(f"{self.name} does not come to an end")


async def post(url: str, path: str, body: bytes, media_type: str, *, name: str) -> tuple[int, bytes]:
    """Post to a URL, ``unix:`` and the path of a socket included; return status and body, at most 64 KiB of it.

    Raises Unavailable when nobody answers within five seconds.
    """
    transport, base = None, url.rstrip("/")
    if url.startswith("unix:"):
        transport, base = httpx.AsyncHTTPTransport(uds=socket_of(url)), "http://witness"
    try:
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),
            httpx.AsyncClient(transport=transport, follow_redirects=False, trust_env=False) as client,
            client.stream("POST", base + path, content=body, headers={"content-type": media_type}) as answer,
        ):
            data = bytearray()
            async for chunk in answer.aiter_bytes():
                data += chunk
                if len(data) > _MAX_ANSWER:
                    raise Unavailable(f"{name} answers with more than {_MAX_ANSWER} bytes")
            return answer.status_code, bytes(data)
    except (httpx.HTTPError, TimeoutError) as error:
        raise Unavailable(f"{name} does not answer: {type(error).__name__}") from error


def socket_of(url: str) -> str:
    """Return the path of a ``unix:`` URL."""
    return url.removeprefix("unix:").removeprefix("//")
