# SPDX-License-Identifier: Apache-2.0
"""SPIFFE_ENDPOINT_SOCKET: a Unix socket, or a clear error."""

import pytest

from everyhop.core.errors import SettingsError
from everyhop.sdk.endpoint import socket_path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not set"),
        ("tcp://127.0.0.1:8081", "TCP"),
        ("/run/w.sock", "unix://"),
        ("unix:/run/w.sock", "unix://"),
        ("unix://run/w.sock", "host or a relative"),
        ("unix://", "host or a relative"),
        ("unix:///run/w.sock?x=1", "more than a path"),
        ("unix:///run/w.sock#x", "more than a path"),
        ("unix:///run/", "more than a path"),
        ("unix:///run/\0", "more than a path"),
        ("http:///run/w.sock", "unix://"),
        ("UNIX:///run/w.sock", "unix://"),
        ("unix:///" + "x" * 107, "longer"),
    ],
)
def test_refused_with_a_reason(text, says):
    with pytest.raises(SettingsError, match=says) as refused:
        socket_path(text)
    with pytest.raises(SettingsError, match=says):
        socket_path(environment={"SPIFFE_ENDPOINT_SOCKET": text, "X": "1"})
    assert "\0" not in refused.value.message


def test_taken():
    assert socket_path("unix:///run/w.sock") == "/run/w.sock"
    assert socket_path(environment={"SPIFFE_ENDPOINT_SOCKET": "unix:///a"}) == "/a"


def test_without_any_the_hint_names_run(monkeypatch):
    monkeypatch.delenv("SPIFFE_ENDPOINT_SOCKET", raising=False)
    with pytest.raises(SettingsError) as refused:
        socket_path()
    assert "everyhop run" in refused.value.hint
