# SPDX-License-Identifier: Apache-2.0
"""What the agent tells a worker that answers foreign proxies: a plan first, then every truth, as frames on a socket.

A frame is its length in four bytes, big-endian, and JSON.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Final, TypeVar

import msgspec

from everyhop.control.asking import AskingProxy
from everyhop.core.errors import InputError, Unavailable

T = TypeVar("T")
MAX_FRAME_BYTES: Final = 256 * 1024 * 1024
_LENGTH: Final = struct.Struct(">I")


class WorkerPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a worker serves: listening sockets by descriptor, and where its decisions go."""

    parent: int
    grpc_fd: int
    http_fd: int
    spool: str
    proxies: list[AskingProxy]
    log_level: str = "info"
    redis_url: str = ""


def frame(message: object) -> bytes:
    """Encode one message; raises InputError when it is too large."""
    body = msgspec.json.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise InputError(f"a frame has at most {MAX_FRAME_BYTES} bytes")
    return _LENGTH.pack(len(body)) + body


async def read_frame(reader: asyncio.StreamReader, kind: type[T]) -> T:
    """Read one message; raises Unavailable when the other side is gone, InputError when it is none."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MAX_FRAME_BYTES:
            raise InputError("the frame is too large")
        return msgspec.json.decode(await reader.readexactly(length), type=kind)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Unavailable("the agent is gone", retry=False) from error
    except msgspec.MsgspecError as error:
        raise InputError(f"a frame cannot be read: {error}") from error
