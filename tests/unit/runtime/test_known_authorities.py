# SPDX-License-Identifier: Apache-2.0
"""Authorities are remembered outside of the database, each once."""

import pytest
from tests.support.identity import TestCa

from everyhop.core.errors import InputError
from everyhop.runtime.known_authorities import KnownAuthorities, read_authorities


def test_a_file_that_holds_something_else_is_refused(tmp_path):
    path = tmp_path / "authorities.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(InputError):
        read_authorities(path)


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "authorities.pem").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):  # ELOOP
        KnownAuthorities(tmp_path / "authorities.pem").add([TestCa().der])
    assert not (tmp_path / "elsewhere").exists()


def test_each_is_kept_once_for_its_owner_alone_and_however_many_there_are(tmp_path):
    path = tmp_path / "log" / "authorities.pem"
    assert read_authorities(path) == ()
    every = [TestCa().der for _ in range(70)]
    known = KnownAuthorities(path)
    known.add(every[:2])
    known.add(every[:3])
    KnownAuthorities(path).add(every)
    assert read_authorities(path) == tuple(every)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
