# SPDX-License-Identifier: Apache-2.0
"""Where the face is, in words: URL, certificate, and what is asked of the port."""

import socket

import pytest

from everyhop.core.errors import Conflict, SettingsError
from everyhop.runtime import face
from everyhop.runtime.face_address import Listen, certificate_names, parse_listen, url_of


@pytest.mark.parametrize(
    ("text", "url", "names"),
    [
        ("127.0.0.1:8443", "https://127.0.0.1:8443", ("localhost", "127.0.0.1")),
        ("0.0.0.0:8443", "https://127.0.0.1:8443", ("localhost", "127.0.0.1")),
        ("10.0.0.5:8443", "https://10.0.0.5:8443", ("localhost", "127.0.0.1", "10.0.0.5")),
        ("[::]:8443", "https://[::1]:8443", ("localhost", "127.0.0.1", "::1")),
        ("[0:0::1]:8443", "https://[::1]:8443", ("localhost", "127.0.0.1", "::1")),
    ],
)
def test_a_listening_address_gives_url_and_names(text, url, names):
    listen = parse_listen(text)
    assert url_of(listen) == url
    assert certificate_names(listen, ()) == names


def test_names_are_added_once_in_lower_case():
    names = certificate_names(Listen("127.0.0.1", 1), ("Auth.Shop.Example", "localhost", "192.0.2.1"))
    assert names == ("localhost", "127.0.0.1", "auth.shop.example", "192.0.2.1")


def test_an_address_that_is_not_ours_is_a_mistake_in_the_settings():
    with pytest.raises(SettingsError, match="api_listen"):
        face.require_free(Listen("192.0.2.1", 8443))


def test_an_address_in_use_is_waited_for_and_then_refused(monkeypatch):
    monkeypatch.setattr(face, "_PATIENCE_SECONDS", 0.1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=str(port)):
            face.require_free(Listen("127.0.0.1", port))
    face.require_free(Listen("127.0.0.1", port))


def test_a_port_is_chosen_where_no_outgoing_connection_takes_it():
    low = int(face._EPHEMERAL.read_text().split()[0])
    chosen = {face._choose("127.0.0.1") for _ in range(20)}
    assert all(face._LOWEST <= port < low for port in chosen)
    assert len(chosen) > 1
