# SPDX-License-Identifier: Apache-2.0
"""The log's key in files: nothing is signed that does not follow, and nothing is read that others could have written."""

import stat

import pytest

from everyhop.core.errors import Conflict, SettingsError
from everyhop.providers.log_keys import MAX_KEYS, FileLogSigner, restart_log
from everyhop.tlog import (
    Checkpoint,
    Frontier,
    consistency_proof,
    leaf_hash,
    open_checkpoint,
    parse_note,
    root_of,
)

DOMAIN = "shop.example"
LEAVES = [leaf_hash(str(i).encode()) for i in range(20)]


@pytest.fixture
def place(tmp_path):
    directory = tmp_path / "log"
    directory.mkdir(mode=0o700)
    return directory


def nodes(level, n):
    return root_of(LEAVES[n << level : (n + 1) << level])


def head(signer, size, leaves=LEAVES):
    frontier = Frontier()
    frontier.extend(leaves[:size])
    return Checkpoint(origin=signer.origin, size=size, root=frontier.root())


def sign(signer, size):
    last = signer.last()
    old = 0 if last is None else last.checkpoint.size
    return signer.sign(head(signer, size), consistency_proof(old, size, nodes))


def test_what_does_not_follow_is_not_signed(place):
    signer = FileLogSigner.create(place, DOMAIN)
    sign(signer, 9)
    other = [leaf_hash(b"x"), *LEAVES[1:]]
    for checkpoint, proof in [
        (head(signer, 5), []),  # shorter
        (head(signer, 9, other), []),  # another tree of the same size
        (head(signer, 12, other), consistency_proof(9, 12, nodes)),
        (head(signer, 12), []),  # without a proof
        (head(signer, 12), consistency_proof(8, 12, nodes)),
    ]:
        with pytest.raises(Conflict, match="not signed"):
            signer.sign(checkpoint, proof)
    with pytest.raises(Conflict, match="does not sign for"):
        signer.sign(Checkpoint(origin="other.example/log/1", size=12, root=head(signer, 12).root), [])
    assert signer.last().checkpoint == head(signer, 9)
    sign(signer, 12)


def test_a_second_reader_of_the_same_files_remembers_too(place):
    one, two = FileLogSigner.create(place, DOMAIN), FileLogSigner.create(place, DOMAIN)
    assert one.origin == two.origin
    sign(one, 9)
    with pytest.raises(Conflict):
        two.sign(head(two, 5), [])


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
@pytest.mark.parametrize("name", ["key", "checkpoint"])
def test_a_mode_that_lets_others_in(place, name, mode):
    signer = FileLogSigner.create(place, DOMAIN)
    sign(signer, 3)
    (place / name).chmod(mode)
    with pytest.raises(SettingsError, match="others may open"):
        FileLogSigner(place).last()


def test_links_and_directories_of_others(place):
    FileLogSigner.create(place, DOMAIN)
    (place / "key").rename(place / "real")
    (place / "key").symlink_to("real")
    with pytest.raises(SettingsError):
        FileLogSigner(place)
    (place / "key").unlink()
    (place / "real").rename(place / "key")
    place.chmod(0o777)
    with pytest.raises(SettingsError, match="others may write"):
        FileLogSigner(place)


@pytest.mark.parametrize("content", [b"", b"\n", b"x\n", b"PRIVATE+KEY+a+b+c\n"])
def test_a_key_file_that_holds_no_keys(place, content):
    FileLogSigner.create(place, DOMAIN)
    whole = (place / "key").read_bytes()
    for damaged in (content, whole[:-1], whole + b"x\n", whole * (MAX_KEYS + 1)):
        (place / "key").write_bytes(damaged)
        with pytest.raises(SettingsError, match="does not hold keys"):
            FileLogSigner(place)


def test_keys_of_two_logs_in_one_file(place, tmp_path):
    FileLogSigner.create(place, DOMAIN)
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    FileLogSigner.create(other, DOMAIN)
    with (place / "key").open("ab") as file:
        file.write((other / "key").read_bytes())
    with pytest.raises(SettingsError, match="several logs"):
        FileLogSigner(place)


