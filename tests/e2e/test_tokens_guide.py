# SPDX-License-Identifier: Apache-2.0
"""Runs the guides to tokens and to the edge: every command, in order; what a page shows must be in the output."""

import re
import shutil
import socket
import tempfile
import time
from pathlib import Path

import pytest
from page_shell import Shell

from everyhop.tokens.codes import TokenCode

pytestmark = [pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[2]
GUIDES = ROOT / "docs" / "guides"
BACKGROUND = re.compile(r"everyhop up|everyhop run (\S+) .*-- python3|python3 issuer")
APPLICATION = """\
import os, socketserver
from http.server import BaseHTTPRequestHandler

class Handler(BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        body = {"/v1/charges": b"charged", "/v1/refunds": b"refunded"}.get(self.path, b"ok") + b"\\n"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def address_string(self):
        return "sidecar"

class Server(socketserver.ThreadingUnixStreamServer):
    pass

Server(os.environ["EVERYHOP_SOCKET"], Handler).serve_forever()
"""


def blocks(text, kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text):
    for block in blocks(text, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *expected = part.splitlines()
            yield command, expected


def holds(output, expected):
    """Tell whether every line of the page is in the output; words may be further apart there."""
    shown = " ".join(output.split())
    return all(" ".join(line.split()) in shown for line in expected)


class Session(Shell):
    def step(self, command, expected):
        background = BACKGROUND.match(command)
        look = self.start(command).read_text if background else lambda: self.run(command)
        if background and background[1]:
            ready = re.compile(rf"^{background[1]} .* ready ", re.MULTILINE)
            wait_for(lambda: ready.search(self.run("everyhop status")), 30)
        deadline = time.monotonic() + 30
        output = look()
        # A start takes a moment to show; nothing else here is tried twice.
        while background and not holds(output, expected) and time.monotonic() < deadline:
            time.sleep(0.2)
            output = look()
        return output


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def follow(text, **files):
    """Do what a page says, with these files beside its policy; return all that was printed."""
    home = Path(tempfile.mkdtemp(prefix="ehtok-", dir="/tmp"))
    (home / "everyhop.yaml").write_text(blocks(text, "yaml")[0], encoding="utf-8")
    for name, content in files.items():
        (home / f"{name}.py").write_text(content, encoding="utf-8")
    session = Session(home)
    try:
        seen = ""
        for command, expected in commands(text):
            output = session.step(command, expected)
            assert holds(output, expected), f"$ {command}\n{output}\n\nexpected: {expected}"
            seen += output
        return seen
    finally:
        session.close()
        shutil.rmtree(home, ignore_errors=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the guide uses curl")
def test_every_command_of_the_guide_to_tokens_gives_what_the_page_says():
    seen = follow((GUIDES / "tokens.md").read_text(encoding="utf-8"), payments=APPLICATION)
    assert [code for code in TokenCode if code not in seen] == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="the guide uses curl")
def test_every_command_of_the_guide_to_the_edge_gives_what_the_page_says():
    text = (GUIDES / "edge.md").read_text(encoding="utf-8")
    for port in ("9400", "8443"):
        text = text.replace(port, str(free_port()))
    issuer = (ROOT / "examples" / "three_hops" / "issuer.py").read_text(encoding="utf-8")
    follow(text, app=blocks(text, "python")[0], issuer=issuer)
