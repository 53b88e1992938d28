# SPDX-License-Identifier: Apache-2.0
"""Runs the guide to meshes: every command, in order; what the page shows must be in the output."""

import re
from pathlib import Path

import pytest
from tests.support.page_shell import Shell

pytestmark = [pytest.mark.timeout(240)]
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "guides" / "meshes.md"


def commands(text):
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *expected = part.splitlines()
            yield command, [" ".join(line.split()) for line in expected]


def policy_of(text):
    return re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]


def test_the_policy_of_the_page_is_the_example():
    assert policy_of(PAGE.read_text()) == (ROOT / "examples" / "payment" / "everyhop.yaml").read_text()


def test_every_command_of_the_guide_gives_what_the_page_says(tmp_path):
    text = PAGE.read_text()
    (tmp_path / "everyhop.yaml").write_text(policy_of(text))
    shell = Shell(tmp_path)
    for command, expected in commands(text):
        output = shell.run(command)
        shown = " ".join(output.split())
        missing = [line for line in expected if line not in shown]
        assert not missing, f"$ {command}\n{output}\n\nmissing: {missing}"
