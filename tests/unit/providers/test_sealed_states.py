# SPDX-License-Identifier: Apache-2.0
"""What detectors remember names people: it is sealed, entry by entry, and opens only where it belongs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from everyhop.core.errors import SettingsError
from everyhop.core.secret import Secret
from everyhop.providers.sealed_states import SealedStates
from everyhop.storage import open_storage
from everyhop.storage.detector_state import SqlDetectorStates

NOW = datetime(2026, 3, 2, tzinfo=UTC)
KEY = Secret(b"k" * 32)
STATES = {"travel": {"user:alice": b"203.0.113.7", "user:bob": b"x"}, "volume": {"user:alice": b"9"}}


@pytest.fixture
def storage(tmp_path):
    made = open_storage(tmp_path / "everyhop.db")
    yield made
    made.close()


def sealed(storage, key=KEY):
    return SealedStates(SqlDetectorStates(storage.database), key)


def test_a_key_of_another_length_is_refused(storage):
    with pytest.raises(SettingsError):
        sealed(storage, Secret(b"short"))


def test_no_name_is_stored_in_clear(storage, tmp_path):
    sealed(storage).save(STATES, NOW)
    storage.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for name in (b"alice", b"bob", b"203.0.113.7"):
        assert name not in stored


def test_what_was_saved_comes_back_to_another_process(storage):
    assert sealed(storage).save(STATES, NOW) == 3
    again = sealed(storage)
    assert {name: again.load(name) for name in STATES} == STATES


def test_a_save_writes_what_differs(storage):
    states = sealed(storage)
    states.save(STATES, NOW)
    assert states.save(STATES, NOW) == 0
    assert states.save(STATES | {"volume": {"user:alice": b"10"}}, NOW) == 1
    again = sealed(storage)
    assert {name: again.load(name) for name in STATES} == STATES | {"volume": {"user:alice": b"10"}}
    assert again.save(STATES, NOW) == 1


def test_another_key_opens_nothing(storage):
    sealed(storage).save(STATES, NOW)
    assert sealed(storage, Secret(b"o" * 32)).load("travel") == {}


@pytest.mark.parametrize(
    "change", [lambda v: v[:-1], lambda v: v[:5], lambda v: b"", lambda v: v[:-1] + bytes([v[-1] ^ 1])]
)
def test_an_altered_entry_is_left_out(storage, change):
    sealed(storage).save(STATES, NOW)
    plain = SqlDetectorStates(storage.database)
    kept = plain.load("travel")
    first = next(iter(kept))
    plain.save({"travel": kept | {first: change(kept[first])}}, NOW)
    assert len(sealed(storage).load("travel")) == 1


def test_an_entry_of_another_detector_or_key_is_left_out(storage):
    sealed(storage).save(STATES, NOW)
    plain = SqlDetectorStates(storage.database)
    travel, volume = plain.load("travel"), plain.load("volume")
    one, two = travel
    swapped = {one: travel[two], two: travel[one], **volume}
    plain.save({"travel": swapped}, NOW)
    assert sealed(storage).load("travel") == {}
