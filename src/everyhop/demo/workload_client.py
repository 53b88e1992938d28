# SPDX-License-Identifier: Apache-2.0
"""A small client of the agent's gRPC sockets: what a process gets from them, or how it is refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from everyhop.demo.identities import Identity
from everyhop.demo.raw import describe_error
from everyhop.wire.envoy import SECRET_TYPE_URL, STREAM_SECRETS, DiscoveryRequest, DiscoveryResponse, Node
from everyhop.wire.workload_pb2 import X509SVIDRequest, X509SVIDResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

WORKLOAD_METHOD: Final = "/SpiffeWorkloadAPI/FetchX509SVID"
SECURITY_HEADER: Final[Mapping[str, str]] = {"workload.spiffe.io": "true"}
_SECONDS: Final = 5.0


def fetch_identity(socket_path: str, *, metadata: Mapping[str, str] = SECURITY_HEADER) -> Identity | str:
    """Ask the Workload API who this process is; return the gRPC status by name when it refuses."""
    answer = _ask(socket_path, WORKLOAD_METHOD, X509SVIDRequest(), X509SVIDResponse, metadata)
    if isinstance(answer, str):
        return answer
    first = answer.svids[0]
    return Identity(
        chain=tuple(split_der(first.x509_svid)),
        key=first.x509_svid_key,
        bundle=tuple(split_der(first.bundle)),
    )


def ask_for_secret(socket_path: str, *, instance: str) -> str:
    """Ask the secret discovery socket for the SVID of a sidecar; return how that ended."""
    request = DiscoveryRequest(node=Node(id=instance), resource_names=["svid"], type_url=SECRET_TYPE_URL)
    answer = _ask(socket_path, STREAM_SECRETS, request, DiscoveryResponse, {}, Cardinality.STREAM_STREAM)
    return answer if isinstance(answer, str) else "a secret"


def split_der(data: bytes) -> list[bytes]:
    """Cut concatenated DER certificates apart."""
    parts = []
    while data:
        count = data[1] & 0x7F if data[1] & 0x80 else 0
        size = int.from_bytes(data[2 : 2 + count], "big") if count else data[1]
        end = 2 + count + size
        parts.append(data[:end])
        data = data[end:]
    return parts


def _ask(
    socket_path: str,
    method: str,
    request: Any,
    reply: type[Any],
    metadata: Mapping[str, str],
    cardinality: Cardinality = Cardinality.UNARY_STREAM,
) -> Any:  # a message of type ``reply``, or a text
    async def ask() -> Any:  # the same
        channel = Channel(path=socket_path)
        try:
            call = channel.request(
                method,
                cardinality,
                type(request),
                reply,
                timeout=_SECONDS,
                metadata=dict(metadata),
            )
            async with call as stream:
                await stream.send_message(request, end=cardinality is Cardinality.UNARY_STREAM)
                answer = await stream.recv_message()
                if answer is None:
                    await stream.recv_trailing_metadata()  # raises what the server has to say
                    return "an empty stream"
                await stream.cancel()
                return answer
        finally:
            channel.close()

    try:
        return asyncio.run(ask())
    except GRPCError as error:
        return _camel(error.status)
    except (TimeoutError, StreamTerminatedError) as error:
        return type(error).__name__
    except OSError as error:
        return describe_error(error)


def _camel(status: Status) -> str:
    """Return the standard's spelling: PermissionDenied."""
    return "".join(word.capitalize() for word in status.name.split("_"))
