# SPDX-License-Identifier: Apache-2.0
"""A steady load through the egress proxy: legitimate calls that must pass, forbidden ones that must not.

Usage: load_client.py RESULT [--host NAME] [--pause SECONDS].  Runs until SIGTERM, then writes RESULT as JSON: how many of each, and
every one that went wrong with its time.  Half of the calls use a connection kept open, half a new one.
"""

import base64
import http.client
import json
import os
import signal
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

RESULT = Path(sys.argv[1])
HOST = sys.argv[sys.argv.index("--host") + 1] if "--host" in sys.argv else "orders"
PAUSE = float(sys.argv[sys.argv.index("--pause") + 1]) if "--pause" in sys.argv else 0.002
PROXY = urlsplit(os.environ["HTTP_PROXY"])
CREDENTIALS = "Basic " + base64.b64encode(f"{PROXY.username}:{PROXY.password}".encode()).decode()
LIMIT_SECONDS = 300.0

running = True


def stop(*_: object) -> None:
    """Note that the load shall end."""
    global running  # a signal handler has nowhere else to write
    running = False


def call(connection: http.client.HTTPConnection, method: str, path: str) -> tuple[int, str]:
    """Make one call; return its status and the start of its body, or 0 and the error."""
    try:
        connection.request(method, f"http://{HOST}{path}", headers={"proxy-authorization": CREDENTIALS})
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return 0, repr(error)
    return answer.status, body[:300].decode("latin-1")


def main() -> None:
    """Call until told to stop."""
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    kept = http.client.HTTPConnection(PROXY.hostname or "", PROXY.port, timeout=10)
    good = bad = 0
    wrong: list[dict[str, object]] = []
    begun = time.monotonic()
    while running and time.monotonic() - begun < LIMIT_SECONDS:
        fresh = http.client.HTTPConnection(PROXY.hostname or "", PROXY.port, timeout=10)
        for connection in (kept, fresh):
            for method, path, allowed in (("GET", "/orders/7", True), ("POST", "/orders", False)):
                at = time.time()
                status, body = call(connection, method, path)
                good, bad = good + allowed, bad + (not allowed)
                if (status == 200) != allowed or (not allowed and status != 403):
                    wrong.append({"at": at, "call": f"{method} {path}", "status": status, "body": body})
        fresh.close()
        if not RESULT.with_suffix(".started").exists():
            RESULT.with_suffix(".started").touch()
        time.sleep(PAUSE)
    RESULT.write_text(json.dumps({"good": good, "bad": bad, "wrong": wrong}))


if __name__ == "__main__":
    main()
