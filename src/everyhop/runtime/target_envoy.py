# SPDX-License-Identifier: Apache-2.0
"""What the real Envoy does with requests under a compiled bootstrap: for ``policy prove --target envoy``, and for tests.

Each request goes over TLS with an SVID of its caller.  The application is a stand-in that answers with a mark which nobody else
knows; a request got through when the mark came back.  The authorizer is a stand-in that always agrees and leaves a mark of its
own: what it would say of a request is asked of the policy's engine by whoever compares.
"""

from __future__ import annotations

import asyncio
import http.client
import secrets
import shutil
import socket
import tempfile
import time
from pathlib import Path
from signal import SIGKILL
from typing import TYPE_CHECKING, Final

import msgspec

from everyhop.core.errors import Unavailable
from everyhop.dataplane.envoy import locate_envoy
from everyhop.evaluators.model import Outcome
from everyhop.runtime.supervised import SupervisedProcess
from everyhop.runtime.target_caller import TargetCaller
from everyhop.runtime.target_places import ASKED, Places, is_tcp, moved, secret_files, service_of
from everyhop.wire.ext_authz import CHECK, OVERWRITE, CheckRequest, CheckResponse
from everyhop.wire.rpc import Call, Cardinality, Method, Service
from everyhop.wire.sockets import UnixListener
from everyhop.wire.transport import PeerServer
from everyhop.x509.certificates import certificates_to_pem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from everyhop.evaluators.model import Request
    from everyhop.testing.authority import Authority

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.02
_KEY_MODE: Final = 0o600


