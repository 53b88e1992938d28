# SPDX-License-Identifier: Apache-2.0
"""Every file of ours names its licence on its first line and says in a docstring what it is for."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPDX = "# SPDX-License-Identifier: Apache-2.0"
GENERATED = re.compile(r"_(pb2|grpc|pb2_grpc)\.pyi?$")


def files(*shelves: str) -> list[str]:
    """Python files below the shelves, as paths from the root, without generated code."""
    found = (path for shelf in shelves for path in (ROOT / shelf).rglob("*.py"))
    return sorted(str(path.relative_to(ROOT)) for path in found if not GENERATED.search(path.name))


def has_spdx_line(text: str) -> bool:
    lines = text.splitlines()
    if lines and lines[0].startswith("#!"):
        lines = lines[1:]
    return bool(lines) and lines[0] == SPDX


@pytest.mark.parametrize("name", files("src", "tests", "tools", "benchmarks"))
def test_licence_line_comes_first(name: str) -> None:
    assert has_spdx_line((ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", files("src", "tools", "benchmarks"))
def test_module_has_a_docstring(name: str) -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / name).read_text(encoding="utf-8")))
    assert docstring, "a module says what it is for"


@pytest.mark.parametrize("text", ["", "x = 1\n", f"\n{SPDX}\n", "# SPDX-License-Identifier: MIT\n"])
def test_a_missing_licence_line_is_seen(text: str) -> None:
    assert not has_spdx_line(text)