def test_a_checkpoint_that_the_key_did_not_sign(place):
    signer = FileLogSigner.create(place, DOMAIN)
    note = sign(signer, 9).encode()
    for changed in ("", "x\n", note.replace("\n9\n", "\n3\n"), note.replace("/log/", "/lag/")):
        (place / "checkpoint").write_text(changed)
        with pytest.raises(SettingsError, match="is not what the audit log's key signed last"):
            signer.last()
        with pytest.raises(SettingsError):
            signer.sign(head(signer, 9), [])


def test_a_checkpoint_without_its_key_makes_no_new_key(place):
    sign(FileLogSigner.create(place, DOMAIN), 3)
    (place / "key").unlink()
    with pytest.raises(SettingsError, match="key is gone"):
        FileLogSigner.create(place, DOMAIN)
    assert not (place / "key").exists()


def test_what_is_signed_is_on_the_disk_for_its_owner_alone(place):
    signer = FileLogSigner.create(place, DOMAIN)
    assert signer.last() is None
    note = sign(signer, 3)
    assert signer.origin.startswith("shop.example/log/")
    assert (place / "checkpoint").read_text() == note.encode()
    for name in ("key", "checkpoint"):
        assert stat.S_IMODE((place / name).stat().st_mode) == 0o600
    assert FileLogSigner(place).last().checkpoint == head(signer, 3)
    # Signing the same again is no second history.
    assert sign(signer, 3).encode() == note.encode()


def test_old_and_new_key_sign_until_the_old_one_is_retired(place):
    signer = FileLogSigner.create(place, DOMAIN)
    old = signer.verifiers[0]
    sign(signer, 3)
    new = signer.rotate()
    assert signer.verifiers == (new, old)
    both = sign(signer, 5).encode().encode()
    for known in ([old], [new], [old, new]):
        open_checkpoint(both, known)
    sign(signer, 5)
    assert signer.retire() == (old,)
    assert FileLogSigner(place).verifiers == (new,)
    assert signer.last().checkpoint.size == 5
    only = parse_note(sign(signer, 9).encode().encode())
    assert len(only.signatures) == 1
    only.signed_by([new])


def test_a_key_that_is_retired_right_after_the_change_leaves_no_checkpoint_behind(place):
    signer = FileLogSigner.create(place, DOMAIN)
    sign(signer, 3)
    signer.rotate()
    signer.retire()
    assert signer.last().checkpoint == head(signer, 3)
    fresh = FileLogSigner(place)
    fresh.rotate()
    assert len(fresh.retire()) == 1
    assert len(signer.verifiers) == 1


def test_a_key_is_retired_before_anything_was_signed(place):
    signer = FileLogSigner.create(place, DOMAIN)
    signer.rotate()
    assert len(signer.retire()) == 1
    assert signer.last() is None


def test_there_are_not_more_than_eight_keys(place):
    signer = FileLogSigner.create(place, DOMAIN)
    for _ in range(MAX_KEYS - 1):
        signer.rotate()
    with pytest.raises(Conflict, match="retire"):
        raise_hint(signer.rotate)


def raise_hint(call):
    try:
        call()
    except Conflict as error:
        raise Conflict(str(error.hint)) from error


def test_a_new_log_has_a_new_name_and_the_old_private_key_is_gone(place):
    signer = FileLogSigner.create(place, DOMAIN)
    sign(signer, 9)
    secret = (place / "key").read_bytes()
    old, last = restart_log(place, DOMAIN)
    assert (old, last) == (signer.origin, head(signer, 9))
    new = FileLogSigner(place)
    assert new.origin != old
    assert new.last() is None
    kept = b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
    assert secret.strip() not in kept
    assert str(signer.verifiers[0]).encode() in kept
    sign(new, 3)


def test_a_log_is_begun_again_whatever_is_left_of_the_old_one(place):
    assert restart_log(place, DOMAIN) == ("unknown", None)
    sign(FileLogSigner(place), 3)
    (place / "checkpoint").write_text("damaged")
    origin, last = restart_log(place, DOMAIN)
    assert (origin.startswith(DOMAIN), last) == (True, None)
