# SPDX-License-Identifier: Apache-2.0
"""A process that takes a service's place: ``python -m everyhop.demo.rogue STATE SERVICE KIND``.

It has the owner's rights, registers a launch like ``everyhop run`` does, and then listens itself where the sidecar
should, with a certificate that is not the service's (KIND: ``stranger``, ``plain``, or a service whose real SVID it
holds).  It prints what callers gave it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import sys
from pathlib import Path

from everyhop.control.local_link import LocalLink
from everyhop.core.secret import Secret
from everyhop.demo.identities import Forger, Identity, decode_identity, make_signer
from everyhop.demo.raw import READ_BYTES, describe_error
from everyhop.runtime.layout import StateLayout
from everyhop.x509.keys import private_key_to_pem


def server_context(identity: Identity) -> ssl.SSLContext:
    """Return a server context that shows ``identity`` and takes any client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    certificates = "".join(ssl.DER_cert_to_PEM_cert(der) for der in identity.chain).encode()
    memory = os.memfd_create("rogue", os.MFD_CLOEXEC)
    try:
        os.write(memory, certificates + private_key_to_pem(Secret(identity.key)).reveal())
        context.load_cert_chain(f"/proc/self/fd/{memory}")
    finally:
        os.close(memory)
    return context


def choose_identity(layout: StateLayout, service: str, kind: str) -> Identity:
    """Return what this rogue shows: a forged identity of the service, or the real one of ``kind``."""
    if kind == "stranger":
        signer = make_signer("spiffe://shop.example")
        return Forger(signer, ()).leaf([f"spiffe://shop.example/service/{service}"], signer=signer)
    return decode_identity(LocalLink(layout.agent_socket).post("/v1/svid", {"service": kind}))


def answer(connection: socket.socket, context: ssl.SSLContext | None) -> str:
    """Serve one caller; return what it told us."""
    connection.settimeout(3.0)
    try:
        peer = connection if context is None else context.wrap_socket(connection, server_side=True)
        data = peer.recv(READ_BYTES)
    except OSError as error:
        return "nothing" if context is not None else describe_error(error)
    if context is None and data[:1] == b"\x16":  # a ClientHello is all that plain ears hear
        return "nothing"
    return "nothing" if not data else repr(data[:80])


def main() -> None:
    """Take the place and listen until ended."""
    layout = StateLayout(Path(sys.argv[1]))
    service, kind = sys.argv[2], sys.argv[3]
    context = None if kind == "plain" else server_context(choose_identity(layout, service, kind))
    agent = LocalLink(layout.agent_socket)
    launch = agent.post("/v1/launches", {"service": service, "pid": os.getpid(), "port": None})
    host, _, port = launch["ingress"].rpartition(":")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with socket.create_server((host, int(port))) as listener:
            agent.post(f"/v1/launches/{launch['id']}", {"envoy_pid": None, "child_pid": None, "app": "unix"})
            while True:
                connection, _ = listener.accept()
                with connection:
                    print(json.dumps({"saw": answer(connection, context)}), flush=True)
    finally:
        agent.delete(f"/v1/launches/{launch['id']}")


if __name__ == "__main__":
    main()
