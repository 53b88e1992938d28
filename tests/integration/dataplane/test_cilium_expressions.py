# SPDX-License-Identifier: Apache-2.0
"""Expressions for Cilium in the engine that Cilium uses: a real Envoy says how large they are and takes what fits."""

from __future__ import annotations

import json
import random
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from everyhop.dataplane.envoy import locate_envoy
from everyhop.policy.routes import parse_route
from everyhop.targets.cilium.expressions import path_expression

if TYPE_CHECKING:
    from pathlib import Path

ENVOYS = 100
_CHARACTERS = "abcXYZ019-._~!$&'()*+,=:@"
_SIZE = re.compile(r"RE2 program size of (\d+) > max program size of")


def _route(expression: str, limit: int | None) -> dict[str, Any]:
    matcher: dict[str, Any] = {"regex": expression}
    if limit is not None:
        matcher["google_re2"] = {"max_program_size": limit}
    header = {"name": ":path", "string_match": {"safe_regex": matcher}}
    return {"match": {"prefix": "/", "headers": [header]}, "direct_response": {"status": 200}}


def _validate(path: Path, expressions: list[str], limit: int | None = None) -> str:
    """Return what Envoy says against a configuration with these expressions, empty where it takes it."""
    kind = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{kind}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "x",
        "route_config": {
            "virtual_hosts": [
                {"name": "x", "domains": ["*"], "routes": [_route(one, limit) for one in expressions]}
            ]
        },
        "http_filters": [{"name": "r", "typed_config": {"@type": f"{kind}.http.router.v3.Router"}}],
    }
    listener = {
        "name": "x",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "x", "typed_config": manager}]}],
    }
    path.write_text(json.dumps({"static_resources": {"listeners": [listener]}}))
    done = subprocess.run(
        [locate_envoy(), "--mode", "validate", "-c", path, "-l", "error"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _templates() -> list[str]:
    chance = random.Random(6)
    found = []
    for _ in range(400):
        parts = []
        for number in range(chance.randint(1, 5)):
            text = "".join(chance.choice(_CHARACTERS) for _ in range(chance.randint(1, 9))).strip(".") or "a"
            parts.append(f"{{p{number}}}" if chance.random() < 0.4 else text)
        parts += [["{rest...}"], [""], []][chance.randint(0, 2)]
        found.append("/" + "/".join(parts))
    return found


@pytest.fixture(scope="module")
def expressions():
    chance = random.Random(7)
    return [
        path_expression(
            parse_route(f"GET {template}"),
            frozenset(chance.sample("!$&'()*+,=:@", chance.randint(0, 12))),
        )
        for template in _templates()
    ]


def test_cilium_41314_envoy_refuses_what_we_refuse(tmp_path, expressions):
    too_large = sorted((one for one in expressions if one.size > ENVOYS), key=lambda one: one.size)
    assert too_large[0].size - ENVOYS < 10, "the boundary is not looked at"
    assert not any(one.fits for one in too_large)
    assert "RE2 program size" in _validate(tmp_path / "e.json", [too_large[0].text])


def test_envoy_takes_what_fits(tmp_path, expressions):
    fitting = [one.text for one in expressions if one.fits]
    assert len(fitting) > 200
    assert _validate(tmp_path / "e.json", fitting) == ""


def test_the_size_is_what_envoy_counts(tmp_path, expressions):
    chosen = sorted({one.size: one for one in expressions}.values(), key=lambda one: one.size)[::8]
    assert len(chosen) > 5
    for one in chosen:
        said = _SIZE.search(_validate(tmp_path / "e.json", [one.text], limit=1))
        assert said is not None
        assert int(said[1]) == one.size, one.text
