# SPDX-License-Identifier: Apache-2.0
"""Runs the reference page of the OAuth endpoints: every command of its console blocks, and its output against the page."""

import re
import subprocess
import sys
from pathlib import Path

from trust_domain import trust_domain

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "oauth.md"
POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {workload: [{run: true}]}
  orders:
    workload: [{run: true}]
    operations:
      list: {route: GET /orders, token: required}
  payments:
    workload: [{run: true}]
    operations:
      charge: {route: POST /v1/charges, token: operation}
allow:
  - {from: storefront, to: orders, operations: [list]}
  - {from: orders, to: payments, operations: [charge]}
"""


def commands():
    """Yield each command with the lines that the page shows for it."""
    text = PAGE.read_text(encoding="utf-8")
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            end = next(n for n, line in enumerate(lines) if not line.endswith("\\"))
            yield "\n".join(lines[: end + 1]), [line for line in lines[end + 1 :] if line != "…"]


def test_the_page_is_true():
    session = list(commands())
    assert len(session) >= 10
    with trust_domain(POLICY) as domain:
        path = f"{Path(sys.executable).parent}:{domain.environment['PATH']}"
        mark = "--- next"
        script = f"\necho; echo '{mark}'\n".join(command for command, _ in session)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=domain.root,
            env={**domain.environment, "PATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == ""
        for (command, expected), output in zip(session, done.stdout.split(mark + "\n"), strict=True):
            shown = [line.rstrip() for line in output.splitlines()]
            for line in expected:
                form = re.escape(line).replace("…", ".*")
                assert any(re.fullmatch(form, one) for one in shown), f"{command}\n{line}\n{output}"
