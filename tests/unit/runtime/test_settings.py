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
        ("confirm_wider = 1", "true or false"),
        ('two_person = "yes"', "true or false"),
        ('approval_socket = "s"\napprovers = ["root"]\ntwo_person = true', "absolute"),
        ('approval_socket = "/run/x/s"', "belong together"),
        ('approvers = ["root"]\ntwo_person = true', "belong together"),
        ('approvers = ["root"]\napproval_socket = "/run/x/s"', "nothing to approve"),
        ("= broken", "everyhop.toml"),
        ("max_connections = true", "must be"),
        ('api_listen = "8443"', "HOST:PORT"),
        ('api_listen = "localhost:8443"', "IP address"),
        ('api_listen = "127.0.0.1:65536"', "port"),
        ('api_listen = "127.0.0.1:-1"', "port"),
        ('api_listen = "::1:8443"', "brackets"),
        ("api_names = [8]", "list of texts"),
        ('api_names = ["*.shop.example"]', "no wildcard"),
        ('api_names = ["under_score.example"]', "DNS name"),
        ('api_names = ["a..b"]', "DNS name"),
        ('issuer = "http://issuer.example"', "https"),
        ('issuer = "https://issuer.example/"', "slash"),
        ('issuer = "https://issuer.example?x=1"', "query"),
        ('issuer = "https://issuer.example#x"', "fragment"),
        ('issuer = "https://user:secret@issuer.example"', "user"),
        ('issuer = "https://issuer.example/a/../b"', "path"),
        ('issuer = "https://issuer.example/a b"', "path"),
        ('issuer = "https://"', "host"),
        ('issuer = "https://issuer.example:0x50"', "host"),
        ('token_ttl = "2h"', "between"),
        ('txn_ttl = "1s"', "between"),
        ('token_algorithm = "HS256"', "ES256 or RS256"),
        ('signing_key_ttl = "91d"', "between"),
        ('signing_key_ttl = "5s"', "between"),
        ('jwks_max_age = "2d"', "between"),
        ('redis_url = "hunter2@cache"', "redis_url starts with"),
        ('database = "mysql://hunter2@db"', "database starts with"),
        ('database = "everyhop.db"', "database starts with"),
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


def test_the_url_of_the_database_is_never_shown() -> None:
    settings = load_settings(None, {"EVERYHOP_DATABASE": "postgresql://a:hunter2@db/everyhop"})
    assert settings.database == "postgresql://a:hunter2@db/everyhop"
    assert "hunter2" not in repr(settings)


def test_the_redis_url_is_never_shown(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {"EVERYHOP_REDIS_URL": "http://:hunter2@cache"})
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"
    settings = load_settings(None, {"EVERYHOP_REDIS_URL": "redis://:hunter2@cache"})
    assert "hunter2" not in repr(settings)


def test_lists_are_arrays_in_the_file_and_commas_in_a_variable(tmp_path: Path) -> None:
    file = _file(tmp_path, 'api_names = ["auth.shop.example", "10.0.0.5"]')
    assert load_settings(file, {}).api_names == ("auth.shop.example", "10.0.0.5")
    assert load_settings(None, {"EVERYHOP_API_NAMES": "a.example, ::1"}).api_names == ("a.example", "::1")


def test_an_issuer_may_have_a_path() -> None:
    for issuer in ("https://issuer.example", "https://issuer.example:8443/shop", "https://[::1]:8443"):
        assert load_settings(None, {"EVERYHOP_ISSUER": issuer}).issuer == issuer


def test_rules_for_changes_come_from_file_and_variables(tmp_path: Path) -> None:
    file = _file(tmp_path, 'two_person = true\napprovers = ["0"]\napproval_socket = "/run/x/s"')
    settings = load_settings(file, {"EVERYHOP_CONFIRM_WIDER": "true"})
    assert (settings.two_person, settings.confirm_wider, settings.approvers) == (True, True, ("0",))
    assert not load_settings(None, {"EVERYHOP_CONFIRM_WIDER": "false"}).confirm_wider
    with pytest.raises(SettingsError, match="true or false"):
        load_settings(None, {"EVERYHOP_TWO_PERSON": "1"})
