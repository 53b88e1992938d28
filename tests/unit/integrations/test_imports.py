# SPDX-License-Identifier: Apache-2.0
"""A glue loads its own framework and no other; what is missing is named with what installs it."""

import json
import subprocess
import sys

import pytest

FRAMEWORKS = {
    "aiohttp": {"aiohttp"},
    "asgi": set(),
    "django": {"django"},
    "fastapi": {"fastapi", "starlette"},
    "flask": {"flask", "werkzeug"},
    "grpc": {"grpc"},
    "grpc_aio": {"grpc"},
    "httpx": {"httpx"},
    "requests": {"requests", "urllib3"},
    "wsgi": set(),
}
PACKAGES = {
    "aiohttp": ("aiohttp", "aiohttp"),
    "django": ("django", "Django"),
    "fastapi": ("fastapi", "fastapi"),
    "flask": ("flask", "Flask"),
    "grpc": ("grpc", "grpcio"),
    "grpc_aio": ("grpc", "grpcio"),
    "httpx": ("httpx", "httpx"),
    "requests": ("requests", "requests"),
}
ALL = set().union(
    *FRAMEWORKS.values(), {"sqlalchemy", "uvicorn", "grpclib", "jsonschema", "joserfc", "hypercorn"}
)


def run(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return done.stdout, done.stderr


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_only_its_own_framework(name):
    out, err = run(f"import everyhop.integrations.{name}, sys, json; print(json.dumps(sorted(sys.modules)))")
    assert not err
    assert {one for one in json.loads(out) if one in ALL} <= FRAMEWORKS[name]


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_framework_is_named(name):
    module, package = PACKAGES[name]
    _, err = run(f"import sys; sys.modules[{module!r}] = None; import everyhop.integrations.{name}")
    assert f"pip install {package}" in err.splitlines()[-1]
    assert f"everyhop.integrations needs {package} here, which is not installed" in err


def test_an_import_that_fails_for_another_reason_says_so():
    from everyhop.integrations._missing import needs

    with pytest.raises(ModuleNotFoundError, match="inner"), needs("outer"):
        raise ModuleNotFoundError("no inner", name="inner")
    with pytest.raises(ImportError, match="broken"), needs("outer"):
        raise ImportError("broken")
