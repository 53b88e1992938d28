# SPDX-License-Identifier: Apache-2.0
"""Outputs that somebody has read: they stand under ``tests/golden`` and change only on purpose.

``EVERYHOP_WRITE_GOLDEN=1`` writes them anew; whoever does that reads what changed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

GOLDEN = Path(__file__).parents[1] / "golden"


def assert_golden(name: str, files: Mapping[str, bytes]) -> None:
    """Compare files with the directory ``tests/golden/NAME``: the same paths, the same bytes."""
    root = GOLDEN / name
    if os.environ.get("EVERYHOP_WRITE_GOLDEN") == "1":
        for path, content in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
    held = {
        one.relative_to(root).as_posix(): one.read_bytes() for one in sorted(root.rglob("*")) if one.is_file()
    }
    assert sorted(files) == sorted(held)
    for path, content in files.items():
        assert content.decode() == held[path].decode(), path
