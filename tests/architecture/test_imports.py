# SPDX-License-Identifier: Apache-2.0
"""Importing the package costs little: the heavy libraries load only in the rooms that need them."""

import json
import subprocess
import sys

import pytest

HEAVY = ("sqlalchemy", "alembic", "grpclib", "google.protobuf", "starlette", "uvicorn", "rich", "asyncio")


def loaded_by(statement: str) -> set[str]:
    """The names of all modules that a fresh interpreter holds after `statement`."""
    program = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("library", HEAVY)
def test_import_everyhop_does_not_load(library: str) -> None:
    assert library not in loaded_by("import everyhop")


def test_the_probe_sees_what_is_loaded() -> None:
    assert "asyncio" in loaded_by("import everyhop, asyncio")


def test_version_matches_the_distribution() -> None:
    from importlib.metadata import version

    import everyhop

    assert everyhop.__version__ == version("everyhop")


def test_an_agent_loads_no_detector():
    loaded = loaded_by("import everyhop.runtime.agent_process")
    assert "everyhop.control.refused_credentials" in loaded
    assert not [name for name in loaded if name.startswith("everyhop.anomaly.detectors")]
