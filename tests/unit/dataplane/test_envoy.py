# SPDX-License-Identifier: Apache-2.0
import stat

import pytest

from everyhop.core.errors import SettingsError, Unavailable
from everyhop.core.secret import Secret
from everyhop.dataplane import envoy
from everyhop.dataplane.envoy import envoy_argv, envoy_version, locate_envoy, validate_configuration


@pytest.fixture
def script(tmp_path):
    def make(body, name="envoy"):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return make


def test_a_named_binary_comes_first(script):
    chosen, other = script("", "a"), script("", "b")
    assert locate_envoy(str(chosen), {"EVERYHOP_ENVOY": str(other)}) == chosen
    assert locate_envoy("", {"EVERYHOP_ENVOY": str(other)}) == other


def test_a_named_binary_that_is_none_is_refused(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    for named in (tmp_path, plain, tmp_path / "missing"):
        with pytest.raises(SettingsError):
            locate_envoy(str(named), {})


def test_the_installed_binary_is_found():
    path = locate_envoy("", {})
    assert path.stat().st_mode & stat.S_IXUSR
    assert envoy_version(path) >= (1, 39, 0)


def test_without_any_binary(monkeypatch):
    def nothing(_):
        raise envoy.PackageNotFoundError

    monkeypatch.setattr(envoy, "files", nothing)
    with pytest.raises(SettingsError, match="not installed"):
        locate_envoy("", {})
    monkeypatch.setattr(envoy, "files", lambda _: [])
    with pytest.raises(SettingsError, match="not installed"):
        locate_envoy("", {})


@pytest.mark.parametrize(
    "body", ["exit 1", "echo hello", "echo 'envoy version: abc/1.38.9/Clean'", "echo 'v: x/0.99.0/y'"]
)
def test_a_binary_that_is_no_envoy_or_too_old(script, body):
    with pytest.raises(SettingsError):
        envoy_version(script(body, name=f"e{abs(hash(body))}"))


def test_a_binary_that_does_not_run(tmp_path):
    with pytest.raises(SettingsError):
        envoy_version(tmp_path / "missing")


def test_the_command_line_is_strict_and_holds_no_secret(tmp_path, make_sidecar):
    secret = b"do not show this"
    argv = envoy_argv(tmp_path, make_sidecar(egress_secret=Secret(secret)), concurrency=2, flush_ms=50)
    assert "--reject-unknown-dynamic-fields" in argv
    assert "--use-dynamic-base-id" in argv
    assert argv[argv.index("--concurrency") + 1] == "2"
    assert argv[argv.index("--file-flush-interval-msec") + 1] == "50"
    assert argv[argv.index("--config-path") + 1] == "/state/envoy/0123456789/bootstrap.json"
    assert not any(secret.decode() in word for word in argv)


def test_what_envoy_refuses_is_told(tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text('{"nonsense": 1}')
    with pytest.raises(Unavailable, match="nonsense"):
        validate_configuration(locate_envoy("", {}), bad)
