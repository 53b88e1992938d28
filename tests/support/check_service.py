# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the agent's check of credentials: Envoy's external authorization, with an answer that a test gives."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from everyhop.wire.ext_authz import CHECK, OVERWRITE, CheckRequest, CheckResponse
from everyhop.wire.rpc import Cardinality, Method, Service
from everyhop.wire.sockets import UnixListener
from everyhop.wire.transport import PeerServer


def passes(set_headers=(), *, remove=(), **metadata):
    """Let a call pass; ``metadata`` is what Envoy's memory gets."""
    answer = CheckResponse()
    answer.status.code = 0
    for name, value in dict(set_headers).items():
        option = answer.ok_response.headers.add(append_action=OVERWRITE)
        option.header.key, option.header.value = name.encode(), value.encode()
    answer.ok_response.headers_to_remove.extend(remove)
    answer.dynamic_metadata.update(metadata)
    return answer


def refuses(status, code, title="Refused"):
    """Refuse a call as the agent does."""
    answer = CheckResponse()
    answer.status.code = 16
    answer.denied_response.status.code = status
    option = answer.denied_response.headers.add(append_action=OVERWRITE)
    option.header.key, option.header.value = b"www-authenticate", b'Bearer realm="everyhop"'
    answer.dynamic_metadata.update({"code": code, "title": title})
    return answer


class Checks:
    """Serves at a socket inside a mesh's event loop; ``seen`` are the requests, ``answer`` makes the answers."""

    def __init__(self, mesh):
        self.mesh = mesh
        self.seen = []
        self.answer = lambda request: refuses(401, "MISSING_TOKEN")  # the shape of all of them
        self._path = mesh.root / "authz.sock"

    def __enter__(self):
        self.mesh.call(self.start)
        return self

    def __exit__(self, *exc_info):
        self.mesh.call(self.stop)

    async def start(self):
        method = Method(
            path=CHECK,
            cardinality=Cardinality.UNARY_UNARY,
            request=CheckRequest,
            reply=CheckResponse,
            handler=self._check,
        )
        self._server = PeerServer([Service([method])])
        self._listener = UnixListener.bind(self._path, mode=0o600)
        await self._server.start(self._listener)

    async def stop(self):
        await self._server.close()
        self._listener.close()

    async def _check(self, call):
        request = plain(await call.receive_only(), call)
        self.seen.append(request)
        answer = self.answer(request)
        if asyncio.iscoroutine(answer):
            answer = await answer
        await call.send(answer)


def plain(message, call=None):
    """Return what a check is asked, as values."""
    attributes = message.attributes
    fields = [(f.key.decode(), (f.raw_value or f.value)) for f in attributes.request.http.header_map.headers]
    rbac = attributes.metadata_context.filter_metadata["envoy.filters.http.rbac"]
    return SimpleNamespace(
        message=message,
        method=attributes.request.http.method.decode(),
        path=attributes.request.http.path,
        headers=fields,
        principal=attributes.source.principal,
        certificate=attributes.source.certificate,
        destination=attributes.destination.principal,
        extensions=dict(attributes.context_extensions),
        rbac=dict(rbac.items()),
        point=call.metadata("x-everyhop-point") if call else (),
        instance=call.metadata("x-everyhop-instance") if call else (),
        all=lambda name: [value.decode("latin-1") for key, value in fields if key == name],
    )
