# SPDX-License-Identifier: Apache-2.0
"""Settings: unknown keys, wrong types and values out of bounds are refused; variables override the file."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from everyhop.core.errors import SettingsError
from everyhop.runtime.settings import Settings, load_settings


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "everyhop.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('svid_tll = "1h"', "did you mean 'svid_ttl'"),
        ("svid_ttl = 3600", "duration"),
        ('svid_ttl = "1"', "not a duration"),
        ('envoy_concurrency = "many"', "must be"),
        ('svid_ttl = "1s"', "at least 10s"),
        ('svid_ttl = "1h"\nauthority_ttl = "90m"', "at least twice"),
        ('svid_ttl = "10s"\nauthority_ttl = "60s"', "twice jwt_svid_ttl"),
        ('jwt_svid_ttl = "2h"', "between"),
        ('record_flush = "1m"', "between"),
        ('log_level = "loud"', "one of"),
        ('envoy = "/nonexistent/envoy"', "no Envoy binary"),
        ("= broken", "everyhop.toml"),
        ("max_connections = true", "must be"),
    ],
)
def test_refuses(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(_file(tmp_path, text), {})
    assert message in f"{caught.value.message} {caught.value.hint}"


def test_bad_variables_are_named() -> None:
    with pytest.raises(SettingsError, match="EVERYHOP_SVID_TTL"):
        load_settings(None, {"EVERYHOP_SVID_TTL": "soon"})


def test_defaults_then_file_then_variables(tmp_path: Path) -> None:
    file = _file(tmp_path, 'svid_ttl = "30m"\njwt_svid_ttl = "2m"\nmax_connections = 5')
    settings = load_settings(file, {"EVERYHOP_SVID_TTL": "20m", "EVERYHOP_MAX_CONNECTIONS": "7"})
    assert settings.svid_ttl == timedelta(minutes=20)
    assert settings.jwt_svid_ttl == timedelta(minutes=2)
    assert settings.max_connections == 7
    assert load_settings(tmp_path / "missing.toml", {}) == Settings()
