# SPDX-License-Identifier: Apache-2.0
"""Runs the reference page of AuthZEN: its policy, every command of its console blocks, and their output."""

import re
import subprocess
import sys
from pathlib import Path

from trust_domain import trust_domain

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "authzen.md"
TEXT = PAGE.read_text(encoding="utf-8")


def commands():
    """Yield each command with the lines that the page shows for it; quotes and backslashes carry it over lines."""
    for block in re.findall(r"^```console\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            end = 1
            while "\n".join(lines[:end]).count("'") % 2 or lines[end - 1].endswith("\\"):
                end += 1
            yield "\n".join(lines[:end]), lines[end:]


def test_the_page_is_true():
    session = list(commands())
    assert len(session) >= 15
    policy = re.search(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)[1]
    with trust_domain(policy) as domain:
        path = f"{Path(sys.executable).parent}:{domain.environment['PATH']}"
        mark = "--- next"
        script = f"\necho; echo '{mark}'\n".join(command for command, _ in session)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=domain.root,
            env={**domain.environment, "PATH": path},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.stderr == ""
        for (command, expected), output in zip(session, done.stdout.split(mark + "\n"), strict=True):
            shown = [line.rstrip() for line in output.splitlines()]
            for line in expected:
                form = re.escape(line).replace("…", ".*")
                assert any(re.fullmatch(form, one) for one in shown), f"{command}\n{line}\n{output}"
