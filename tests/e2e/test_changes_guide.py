# SPDX-License-Identifier: Apache-2.0
"""Runs the guide to changes: every command, in order; what the page shows must be in the output."""

import re
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from page_shell import Shell

pytestmark = [pytest.mark.timeout(240)]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "changes.md"


def commands(text):
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *expected = part.splitlines()
            yield command, [" ".join(line.split()) for line in expected]


def test_every_command_of_the_guide_gives_what_the_page_says():
    text = PAGE.read_text(encoding="utf-8")
    home = Path(tempfile.mkdtemp(prefix="ehchg-", dir="/tmp"))
    policy = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]
    (home / "everyhop.yaml").write_text(policy, encoding="utf-8")
    shell = Shell(home)
    try:
        for command, expected in commands(text):
            if command == "everyhop up":
                log = shell.start(command)
                deadline = time.monotonic() + 60
                while not re.search(r"^ready ", log.read_text(), re.MULTILINE):
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.1)
                continue
            output = shell.run(command)
            shown = " ".join(output.split())
            missing = [line for line in expected if line not in shown]
            assert not missing, f"$ {command}\n{output}\n\nmissing: {missing}"
    finally:
        shell.close()
        shutil.rmtree(home, ignore_errors=True)
