# SPDX-License-Identifier: Apache-2.0
"""What routes of the owner's door share: who commands, policy files as they are sent, one replay at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import StreamingResponse

from everyhop.api.http import uid_of_request
from everyhop.control.proposals import Actor, Origin
from everyhop.core.errors import EveryhopError, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Mapping

    from starlette.requests import Request
    from starlette.responses import Response


def actor_of(request: Request) -> Actor:
    """Return who gives a command: the uid that the kernel names."""
    return Actor(origin=Origin.COMMAND, uid=uid_of_request(request))


def policy_bytes(files: Mapping[str, str]) -> dict[str, bytes]:
    """Return policy files as they were on the disk; bytes that are no UTF-8 came escaped."""
    return {name: text.encode("utf-8", "surrogateescape") for name, text in files.items()}


class Replays:
    """Answers replays step by step, one at a time.  Used from one event loop."""

    def __init__(self) -> None:
        self._one = asyncio.Lock()

    def check_free(self) -> None:
        """Raise Unavailable while a replay is under way."""
        if self._one.locked():
            raise Unavailable("another replay is under way", hint="try again when it has ended")

    def answer(self, steps: AsyncIterable[object]) -> Response:
        """Return one line of JSON for each step, and one with ``error`` where it breaks off."""

        async def lines() -> AsyncIterator[bytes]:
            async with self._one:
                try:
                    async for step in steps:
                        yield msgspec.json.encode(step) + b"\n"
                except (
                    EveryhopError
                ) as error:  # the answer has begun: its reader looks for a result or an error
                    yield msgspec.json.encode({"error": error.message}) + b"\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")
