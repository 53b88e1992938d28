# SPDX-License-Identifier: Apache-2.0
"""A syslog receiver: RFC 5424 messages over TLS (RFC 5425), or one datagram each on a Unix socket.

Syslog confirms nothing.  What can be known is used: a message counts as delivered when the receiver's kernel has
acknowledged every byte of it, and the connection is still whole a *window* (5 s) after it was written.  Everything
younger is sent again after a connection broke, was closed by the receiver (close_notify), or this process was killed.
So a receiver may see the messages of one window twice, which it tells by their ``id``; and it can lose only what it
had taken more than a window ago and not yet kept, against which its own disk queue helps.  Its close_notify is
no receipt: it may have been on its way before ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import ssl
import struct
import termios
from collections import deque
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import Unavailable
from everyhop.exports.rfc5424 import frame_of, message_of
from everyhop.exports.tls import client_context

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from everyhop.exports.model import Item, SyslogSettings, Told

_CLOSE_SECONDS: Final = 2.0
_BUFFER: Final = 256 * 1024
_CHUNK: Final = 4096


class SyslogSink:
    """The ``Sink`` port on a syslog receiver."""

    def __init__(
        self, settings: SyslogSettings, render: Callable[[Item], bytes], monotonic: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._render = render
        self._monotonic = monotonic
        self._link: _TlsLink | _UnixLink | None = None
        self._written: deque[tuple[float, int]] = deque()
        self._done = 0

    async def send(self, items: Sequence[Item]) -> int:
        """Write messages; what is confirmed is older."""
        link = self._link
        if link is None:
            link = _TlsLink(self._settings) if self._settings.socket is None else _UnixLink(self._settings)
            await link.open()
            self._link = link
        await link.write(await asyncio.to_thread(self._messages, items))
        self._written.append((self._monotonic(), items[-1].index))
        return await self.settle()

    async def settle(self) -> int:
        """Return what is older than the window on a connection that is whole; raises Unavailable where it is not."""
        if self._link is None:
            return self._done
        self._link.check()
        if self._written and not self._link.pending():
            before = self._monotonic() - self._settings.window.total_seconds()
            while self._written and self._written[0][0] <= before:
                self._done = self._written.popleft()[1]
        return self._done

    async def close(self) -> int:
        """Close in order, so that a receiver that reads gets everything; younger messages stay unconfirmed."""
        link, self._link = self._link, None
        done, self._done = self._done, 0
        self._written.clear()
        if link is not None:
            await link.close()
        return done

    def told(self) -> list[Told]:
        """Return nothing: what a connection has to say are errors."""
        return []

    def _messages(self, items: Sequence[Item]) -> list[bytes]:
        return [self._message(item) for item in items]

    def _message(self, item: Item) -> bytes:
        wanted = self._settings
        return message_of(
            item,
            self._render(item),
            facility=wanted.facility,
            hostname=wanted.hostname,
            sd_id=wanted.enterprise,
            max_bytes=wanted.max_bytes,
        )


class _TlsLink:
    def __init__(self, settings: SyslogSettings) -> None:
        self._settings = settings
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        wanted = self._settings
        try:
            reader, self._writer = await asyncio.open_connection(
                wanted.host,
                wanted.port,
                ssl=client_context(wanted.tls),
                server_hostname=wanted.tls.server_name or wanted.host,
                ssl_shutdown_timeout=_CLOSE_SECONDS,
            )
        except ssl.SSLCertVerificationError as error:
            raise Unavailable(f"the receiver's certificate is refused: {error.verify_message}") from error
        except OSError as error:
            raise Unavailable(f"the receiver cannot be reached: {error}") from error
        self._writer.transport.set_write_buffer_limits(high=_BUFFER)
        self._reading = asyncio.create_task(_read_to_end(reader))

    async def write(self, messages: Sequence[bytes]) -> None:
        writer = self._whole()
        self.check()
        try:
            for message in messages:
                writer.write(frame_of(message))
                await writer.drain()
        except OSError as error:
            raise Unavailable(f"the connection broke: {error}") from error

    def check(self) -> None:
        """Raise Unavailable when the receiver has ended the connection."""
        if self._reading is None or self._reading.done() or self._whole().is_closing():
            raise Unavailable("the receiver has closed the connection")

    def pending(self) -> int:
        """Return how many bytes wait here or are not acknowledged by the receiver's kernel."""
        writer = self._whole()
        waiting: int = writer.transport.get_write_buffer_size()
        opened = writer.get_extra_info("socket")
        answer = fcntl.ioctl(opened.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        return waiting + int(struct.unpack("i", answer)[0])

    async def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(2 * _CLOSE_SECONDS):
                await writer.wait_closed()
        writer.transport.abort()
        if self._reading is not None:
            self._reading.cancel()

    def _whole(self) -> asyncio.StreamWriter:
        if self._writer is None:
            raise Unavailable("the connection is closed")
        return self._writer


async def _read_to_end(reader: asyncio.StreamReader) -> None:
    """Read, for its end, what a receiver has no reason to send."""
    with contextlib.suppress(OSError):
        while await reader.read(_CHUNK):
            pass


class _UnixLink:
    """Datagrams: the kernel takes each as a whole or says that nobody listens."""

    def __init__(self, settings: SyslogSettings) -> None:
        self._path = str(settings.socket)
        self._socket: socket.socket | None = None

    async def open(self) -> None:
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        opened.setblocking(False)
        try:
            opened.connect(self._path)
        except OSError as error:
            opened.close()
            raise Unavailable(f"nobody listens at {self._path}: {error.strerror}") from error
        self._socket = opened

    async def write(self, messages: Sequence[bytes]) -> None:
        if self._socket is None:
            raise Unavailable("the socket is closed")
        loop = asyncio.get_running_loop()
        try:
            for message in messages:
                await loop.sock_sendall(self._socket, message)
        except OSError as error:
            raise Unavailable(f"{self._path} takes nothing: {error.strerror}") from error

    def check(self) -> None:
        """Raise Unavailable when the one who listened has closed its socket."""
        if self._socket is None:
            raise Unavailable("the socket is closed")
        with contextlib.suppress(BlockingIOError):
            try:
                self._socket.recv(1)
            except (ConnectionError, FileNotFoundError) as error:
                raise Unavailable(f"nobody listens at {self._path} any more") from error

    def pending(self) -> int:
        """Return nothing: what was sent is in the listener's queue."""
        return 0

    async def close(self) -> None:
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()
