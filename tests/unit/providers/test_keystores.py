# SPDX-License-Identifier: Apache-2.0
"""The KEK file: made whole or not at all, readable by one user, and refused otherwise."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from everyhop.core.errors import SettingsError
from everyhop.core.secret import Secret
from everyhop.providers.keystores import FileKeyStore, MemoryKeyStore


@pytest.fixture
def kek(tmp_path):
    tmp_path.chmod(0o700)
    return tmp_path / "kek"


def write(path, content=b"k" * 32, mode=0o600):
    path.write_bytes(content)
    path.chmod(mode)


@pytest.mark.parametrize("size", [0, 1, 31, 33, 64])
def test_a_wrong_size(kek, size):
    write(kek, b"k" * size)
    with pytest.raises(SettingsError, match="32 bytes"):
        FileKeyStore(kek)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o601, 0o777])
def test_a_mode_that_lets_others_in(kek, mode):
    write(kek, mode=mode)
    with pytest.raises(SettingsError, match="others may open") as caught:
        FileKeyStore(kek)
    assert caught.value.hint.startswith("chmod 600")


def test_a_symbolic_link(kek):
    write(kek.with_name("real"))
    kek.symlink_to("real")
    with pytest.raises(SettingsError, match="cannot open"):
        FileKeyStore(kek)


def test_a_dangling_link_is_not_followed_to_make_a_file(kek):
    kek.symlink_to("elsewhere")
    with pytest.raises(SettingsError):
        FileKeyStore(kek)
    assert not kek.with_name("elsewhere").exists()


def test_a_directory_and_a_pipe(kek):
    kek.mkdir()
    with pytest.raises(SettingsError):
        FileKeyStore(kek)
    kek.rmdir()
    os.mkfifo(kek, 0o600)
    with pytest.raises(SettingsError, match="not a file of this user"):
        FileKeyStore(kek)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root to give a file away")
def test_a_file_of_another_user(kek):
    write(kek)
    os.chown(kek, 65534, 65534)
    with pytest.raises(SettingsError, match="not a file of this user"):
        FileKeyStore(kek)


def test_a_directory_where_others_could_replace_it(kek):
    write(kek)
    kek.parent.chmod(0o777)
    with pytest.raises(SettingsError, match="others may write"):
        FileKeyStore(kek)
    kek.unlink()
    with pytest.raises(SettingsError, match="others may write"):
        FileKeyStore(kek)
    assert not kek.exists()


def test_a_missing_file_is_not_always_made(kek):
    with pytest.raises(SettingsError, match="cannot open"):
        FileKeyStore(kek, create=False)
    with pytest.raises(SettingsError, match="cannot use the directory"):
        FileKeyStore(kek / "no" / "kek")


def test_a_file_that_cannot_be_made(kek):
    with pytest.raises(SettingsError, match="cannot create"):
        FileKeyStore(kek.with_name("x" * 250))


def test_a_new_file_is_for_its_owner_alone_whatever_the_umask(kek):
    before = os.umask(0)
    try:
        FileKeyStore(kek)
    finally:
        os.umask(before)
    status = kek.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_size, status.st_nlink) == (0o600, 32, 1)
    assert list(kek.parent.iterdir()) == [kek]


def test_the_same_file_gives_the_same_key(kek):
    blob = FileKeyStore(kek).wrap("k", "p", Secret(b"s"))
    assert FileKeyStore(kek, create=False).unwrap("k", "p", blob).reveal() == b"s"


def test_many_that_start_at_once_agree(kek):
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: FileKeyStore(kek), range(16)))
    blob = stores[0].wrap("k", "p", Secret(b"s"))
    assert {store.unwrap("k", "p", blob).reveal() for store in stores} == {b"s"}
    assert list(kek.parent.iterdir()) == [kek]


def test_a_key_of_a_wrong_size_in_memory():
    with pytest.raises(SettingsError):
        MemoryKeyStore(Secret(b"short"))
