# SPDX-License-Identifier: Apache-2.0
"""Importing the SDK costs little, and every public name is there once it is asked for."""

import json
import subprocess
import sys

import pytest

import everyhop.sdk

HEAVY = (
    "sqlalchemy",
    "starlette",
    "fastapi",
    "uvicorn",
    "flask",
    "django",
    "grpc",
    "grpclib",
    "h2",
    "cryptography",
    "google.protobuf",
    "jsonschema",
    "yaml",
    "msgspec",
    "asyncio",
    "ssl",
)
NEVER = ("sqlalchemy", "alembic", "starlette", "fastapi", "uvicorn", "flask", "django", "everyhop.control")


def loaded_by(statement: str) -> set[str]:
    program = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


def test_import_loads_nothing_heavy():
    assert not loaded_by("import everyhop.sdk") & set(HEAVY)


def test_the_current_call_needs_nothing_heavy():
    assert not loaded_by("from everyhop.sdk import caller, user, require, outgoing_headers") & set(HEAVY)


def test_everything_together_loads_no_framework_and_no_server_room():
    found = loaded_by("from everyhop.sdk import *")
    assert not {name for name in found if name.startswith(NEVER)}


@pytest.mark.parametrize("name", everyhop.sdk.__all__)
def test_every_public_name_is_there(name):
    assert getattr(everyhop.sdk, name) is not None


def test_the_list_names_each_once():
    public = list(everyhop.sdk.__all__)
    assert len(set(public)) == len(public)
    assert set(public) <= set(dir(everyhop.sdk))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = everyhop.sdk.nothing
