# SPDX-License-Identifier: Apache-2.0
"""One HTTPS request with an SVID held in memory: for ``everyhop call`` and the demo's attacks."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from everyhop.core.errors import TrustError, Unavailable
from everyhop.core.secret import Secret
from everyhop.x509.certificates import certificates_to_pem
from everyhop.x509.keys import private_key_to_pem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TIMEOUT_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def client_context(chain: Sequence[bytes], key: bytes, bundle: Sequence[bytes]) -> ssl.SSLContext:
    """Build a TLS 1.3 client context from DER; the key passes through anonymous memory, never a disk.

    The host name is not checked here: the caller checks the SPIFFE ID of the peer.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=certificates_to_pem(bundle).decode())
    if chain:
        pem = certificates_to_pem(chain) + private_key_to_pem(Secret(key)).reveal()
        memory = os.memfd_create("svid", os.MFD_CLOEXEC)
        try:
            os.write(memory, pem)
            context.load_cert_chain(f"/proc/self/fd/{memory}")
        finally:
            os.close(memory)
    return context


def peer_spiffe_id(connection: ssl.SSLSocket) -> str:
    """Return the one URI SAN of the peer's certificate; raises TrustError when there is not exactly one."""
    certificate = connection.getpeercert() or {}
    names: Any = certificate.get("subjectAltName", ())
    uris = [value for kind, value in names if kind == "URI"]
    if len(uris) != 1:
        raise TrustError("the server's certificate is no X509-SVID")
    return str(uris[0])


def call_once(
    svid: Mapping[str, Any],
    *,
    ingress: str,
    server_id: str,
    host: str,
    method: str,
    path: str,
    headers: Sequence[tuple[str, str]] = (),
    body: bytes | None = None,
) -> Answer:
    """Make one call over mutual TLS; the request target goes out exactly as given.

    Raises TrustError when the server is not ``server_id``, Unavailable when it cannot be reached or ends the
    handshake.
    """
    context = client_context(svid["chain"], svid["key"], svid["bundle"])
    address, _, port = ingress.rpartition(":")
    connection = http.client.HTTPConnection(host, timeout=TIMEOUT_SECONDS)
    try:
        with (
            socket.create_connection((address, int(port)), timeout=TIMEOUT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            if peer_spiffe_id(secure) != server_id:
                raise TrustError(f"the server at {ingress} is not {server_id}")
            connection.sock = secure
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            connection.putheader("host", host)
            for name, value in headers:
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("content-length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(status=answer.status, headers=tuple(answer.getheaders()), body=answer.read())
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{ingress}: {error}") from error
