# SPDX-License-Identifier: Apache-2.0
"""Runs every Python block of the guide to the SDK, and asks what it serves, or serves what it asks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "sdk.md"
TEXT = PAGE.read_text(encoding="utf-8")
SCHEMA = {"type": "object", "properties": {"amount": {"type": "integer"}}, "additionalProperties": False}

# What each block is put between.  `serve` asks for GET /orders of storefront for alice; `call` answers POST /charges.
BEFORE = """
import os, sys
sys.path.insert(0, {root!r})
from tests.integration.guide_sdk_stage import *
stage = Stage(POLICY_FILES)
"""
SECTIONS = {
    "FastAPI": "serve_asgi(stage, app)",
    "Starlette, and ASGI in general": "serve_asgi(stage, app)",
    "Flask": "serve_wsgi(stage, app)",
    "WSGI in general": "serve_wsgi(stage, app)",
    "Django": "serve_django(stage)",
    "aiohttp": "serve_aiohttp(stage, app)",
    "gRPC": "serve_grpc(stage, server)",
    "Call": "assert answer.status_code == 200, answer.text",
    "For a user who comes with a token of her own": "assert checkout('token') == 'exchanged'",
    "Serve without a sidecar": "serve_tls(stage, server)",
    "Your own tests": "",
}


def blocks():
    """Yield (section, number within it, source)."""
    for section in re.split(r"^##+ ", TEXT, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        found = re.findall(r"^```python\n(.*?)^```", body, re.MULTILINE | re.DOTALL)
        for number, source in enumerate(found):
            yield title.strip(), number, source


def policy_files():
    policy = re.search(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)[1]
    return {"everyhop.yaml": policy.encode(), "order.schema.json": json.dumps(SCHEMA).encode()}


BLOCKS = list(blocks())


def test_every_section_with_code_is_known():
    assert {title for title, _, _ in BLOCKS} == set(SECTIONS)


@pytest.mark.parametrize(("title", "number", "source"), BLOCKS, ids=[f"{t}-{n}" for t, n, _ in BLOCKS])
def test_block(title, number, source, tmp_path):
    root = str(PAGE.parents[2])
    after = SECTIONS[title]
    if title == "Call" and "status = " in source:
        after = "assert status == 200"
    program = tmp_path / "block.py"
    before = BEFORE.format(root=root).replace("POLICY_FILES", repr(policy_files()))
    if title == "Your own tests":
        before = f"POLICY_FILES = {policy_files()!r}\n"
    scenery = "with_payments(stage)\n" if title == "Call" else ""
    if title == "gRPC":
        scenery = "with_socket(stage)\n"
    program.write_text(f"{before}{scenery}{source}\n{textwrap.dedent(after)}\nprint('done')\n")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "faulthandler", str(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip().endswith("done"), done.stdout + done.stderr


def test_every_code_of_the_table_is_one_of_ours():
    table = TEXT.partition("## What a refusal looks like")[2].partition("## Your own tests")[0]
    shown = set(re.findall(r"`([A-Z]+_[A-Z_]+)`", table))
    source = "".join(
        path.read_text()
        for path in (PAGE.parents[2] / "src" / "everyhop").rglob("*.py")
        if "_pb2" not in path.name
    )
    assert len(shown) > 10
    assert [code for code in sorted(shown) if f'"{code}"' not in source] == []