class TargetEnvoy:
    """A real Envoy under a compiled bootstrap, as an asynchronous context.

    ``authority`` is the CA of the policy's trust domain: it gives Envoy its SVID, its bundle, and callers theirs.  Raises
    Unavailable, with Envoy's last words, when Envoy does not come up; SettingsError when there is none; InputError for a
    bootstrap that is none of ours.
    """

    def __init__(self, bootstrap: bytes, *, authority: Authority, binary: Path | None = None) -> None:
        self._bootstrap = bootstrap
        self._authority = authority
        self._binary = binary or locate_envoy()
        self._mark = secrets.token_hex(16)
        self._service = service_of(bootstrap)
        self._places = Places(Path(tempfile.mkdtemp(prefix="eh-")))
        self.port = 0

    async def __aenter__(self) -> Self:
        """Start it; return when it listens."""
        try:
            self._write()
            self._listener = UnixListener.bind(self._places.authorizer, mode=_KEY_MODE)
            self._server = _agreeing(self._mark)
            await self._server.start(self._listener)
            self._process = self._start()
            self.port = await self._listening()
        except BaseException:
            await self._stop()
            raise
        self._caller = TargetCaller(self.port, self._authority, self._mark, is_tcp=is_tcp(self._bootstrap))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it and remove its files."""
        await self._caller.close()
        await self._stop()

    async def ask(self, request: Request) -> Outcome:
        """Return what became of one request.

        ``asks`` is set where the authorizer was asked.  Raises Unavailable when no answer came in time or Envoy ended:
        that is no refusal.
        """
        outcome = await self._caller.ask(request)
        if (code := self._process.poll()) is not None:
            raise Unavailable(f"Envoy ended ({code}): {self._process.last_words()}", retry=False)
        return outcome

    def rotate(self) -> None:
        """Give Envoy a fresh SVID and the bundle of the moment, as ``everyhop svid fetch --write`` does: by renaming."""
        svid = self._authority.issue(self._service)
        contents = {
            "svid.pem": svid.chain_pem,
            "key.pem": svid.key_pem.reveal(),
            "bundle.pem": certificates_to_pem(self._authority.bundle.x509_authorities),
        }
        for name, content in contents.items():
            path = self._places.certificates / name
            fresh = self._places.root / name
            fresh.touch(mode=_KEY_MODE)
            fresh.write_bytes(content)
            fresh.rename(path)

    async def stop_agreeing(self) -> None:
        """End the stand-in of the authorizer: from now on there is nobody to ask."""
        await self._server.close()
        self._listener.close()

    @property
    def pid(self) -> int | None:
        """Return Envoy's process id while it runs."""
        return self._process.pid

    @property
    def log(self) -> str:
        """Return what Envoy has written, its access log included."""
        return self._places.log.read_text(errors="replace")

    def _write(self) -> None:
        places = self._places
        places.certificates.mkdir()
        places.secrets.mkdir()
        self.rotate()
        for name, content in secret_files(places).items():
            (places.secrets / name).write_bytes(content)
        places.bootstrap.write_bytes(moved(self._bootstrap, places, self._mark))

    def _start(self) -> SupervisedProcess:
        argv = [str(self._binary), "--config-path", str(self._places.bootstrap), "--use-dynamic-base-id"]
        argv += ["--reject-unknown-dynamic-fields", "--concurrency", "1", "--log-level", "warning"]
        argv += ["--file-flush-interval-msec", "50", "--drain-time-s", "1"]
        process = SupervisedProcess(argv, self._places.log, at_parents_death=SIGKILL)
        process.start()
        return process

    async def _listening(self) -> int:
        """Wait until Envoy serves; return the port."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if (code := self._process.poll()) is not None:
                raise Unavailable(f"Envoy ended ({code}): {self._process.last_words()}", retry=False)
            try:
                return await asyncio.to_thread(_port_of, self._places.admin)
            except (OSError, http.client.HTTPException, LookupError):
                await asyncio.sleep(_POLL_SECONDS)
        raise Unavailable(f"Envoy does not listen after {START_SECONDS:g} s: {self._process.last_words()}")

    async def _stop(self) -> None:
        if hasattr(self, "_process"):
            await asyncio.to_thread(self._process.stop, STOP_SECONDS)
        if hasattr(self, "_server"):
            await self._server.close()
            self._listener.close()
        shutil.rmtree(self._places.root, ignore_errors=True)


async def answers_of_envoy(
    bootstrap: bytes, requests: Sequence[Request], *, authority: Authority, binary: Path | None = None
) -> list[Outcome]:
    """Return what the real Envoy does with each request under one service's bootstrap; raises as :class:`TargetEnvoy`.

    Requests are to that service; their port and host address are not looked at.  ``peer`` of None is sent without TLS.
    """
    async with TargetEnvoy(bootstrap, authority=authority, binary=binary) as envoy:
        return [await envoy.ask(request) for request in requests]


def _port_of(admin: Path) -> int:
    """Return the port of the one listener on TCP; raises OSError, HTTPException or LookupError while there is none."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(START_SECONDS)
        sock.connect(str(admin))
        connection = http.client.HTTPConnection("envoy")
        connection.sock = sock
        connection.request("GET", "/listeners?format=json")
        answer = connection.getresponse()
        body = answer.read()
        connection.request("GET", "/ready")
        ready = connection.getresponse()
        ready.read()
    if answer.status != http.client.OK or ready.status != http.client.OK:
        raise LookupError("not ready")
    for listener in msgspec.json.decode(body).get("listener_statuses", ()):
        where = listener["local_address"].get("socket_address")
        if where is not None:
            return int(where["port_value"])
    raise LookupError("no listener yet")


def _agreeing(mark: str) -> PeerServer:
    """Return an authorizer that agrees to everything and leaves a mark."""

    async def check(call: Call[CheckRequest, CheckResponse]) -> None:
        await call.receive_only()
        answer = CheckResponse()
        answer.status.code = 0
        option = answer.ok_response.headers.add(append_action=OVERWRITE)
        option.header.key, option.header.value = ASKED.encode(), mark.encode()
        await call.send(answer)

    method = Method(
        path=CHECK,
        cardinality=Cardinality.UNARY_UNARY,
        request=CheckRequest,
        reply=CheckResponse,
        handler=check,
    )
    return PeerServer([Service([method])])
