# SPDX-License-Identifier: Apache-2.0
"""A workload that does what it is told: ``everyhop run shopper -- python -m everyhop.demo.puppet``.

It reads one JSON object a line and answers with one.  It is how the demo acts from *inside* a workload: with its
environment, behind its sidecar, with its identity and no other.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from everyhop.demo.raw import describe_error, dial, read_reply

AUTHORIZATION = b"@authorization@"
"""Replaced by the credentials of this launch in what is sent; so the secret never leaves the process."""


CLOSE_FRAME = b"\x88"
"""How the end of a WebSocket begins (RFC 6455 section 5.5.1); the demo's texts do not hold it."""


def credentials() -> bytes:
    """Return the value of ``proxy-authorization`` that this workload was given."""
    proxy = urlsplit(os.environ["HTTP_PROXY"])
    return b"Basic " + base64.b64encode(f"{proxy.username}:{unquote(proxy.password or '')}".encode())


def workload_secret(pid: int) -> bytes:
    """Return the egress secret of a workload, as its own user can read it from the environment of the process."""
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    proxy = next(entry for entry in environment if entry.startswith(b"HTTP_PROXY="))
    return proxy.rpartition(b"@")[0].rpartition(b":")[2]


def place_of(via: str) -> tuple[str, int] | str:
    """Return where to connect: ``proxy``, ``egress``, ``port:N``, or the name of a tcp service."""
    if via == "proxy":
        proxy = urlsplit(os.environ["HTTP_PROXY"])
        return proxy.hostname or "", proxy.port or 0
    if via == "egress":
        return os.environ["EVERYHOP_EGRESS"]
    if via.startswith("port:"):
        return "127.0.0.1", int(via.removeprefix("port:"))
    return str(Path(os.environ["EVERYHOP_EGRESS"]).parent / f"tcp-{via}.sock")


def send(order: dict[str, Any]) -> dict[str, Any]:
    """Send bytes to one of the sidecar's ways out and tell what comes back."""
    data = base64.b64decode(order["data"]).replace(AUTHORIZATION, credentials())
    try:
        with dial(place_of(order["via"])) as connection:
            connection.sendall(data)
            reply = read_reply(connection, patience=order.get("patience", 10.0))
            more = reply.rest
            if reply.status == 101:  # noqa: PLR2004  # what follows an upgrade belongs to it
                while CLOSE_FRAME not in more and (part := connection.recv(65536)):
                    more += part
    except OSError as error:
        return {"end": describe_error(error)}
    return {
        "status": reply.status,
        "headers": list(reply.headers),
        "body": base64.b64encode(reply.body).decode(),
        "rest": base64.b64encode(more).decode(),
        "end": reply.end,
    }


def svid(order: dict[str, Any]) -> dict[str, Any]:
    """Fetch this workload's X509-SVID from the Workload API."""
    from everyhop.demo.workload_client import fetch_identity

    del order
    found = fetch_identity(os.environ["SPIFFE_ENDPOINT_SOCKET"].removeprefix("unix://"))
    if isinstance(found, str):
        return {"end": found}
    return {
        "chain": [base64.b64encode(der).decode() for der in found.chain],
        "key": base64.b64encode(found.key).decode(),
        "bundle": [base64.b64encode(der).decode() for der in found.bundle],
    }


def main() -> None:
    """Answer orders until standard input ends."""
    print(json.dumps({"pid": os.getpid(), "proxy": place_of("proxy")}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        answer = svid(order) if order["do"] == "svid" else send(order)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
