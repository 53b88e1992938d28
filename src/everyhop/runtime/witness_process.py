# SPDX-License-Identifier: Apache-2.0
"""``everyhop log witness``: a process of its own, with a key and a memory of its own, on a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from everyhop.api.http import http_server, serve_until_stopped
from everyhop.api.witness_app import witness_app
from everyhop.providers.witness_state import FileWitness
from everyhop.runtime.system import SystemClock
from everyhop.wire.sockets import UnixListener

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from everyhop.tlog import CosignerKey, VerifierKey


def open_witness(directory: Path, name: str, keys: Sequence[VerifierKey]) -> FileWitness:
    """Return the witness of a directory, whose key is made at its first start.  Raises SettingsError or InputError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    FileWitness.create_key(directory, name)
    logs: dict[str, list[VerifierKey]] = defaultdict(list)
    for key in keys:
        logs[key.name].append(key)
    return FileWitness(directory, logs, SystemClock())


async def run_witness(witness: FileWitness, socket: Path, *, ready: Callable[[CosignerKey], None]) -> None:
    """Serve until SIGTERM or SIGINT; ``ready`` is called when it listens."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with (
        ThreadPoolExecutor(2, thread_name_prefix="witness") as pool,
        contextlib.closing(UnixListener.bind(socket, mode=0o660)) as listener,
    ):
        server = http_server(witness_app(witness, pool))
        async with asyncio.TaskGroup() as group:
            group.create_task(serve_until_stopped(server, listener.sock))
            ready(witness.key)
            await stop.wait()
            server.stop()
