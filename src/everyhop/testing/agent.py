# SPDX-License-Identifier: Apache-2.0
"""A fake agent: a real Workload API on a real Unix socket, with identities and tokens of a test's own making.

Only attestation is missing: whoever connects is the one service that it was made for.  Everything else is what
an application meets in production: gRPC, real certificates, real signatures, rotation, withdrawal, outage.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from everyhop.core.errors import AccessDenied, InputError, NotFound, Unavailable
from everyhop.spiffe.bundle import encode_jwt_bundle
from everyhop.spiffe.jwt_svid import peek_subject, validate_jwt_svid
from everyhop.testing.authority import Authority
from everyhop.testing.contexts import context_document
from everyhop.testing.issuer import LIFE_SECONDS, Issuer
from everyhop.wire import audit as a, decisions as d, tokens as t, workload_pb2 as w
from everyhop.wire.rpc import Call, Cardinality, Method, Service
from everyhop.wire.sockets import UnixListener
from everyhop.wire.transport import PeerServer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from google.protobuf.message import Message

    from everyhop.sdk.identities import X509Identity

    T = TypeVar("T")

_API: Final = "/SpiffeWorkloadAPI/"
_SECONDS: Final = 10.0


class FakeAgent:
    """Serves one service of a policy until :meth:`close`; every method may be called from any thread.

    ``socket`` is what belongs into SPIFFE_ENDPOINT_SOCKET.  ``calls`` counts calls by method name.
    """

    def __init__(
        self,
        policy: str | Mapping[str, bytes],
        service: str,
        *,
        authority: Authority | None = None,
        issuer: Issuer | None = None,
        life: timedelta = timedelta(hours=1),
        endpoints: Mapping[str, tuple[tuple[str, int], ...]] | None = None,
    ) -> None:
        self.service: Final = service
        self.authority: Final = authority or Authority()
        self.issuer: Final = issuer or Issuer(self.authority.trust_domain.name)
        self.token_seconds = LIFE_SECONDS
        self.calls: dict[str, int] = {}
        self.refused: set[str] = set()
        """Targets for which a token is refused."""
        self.decisions: list[d.Decision] = []
        """What the workload reported of its own decisions; ``dropped`` counts what it had to drop."""
        self.dropped = 0
        self.events: list[a.Event] = []
        """What the workload told of actions in it, for the audit log."""
        self.takes_events = True
        """Whether it takes them: an agent that has no room says how many it refused."""
        self._policy = policy
        self._life = life
        self._endpoints = dict(endpoints or {})
        self._directory = Path(tempfile.mkdtemp(prefix="eh-"))
        self.socket: Final = f"unix://{self._directory / 'w.sock'}"
        self.identity: X509Identity | None = self.authority.issue(service, life=life)
        self.context: bytes | None = self._document()
        self._odd: dict[str, Message] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="everyhop-fake-agent", daemon=True)
        self._thread.start()
        self._server: PeerServer | None = None
        self._listener: UnixListener | None = None
        self._changed = asyncio.Event()
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- what a test does with it

    def start(self) -> None:
        """Listen, as an agent that was started (again)."""
        self._wait(self._start())

    def stop(self) -> None:
        """End every connection and stop listening, as an agent that was killed."""
        self._wait(self._stop())

    def close(self) -> None:
        """Stop for good."""
        if not self._loop.is_closed():
            self.stop()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_SECONDS)
            self._loop.close()
            shutil.rmtree(self._directory, ignore_errors=True)

    def rotate(self, *, authority: bool = False, life: timedelta | None = None) -> X509Identity:
        """Issue a new certificate, by a new CA with ``authority``; everybody who watches gets it."""
        if authority:
            self.authority.rotate()
        identity = self.identity = self.authority.issue(self.service, life=life or self._life)
        self._notify()
        return identity

    def change(
        self,
        policy: str | Mapping[str, bytes] | None = None,
        endpoints: Mapping[str, tuple[tuple[str, int], ...]] | None = None,
    ) -> None:
        """Put another policy or other endpoints in force, and the issuer's present keys and revocations."""
        self._policy = self._policy if policy is None else policy
        self._endpoints = self._endpoints if endpoints is None else dict(endpoints)
        self.context = self._document()
        self._notify()

    def withdraw(self) -> None:
        """Take identity and context away: PermissionDenied to everybody who watches."""
        self.identity = self.context = None
        self._notify()

    def grant(self) -> None:
        """Give them back."""
        self.identity = self.authority.issue(self.service, life=self._life)
        self.context = self._document()
        self._notify()

    def send(self, message: w.X509SVIDResponse | t.ContextUpdate | None) -> None:
        """Send this very message to the watchers of its kind, however malformed; None ends that."""
        self._odd = {} if message is None else {type(message).__name__: message}
        self._notify()

    # -- the API

    def _routes(self) -> Service:
        stream, unary = Cardinality.UNARY_STREAM, Cardinality.UNARY_UNARY
        table: tuple[tuple[str, Cardinality, type[Message], type[Message], Any], ...] = (
            (_API + "FetchX509SVID", stream, w.X509SVIDRequest, w.X509SVIDResponse, self._x509),
            (_API + "FetchX509Bundles", stream, w.X509BundlesRequest, w.X509BundlesResponse, self._bundles),
            (_API + "FetchJWTBundles", stream, w.JWTBundlesRequest, w.JWTBundlesResponse, self._jwt_bundles),
            (_API + "FetchJWTSVID", unary, w.JWTSVIDRequest, w.JWTSVIDResponse, self._jwt),
            (
                _API + "ValidateJWTSVID",
                unary,
                w.ValidateJWTSVIDRequest,
                w.ValidateJWTSVIDResponse,
                self._validate,
            ),
            (t.MINT, unary, t.MintRequest, t.MintResponse, self._mint),
            (t.EXCHANGE, unary, t.ExchangeRequest, t.ExchangeResponse, self._exchange),
            (d.REPORT, unary, d.ReportRequest, d.ReportResponse, self._report),
            (a.RECORD, unary, a.RecordRequest, a.RecordResponse, self._record),
            (t.WATCH_CONTEXT, stream, t.WatchContextRequest, t.ContextUpdate, self._watch_context),
        )
        return Service(
            [
                Method(path=path, cardinality=kind, request=request, reply=reply, handler=handler)
                for path, kind, request, reply, handler in table
            ],
            guard=self._admit,
        )

    def _admit(self, call: Call[Any, Any]) -> None:
        name = call.method.rpartition("/")[2]
        self.calls[name] = self.calls.get(name, 0) + 1
        if call.metadata("workload.spiffe.io") != ("true",):
            raise InputError("the metadata 'workload.spiffe.io: true' is required")

    async def _x509(self, call: Call[Any, Any]) -> None:
        await self._stream(call, self._x509_message)

    async def _bundles(self, call: Call[Any, Any]) -> None:
        await self._stream(
            call,
            lambda: w.X509BundlesResponse(bundles={self._domain(): self._identity().bundle.x509_der}),
        )

    async def _jwt_bundles(self, call: Call[Any, Any]) -> None:
        await self._stream(
            call,
            lambda: w.JWTBundlesResponse(bundles={self._domain(): encode_jwt_bundle(self.authority.bundle)}),
        )

    async def _watch_context(self, call: Call[Any, Any]) -> None:
        await self._stream(call, self._context_message)

    async def _jwt(self, call: Call[Any, Any]) -> None:
        request = await call.receive_only()
        token = self.authority.jwt_svid(
            self.service, *request.audience, life=timedelta(seconds=self.token_seconds)
        )
        spiffe_id = str(self._identity().spiffe_id)
        await call.send(w.JWTSVIDResponse(svids=[w.JWTSVID(spiffe_id=spiffe_id, svid=token)]))

    async def _validate(self, call: Call[Any, Any]) -> None:
        from datetime import UTC, datetime

        request = await call.receive_only()
        peek_subject(request.svid)
        found = validate_jwt_svid(
            request.svid, self.authority.bundle, audience=request.audience, now=datetime.now(UTC)
        )
        answer = w.ValidateJWTSVIDResponse(spiffe_id=str(found.spiffe_id))
        answer.claims.update(dict(found.claims))
        await call.send(answer)

    async def _mint(self, call: Call[Any, Any]) -> None:
        request = await call.receive_only()
        self._identity()
        if request.target in self.refused:
            raise AccessDenied(f"no token for {request.target}")
        scope = list(request.scope) or self._granted(request.target)
        token = self.issuer.access(
            self.service,
            request.target,
            request.operation or None,
            scope=scope,
            x5t=request.x5t or None,
            exp=self._expiry(),
        )
        await call.send(t.MintResponse(token=token, expires_at=self._expiry()))

    async def _report(self, call: Call[Any, Any]) -> None:
        request = await call.receive_only()
        self._identity()
        self.decisions.extend(request.decisions)
        self.dropped += request.dropped
        await call.send(d.ReportResponse(taken=len(request.decisions)))

    async def _record(self, call: Call[Any, Any]) -> None:
        request = await call.receive_only()
        self._identity()
        if not self.takes_events:
            await call.send(a.RecordResponse(refused=len(request.events)))
            return
        self.events.extend(request.events)
        self.dropped += request.dropped
        await call.send(a.RecordResponse(taken=len(request.events)))

    async def _exchange(self, call: Call[Any, Any]) -> None:
        request = await call.receive_only()
        if not request.subject_token:
            raise InputError("a subject token is mandatory")
        token = self.issuer.transaction("exchanged", requester=self.service, exp=self._expiry())
        kind = "urn:ietf:params:oauth:token-type:txn_token"
        await call.send(t.ExchangeResponse(token=token, issued_token_type=kind, expires_at=self._expiry()))

    # -- how

    def _expiry(self) -> int:
        import time

        return int(time.time()) + self.token_seconds

    def _granted(self, target: str) -> list[str]:
        from everyhop.sdk.context import ServiceContext

        if self.context is None:
            raise AccessDenied("no identity")
        known = ServiceContext.parse(self.context).targets.get(target)
        if known is None:
            raise NotFound(f"no service {target!r} in the policy in force")
        return [f"{target}.{one.name}" for one in known.operations]

    def _document(self) -> bytes:
        return context_document(self._policy, self.service, self.issuer, endpoints=self._endpoints)

    def _domain(self) -> str:
        return str(self.authority.trust_domain.id)

    def _identity(self) -> X509Identity:
        if self.identity is None:
            raise AccessDenied("no identity")
        return self.identity

    def _x509_message(self) -> w.X509SVIDResponse:
        identity = self._identity()
        return w.X509SVIDResponse(
            svids=[
                w.X509SVID(
                    spiffe_id=str(identity.spiffe_id),
                    x509_svid=b"".join(identity.chain),
                    x509_svid_key=identity.key.reveal(),
                    bundle=self.authority.bundle.x509_der,
                    hint=self.service,
                )
            ]
        )

    def _context_message(self) -> t.ContextUpdate:
        if self.context is None:
            raise AccessDenied("no identity")
        return t.ContextUpdate(document=self.context)

    async def _stream(self, call: Call[Any, Any], message: Callable[[], Message]) -> None:
        await call.receive_only()
        last = b""
        while True:
            changed = self._changed
            regular = message()
            sent = self._odd.get(type(regular).__name__, regular)
            data = sent.SerializeToString(deterministic=True)
            if data != last or sent is not regular:
                last = data
                await call.send(sent)
            await changed.wait()

    def _notify(self) -> None:
        self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _start(self) -> None:
        if self._server is None:
            self._server = PeerServer([self._routes()])
            self._listener = UnixListener.bind(Path(self.socket.removeprefix("unix://")), mode=0o600)
            await self._server.start(self._listener)

    async def _stop(self) -> None:
        server, listener = self._server, self._listener
        self._server = self._listener = None
        if server is not None and listener is not None:
            await server.close()
            listener.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)
        except TimeoutError:
            raise Unavailable("the fake agent does not answer") from None
