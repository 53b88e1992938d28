# SPDX-License-Identifier: Apache-2.0
"""Runs the guides to import and to drift, one after the other: every command; what the pages show must be in the output."""

import re
import shutil
from pathlib import Path

import pytest
from tests.support.page_shell import Shell

pytestmark = [pytest.mark.timeout(240)]
ROOT = Path(__file__).resolve().parents[2]
GUIDES = ROOT / "docs" / "guides"


def commands(text):
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *expected = part.splitlines()
            yield command, [" ".join(line.split()) for line in expected if line.strip() != "…"]


def test_every_command_of_both_guides_gives_what_the_page_says(tmp_path):
    shutil.copytree(ROOT / "examples" / "bookshop", tmp_path / "examples" / "bookshop")
    adopting, drift = (
        (GUIDES / name).read_text(encoding="utf-8") for name in ("adopting-from-a-mesh.md", "drift.md")
    )
    backdoor = re.findall(r"^```yaml\n(.*?)^```", drift, re.MULTILINE | re.DOTALL)[0]
    (tmp_path / "backdoor.yaml").write_text(backdoor, encoding="utf-8")
    shell = Shell(tmp_path)
    count = 0
    for command, expected in (*commands(adopting), *commands(drift)):
        output = shell.run(command)
        shown = " ".join(output.split())
        missing = [line for line in expected if line not in shown]
        assert not missing, f"$ {command}\n{output}\n\nmissing: {missing}"
        count += 1
    assert count == 10
