# SPDX-License-Identifier: Apache-2.0
"""Runs the tutorial: every command of its console blocks, in order, and its output against the page."""

import re
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from page_shell import Shell

pytestmark = [pytest.mark.timeout(180)]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "first-hop.md"
BACKGROUND = ("everyhop up", "everyhop run orders -- python3 orders.py")
# What differs from run to run; the longer forms first.
VARYING = [
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
    (r"\b\d\d:\d\d:\d\d\.\d{3}\b", "TIME"),
    (r"127\.0\.0\.1:\d+", "PLACE"),
    (r"state=\S+", "STATE"),
    (r"\b[0-9a-f]{10,64}\b", "HEX"),
    (r"ready +\d+ ", "ready PID "),
    (r"[ \t]+", " "),
]


def blocks():
    text = PAGE.read_text(encoding="utf-8")
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        command, expected = "", []
        for line in block.splitlines():
            if line.startswith("$ "):
                if command:
                    yield command, expected
                command, expected = line[2:], []
            else:
                expected.append(line)
        yield command, expected


def normal(line):
    for pattern, replacement in VARYING:
        line = re.sub(pattern, replacement, line)
    return line.strip()


def missing(expected, output):
    """Give the first expected line that does not come, in order, in the output; None when all do."""
    lines = iter([normal(line) for line in output.splitlines()])
    for line in expected:
        wanted = normal(line)
        if not any(shown == wanted or (wanted == "curl:" and shown.startswith("curl:")) for shown in lines):
            return line
    return None


class Session(Shell):
    def __init__(self, home):
        super().__init__(home)
        self.decision = ""

    def step(self, command, expected):
        if command.startswith("cd "):
            self.cwd = self.cwd / command[3:]
            return ""
        if match := re.match(r"(\w+)=\$\((.*)\)$", command):
            self.environment[match[1]] = self.run(match[2]).strip()
            return ""
        if command in BACKGROUND:
            log = self.start(command)
            return self.eventually(log.read_text, expected, seconds=40)
        if command.startswith("everyhop why "):
            command = f"everyhop why {self.decision}"
        output = self.eventually(lambda: self.run(command), expected, seconds=10)
        if found := re.search(r'"decision":"([0-9a-f-]{36})"', output):
            self.decision = found[1]
        return output

    def eventually(self, look, expected, *, seconds):
        """Look until the output is the expected one: an edit or a start takes a moment to show."""
        deadline = time.monotonic() + seconds
        while missing(expected, output := look()) is not None and time.monotonic() < deadline:
            time.sleep(0.3)
        return output


@pytest.mark.skipif(shutil.which("curl") is None, reason="the tutorial uses curl")
def test_every_command_of_the_tutorial_gives_what_the_page_says():
    home = Path(tempfile.mkdtemp(prefix="ehtut-", dir="/tmp"))
    session = Session(home)
    try:
        ran = 0
        for command, expected in blocks():
            output = session.step(command, expected)
            assert missing(expected, output) is None, (
                f"$ {command}\n{output}\n\nmissing: {missing(expected, output)}"
            )
            ran += 1
        assert ran > 20
    finally:
        session.close()
        shutil.rmtree(home, ignore_errors=True)
