# SPDX-License-Identifier: Apache-2.0
"""Runs the guide to decisions: every command, in order; what the page shows must be in the output."""

import re
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from page_shell import Shell

pytestmark = [pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "guides" / "understanding-decisions.md").read_text(encoding="utf-8")
SAMPLE = ROOT / "src" / "everyhop" / "cli" / "starter" / "orders.py"
SECONDS = 60


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def commands():
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *expected = part.splitlines()
            yield command, expected


def missing(output, expected):
    shown = " ".join(output.split())
    return [line for line in expected if " ".join(line.split()) not in shown]


def until(look, expected):
    """Look again until what the page shows is there: records and policies take a moment to arrive."""
    deadline = time.monotonic() + SECONDS
    while True:
        output = look()
        lacking = missing(output, expected)
        if not lacking or time.monotonic() > deadline:
            return output, lacking
        time.sleep(0.2)


def test_every_command_gives_what_the_page_says():
    home = Path(tempfile.mkdtemp(prefix="ehud-", dir="/tmp"))
    (home / "everyhop.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    shutil.copy(SAMPLE, home)
    shell = Shell(home)
    try:
        for command, shown in commands():
            expected = shown
            if command == "everyhop up":
                look = shell.start(command).read_text
            elif command.startswith("everyhop run"):
                shell.start(command)
                expected, look = ["orders"], lambda: shell.run("everyhop status | grep 'orders .* ready '")
            else:
                look = lambda typed=command: shell.run(typed)  # noqa: E731
            output, lacking = until(look, expected)
            assert not lacking, f"$ {command}\n{output}\n\nmissing: {lacking}"
    finally:
        shell.close()
        shutil.rmtree(home, ignore_errors=True)
